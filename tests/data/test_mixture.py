from __future__ import annotations

import numpy as np
import pytest
import torch

import vlmkit
from tests.training.conftest import small
from vlmkit.data.mixture import ChatBatches
from vlmkit.layout.base import IGNORE


def source(name: str, count: int, image: bool = True) -> list[list[dict]]:
    rng = np.random.default_rng(0)
    pictures = [{"type": "image", "image": rng.integers(0, 255, (112, 112, 3), dtype=np.uint8)}] if image else []
    return [
        [
            {"role": "user", "content": [*pictures, {"type": "text", "text": f"{name}{index}?"}]},
            {"role": "assistant", "content": "yes"},
        ]
        for index in range(count)
    ]


@pytest.fixture(scope="module")
def processor() -> vlmkit.VLMProcessor:
    return vlmkit.build_processor(small())


def asked(processor: vlmkit.VLMProcessor, batch: dict) -> list[str]:
    texts = processor.batch_decode(batch["input_ids"], skip_special_tokens=True)
    return [text.split("?")[0].strip() for text in texts]


def test_any_batch_at_once_and_every_sample_once_an_epoch(processor):
    batches = ChatBatches([(source("a", 6), 1.0)], processor, batch_size=2, seed=0)
    again = ChatBatches([(source("a", 6), 1.0)], processor, batch_size=2, seed=0)
    epochs = [[name for number in range(epoch * 3, epoch * 3 + 3) for name in asked(processor, batches[number])] for epoch in range(3)]
    assert all(sorted(epoch) == [f"a{index}" for index in range(6)] for epoch in epochs)
    assert len({tuple(epoch) for epoch in epochs}) > 1
    for number in (7, 0, 3):
        assert all(torch.equal(value, again[number][name]) for name, value in batches[number].items())


def test_sources_are_mixed_by_weight(processor):
    batches = ChatBatches([(source("a", 5), 3.0), (source("b", 5), 1.0)], processor, batch_size=4, seed=0)
    names = [name[0] for number in range(5) for name in asked(processor, batches[number])]
    assert (names.count("a"), names.count("b")) == (15, 5)


def test_a_batch_without_images_has_a_blank_one_that_no_token_refers_to(processor):
    batch = ChatBatches([(source("a", 2, image=False), 1.0)], processor, batch_size=2, seed=0)[0]
    assert (batch["visual_index"] == -1).all()
    model = vlmkit.build(small(), seed=0).train()
    loss = model(**batch).loss
    loss.backward()
    gradients = [parameter.grad for part in (model.encoder, model.connector) for parameter in part.parameters()]
    assert all(gradient is not None and gradient.abs().sum() == 0 for gradient in gradients)
    del batch["pixel_values"], batch["grids"]
    assert torch.equal(model(**batch).loss, loss)


def test_packed_rows_and_longest_samples(processor):
    packed = ChatBatches([(source("a", 4), 1.0)], processor, batch_size=4, seed=0, pack=True)[0]
    assert packed["input_ids"].shape[0] == 1
    assert "attention_mask" not in packed
    assert (packed["position_ids"] == 0).sum() == 4
    short = ChatBatches([(source("a", 4), 1.0)], processor, batch_size=4, seed=0, max_length=12)[0]
    assert short["input_ids"].shape[1] <= 12
    assert (short["visual_index"] == -1).all()
    assert (short["labels"] == IGNORE).all()
