"""The task of `caption_contrast`, and embeddings of captions, which `image_text_contrast` needs too."""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from torch import Tensor, nn
from torch.nn import functional
from torch.utils.data import Dataset

from vlmkit.architecture import Architecture
from vlmkit.training.objectives.caption_contrast import CaptionContrast
from vlmkit.training.objectives.drawn_samples import DrawnSamples, captions_of
from vlmkit.training.objectives.gathering import every, numbers_of_own
from vlmkit.training.objectives.task import Task

if TYPE_CHECKING:
    from vlmkit.data.mixture import DataSource, Mixture
    from vlmkit.data.sample import Sample
    from vlmkit.processor import VLMProcessor
    from vlmkit.training.stage import Stage


def build(spec: CaptionContrast, architecture: Architecture, seed: int) -> Captions:
    return Captions(spec)


class Captions(Task):
    def __init__(self, spec: CaptionContrast) -> None:
        self.spec = spec

    @staticmethod
    def batch(processor: VLMProcessor, pairs: Sequence[tuple[str, str]]) -> dict[str, Tensor]:
        """Pairs of captions of one image each -> rows (2 B, S), a pair's one behind the other."""
        return caption_rows(processor, [caption for pair in pairs for caption in pair])

    def data(self, stage: Stage, sources: Sequence[DataSource], processor: VLMProcessor, seed: int) -> Mixture | Dataset[dict[str, Tensor]]:
        """`batch_size` pairs of captions of one image each, of samples with two or more."""

        def pair(sample: Sample, chance: random.Random) -> tuple[str, str]:
            captions = captions_of(sample)
            if len(captions) < 2:
                raise ValueError(f"caption_contrast draws two captions of one image together, and it has {len(captions)}")
            first, second = chance.sample(captions, 2)
            return first, second

        def batch(pairs: Sequence[tuple[str, str]]) -> dict[str, Tensor]:
            return caption_rows(processor, [caption for pair in pairs for caption in pair], stage.max_length)

        return DrawnSamples(sources, max(1, stage.batch_size), seed, pair, batch)

    def __call__(self, model: nn.Module, batch: Mapping[str, Any]) -> Tensor:
        """Every process gives as many pairs: the stage's batch size says how many."""
        embeddings = functional.normalize(embed(model, batch), dim=-1)
        return contrast(embeddings[0::2], embeddings[1::2], 1 / self.spec.temperature)


def caption_rows(processor: VLMProcessor, captions: Sequence[str], length: int | None = None) -> dict[str, Tensor]:
    """Captions as turns of the user: `input_ids`, `attention_mask` (B, S). length: at most so many tokens of each."""
    asked = [[{"role": "user", "content": caption}] for caption in captions]
    batch = processor(asked, add_generation_prompt=False, max_length=length, truncation=True)
    return {name: batch[name] for name in ("input_ids", "attention_mask")}


def embed(model: Any, batch: Mapping[str, Any]) -> Tensor:
    """Rows (B, S) of words -> (B, D_lm), float32: the mean of the last hidden states of each row, whose tokens all see each other."""
    held = batch["attention_mask"].bool()
    rows, length = held.shape
    sees = held[:, None, None].expand(rows, 1, length, length)
    ids = batch["input_ids"]
    output = model(input_ids=ids, attention_mask=sees, headless=True)
    hidden, counted = output.last_hidden_state.float(), held[..., None].float()
    mean: Tensor = (hidden * counted).sum(dim=1) / counted.sum(dim=1).clamp(min=1)
    return mean


def contrast(own: Tensor, others: Tensor, scale: Tensor | float) -> Tensor:
    """Mean cross-entropy of each row (B, D) with the others (B, D) of all processes, its own number being right."""
    candidates = every(others)
    return functional.cross_entropy(scale * own @ candidates.T, numbers_of_own(own))
