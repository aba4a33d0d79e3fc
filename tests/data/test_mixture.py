"""Batches of a mixture: what stands in one."""

from __future__ import annotations

import torch

from tests import tiny
from tests.data.mixed import processor, run, sample
from vlmkit.data.mixture import DataSource, Mixture


def test_a_batch_without_images_has_a_blank_one_that_no_token_refers_to():
    mixture = Mixture([DataSource("a", [sample("a", number, "none") for number in range(2)])], processor(), rows=2)
    (batch,), _ = run(mixture, 1)
    assert (batch["visual_index"] == -1).all()
    model = tiny.model().train()
    loss = model(**batch).loss
    loss.backward()
    gradients = [parameter.grad for part in (model.encoder, model.connector) for parameter in part.parameters()]
    assert all(gradient is not None and gradient.abs().sum() == 0 for gradient in gradients)
    del batch["pixel_values"], batch["grids"]
    assert torch.equal(model(**batch).loss, loss)


def test_packed_rows_are_all_of_one_length_and_every_sample_begins_at_position_zero():
    sources = [DataSource("a", [sample("a", number, "one") for number in range(9)])]
    (batch,), _ = run(Mixture(sources, processor(), rows=2, length=200, pack=True), 1)
    assert batch["input_ids"].shape == (2, 200)
    assert "attention_mask" not in batch
    assert ((batch["position_ids"] == 0).sum(dim=1) > 1).all()
