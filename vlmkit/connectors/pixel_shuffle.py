"""Pixel shuffle: r x r neighbouring patches become one token with r*r times the channels, then a linear layer.

Shi et al. 2016 (arXiv:1609.05158) run backwards; as a VLM connector in InternVL 1.5 (arXiv:2404.16821) and Idefics3
(arXiv:2408.12637), whose linear layer has no bias. Grid (F, H, W) -> (F, H/r, W/r).
"""

from __future__ import annotations

from dataclasses import dataclass

from vlmkit.connectors import connectors
from vlmkit.connectors.block_connector import BlockConnector


@connectors.register("pixel_shuffle")
@dataclass(frozen=True, kw_only=True)
class PixelShuffle(BlockConnector):
    """Space to depth, then one linear layer."""

    bias: bool = False
