"""A small MoE-LLaVA as its published class saved it: tests/golden/moe_llava/README.md."""

from __future__ import annotations

import json
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from safetensors.torch import save_file
from torch import Tensor
from transformers import CLIPImageProcessor, CLIPVisionConfig

from vlmkit.tokenizer import bytes_tokenizer

FOLDER = Path(__file__).parents[1] / "golden" / "moe_llava"
NOTES: dict[str, Any] = json.loads((FOLDER / "golden.json").read_text())
TOWER = "model.image_tower.image_tower."


def drawn(name: str, shape: Sequence[int]) -> Tensor:
    """Norms ~N(1, 0.1), all else ~N(0, 0.15), each by a generator of its own that its published name seeds."""
    values = np.random.RandomState(zlib.crc32(name.encode())).standard_normal(tuple(shape))
    norm = len(shape) == 1 and name.endswith(("norm.weight", "norm1.weight", "norm2.weight"))
    return torch.from_numpy((1 + 0.1 * values if norm else 0.15 * values).astype(np.float32))


def weights() -> dict[str, Tensor]:
    return {name: drawn(name, shape) for name, shape in NOTES["shapes"].items() if not name.endswith("position_ids")}


def write(directory: Path, **changes: Any) -> Path:
    """The directory, with its tower in openai/tiny and a tokenizer of bytes."""
    directory.mkdir(exist_ok=True)
    (directory / "config.json").write_text(json.dumps(NOTES["config"] | changes))
    save_file(weights(), directory / "model.safetensors", {"format": "pt"})
    bytes_tokenizer(("<image>",)).save_pretrained(directory)
    sizes = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 3, "num_attention_heads": 4}
    place = directory / "openai" / "tiny"
    CLIPVisionConfig(patch_size=14, image_size=28, **sizes).save_pretrained(place)
    CLIPImageProcessor(size={"shortest_edge": 28}, crop_size={"height": 28, "width": 28}).save_pretrained(place)
    return directory


def picture() -> Image.Image:
    return Image.fromarray(np.random.RandomState(3).randint(0, 256, (28, 28, 3)).astype(np.uint8))
