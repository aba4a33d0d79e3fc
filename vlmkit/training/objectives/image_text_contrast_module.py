"""The task of `image_text_contrast`."""

from __future__ import annotations

import math
import random
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.data import Dataset

from vlmkit.architecture import Architecture
from vlmkit.features import Features
from vlmkit.preprocess.images import open_image
from vlmkit.spec import SpecError
from vlmkit.training.objectives.caption_contrast_module import caption_rows, contrast, embed
from vlmkit.training.objectives.drawn_samples import DrawnSamples, captions_of
from vlmkit.training.objectives.image_text_contrast import ImageTextContrast
from vlmkit.training.objectives.task import Task, drawn, unwrapped

if TYPE_CHECKING:
    from vlmkit.data.mixture import DataSource, Mixture
    from vlmkit.data.sample import Sample
    from vlmkit.processor import VLMProcessor
    from vlmkit.training.stage import Stage

LARGEST = math.log(100)
"""Of the learnt scale's logarithm, as CLIP bounds it."""


def build(spec: ImageTextContrast, architecture: Architecture, seed: int) -> ImagesAndCaptions:
    return ImagesAndCaptions(spec, architecture, seed)


class ImagesAndCaptions(Task):
    def __init__(self, spec: ImageTextContrast, architecture: Architecture, seed: int) -> None:
        self.spec = spec
        widths = architecture.encoder.dim_out, architecture.language_model.dim
        self.head: Adapters = drawn(seed, lambda: Adapters(spec, *widths))

    def data(self, stage: Stage, sources: Sequence[DataSource], processor: VLMProcessor, seed: int) -> Mixture | Dataset[dict[str, Tensor]]:
        """`batch_size` images, each with one of its captions as a row, which the model's own language model embeds as it comes."""

        def one(sample: Sample, chance: random.Random) -> tuple[Any, str]:
            captions = captions_of(sample)
            if not captions or not sample.images:
                raise ValueError(f"image_text_contrast needs an image and a caption, and it has {len(sample.images)} and {len(captions)}")
            return open_image(sample.images[0]), chance.choice(captions)

        def batch(pairs: Sequence[tuple[Any, str]]) -> dict[str, Tensor]:
            rows = caption_rows(processor, [caption for _, caption in pairs], stage.max_length)
            images = self.batch(processor, [image for image, _ in pairs], torch.empty(0))
            del images["captions"]
            return images | {f"caption_{name}": value for name, value in rows.items()}

        return DrawnSamples(sources, max(1, stage.batch_size), seed, one, batch)

    @staticmethod
    def batch(processor: VLMProcessor, images: Sequence[Any], captions: Tensor) -> dict[str, Tensor]:
        """Images, and the embeddings (B, D_lm) of a caption of each."""
        asked = [[{"role": "user", "content": [{"type": "image", "image": image}]}] for image in images]
        pixels = {name: value for name, value in processor(asked).items() if name in ("pixel_values", "grids", "places")}
        return {**pixels, "captions": captions}

    def __call__(self, model: nn.Module, batch: Mapping[str, Any]) -> Tensor:
        """Every process gives as many images. Raises SpecError where captions and views are not as many."""
        if "captions" not in batch:
            rows = {name: batch[f"caption_{name}"] for name in ("input_ids", "attention_mask")}
            with torch.no_grad():
                batch = {**batch, "captions": embed(unwrapped(model), rows)}
        seen: list[Features] = []
        hook = unwrapped(model).encoder.register_forward_hook(lambda module, inputs, output: seen.append(output))
        try:
            # The tower is called by the model's own forward pass, which engines have their hooks on; a word that says nothing goes with it.
            word = torch.zeros(1, 1, dtype=torch.long, device=batch["captions"].device)
            pixels = {name: value for name, value in batch.items() if name in ("pixel_values", "grids", "places")}
            stands = {"position_ids": word.expand(3, 1, 1) if unwrapped(model).three_positions else word, "token_type_ids": word}
            model(input_ids=word, visual_index=word - 1, segments=word, headless=True, **stands, **pixels)
        finally:
            hook.remove()
        (features,) = seen
        if len(features.grids) != len(batch["captions"]):
            raise SpecError(f"{len(features.grids)} views and {len(batch['captions'])} captions: each image is one view here, and has one")
        pieces = torch.split(features.tokens, [grid.tokens for grid in features.grids])
        pooled = torch.stack([piece.float().mean(dim=0) for piece in pieces])
        images, captions, scale = self.head(pooled, batch["captions"].float())
        return (contrast(images, captions, scale) + contrast(captions, images, scale)) / 2


class Adapters(nn.Module):
    """(B, D_v), (B, D_lm) -> both as directions (B, dim), and the scale of their cosines."""

    def __init__(self, spec: ImageTextContrast, dim_image: int, dim_text: int) -> None:
        super().__init__()
        self.image = nn.Linear(dim_image, spec.dim, bias=False)
        self.blocks = nn.ModuleList(Block(dim_text, spec.expansion * dim_text) for _ in range(spec.blocks))
        self.norm = nn.LayerNorm(dim_text)
        self.text = nn.Linear(dim_text, spec.dim)
        self.scale = nn.Parameter(torch.tensor(math.log(1 / spec.temperature)))

    def forward(self, images: Tensor, captions: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        for block in self.blocks:
            captions = block(captions)
        captions = functional.normalize(self.text(self.norm(captions)), dim=-1)
        return functional.normalize(self.image(images), dim=-1), captions, self.scale.clamp(max=LARGEST).exp()


class Block(nn.Module):
    """x + Linear(GELU(Linear(LayerNorm(x))))"""

    def __init__(self, dim: int, width: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(dim)
        self.mlp = nn.Sequential(nn.Linear(dim, width), nn.GELU(), nn.Linear(width, dim))

    def forward(self, rows: Tensor) -> Tensor:
        out: Tensor = rows + self.mlp(self.norm(rows))
        return out
