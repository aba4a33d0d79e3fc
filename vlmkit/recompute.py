"""Activations that the backward pass computes again, which transformers calls activation checkpointing from 5.24 on, and before it gradient
checkpointing."""

from __future__ import annotations

from typing import Any


def recompute(model: Any, whether: bool = True) -> None:
    """Let a transformers model, or an adapted one, compute its activations again; or keep them."""
    done = "enable" if whether else "disable"
    named = getattr(model, f"activation_checkpointing_{done}", None) or getattr(model, f"gradient_checkpointing_{done}")
    named()
