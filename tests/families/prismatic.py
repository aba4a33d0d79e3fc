"""Prismatic: what it states about itself, and small directories of which the answers of upstream's code are kept."""

from __future__ import annotations

import json
import math
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import timm
import torch
from families.assembled import no_whole
from families.system import System
from families.tiny import beginning
from numpy.typing import NDArray
from torch import Tensor

from vlmkit.architecture import Parameters
from vlmkit.tokenizer import bytes_tokenizer

LANGUAGE = {"prismatic-dinosiglip-7b": (4096, 6_738_939_904), "prismatic-dinosiglip-13b": (5120, 13_016_519_680)}
"""Width and parameters of Llama 2 with the vocabulary filled up to 32,064."""


def towers() -> int:
    """Parameters of timm's two towers, made for 384 pixels: the last block, norm and pooling head are there, and nobody reads them."""
    with torch.device("meta"):
        names = ("vit_large_patch14_reg4_dinov2", "vit_so400m_patch14_siglip_384")
        made = [timm.create_model(name, num_classes=0, img_size=384) for name in names]
    return sum(parameter.numel() for each in made for parameter in each.parameters())


def projector(dim: int) -> int:
    """2176 -> 8704 -> D_lm -> D_lm, each with a bias."""
    return 2176 * 8704 + 8704 + 8704 * dim + dim + dim * dim + dim


COUNTS = {name: Parameters(towers(), projector(dim), 0, language) for name, (dim, language) in LANGUAGE.items()}

ROW = System(
    title="Prismatic",
    counts=COUNTS,
    tiny="prismatic-tiny",
    reference=no_whole,
    compared_with="kept answers of the code that OpenVLA publishes beside its weights: PrismaticForConditionalGeneration and its "
    "processor, run over two small directories (tests/families/prismatic_upstream.json); pixels with PIL's under its transforms. In about "
    "0.6 % of the values they differ by up to 2 of 255: both resample in two passes and round to whole numbers after each, torch with "
    "weights of 16 bits and always across first, PIL with 22 and Pillow 13 with the cheaper order (tests/preprocess/test_two_of_255.py). "
    "vlmkit's exports were loaded by that class once, by hand",
)

KEPT: dict[str, Any] = json.loads(Path(__file__).with_name("prismatic_upstream.json").read_text(encoding="utf-8"))
ASKED: tuple[tuple[int, tuple[int, int], tuple[str, ...]], ...] = (
    (0, (56, 64), ("What is it?",)),
    (1, (40, 90), ("What is it?", "A cat.", "And here?")),
)
"""Seed and size of a picture, and what is said about it, in turns."""


def tokenizer() -> Any:
    """Its first token before every text, as Llama's does."""
    return beginning(bytes_tokenizer(("<PAD>", "<s>", "</s>"), bos_token="<s>", eos_token="</s>", pad_token="<PAD>"))


def shapes(kind: str) -> dict[str, tuple[int, ...]]:
    """Names and shapes of upstream's weights, of which those of a list of blocks are kept once."""
    found: dict[str, tuple[int, ...]] = {}
    for name, (count, shape) in KEPT[kind]["shapes"].items():
        found |= {name.replace("*", str(number)): tuple(shape) for number in range(count)}
    return found


def drawn(name: str, shape: tuple[int, ...]) -> Tensor:
    """Norms and scales ~N(1, 0.1), matrices ~N(0, 1 / inputs), tables ~N(0, 0.3), all else ~N(0, 0.15), each by a generator of its own that
    its name seeds."""
    values = np.random.RandomState(zlib.crc32(name.encode())).standard_normal(shape)
    if name.endswith(("scale_factor", "norm.weight", "norm1.weight", "norm2.weight")):
        values = 1 + 0.1 * values
    elif len(shape) == 1:
        values = 0.15 * values
    elif "pos_embed" in name or "token" in name:
        values = 0.3 * values
    else:
        values = values / math.sqrt(math.prod(shape[1:]))
    return torch.from_numpy(values.astype(np.float32))


def weights(kind: str) -> dict[str, Tensor]:
    return {name: drawn(name, shape) for name, shape in shapes(kind).items()}


def picture(seed: int, height: int, width: int) -> NDArray[np.uint8]:
    return np.random.RandomState(seed).randint(0, 256, (height, width, 3)).astype(np.uint8)


def write(directory: Path, kind: str, pixels: dict[str, Any] | None = None, **changes: Any) -> Path:
    """The directory as upstream's classes write it, without weights."""
    directory.mkdir(exist_ok=True)
    (directory / "config.json").write_text(json.dumps(KEPT[kind]["config"] | changes))
    (directory / "preprocessor_config.json").write_text(json.dumps(KEPT[kind]["preprocessor"] | (pixels or {})))
    tokenizer().save_pretrained(directory)
    return directory
