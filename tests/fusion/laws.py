"""What holds for every fusion that looks at images: rows of a batch, samples of a packed row and steps from a cache are what they are
alone."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from tests.tiny import CONVERSATIONS, PROMPTS, apart, assistant, encoded_views, picture, user
from vlmkit.cache_name import CACHE
from vlmkit.model import VLM
from vlmkit.processor import VLMProcessor

TOLERANCE = 2e-5
"""Measured 4e-6 in logits of size 5."""
FOUR: dict[str, Any] = {"max_new_tokens": 4, "do_sample": False}


def logits_of(built: VLM, batch: Any) -> list[Tensor]:
    """Of each row, without its padding."""
    with torch.no_grad():
        logits = built(**batch).logits
    return [row[mask.bool()] for row, mask in zip(logits, batch["attention_mask"], strict=True)]


def batched_is_single(built: VLM, processor: VLMProcessor) -> None:
    together = logits_of(built, processor(CONVERSATIONS))
    for row, found in zip(CONVERSATIONS, together, strict=True):
        (alone,) = logits_of(built, processor([row]))
        assert apart(found, alone) < TOLERANCE


def packed_is_alone(built: VLM, processor: VLMProcessor) -> None:
    samples = [processor.sample(row) for row in CONVERSATIONS]
    batch = processor.pack_rows([samples[:3], [samples[3], samples[0]]])
    with torch.no_grad():
        rows = built(**batch).logits
    for numbers, row in zip(([0, 1, 2], [3, 0]), rows, strict=True):
        start = 0
        for number in numbers:
            (alone,) = logits_of(built, processor([CONVERSATIONS[number]]))
            assert apart(row[start : start + len(alone)], alone) < TOLERANCE
            start += len(alone)


def cached_is_uncached(built: VLM, processor: VLMProcessor) -> None:
    """Images are encoded once."""
    batch = processor(PROMPTS)
    seen = encoded_views(built)
    options: dict[str, Any] = {"max_new_tokens": 5, "min_new_tokens": 5, "do_sample": False}
    told = {"output_logits": True, "return_dict_in_generate": True}
    cached = built.generate(**batch, **options, **told)
    assert len(seen) == 1
    uncached = built.generate(**batch, **options, **told, use_cache=False)
    assert torch.equal(cached.sequences, uncached.sequences)
    for first, second in zip(cached.logits, uncached.logits, strict=True):
        assert apart(first, second) < TOLERANCE


def beams_share(built: VLM, processor: VLMProcessor, **options: Any) -> None:
    """What beams look at is encoded once."""
    batch = processor(PROMPTS)
    seen = encoded_views(built)
    cached = built.generate(**batch, min_new_tokens=4, **FOUR, **options)
    assert len(seen) == 1
    assert torch.equal(cached, built.generate(**batch, min_new_tokens=4, **FOUR, **options, use_cache=False))


def a_second_turn_goes_on(built: VLM, processor: VLMProcessor) -> None:
    """It adds an image, and goes on from the cache of the first."""
    first = [user(picture(seed=1), "What is it?")]
    options = {**FOUR, "return_dict_in_generate": True, "output_logits": True}
    kept = built.generate(**processor([first]), **options)[CACHE]
    kept.crop(-3)  # all but the last of the four tokens that were generated went through
    assert kept.get_seq_length() == processor([first])["input_ids"].shape[1]
    whole = processor([[*first, assistant("A cat."), user("And this?", picture(seed=2), "Or that?")]])
    goes_on, anew = built.generate(**whole, **options, **{CACHE: kept}), built.generate(**whole, **options)
    assert torch.equal(goes_on.sequences, anew.sequences)
    for one, other in zip(goes_on.logits, anew.logits, strict=True):
        assert apart(one, other) < TOLERANCE
