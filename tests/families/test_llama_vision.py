"""Words between images, what a processor cuts otherwise, and what Mllama's class cannot express."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from families.mllama import patches, reference
from families.system import chat, images_of
from families.tiny import picture

import vlmkit
from vlmkit.checkpoints import export
from vlmkit.fusion.cross_attention import CrossAttention
from vlmkit.preprocess.policies.canvas_tiles import CanvasTiles
from vlmkit.spec import SpecError

TINY = vlmkit.architecture("llama-3.2-vision-tiny")


@pytest.fixture(scope="module")
def both(tmp_path_factory: pytest.TempPathFactory) -> Any:
    published = reference()
    return published, *published.taken_over(tmp_path_factory.mktemp("mllama"))


def shown(height: int, width: int, seed: int = 0) -> dict[str, Any]:
    return {"type": "image", "image": picture(height, width, seed)}


def words(text: str) -> dict[str, Any]:
    return {"type": "text", "text": text}


ROWS: dict[str, list[dict[str, Any]]] = {
    "words between": [{"role": "user", "content": [shown(40, 52), words("and"), shown(30, 200, 1), words("?")]}],
    "words first": [{"role": "user", "content": [words("What is in this one?"), shown(100, 90), words("And why?")]}],
    "one alone, then two": [
        {"role": "user", "content": [shown(60, 60), words("a"), shown(200, 40, 1), shown(30, 30, 2), words("b")]},
        {"role": "assistant", "content": [words("They differ.")]},
        {"role": "user", "content": [words("And this?"), shown(90, 20, 3)]},
    ],
}


@pytest.mark.parametrize("name", ROWS)
def test_words_look_at_the_images_that_the_published_class_lets_them_look_at(name: str, both: Any) -> None:
    """Measured 2e-6 in logits of size 5."""
    published, model, processor = both
    row = ROWS[name]
    inputs = chat(published.processor, row)
    batch = processor([row], add_generation_prompt=True)
    assert batch["input_ids"].tolist() == inputs["input_ids"].tolist()
    batch["pixel_values"] = patches(inputs, model.config.spec.encoder)
    with torch.no_grad():
        expected = published.model(**inputs).logits
        found = model(**batch).logits
    assert float((found - expected).abs().max()) < 1e-5
    assert len(images_of(row)) == len(inputs["aspect_ratio_ids"][0])
    limit = {"max_new_tokens": 8, "do_sample": False}
    assert torch.equal(model.generate(**batch, **limit), published.model.generate(**inputs, **limit))


def test_what_looks_at_nothing_makes_the_difference_between_the_two_implementations(both: Any) -> None:
    """Words before the image get nothing in llama-models, and in transformers what an attention to all tiles gives, blank ones too."""
    published, model, processor = both
    batch = processor([ROWS["words first"]], add_generation_prompt=True)
    inputs = chat(published.processor, ROWS["words first"])
    other = model.config.spec.replace(fusion=model.config.spec.fusion.replace(looks_at_none="nothing"))
    built = vlmkit.build(other)
    built.load_state_dict(model.state_dict())
    with torch.no_grad():
        assert float((built(**batch).logits - published.model(**inputs).logits).abs().max()) > 0.01


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"policy": CanvasTiles(size=56, fill=(9, 9, 9))}, r"sees canvas_tiles\(size=56, tiles=4\) with black beside the image"),
        ({"policy": vlmkit.policies["squash"](size=56)}, r"but the policy is Squash\("),
        ({"connector": "mlp"}, "has one linear layer, but the connector is 'mlp'"),
        (
            {"layout": vlmkit.layouts["seen_fenced"](template=TINY.layout.template, placeholder="<|image|>", boundary="<|image_start|>")},
            "but the layout is 'seen_fenced'",
        ),
        ({"fusion": CrossAttention(before=(1, 2))}, "looks_at_none='everything', feeds='seeing'"),
    ],
)
def test_what_the_published_class_cannot_express_is_refused_with_the_reason(changes: dict[str, Any], reason: str, tmp_path: Path) -> None:
    changed = TINY.replace(**changes)
    tokenizer = reference().processor.tokenizer
    with pytest.raises(SpecError, match=reason):
        export(vlmkit.build(changed), vlmkit.build_processor(changed, tokenizer=tokenizer), tmp_path)
    assert not list(tmp_path.iterdir())
