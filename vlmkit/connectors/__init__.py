"""Connectors: what stands between the vision tower and the language model."""

from __future__ import annotations

from typing import TYPE_CHECKING

from vlmkit.registry import Registry

if TYPE_CHECKING:
    from vlmkit.connectors.base import Connector

connectors: Registry[Connector] = Registry(
    "connector",
    package=__name__,
    builtin=(
        "attention_pool",
        "bilinear_mlp",
        "conv_patch_merger",
        "flamingo_resampler",
        "joined",
        "linear",
        "merged_mlp",
        "mlp",
        "patch_merger",
        "perceiver",
        "pixel_shuffle",
        "query_attention",
        "resampler",
        "sequence_fold",
    ),
)
