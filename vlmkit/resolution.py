"""A model at another size of its square images, with the weights that it has: PaliGemma is trained at 224, then 448, then 896 pixels
(Beyer et al. 2024, arXiv:2407.07726, section 3.2)."""

from __future__ import annotations

import math
from dataclasses import replace

from torch import Tensor

from vlmkit.architecture import Architecture
from vlmkit.encoders.base import ViT
from vlmkit.encoders.positions import resample
from vlmkit.preprocess.policies.base import SquarePolicy
from vlmkit.spec import SpecError
from vlmkit.weight_source import WeightSource, values_of


def at_resolution(architecture: Architecture, size: int) -> Architecture:
    """The same parts over images of size x size pixels, the tower's table of positions as large as they are.

    Raises SpecError where the policy makes no squares of one size or the tower has no table, ArchitectureError where parts do not fit.
    """
    policy, encoder = architecture.policy, architecture.encoder
    if not isinstance(policy, SquarePolicy) or policy.view is not None:
        raise SpecError(
            f"policy {policy.kind!r} makes no squares of one size, so there is none to change to {size}; choose one such as 'squash'"
        )
    if not isinstance(encoder, ViT):
        raise SpecError(f"encoder {encoder.kind!r} has no table of positions of one size; its images need no other model at {size} pixels")
    changed = architecture.replace(policy=replace(policy, size=size), encoder=replace(encoder, image_size=size))
    return changed.replace(name=architecture.name).validate()


class Resampled:
    """The weights of a model for the same model at another resolution: tables of positions are resampled (bicubic with antialias, as timm
    does it), all else is as it was."""

    def __init__(self, weights: WeightSource, before: Architecture, after: Architecture, shapes: dict[str, tuple[int, ...]]) -> None:
        """shapes: of the parameters of the model afterwards. Raises SpecError for another difference than a table's length."""
        assert isinstance(before.encoder, ViT), "at_resolution has looked"
        assert isinstance(after.encoder, ViT), "at_resolution has looked"
        self._weights, self._native, self._grid = weights, before.encoder.native_grid, after.encoder.native_grid
        self._tables = {name: shapes[name] for name in weights.names() if name in shapes and weights.shape(name) != shapes[name]}
        for name, shape in self._tables.items():
            entries, wanted = math.prod(weights.shape(name)[:-1]), math.prod(shape[:-1])
            prefix = entries - self._native.tokens
            if not name.startswith("encoder.") or prefix < 0 or wanted != prefix + self._grid.tokens:
                raise SpecError(
                    f"{name} is {weights.shape(name)} before and {shape} at the other resolution, which is no table of positions"
                )

    def names(self) -> tuple[str, ...]:
        return self._weights.names()

    def shape(self, name: str) -> tuple[int, ...]:
        return self._tables.get(name) or self._weights.shape(name)

    def read(self, name: str, start: int, length: int) -> Tensor:
        if name not in self._tables:
            return self._weights.read(name, start, length)
        table = values_of(self._weights, name).flatten(0, -2)
        native = replace(self._native, prefix=len(table) - self._native.tokens)
        return resample(table, native, self._grid, "bicubic_antialias").reshape(-1)[start : start + length]
