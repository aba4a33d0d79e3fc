"""An image that several conversations of a batch show goes through the tower once, and what is learned from it is the same."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch

import vlmkit
from tests.data.packs import jpeg
from tests.tiny import architecture, draw, picture
from vlmkit.batch.sample import PreparedSample
from vlmkit.data.mixture import DataSource, Mixture
from vlmkit.data.sample import Sample

ARCHITECTURE = architecture(connector="mlp")
PROCESSOR = vlmkit.build_processor(ARCHITECTURE)


def talk(text: str, images: int = 1) -> list[dict[str, Any]]:
    shown = [{"type": "image", "image": number} for number in range(images)]
    return [{"role": "user", "content": [*shown, {"type": "text", "text": text}]}, {"role": "assistant", "content": "yes " * len(text)}]


def prepared(images: Any, *texts: str) -> PreparedSample:
    return PreparedSample(tuple(images), tuple(PROCESSOR.lay_out(talk(text, len(images)), images) for text in texts))


def copied(sample: PreparedSample) -> PreparedSample:
    """The same images as objects of their own."""
    return replace(sample, images=tuple(replace(image) for image in sample.images))


@pytest.fixture(scope="module")
def model() -> Any:
    built = vlmkit.build(ARCHITECTURE, seed=0).train()
    draw(built)
    return built


def learned(model: Any, batch: Any) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
    model.zero_grad()
    loss = model(**batch).loss
    loss.backward()
    return loss.detach(), {name: value.grad.clone() for name, value in model.named_parameters() if value.grad is not None}


@pytest.mark.parametrize("frozen", [("encoder", "connector"), ("encoder",), ()])
def test_rows_that_share_an_image_are_those_with_copies_of_it(model, frozen):
    """The loss bit for bit, and gradients of the language model, which are all there are where the rest is frozen. Of connector and tower,
    whose gradients add up in another order, measured within 1.1e-7 of the largest, allowed 1e-6."""
    torch.set_num_threads(1)
    one, two = (PROCESSOR.render_image(picture(56, 84, seed)) for seed in (1, 2))
    rows = [[prepared([one], "a?"), prepared([two, one], "b?")], [prepared([one], "c?", "d?"), prepared([], "e?")], [prepared([two], "f?")]]
    shared = PROCESSOR.pack_rows(rows, 256)
    copies = PROCESSOR.pack_rows([[copied(sample) for sample in row] for row in rows], 256)
    assert (len(shared["grids"]), len(copies["grids"])) == (2, 5)
    for part in frozen:
        getattr(model, part).requires_grad_(False)
    (loss, gradients), (wanted, of_copies) = learned(model, shared), learned(model, copies)
    model.requires_grad_(True)
    assert torch.equal(loss, wanted)
    assert gradients.keys() == of_copies.keys()
    assert {name.split(".")[0] for name in gradients} == {"encoder", "connector", "language_model"} - set(frozen)
    largest = max(float(value.abs().max()) for value in of_copies.values())
    for name, value in gradients.items():
        within = 0 if name.startswith("language_model") else 1e-6 * largest
        assert float((value - of_copies[name]).abs().max()) <= within, name


def test_a_batch_with_shared_images_is_cut_by_rows(model):
    one, two, three = (PROCESSOR.render_image(picture(56, 84, seed)) for seed in (1, 2, 3))
    rows = [[prepared([two], "a?")], [prepared([one], "b?")], [prepared([two], "c?")], [prepared([three], "d?"), prepared([one], "e?")]]
    batch = PROCESSOR.pack_rows(rows, 128)
    assert len(batch["grids"]) == 3
    with torch.no_grad():
        whole = model.eval()(**batch).logits
        for chosen in ([2], [3, 0], [1, 3], [0, 1, 2, 3]):
            assert (model(**batch[chosen]).logits - whole[chosen]).abs().max() < 1e-5
    model.train()


class Talks:
    """One sample: so many conversations about its picture that they fill several rows. It is counted how often it is read."""

    def __init__(self, broken: bool = False) -> None:
        self.reads, self.broken = 0, broken

    def __len__(self) -> int:
        return 1

    def __getitem__(self, number: int) -> Sample:
        image = jpeg(0, 56, 84)
        return Sample((image[:-200] if self.broken else image,), tuple(talk(f"{n}?") for n in range(12)), "a", str(number))

    def images(self, number: int) -> tuple[Any, ...]:
        self.reads += 1
        return self[number].images


def test_a_mixture_decodes_and_encodes_a_sample_once_in_a_batch_of_several_rows():
    talks = Talks()
    batch = next(Mixture([DataSource("a", talks)], PROCESSOR, rows=3, length=128, pack=True, epochs=1).batches())
    shown = [set(row[row >= 0].tolist()) for row in batch["visual_index"].numpy()]
    assert talks.reads == 1
    assert len(batch["grids"]) == 1
    assert all(shown)
    assert shown[0] == shown[1] == shown[2]
    assert np.array_equal(batch["grids"].numpy(), PROCESSOR.render_image(jpeg(0, 56, 84)).grids.numpy())


def test_a_picture_that_cannot_be_decoded_is_said_of_each_row_that_it_leaves():
    batches = Mixture([DataSource("a", Talks(broken=True))], PROCESSOR, rows=3, length=128, pack=True, epochs=1, limit=1.0).batches()
    assert not (next(batches)["visual_index"] >= 0).any()
    assert batches.rejected.total() == 3
