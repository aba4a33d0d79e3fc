"""ARIA with squares, layer choice, caches and packing, and what its classes cannot express."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from families.aria import patches, reference
from families.system import user
from families.tiny import picture

import vlmkit
from vlmkit.checkpoints import export
from vlmkit.connectors.query_attention import QueryAttention
from vlmkit.layout.run import Run
from vlmkit.layout.template import CHATML
from vlmkit.preprocess.policies.squash import Squash
from vlmkit.processor import VLMProcessor
from vlmkit.spec import SpecError
from vlmkit.zoo.aria import ARIA_SPLIT, ARIA_SPLIT_980

TINY = vlmkit.architecture("aria-tiny")
SIZES = {"490": {"max_image_size": 490}, "split": {"max_image_size": 490, "split_image": True}, "split 980": {"split_image": True}}
POLICIES = {"490": TINY.policy.replace(longest=490), "split": ARIA_SPLIT.replace(factor=98), "split 980": ARIA_SPLIT_980.replace(factor=98)}


@pytest.fixture(scope="module")
def both(tmp_path_factory: pytest.TempPathFactory) -> Any:
    published = reference()
    return published, *published.taken_over(tmp_path_factory.mktemp("aria"))


@pytest.mark.parametrize("how", SIZES)
@pytest.mark.parametrize("shape", [(40, 52), (300, 90), (700, 700), (450, 1400)])
def test_smaller_views_and_squares_are_read_as_by_the_published_class(both: Any, how: str, shape: tuple[int, int]) -> None:
    """Measured 2e-6 in logits of size 3."""
    published, model, processor = both
    row = [user("What is this?", picture(*shape))]
    text = published.processor.apply_chat_template(row, add_generation_prompt=True, tokenize=False)
    inputs = published.processor(text=text, images=[picture(*shape)], return_tensors="pt", **SIZES[how])
    inputs.pop("mm_token_type_ids", None)
    ours = VLMProcessor(processor.tokenizer, architecture=model.config.spec.replace(policy=POLICIES[how]).to_dict())
    batch = ours([row], add_generation_prompt=True)
    assert batch["input_ids"].tolist() == inputs["input_ids"].tolist()
    assert torch.equal(batch["visual_index"] >= 0, inputs["input_ids"] == 263)
    batch["pixel_values"] = patches(inputs, model.config.spec.encoder)
    with torch.no_grad():
        torch.testing.assert_close(model(**batch).logits, published.model(**inputs).logits, atol=1e-4, rtol=0)


def test_packed_rows_see_what_they_see_alone(both: Any) -> None:
    _, model, processor = both
    rows = [
        [user("What?", picture(40, 52)), {"role": "assistant", "content": "that"}],
        [user("And?"), {"role": "assistant", "content": "yes"}],
    ]
    packed = model(**processor(rows, pack=True)).logits[0].detach()
    alone = torch.cat([model(**processor([row])).logits[0].detach() for row in rows])
    torch.testing.assert_close(packed, alone, atol=1e-4, rtol=0)


def test_a_cache_gives_the_answer_that_none_gives(both: Any) -> None:
    _, model, processor = both
    batch = processor([[user("What?", picture(40, 52))], [user("And this one here?", picture(90, 30), picture(20, 20))]])
    limit = {"max_new_tokens": 6, "min_new_tokens": 6, "do_sample": False}
    assert torch.equal(model.generate(**batch, **limit), model.generate(**batch, **limit, use_cache=False))


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"policy": Squash(size=980)}, r"AriaProcessor sees edge_fit\(longest=980, factor=98\)"),
        ({"policy": POLICIES["490"]}, r"AriaProcessor sees edge_fit\(longest=980, factor=98\) unless it is told otherwise"),
        ({"policy": POLICIES["split"]}, r"AriaProcessor sees edge_fit\(longest=980, factor=98\) unless it is told otherwise"),
        ({"connector": QueryAttention(queries=((5, 2),), heads=4)}, "knows no number of tokens for 980 pixels, but {490: 2}"),
        ({"connector": QueryAttention(queries=((10, 4),), heads=2)}, "query_attention with the encoder's 4 heads"),
        ({"encoder": TINY.encoder.replace(final_norm=True)}, "siglip with .*'final_norm': False"),
        ({"layout": Run(template=CHATML, placeholder="<|img|>")}, "between <fim_prefix> and <fim_suffix>, but the layout"),
    ],
    ids=lambda value: None,
)
def test_what_the_published_class_cannot_express_is_refused(change: dict[str, Any], reason: str, tmp_path: Path) -> None:
    arch = TINY.replace(**change)
    with pytest.raises(SpecError, match=reason):
        export(vlmkit.build(arch, seed=0), vlmkit.build_processor(arch), tmp_path)
    assert not list(tmp_path.iterdir())


def test_another_layer_is_read_and_written(tmp_path: Path) -> None:
    arch = TINY.replace(encoder=TINY.encoder.replace(layer=-2))
    model, processor = vlmkit.build(arch, seed=0), vlmkit.build_processor(arch)
    export(model, processor, tmp_path)
    again, _ = vlmkit.load(tmp_path)
    assert again.config.spec.encoder == arch.encoder
    batch = processor([[user("What?", picture(40, 52))]])
    with torch.no_grad():
        assert torch.equal(again(**batch).logits, model.eval()(**batch).logits)


def test_a_projector_and_a_processor_that_disagree_are_refused(tmp_path: Path) -> None:
    published = reference()
    published.model.save_pretrained(tmp_path)
    published.processor.size_conversion = {490: 2, 980: 3}
    published.processor.save_pretrained(tmp_path)
    with pytest.raises(SpecError, match=r"the projector gives tokens by \(\(5, 2\), \(10, 4\)\)"):
        vlmkit.load(tmp_path)
