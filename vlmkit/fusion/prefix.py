"""Prefix: visual tokens take their places as with `splice`, and the prefix, images and prompt, is seen in both directions;
only the answer is causal.

PaliGemma (Beyer et al. 2024, arXiv:2407.07726) after the prefix language model of T5 (Raffel et al. 2020, arXiv:1910.10683).
Layers with a sliding window see the whole prefix from within it, and look back from the answer through their window, as in
transformers' PaliGemma 2 (arXiv:2412.03555). The masks are transformers' own, one a layer type of the language model.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from vlmkit.fusion import fusions
from vlmkit.fusion.base import Fusion


@fusions.register("prefix")
@dataclass(frozen=True, kw_only=True)
class Prefix(Fusion):
    needs_prefix: ClassVar[bool] = True
