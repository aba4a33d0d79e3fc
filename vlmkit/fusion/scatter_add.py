"""Scatter-add: visual tokens are added to the embeddings of the tokens whose places they take.

Molmo (Deitke et al. 2024, arXiv:2409.17146), after Molmo.forward of olmo/model.py (github.com/allenai/molmo): the placeholder's embedding,
which learns like any other, stands below every visual token. Everything else is as with `splice`.
"""

from __future__ import annotations

from dataclasses import dataclass

from vlmkit.fusion import fusions
from vlmkit.fusion.base import Fusion


@fusions.register("scatter_add")
@dataclass(frozen=True, kw_only=True)
class ScatterAdd(Fusion):
    pass
