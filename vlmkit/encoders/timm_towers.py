"""timm's models as towers: plain vision transformers by their blocks, NaFlex by patches, all others by `forward_intermediates`.

Models with batch normalisation keep the statistics of their checkpoint while they train (their scales learn): statistics of a batch would
make a view's features depend on its neighbours. Dropout and stochastic depth are off.
"""

from __future__ import annotations

import functools
import warnings
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from typing import TYPE_CHECKING, Any, Self

import torch
from torch import Tensor, nn

from vlmkit.encoders.by_size import BySizeTower
from vlmkit.encoders.timm_models import arguments
from vlmkit.features import Grid, View
from vlmkit.spec import SpecError

if TYPE_CHECKING:
    from vlmkit.encoders.timm import Timm


def tower_of(spec: Timm) -> TimmTower:
    """The tower of a spec, with random weights."""
    if not spec.levels:
        return TimmTower(spec)
    vit = spec.make()
    return NaFlexTower(spec, vit) if type(vit).__name__ == "NaFlexVit" else LevelsTower(spec, vit)


class TimmTower(BySizeTower):
    """timm's model as it is: its forward pass is called, hooks read the layers below the last selected one.

    Some timm models derive buffers that are not in the state dict (frequencies of rotary positions). They are computed
    once more in the first forward pass, and so survive being built on the meta device and filled from a checkpoint.
    """

    def __init__(self, spec: Timm, vit: Any = None) -> None:
        super().__init__(spec)
        if vit is None:
            vit = spec.whole(spec.model)
            dropped = spec.prune(vit)
        self.vit: Any = vit
        self.unread: nn.Module | None = unread(dropped) if spec.keep_unused else None
        self.derived = False
        self.recomputes = False
        for module in self.vit.modules():
            if module._non_persistent_buffers_set and not hasattr(module, "init_non_persistent_buffers"):
                raise SpecError(f"this timm cannot restore buffers of {type(module).__name__} in {spec.model!r}; upgrade timm")

    def unused(self) -> Iterator[nn.Module]:
        if self.unread is not None:
            yield self.unread

    def derive(self) -> None:
        """Fill the buffers that are not in the state dict."""
        for module in self.vit.modules():
            if module._non_persistent_buffers_set:
                module.init_non_persistent_buffers()
        self.derived = True

    def prepare(self, on_meta: bool) -> None:
        """What stands before each forward pass of timm's model."""
        if not self.derived and not on_meta:
            self.derive()
        recompute = self.gradient_checkpointing and self.training and torch.is_grad_enabled()
        if recompute == self.recomputes:
            return
        self.recomputes = recompute
        try:
            self.vit.set_grad_checkpointing(recompute)
        except (AssertionError, AttributeError):
            warnings.warn(f"timm's {self.spec.model} has no gradient checkpointing: its activations are kept", stacklevel=2)

    def encode_size(self, images: Tensor, grid: Grid) -> Tensor:
        self.prepare(images.is_meta)
        last = max(self.spec.depths)
        states: dict[int, Tensor] = {}
        hooks = [self.vit.blocks[depth - 1].register_forward_hook(keep(states, depth)) for depth in self.spec.depths if depth != last]
        try:
            final = self.vit(images)
        finally:
            for hook in hooks:
                hook.remove()
        normed = {depth: self.vit.norm(state) for depth, state in states.items()} | {last: final}
        chosen = [normed[depth][:, self.spec.prefix - self.spec.prefix_kept :] for depth in self.spec.depths]
        return chosen[0] if len(chosen) == 1 else torch.cat(chosen, dim=-1)


def unread(dropped: Mapping[str, nn.Module]) -> nn.Module:
    """Modules of a model that nothing calls any more, under the names that they had there."""
    root = nn.Module()
    for name, module in dropped.items():
        at = root
        *outer, last = name.split(".")
        for part in outer:
            if part not in at._modules:
                at.add_module(part, nn.Module())
            at = at.get_submodule(part)
        at.add_module(last, module)
    return root


def keep(states: dict[int, Tensor], depth: int) -> Callable[..., None]:
    """A forward hook that stores a block's output under its depth."""

    def hook(module: nn.Module, args: Any, output: Tensor) -> None:
        states[depth] = output

    return hook


