"""How tokens spread among experts in training, as numbers of a step's record."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from typing import Any

import torch

from vlmkit.experts_module import Mixtures, shares
from vlmkit.training.processes import Processes


def spread_of(model: Any, processes: Processes) -> dict[str, float]:
    """`experts/<layer>/<number>`: the share of a layer's tokens that went to each expert since the last call, over all processes, each of
    which calls it; nothing for a model without experts of `Experts`."""
    mixtures: Mixtures | None = getattr(getattr(model, "language_model", None), "mixtures", None)
    if mixtures is None:
        return {}
    taken = mixtures.take()
    if taken is None:
        taken = torch.zeros(len(mixtures.layers), mixtures.experts.count)
    counts = torch.tensor(processes.sum(taken.flatten().tolist())).view(taken.shape)
    return {f"experts/{layer}/{number}": share for layer, row in shares(mixtures, counts).items() for number, share in enumerate(row)}


def least_of(record: Mapping[str, float]) -> dict[str, float]:
    """`least_expert` of a step's record: what the least used expert of all layers got; 1 is an equal share. Nothing without experts."""
    layers: defaultdict[str, list[float]] = defaultdict(list)
    for name, share in record.items():
        kind, _, place = name.partition("/")
        if kind == "experts":
            layers[place.partition("/")[0]].append(share)
    return {"least_expert": min(min(row) * len(row) for row in layers.values())} if layers else {}
