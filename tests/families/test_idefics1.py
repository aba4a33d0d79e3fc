"""Words between images, tables that are joined and cut, and what Idefics' class cannot express."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from families.idefics1 import BOUNDARY, END, ask, reference
from families.system import dense_patches, user
from families.tiny import picture

import vlmkit
from vlmkit.checkpoints import export
from vlmkit.fusion.cross_attention import CrossAttention
from vlmkit.spec import SpecError
from vlmkit.tokenizer import bytes_tokenizer

TINY = vlmkit.architecture("idefics-tiny")


def words(text: str) -> dict[str, Any]:
    return {"type": "text", "text": text}


def shown(seed: int) -> dict[str, Any]:
    return {"type": "image", "image": picture(30 + seed, 40, seed)}


ROWS: dict[str, list[dict[str, Any]]] = {
    "words between": [{"role": "user", "content": [shown(0), words("and"), shown(1), shown(2), words("?")]}],
    "words first": [{"role": "user", "content": [words("What is in this one?"), shown(0), words("And why?")]}],
}


@pytest.fixture(scope="module")
def both(tmp_path_factory: pytest.TempPathFactory) -> Any:
    published = reference()
    return published, *published.taken_over(tmp_path_factory.mktemp("idefics"))


@pytest.mark.parametrize("name", ROWS)
def test_words_look_at_the_image_that_the_published_class_lets_them_look_at(name: str, both: Any) -> None:
    """Measured 2e-6 in logits of size 5."""
    published, model, processor = both
    row = ROWS[name]
    inputs = ask(published.processor, row)
    batch = processor([row], add_generation_prompt=True)
    assert batch["input_ids"].tolist() == inputs["input_ids"].tolist()
    batch["pixel_values"] = dense_patches()(inputs, model.config.spec.encoder)
    with torch.no_grad():
        expected = published.model(**inputs).logits
        found = model(**batch).logits
    assert float((found - expected).abs().max()) < 1e-5
    limit = {"max_new_tokens": 8, "do_sample": False}
    assert torch.equal(model.generate(**batch, **limit), published.model.generate(**inputs, **limit))


def test_two_tables_are_one_and_two_again(both: Any, tmp_path: Path) -> None:
    published, model, processor = both
    tables = published.model.model.embed_tokens
    whole = model.get_input_embeddings().weight
    assert whole.shape == (268, 32)
    assert torch.equal(whole[:265], tables.weight)
    assert torch.equal(whole[265:], tables.additional_embedding.weight)
    export(model, processor, tmp_path)
    again = type(published.model).from_pretrained(tmp_path)
    assert (again.config.vocab_size, again.config.additional_vocab_size) == (265, 3)
    assert torch.equal(again.lm_head.additional_fc.weight, published.model.lm_head.additional_fc.weight)


def test_ids_that_no_image_needs_stay_in_the_first_table(tmp_path: Path) -> None:
    """A tokenizer with the image's tokens in another order."""
    tokenizer = bytes_tokenizer(["<image>", "<s>", "</s>", BOUNDARY, END], bos_token="<s>", eos_token="</s>")
    built, processor = vlmkit.build("idefics-tiny", seed=0), vlmkit.build_processor("idefics-tiny", tokenizer=tokenizer)
    export(built, processor, tmp_path)
    model, processor = vlmkit.load(tmp_path)
    row = [user("What?", picture(30, 40))]
    batch = processor([row])
    with torch.no_grad():
        assert torch.equal(model(**batch).logits, built.eval()(**batch).logits)


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"policy": vlmkit.policies["squash"](size=28, view=14)}, "takes 28x28|sees 'squash' with size=28"),
        ({"encoder": TINY.encoder.replace(keep_unused=False)}, "has clip with .*keep_unused"),
        ({"connector": "linear"}, "has a 'flamingo_resampler', but the connector is 'linear'"),
        ({"fusion": CrossAttention(before=(0, 2), visual_dim=48)}, "before every n-th layer"),
        ({"fusion": CrossAttention(before=2, visual_dim=48, gate_start=0.5)}, "begin at 0.5"),
        ({"fusion": CrossAttention(before=2, visual_dim=48, feeds="seeing")}, "before every n-th layer"),
    ],
)
def test_what_the_published_class_cannot_express_is_refused_with_the_reason(changes: dict[str, Any], reason: str, tmp_path: Path) -> None:
    changed = TINY.replace(**changes)
    tokenizer = reference().processor.tokenizer
    with pytest.raises(SpecError, match=reason):
        export(vlmkit.build(changed), vlmkit.build_processor(changed, tokenizer=tokenizer), tmp_path)
    assert not list(tmp_path.iterdir())