class LevelsTower(TimmTower):
    """A backbone by its own `forward_intermediates`, which stands in for `forward`: hooks that bring a module's parameters when it is
    called see the model as a whole called, with the parameters that it has beside its modules."""

    output: str = ""
    """How timm is asked for features; empty: as the model can."""

    def __init__(self, spec: Timm, vit: Any) -> None:
        super().__init__(spec, vit)
        asked = {"output_fmt": self.output} if self.output else {}
        vit.forward = partial(vit.forward_intermediates, **(selection(spec, vit) | asked))
        self.never_read = never_read(spec)
        self.train(self.training)

    def unused(self) -> Iterator[nn.Module]:
        if self.never_read:
            yield nn.ParameterList([self.vit.get_parameter(name) for name in self.never_read])

    def train(self, mode: bool = True) -> Self:
        super().train(mode)
        for module in self.vit.modules():
            if isinstance(module, nn.modules.batchnorm._BatchNorm) or "Drop" in type(module).__name__:
                module.eval()
        return self

    def encode_size(self, images: Tensor, grid: Grid) -> Tensor:
        self.prepare(images.is_meta)
        return self.joined(self.vit(images))

    def joined(self, found: list[Any]) -> Tensor:
        """Levels in the model's order, as maps (V, D, rows, columns) or tokens (V, n, D), each perhaps beside its prefix (V, c, D) -> those
        selected, in the order of the spec, (V, c + n, D_v)."""
        in_order = dict(zip(sorted(set(self.spec.depths)), map(tokens_of, found), strict=True))
        chosen = [in_order[depth] for depth in self.spec.depths]
        return chosen[0] if len(chosen) == 1 else torch.cat(chosen, dim=-1)


def tokens_of(level: Any) -> Tensor:
    """A level of timm's -> (V, c + n, D), its prefix first where it comes beside one."""
    patches, prefix = level if isinstance(level, tuple) else (level, None)
    tokens: Tensor = patches.flatten(2).transpose(1, 2) if patches.ndim == 4 else patches
    return tokens if prefix is None else torch.cat([prefix, tokens], dim=1)


@functools.lru_cache(maxsize=64)
def never_read(spec: Timm) -> tuple[str, ...]:
    """Names of the parameters that no feature depends on, found by a backward pass on the meta device: heads, the end of the last stage."""
    with torch.device("meta"), torch.enable_grad():
        vit = spec.make().eval()
        side = spec.image_size // spec.patch * spec.patch
        found = vit.forward_intermediates(torch.zeros(1, 3, side, side), **selection(spec, vit))
        torch.autograd.backward([tokens_of(level).sum() for level in found])
    return tuple(name for name, parameter in vit.named_parameters() if parameter.grad is None)


def selection(spec: Timm, vit: Any) -> dict[str, Any]:
    """What a model's `forward_intermediates` is called with for the levels of a spec."""
    return arguments(vit, [depth - 1 for depth in spec.depths], spec.final_norm, bool(spec.prefix_kept))


class NaFlexTower(LevelsTower):
    """timm's NaFlexVit (Tschannen et al. 2025, arXiv:2502.14786) takes patches: views of all sizes are rows of one batch, each filled up to
    the longest and masked, and every block is called once."""

    output = "NLC"

    def encode(self, patches: Tensor, views: tuple[View, ...]) -> Tensor:
        self.prepare(patches.is_meta)
        lengths = [view.grid.tokens for view in views]
        side = self.spec.patch_size
        # timm's patches are laid out pixel by pixel.
        by_pixel = patches.view(len(patches), 3, side * side).transpose(1, 2).flatten(1)
        rows = nn.utils.rnn.pad_sequence(by_pixel.split(lengths), batch_first=True)  # type: ignore[no-untyped-call]
        places = nn.utils.rnn.pad_sequence([coordinates(view.grid) for view in views], batch_first=True)
        valid = torch.arange(max(lengths), device="cpu")[None] < torch.tensor(lengths, device="cpu")[:, None]
        batch = {
            "patches": rows,
            "patch_coord": places.to(patches.device, non_blocking=True),
            "patch_valid": valid.to(patches.device, non_blocking=True),
        }
        found = self.joined(self.vit(batch))
        return torch.cat([row[: self.spec.prefix_kept + length] for row, length in zip(found, lengths, strict=True)])


def coordinates(grid: Grid) -> Tensor:
    """(rows * columns, 2) row and column of each patch, on the CPU."""
    return torch.cartesian_prod(torch.arange(grid.rows, device="cpu"), torch.arange(grid.columns, device="cpu")).view(-1, 2)
