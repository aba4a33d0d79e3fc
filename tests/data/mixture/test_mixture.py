"""Batches of a mixture: what stands in one."""

from __future__ import annotations

from tests import tiny
from tests.data.mixed import processor, run, sample
from vlmkit.data.mixture import DataSource, Mixture


def test_a_batch_without_images_runs_the_tower_and_the_connector_and_leaves_them_a_gradient_of_zero():
    mixture = Mixture([DataSource("a", [sample("a", number, "none") for number in range(2)])], processor(), rows=2)
    (batch,), _ = run(mixture, 1)
    assert "pixel_values" not in batch
    model = tiny.model().train()
    seen = tiny.encoded_views(model)
    loss = model(**batch).loss
    loss.backward()
    assert seen == [1]
    gradients = [parameter.grad for part in (model.encoder, model.connector) for parameter in part.parameters()]
    assert all(gradient is not None and gradient.abs().sum() == 0 for gradient in gradients)
    assert abs(float(model.eval()(**batch).loss - loss)) < 1e-6
    assert seen == [1], "nothing is seen where nothing has to be kept in step"


def test_packed_rows_are_all_of_one_length_and_every_sample_begins_at_position_zero():
    sources = [DataSource("a", [sample("a", number, "one") for number in range(9)])]
    (batch,), _ = run(Mixture(sources, processor(), rows=2, length=200, pack=True), 1)
    assert batch["input_ids"].shape == (2, 200)
    assert "attention_mask" not in batch
    assert ((batch["position_ids"] == 0).sum(dim=1) > 1).all()
