"""A vision-language model as a choice of six parts."""

from __future__ import annotations

import functools
from collections.abc import Iterator
from dataclasses import MISSING, dataclass, fields
from typing import Any, NamedTuple, Self

from vlmkit.connectors.base import Connector
from vlmkit.encoders.base import Encoder
from vlmkit.features import Grid, GridError
from vlmkit.fusion.base import Fusion
from vlmkit.language_model import LanguageModel
from vlmkit.layout.base import TokenLayout
from vlmkit.layout.pieces import ImageTokens
from vlmkit.preprocess.geometry import ImagePlan, ImageSizeError, Size
from vlmkit.preprocess.policies.base import ImagePolicy
from vlmkit.spec import Spec, SpecError

PROBES = (Size(480, 640), Size(640, 480), Size(336, 336), Size(60, 500), Size(3000, 2000))
"""Sizes on which a combination of parts is tried out before anything is built."""


class ArchitectureError(SpecError):
    """Parts that do not fit together; every problem in one message."""


class Parameters(NamedTuple):
    """Numbers of parameters. A weight that is tied counts once."""

    encoder: int
    connector: int
    fusion: int
    language_model: int

    @property
    def total(self) -> int:
        return sum(self)


@dataclass(frozen=True, kw_only=True)
class Architecture(Spec):
    """Six parts, in the order in which an image travels."""

    name: str
    policy: ImagePolicy
    encoder: Encoder
    connector: Connector
    layout: TokenLayout
    fusion: Fusion
    language_model: LanguageModel

    def replace(self, **changes: Any) -> Self:
        """A copy with some parts exchanged: `replace(connector=vlmkit.connectors["mlp"](depth=3))`, or a part by its
        name where its defaults will do: `replace(connector="mlp")`, or as `to_dict` writes it."""
        for name, value in changes.items():
            family = _FAMILIES.get(name)
            if family is not None and isinstance(value, dict):
                changes[name] = family.from_dict(value, name)
            elif family is not None and family.registry is not None and isinstance(value, str):
                changes[name] = _by_defaults(family.registry[value])
        return super().replace(**changes)

    def plan(self, size: Size) -> ImagePlan:
        """How an image of this size is cut into views. Raises ImageSizeError for a size that the policy cannot serve."""
        if not isinstance(size, Size):
            raise ImageSizeError(f"expected a size such as vlmkit.Size(height=480, width=640), got {size!r}")
        return self.policy.plan(size)

    def image_tokens(self, plan: ImagePlan) -> ImageTokens:
        """The grid of every view as the language model receives it. Raises GridError where parts do not fit."""
        return ImageTokens(plan, tuple(self._grid_out(grid) for grid in plan.grids(self.encoder.patch_size)))

    def tokens(self, size: Size) -> int:
        """Visual tokens of one image of this size that the language model receives: 234 for 480x640 under univa-vl. Learned
        embeddings among them count, and those that the layout leaves out do not."""
        return self.layout.places(self.image_tokens(self.plan(size)))

    def problems(self) -> list[str]:
        """Everything that keeps the parts from working together, in words; empty where they fit. Needs no weights."""
        return list(dict.fromkeys(self._problems()))

    def validate(self) -> Self:
        """This architecture. Raises ArchitectureError with every problem where its parts do not fit."""
        if problems := self.problems():
            raise ArchitectureError(f"{self.name}: " + "\n".join(problems))
        return self

    def parameters(self) -> Parameters:
        """Parameter counts, taken on the meta device: nothing is allocated."""
        return _parameters(self)

    def _grid_out(self, grid: Grid) -> Grid:
        return self.connector.grid_out(self.encoder.grid_out(grid))

    def _problems(self) -> Iterator[str]:
        patch, merge = self.encoder.patch_size, self.connector.merge
        unaligned = self.policy.problems(patch * merge)
        for problem in unaligned:
            yield f"{problem} (patch {patch} of encoder {self.encoder.kind!r}, merge {merge} of connector {self.connector.kind!r})"
        try:
            yield from self.connector.problems(self.encoder.dim_out, self.language_model.dim)
        except SpecError as error:
            yield str(error)
        if not unaligned:
            yield from self._probe(patch)

    def _probe(self, patch: int) -> Iterator[str]:
        for size in PROBES:
            try:
                plan = self.policy.plan(size)
            except ImageSizeError:
                continue
            for view in dict.fromkeys(plan.views):
                try:
                    self._grid_out(view.grid(patch))
                except GridError as error:
                    yield (
                        f"policy {self.policy.kind!r} cuts views of {view} pixels (height x width), with encoder {self.encoder.kind!r} "
                        f"(patch {patch}) and connector {self.connector.kind!r}: {error}"
                    )


def _by_defaults(part: type[Spec]) -> Spec:
    required = [field.name for field in fields(part) if field.default is MISSING and field.default_factory is MISSING]
    if required:
        family = part.registry.family if part.registry is not None else "part"
        raise SpecError(f"{family} {part.kind!r} has no default for {', '.join(required)}; pass the spec instead of its name")
    return part()


_FAMILIES: dict[str, type[Spec]] = {
    "policy": ImagePolicy,
    "encoder": Encoder,
    "connector": Connector,
    "layout": TokenLayout,
    "fusion": Fusion,
    "language_model": LanguageModel,
}


@functools.lru_cache(maxsize=64)
def _parameters(architecture: Architecture) -> Parameters:
    import torch

    from vlmkit.config import VLMConfig
    from vlmkit.model import VLM

    with torch.device("meta"):
        model = VLM(VLMConfig(architecture=architecture.to_dict()))
    encoder, connector, learned, fusion, language_model = (
        sum(parameter.numel() for parameter in part.parameters())
        for part in (model.encoder, model.connector, model.learned, model.fusion, model.language_model)
    )
    return Parameters(encoder, connector + learned, fusion, language_model)
