"""Operations that a model needs for a batch: what MFU is reckoned from.

The convention is that of PaLM (Chowdhery et al. 2022, arXiv:2204.02311, appendix B), which nanoGPT's `estimate_mfu` uses as well: a
multiplication and an addition are two operations, so a weight costs 2 a token forward, 2 to pass the gradient on and 2 for its own
gradient: 6 where everything learns; attention adds 12 x layers x channels of all heads x length a token. What is recomputed in the
backward pass does not count, nor do norms, activations and softmax, and the mask's empty half is not subtracted. Three things differ,
each to count no work that nobody needs:

    attention     by sample: the length is the sample's, not the row's, and no more than a sliding window
    LM head       for supervised tokens alone
    frozen        2 a token where nothing below learns, 4 where a gradient passes through, adapters (LoRA) alike; attention, which has
                  no weights of its own, 4 or 12

Of a mixture of experts, those that a token is sent to count. The language model and cross-attention are reckoned from their matrices.
Towers and connectors are of any kind, a stranger's too: their operations are counted on the meta device (torch.utils.flop_counter) at
three sizes of a view, and taken as a parabola over its patches, which is exact for attention over the whole view.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from vlmkit.architecture import Architecture
from vlmkit.experts_module import Mixture
from vlmkit.features import Features, Grid, GridError
from vlmkit.fusion.cross_layer import CrossAttentionHeads
from vlmkit.layout.laid_out import IGNORE
from vlmkit.training.meters import sample_lengths
from vlmkit.views import views_of

SIDES = (16, 32, 48)
"""Patches along the sides of the views at which towers and connectors are counted."""

Parabola = tuple[float, float, float]
"""(a, b, c) of a + b n + c n^2 operations for a view of n patches."""


class ModelFlops:
    """Operations of a training step's forward and backward pass over a batch: `ModelFlops(architecture, learning)(batch)`."""

    def __init__(self, architecture: Architecture, learning: Mapping[str, float]) -> None:
        """learning: the share of a part's weights that learn, as `learning_shares` gives it; parts that are left out are frozen. Takes
        a second or so of a large model; nothing is allocated."""
        self.architecture = architecture
        share = {part: learning.get(part, 0.0) for part in ("encoder", "connector", "fusion", "language_model")}
        with torch.device("meta"):
            towers = [tower.encoder.build() for tower in architecture.towers]
            connector = architecture.build_connector()
            language_model = architecture.language_model.build(architecture.language_model.transformers_config())
            fusion = architecture.fusion.build(language_model, architecture.layout)
        self.towers = tuple(self._tower(number, tower, share["encoder"]) for number, tower in enumerate(towers))
        self.connector = self._connector(connector, share)
        seen = share["encoder"] > 0 or share["connector"] > 0
        spoken = _times(share["language_model"], seen or share["fusion"] > 0)
        config = language_model.config
        head = language_model.get_output_embeddings()
        self.per_supervised = 2 * spoken * head.weight.numel()
        self.per_token = 2 * spoken * matrices(language_model, without=head.weight)
        width = config.num_attention_heads * (getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads)
        self.heads = 4 * _attending(spoken) * width
        self.windows = _windows(config)
        looking = _times(share["fusion"], seen)
        cross = [module for module in fusion.modules() if isinstance(module, CrossAttentionHeads)]
        keys = sum(module.k_proj.weight.numel() + module.v_proj.weight.numel() for module in cross)
        linear = sum(module.weight.numel() for module in fusion.modules() if isinstance(module, nn.Linear))
        self.per_visual = 2 * looking * keys
        self.per_token += 2 * _times(share["fusion"], seen or share["language_model"] > 0) * (linear - keys)
        self.per_look = 4 * _attending(looking) * sum(module.q_proj.out_features for module in cross)

    def __call__(self, batch: Mapping[str, Tensor]) -> float:
        """Reads what lies on the CPU alone: count a batch before it is moved."""
        return self.vision(batch) + self.language(batch)

    def vision(self, batch: Mapping[str, Tensor]) -> float:
        """Of towers and connector."""
        total = 0.0
        for number, tower in zip(self.architecture.pixel_sets, self.towers, strict=True):
            total += _sum(tower, _patches(batch, f"grids_{number}" if number else "grids"))
        return total + _sum(self.connector, _patches(batch, "grids"))

    def language(self, batch: Mapping[str, Tensor]) -> float:
        """Of language model and fusion."""
        if "input_ids" not in batch:
            return 0.0
        lengths = sample_lengths(batch).astype(np.float64)
        labels = batch.get("labels")
        supervised = lengths.sum() if labels is None else float((labels[:, 1:] != IGNORE).sum())
        total = self.per_token * lengths.sum() + self.per_supervised * supervised
        for window in self.windows:
            total += self.heads * float((lengths * (lengths if window is None else lengths.clip(max=window))).sum())
        if self.per_visual and "grids" in batch:
            total += self.per_visual * sum(grid.tokens for grid in self._seen(batch))
        if self.per_look and "visible" in batch:
            spans = batch["visible"]
            total += self.per_look * float((spans[..., 1] - spans[..., 0]).clamp(min=0).sum())
        return float(total)

    def _seen(self, batch: Mapping[str, Tensor]) -> tuple[Grid, ...]:
        sets = self.architecture.pixel_sets
        grids = [[view.grid for view in views_of(batch[f"grids_{number}" if number else "grids"])] for number in sets]
        return self.architecture.grids_out(*grids)

    def _grids(self, number: int) -> tuple[Grid, ...]:
        """Of a tower, the views at which it is counted; its only one where it takes no other."""
        encoder = self.architecture.towers[number].encoder
        least = encoder.smallest(self.architecture.connector.merge)
        grids = []
        for side in SIDES:
            times = max(1, -(-side // least.rows))
            grids.append(Grid(least.frames, least.rows * times, least.columns * times))
        try:
            for grid in grids:
                encoder.grid_out(grid)
        except GridError:
            return (least,)
        return tuple(dict.fromkeys(grids))

    def _tower(self, number: int, tower: nn.Module, share: float) -> Parabola:
        values = self.architecture.towers[number].encoder.values

        def see(grid: Grid) -> Tensor:
            features: Features = tower(torch.empty(grid.tokens, values, dtype=torch.uint8, device="meta"), (grid,))
            return features.tokens

        tower.train().requires_grad_(share > 0.5)
        return _parabola(see, self._grids(number), backward=share > 0)

    def _connector(self, connector: nn.Module, share: Mapping[str, float]) -> Parabola:
        towers = self.architecture.towers
        grids = tuple(zip(*(self._grids(number) for number in range(len(towers))), strict=False))
        first = {of[0]: of for of in grids}
        asks = share["encoder"] > 0 or 0 < share["connector"] <= 0.5

        def connect(grid: Grid) -> Tensor:
            seen = []
            for tower, own in zip(towers, first[grid], strict=True):
                out = tower.encoder.grid_out(own)
                seen.append(Features(torch.empty(out.tokens, tower.encoder.dim_out, device="meta", requires_grad=asks), (out,)))
            features: Features = connector(*seen)
            return features.tokens

        connector.train().requires_grad_(share["connector"] > 0.5)
        return _parabola(connect, tuple(first), backward=asks or share["connector"] > 0)


def learning_shares(parts: Mapping[str, nn.Module]) -> dict[str, float]:
    """The share of each part's weights that learn: 1 of a whole part, 0 of a frozen one, little of one with adapters."""
    shares = {}
    for name, part in parts.items():
        # ZeRO-3 keeps the number of a parameter that lies elsewhere in `ds_numel`.
        sizes = [(getattr(weight, "ds_numel", weight.numel()), weight.requires_grad) for weight in part.parameters()]
        shares[name] = sum(size for size, learns in sizes if learns) / max(1, sum(size for size, _ in sizes))
    return shares


def _times(share: float, below: bool) -> float:
    """What a forward pass is multiplied by: itself, the gradient that is passed on, the weights' own."""
    return 1 + (1 if below or share > 0 else 0) + share


def _attending(times: float) -> float:
    """The same of attention's own two products, of which both sides are activations: twice as much backward, frozen or not."""
    return 3.0 if times > 1 else 1.0


def _sum(parabola: Parabola, patches: np.ndarray[Any, np.dtype[np.float64]]) -> float:
    a, b, c = parabola
    return float(a * len(patches) + b * patches.sum() + c * (patches**2).sum())


def _patches(batch: Mapping[str, Tensor], name: str) -> np.ndarray[Any, np.dtype[np.float64]]:
    """(V,): patches of each view."""
    grids = batch.get(name)
    return np.zeros(0) if grids is None else np.prod(np.asarray(grids.tolist(), np.float64).reshape(-1, 3), axis=1)


def _parabola(run: Callable[[Grid], Tensor], grids: tuple[Grid, ...], *, backward: bool) -> Parabola:
    counted = []
    for grid in grids:
        with FlopCounterMode(display=False) as counter, sdpa_kernel(SDPBackend.MATH):
            out = run(grid)
            if backward and out.requires_grad:
                torch.autograd.backward(out, torch.empty_like(out))
        counted.append(float(counter.get_total_flops()))
    patches = [float(grid.tokens) for grid in grids]
    if len(grids) < 3:
        return 0.0, counted[0] / patches[0], 0.0
    a, b, c = np.linalg.solve(np.vander(patches, 3, increasing=True), counted)
    return float(a), float(b), float(c)


def matrices(model: nn.Module, without: Tensor) -> float:
    """Weights that a token meets in products with matrices: embeddings are looked up, and of experts it meets some."""
    config: Any = model.config
    experts = next((value for name in _EXPERTS if (value := getattr(config, name, None))), 1)
    met = next((value for name in _MET if (value := getattr(config, name, None))), experts) / experts
    ours = {f"{path}.": module.share for path, module in model.named_modules() if isinstance(module, Mixture)}
    total = 0.0
    for path, module in model.named_modules():
        if isinstance(module, nn.Embedding):
            continue
        among = ".experts." in f".{path}."
        share = next((share for mixture, share in ours.items() if path.startswith(mixture)), met)
        for weight in module.parameters(recurse=False):
            if weight.dim() >= 2 and weight is not without:
                total += weight.numel() * (share if among else 1)
    return total


_EXPERTS = ("num_local_experts", "num_experts", "n_routed_experts", "moe_num_experts")
"""What configs of transformers call the number of experts."""
_MET = ("num_experts_per_tok", "moe_topk", "top_k_experts")
"""And the number of those that a token is sent to."""


def _windows(config: Any) -> tuple[int | None, ...]:
    """How far back each layer with attention looks; None: to the beginning."""
    window: int | None = getattr(config, "sliding_window", None) or None
    kinds: list[str] | None = getattr(config, "layer_types", None)
    if kinds is None:
        return (window,) * int(config.num_hidden_layers)
    return tuple(
        window if kind == "sliding_attention" else None for kind in kinds if kind.endswith("attention") and kind != "linear_attention"
    )
