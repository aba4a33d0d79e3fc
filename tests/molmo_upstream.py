"""What upstream's Molmo gave, and weights as they were drawn there: tests/golden/molmo/README.md."""

from __future__ import annotations

import json
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

FOLDER = Path(__file__).parent / "golden" / "molmo"


def golden(name: str) -> Any:
    return json.loads((FOLDER / f"{name}.json").read_text())


def drawn(name: str, shape: Sequence[int], scale: float = 0.15) -> Tensor:
    """Norms ~N(1, 0.1), all other weights ~N(0, scale), each by a generator of its own that its name seeds."""
    values = np.random.RandomState(zlib.crc32(name.encode())).standard_normal(tuple(shape))
    norm = len(shape) == 1 and name.endswith(("norm.weight", "pre_ln.weight", "ln_f.weight"))
    return torch.from_numpy((1 + 0.1 * values if norm else scale * values).astype(np.float32))


def arrays() -> Any:
    return np.load(FOLDER / "whole.npz")
