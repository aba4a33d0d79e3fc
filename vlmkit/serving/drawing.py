"""How tokens are chosen in a batch whose rows ask for different things: each row by its own temperature and its own seed.

A row that draws is drawn as `generate(do_sample=True, temperature=..., top_p=..., top_k=0)` draws it alone after `torch.manual_seed(seed)`,
by transformers' own warpers; the batch itself is greedy and finds one token left in that row.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from transformers import LogitsProcessor, TemperatureLogitsWarper, TopPLogitsWarper


@dataclass(frozen=True, kw_only=True)
class Drawing:
    """temperature 0 takes the likeliest token. seed: of the draws."""

    temperature: float = 0.0
    top_p: float = 1.0
    seed: int = 0


class DrawEach(LogitsProcessor):  # type: ignore[misc]
    """(B, vocabulary) scores -> the same for greedy rows, and for others nothing but the token that was drawn."""

    def __init__(self, rows: Sequence[Drawing], device: torch.device) -> None:
        self._rows = {
            number: (drawing, torch.Generator(device).manual_seed(drawing.seed % 2**64))
            for number, drawing in enumerate(rows)
            if drawing.temperature > 0
        }

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        if not self._rows:
            return scores
        scores = scores.clone()
        for number, (drawing, generator) in self._rows.items():
            row = scores[number : number + 1]
            if drawing.temperature != 1:
                row = TemperatureLogitsWarper(drawing.temperature)(input_ids, row)
            if 0 < drawing.top_p < 1:
                row = TopPLogitsWarper(drawing.top_p)(input_ids, row)
            if drawing.top_p == 0:  # which OpenAI allows: nothing but the likeliest token is left
                token = row.argmax(dim=-1, keepdim=True)
            else:
                token = torch.multinomial(row.softmax(dim=-1), num_samples=1, generator=generator)
            scores[number] = -torch.inf
            scores[number, token[0, 0]] = 0.0
        return scores
