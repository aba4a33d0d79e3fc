"""The module of `scatter_add`."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor

from vlmkit.fusion.incoming import Incoming
from vlmkit.fusion.scatter_add import ScatterAdd
from vlmkit.fusion.splice_module import SpliceModule

if TYPE_CHECKING:
    from transformers import PreTrainedModel

    from vlmkit.layout.base import TokenLayout


def build(spec: ScatterAdd, language_model: PreTrainedModel, layout: TokenLayout) -> ScatterAddModule:
    return ScatterAddModule(language_model, layout)


class ScatterAddModule(SpliceModule):
    def seen(self, incoming: Incoming, tokens: Tensor) -> Tensor:
        return put(incoming.embeddings, tokens, incoming.visual_index)


def put(embeddings: Tensor, tokens: Tensor, index: Tensor | None) -> Tensor:
    """Embeddings (B, S, D) and row index[b, s] of tokens (T, D) added wherever the index (B, S) is 0 or more. One gather."""
    if index is None:
        index = embeddings.new_full(embeddings.shape[:2], -1, dtype=torch.long)
    found = tokens.to(embeddings.dtype)[index.clamp(min=0)]
    return torch.where((index >= 0)[..., None], embeddings + found, embeddings)
