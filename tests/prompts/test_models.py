"""A directory of each make as a model: what the reference's class computes from the same ids, and directories that are written again."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from families.tiny import picture
from prompts.directories import PATCHES, Published, read
from prompts.kinds import KINDS, Conversation
from prompts.laws import RefusedError, images_of, own_ids, reference_ids, reference_inputs
from prompts.makes import MAKES, Make
from prompts.record import record
from torch import Tensor

import vlmkit
from vlmkit.checkpoints import export, family_of, model_type_of

BY_TITLE = {kind.title: kind for kind in KINDS}
SHOWN = ("words first", "two images", "three turns")
"""Kinds that every make takes, all with images."""
every_make = pytest.mark.parametrize("make", MAKES, ids=lambda make: make.name)

Get = Callable[[Make], Published]


@pytest.fixture(scope="module")
def reference_model(published: Get) -> Callable[[Make], Any]:
    made: dict[str, Any] = {}

    def of(make: Make) -> Any:
        if make.title not in made:
            directory = published(make).directory
            made[make.title] = family_of(model_type_of(str(directory))).reference().from_pretrained(directory).eval()
        return made[make.title]

    return of


def inputs_of(make: Make, found: Published, conversation: Conversation, **asks: bool) -> dict[str, Any]:
    """What the reference's forward takes. Types of tokens are Qwen2-VL's to find positions by, and PaliGemma's to tell its prefix."""
    inputs = reference_inputs(found.reference, conversation, **asks)
    unwanted = {"labels"} if make.family == "qwen2_vl" else {"labels", "mm_token_type_ids"}
    return {name: value for name, value in inputs.items() if name not in unwanted}


def batch_of(make: Make, found: Published, conversation: Conversation, inputs: dict[str, Any], **asks: bool) -> Any:
    """vlmkit's batch over the reference's own pixels."""
    batch = found.processor([conversation], **asks)
    batch["pixel_values"] = PATCHES[make.family](inputs, found.model.config.spec.encoder)
    return batch


@every_make
def test_logits_equal_the_references_at_every_position(make: Make, published: Get, reference_model: Any) -> None:
    found = published(make)
    worst = 0.0
    for title in SHOWN:
        if make.family == "paligemma" and title == "three turns":
            continue  # The reference sees answers that stand in a prompt in both directions.
        conversation = BY_TITLE[title].conversation
        inputs = inputs_of(make, found, conversation, add_generation_prompt=True)
        with torch.no_grad():
            expected = reference_model(make)(**inputs).logits
            logits = found.model(**batch_of(make, found, conversation, inputs, add_generation_prompt=True)).logits
        assert logits.shape == expected.shape
        worst = max(worst, float((logits - expected).abs().max()))
    assert worst <= 1e-4, worst  # measured 7e-6
    record(make, logits=worst)


@every_make
def test_pixels_are_the_references(make: Make, published: Get) -> None:
    found = published(make)
    encoder = found.model.config.spec.encoder
    conversation = BY_TITLE["two images"].conversation
    theirs = PATCHES[make.family](reference_inputs(found.reference, conversation), encoder)
    ours = found.model.encoder.normalise(found.processor([conversation], add_generation_prompt=False)["pixel_values"])
    std = torch.tensor(encoder.std).repeat_interleave(encoder.values // 3)
    assert ours.shape == theirs.shape
    worst = float(((ours - theirs) * std * 255).abs().max())
    assert worst <= 2.01, worst
    record(make, pixels=worst)


@every_make
def test_the_image_moves_the_logits(make: Make, published: Get) -> None:
    found = published(make)
    conversation = BY_TITLE["words first"].conversation
    before, image, after = conversation[0]["content"]
    assert images_of(conversation) == [image["image"]]
    other = [{"role": "user", "content": [before, image | {"image": picture(40, 52, seed=99)}, after]}]
    with torch.no_grad():
        seen, changed = (found.model(**found.processor([row], add_generation_prompt=True)).logits for row in (conversation, other))
    assert float((seen - changed).abs().max()) > 1e-3


@pytest.mark.parametrize("beams", [1, 2], ids=("greedy", "beams"))
@every_make
def test_generated_tokens_are_the_references(make: Make, beams: int, published: Get, reference_model: Any) -> None:
    found = published(make)
    conversation = BY_TITLE["words first"].conversation
    inputs = inputs_of(make, found, conversation, add_generation_prompt=True)
    asked = {"max_new_tokens": 4, "min_new_tokens": 4, "do_sample": False, "num_beams": beams}
    expected = reference_model(make).generate(**inputs, **asked)[0, inputs["input_ids"].shape[1] :]
    batch = batch_of(make, found, conversation, inputs, add_generation_prompt=True)
    assert found.model.generate(**batch, **asked)[0, batch["input_ids"].shape[1] :].tolist() == expected.tolist()
    record(make, **{"greedy" if beams == 1 else "beams": True})


@every_make
def test_the_loss_is_the_references_over_the_same_labels(make: Make, published: Get, reference_model: Any) -> None:
    found = published(make)
    conversation = BY_TITLE["answered"].conversation
    inputs = inputs_of(make, found, conversation)
    batch = batch_of(make, found, conversation, inputs, add_generation_prompt=False)
    labels: Tensor = batch["labels"]
    if "token_type_ids" in inputs:
        inputs["token_type_ids"] = (labels != -100).cumsum(dim=1).clamp(max=1)
    with torch.no_grad():
        expected, loss = reference_model(make)(**inputs, labels=labels).loss, found.model(**batch).loss
    assert float(loss) > 1
    assert float(loss) == pytest.approx(float(expected), abs=1e-5)
    record(make, loss=abs(float(loss) - float(expected)))


@every_make
def test_ids_survive_a_round_trip(make: Make, published: Get, tmp_path: Path) -> None:
    found = published(make)
    found.model.save_pretrained(tmp_path)
    found.processor.save_pretrained(tmp_path)
    _, again = vlmkit.load(tmp_path)
    for title, conversation in accepted(found).items():
        assert own_ids(again, conversation) == own_ids(found.processor, conversation), title
    record(make, round_trip=True)


@every_make
def test_an_exported_directory_has_the_same_ids_in_transformers_and_here(make: Make, published: Get, tmp_path: Path) -> None:
    found = published(make)
    with warnings.catch_warnings(action="ignore", category=UserWarning):  # Janus leaves out what draws pictures
        export(found.model, found.processor, tmp_path)
        _, again = vlmkit.load(tmp_path)
    reference = read(make, tmp_path)
    for title, conversation in accepted(found).items():
        expected = reference_ids(found.reference, conversation, add_generation_prompt=True)
        assert reference_ids(reference, conversation, add_generation_prompt=True) == expected, title
        assert own_ids(again, conversation, add_generation_prompt=True) == expected, title
    record(make, exports=True)


def accepted(found: Published) -> dict[str, Conversation]:
    """Conversations that tell templates and tokenizers apart, as far as the reference takes them."""
    kinds = {}
    for title in ("two images", "three turns", "system", "unicode", "added words", "blanks", "thoughts"):
        try:
            reference_ids(found.reference, BY_TITLE[title].conversation)
        except RefusedError:
            continue
        kinds[title] = BY_TITLE[title].conversation
    return kinds
