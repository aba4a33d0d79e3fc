"""Molmo, beside what upstream's own class, preprocessor and formatter gave (tests/golden/molmo/README.md): a row of the table."""

from __future__ import annotations

import functools

import numpy as np
import torch
from families.assembled import no_whole
from families.system import System, patchify
from PIL import Image
from torch import Tensor
from torchvision.transforms import InterpolationMode
from torchvision.transforms.functional import resize

import vlmkit
from tests.molmo_upstream import drawn
from vlmkit.architecture import Architecture, Parameters
from vlmkit.checkpoints.molmo_weights import PREFIX, to_ours, to_theirs
from vlmkit.encoders.base import CLIP_MEAN, CLIP_STD
from vlmkit.model import VLM
from vlmkit.preprocess.geometry import ImagePlan

ROW = System(
    title="Molmo",
    counts={
        "molmo-1b-e": Parameters(290_913_280, 11_538_432, 0, 6_919_424_000),
        "molmo-7b-o": Parameters(290_913_280, 74_977_280, 0, 7_299_141_632),
        "molmo-7b-d": Parameters(290_913_280, 114_036_736, 0, 7_616_075_264),
        "molmo-72b": Parameters(290_913_280, 310_120_448, 0, 72_707_252_224),
    },
    tiny="molmo-tiny",
    reference=no_whole,
    compared_with="arrays that allenai/molmo's own Molmo, MultiModalPreprocessor and DataFormatter gave (tests/golden/molmo), over Qwen2 "
    "and OLMo 2; over OLMoE a copy of the class that lies beside MolmoE-1B's weights, for upstream's own needs a GPU; checkpoints in the "
    "names and shapes of these classes' state dicts. Its pixels are resampled in float32 and never rounded; vlmkit's are bytes, "
    "rounded after each of the two passes of a resampling, which is up to half a step each",
)
"""Of 1B-E the language model's is OlmoeForCausalLM's with 128 more rows; the others upstream's classes were built for, without memory."""

TINY = vlmkit.architecture("molmo-tiny")
OLMO = TINY.replace(
    name="molmo-tiny-olmo",
    language_model=TINY.language_model.replace(
        model_type="olmo2", config=TINY.language_model.config | {"num_key_value_heads": 4, "rms_norm_eps": 1e-6}
    ),
)
SPARSE = TINY.replace(
    name="molmo-tiny-olmoe",
    language_model=TINY.language_model.replace(
        model_type="olmoe",
        config=TINY.language_model.config
        | {"num_key_value_heads": 4, "rms_norm_eps": 1e-5, "num_experts": 4, "num_experts_per_tok": 2, "norm_topk_prob": False},
    ),
)
DECODERS = {"qwen2": TINY, "olmo2": OLMO, "olmoe": SPARSE}


@functools.cache
def built(decoder: str) -> VLM:
    """The tiny model with the weights that upstream's had."""
    arch = DECODERS[decoder]
    model = vlmkit.build(arch, seed=0).eval()
    model.load_state_dict(to_ours(weights(model, arch), arch))
    return model


SIZES = ((120, 90), (60, 200), (70, 70))
"""Height and width of the pictures that upstream was shown; their numbers are their seeds."""


def picture(height: int, width: int, seed: int) -> Image.Image:
    """Waves in whole numbers, the same on every machine."""
    y, x = np.mgrid[:height, :width]
    waves = [(y * (3 + seed + channel) * 8 + x * (5 + 2 * channel + seed) * 8) // 16 % 512 for channel in range(3)]
    return Image.fromarray(np.stack([np.where(wave > 255, 511 - wave, wave) for wave in waves], -1).astype(np.uint8))


def weights(model: VLM, arch: Architecture) -> dict[str, Tensor]:
    """A state dict of upstream's shapes and names, without the hub's prefix, as it was drawn there."""
    names = {name.removeprefix(PREFIX): value.shape for name, value in to_theirs(model.state_dict(), arch).items()}
    return {name: drawn(name, shape) for name, shape in names.items()}


def normalised(image: Image.Image, plan: ImagePlan, patch: int) -> Tensor:
    """The plan's patches (N, 3*p*p) as upstream resamples: in float32, by torchvision, never rounded to whole values."""
    pixels = torch.from_numpy(np.array(image)).permute(2, 0, 1).float() / 255
    mean, std = (torch.tensor(values).view(3, 1, 1) for values in (CLIP_MEAN, CLIP_STD))
    views = []
    for render in plan.renders:
        sides = [render.resize.height, render.resize.width]
        canvas = torch.zeros(3, render.canvas.height, render.canvas.width)
        shown = resize(pixels, sides, InterpolationMode.BILINEAR, antialias=True).clip(0, 1)
        canvas[:, render.top : render.top + sides[0], render.left : render.left + sides[1]] = shown
        canvas = (canvas - mean) / std
        views += [canvas[:, tile.top : tile.top + tile.height, tile.left : tile.left + tile.width] for tile in render.tiles]
    return torch.cat([patchify(view, patch) for view in views])
