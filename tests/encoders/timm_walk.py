"""One small model of each file of timm's, and the laws that its tower is held to."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, NamedTuple

import timm
import torch
from drawn import patchify
from torch import Tensor, nn

from vlmkit.encoders.timm import Timm
from vlmkit.features import Grid

SMALLEST: dict[str, str] = json.loads((Path(__file__).parent / "timm_smallest.json").read_text())
"""The model with the fewest parameters of every file of timm/models that has one with `forward_intermediates`."""

REFUSED = ("crossvit", "inception_resnet_v2", "inception_v3", "inception_v4")
"""Those whose features stand on no whole stride of the image."""


def spec_of(family: str) -> Timm:
    """The smallest model of a file, at its last level. LeViT's halves 7x7 to 4x4: its level before."""
    return Timm(model=SMALLEST[family], layer=-2 if family == "levit" else -1)


def row(family: str, spec: Timm) -> str:
    """The line of docs/encoders.md about a family."""
    chosen = f"`{spec.model}`" + (f", layer={spec.layer}" if spec.layer != -1 else "")
    size = f"{spec.image_size} alone" if spec.positions == "fixed" else "any"
    return f"| {family} | {chosen} | {spec.patch} | {spec.width} | {size} |"


class Measured(NamedTuple):
    """Largest differences, as parts of the largest feature."""

    spec: Timm
    from_timm: float
    together: float
    trained: float
    refilled: float
    unread: int
    silent: tuple[str, ...]
    """Parameters whose gradient is zero throughout."""


def stir(module: nn.Module) -> nn.Module:
    """timm's own start, but nothing constant: zeros, ones and layer scales of 1e-6 would hide what depends on them."""
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in module.parameters():
            if parameter.numel() > 0 and parameter.min() == parameter.max():
                level = parameter.flatten()[0].item() if parameter.abs().max() > 0.01 else 0.0
                parameter.copy_(level + 0.1 * torch.randn(parameter.shape, generator=generator))
    return module.eval()


def grids_of(spec: Timm) -> tuple[Grid, Grid]:
    """Two sizes where the model takes several."""
    if spec.positions == "fixed":
        return spec.native_grid, spec.native_grid
    least = max(1, 64 // spec.patch)
    return Grid(1, least, least + 1), Grid(1, least + 2, least)


def images_of(grid: Grid, patch: int, seed: int) -> Tensor:
    return torch.randn(1, 3, grid.rows * patch, grid.columns * patch, generator=torch.Generator().manual_seed(seed))


def apart(one: Tensor, other: Tensor) -> float:
    return ((one - other).abs().max() / other.abs().max()).item()


def theirs(spec: Timm, weights: dict[str, Tensor], images: Tensor) -> Tensor:
    """timm's own model, whole, made without this library: (n, D) of one image."""
    size = {"img_size": spec.image_size} if spec.image_size != Timm(model=spec.model, layer=spec.layer).image_size else {}
    for options in ({"dynamic_img_size": True}, {"strict_img_size": False}, {}):
        try:
            whole: Any = timm.create_model(spec.model, num_classes=0, **options, **size)
            break
        except TypeError:
            continue
    _, unexpected = whole.load_state_dict(weights, strict=False)
    assert not unexpected
    output = "NLC" if spec.model.startswith("gemma4") else "NCHW"
    with torch.no_grad():
        *_, level = whole.eval().forward_intermediates(
            images, indices=[spec.depths[0] - 1], norm=spec.final_norm, output_fmt=output, intermediates_only=True
        )
    found: Tensor = level[0].flatten(1).T if level.ndim == 4 else level[0]
    return found


def measure(spec: Timm) -> Measured:
    torch.manual_seed(0)
    tower: Any = stir(spec.build())
    grids = grids_of(spec)
    images = [images_of(grid, spec.patch, number) for number, grid in enumerate(grids)]
    pieces = [patchify(image, spec.patch) for image in images]
    with torch.no_grad():
        alone = [tower(piece, (grid,)).tokens for piece, grid in zip(pieces, grids, strict=True)]
        together = tower(torch.cat(pieces), grids)
        training = tower.train()(pieces[0], grids[:1]).tokens
        tower.eval()
    assert together.grids == tuple(spec.grid_out(grid) for grid in grids)
    assert [len(each) for each in alone] == [grid.tokens for grid in together.grids]
    assert all(each.shape[1] == spec.dim_out for each in alone)
    weights = {name: value.clone() for name, value in tower.vit.state_dict().items()}
    from_timm = max(apart(mine, theirs(spec, weights, image)) for mine, image in zip(alone, images, strict=True))

    with torch.device("meta"):
        refilled = spec.build()
    refilled = refilled.to_empty(device="cpu").eval()
    for buffer in refilled.buffers():
        buffer.fill_(float("nan") if buffer.is_floating_point() else 0)
    refilled.load_state_dict(tower.state_dict())
    with torch.no_grad():
        again = refilled(pieces[0], grids[:1]).tokens

    tower.zero_grad()
    tower.train()(torch.cat(pieces), grids).tokens.square().mean().backward()
    unread = {id(parameter) for module in tower.unused() for parameter in module.parameters()}
    named = dict(tower.named_parameters())
    without = {name for name, parameter in named.items() if parameter.grad is None}
    assert without == {name for name, parameter in named.items() if id(parameter) in unread}, without
    silent = tuple(name for name, parameter in named.items() if parameter.grad is not None and not parameter.grad.abs().max() > 0)
    return Measured(
        spec,
        from_timm,
        max(apart(mine, own) for mine, own in zip(together.views(), alone, strict=True)),
        apart(training, alone[0]),
        apart(again, alone[0]),
        len(unread),
        silent,
    )
