"""Objectives: what a stage trains for where it is not the next token of an answer."""

from __future__ import annotations

from typing import TYPE_CHECKING

from vlmkit.registry import Registry

if TYPE_CHECKING:
    from vlmkit.training.objectives.base import Objective

objectives: Registry[Objective] = Registry(
    "objective", package=__name__, builtin=("autoregressive", "caption_contrast", "image_text_contrast")
)
