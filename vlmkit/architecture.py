"""A vision-language model as a choice of six parts."""

from __future__ import annotations

import dataclasses
import functools
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple, Self

from vlmkit.connectors.base import Connector
from vlmkit.encoders.base import Encoder
from vlmkit.exchange import followed
from vlmkit.exchange import problems as problems_of_words
from vlmkit.features import Grid
from vlmkit.fit import problems_of_sight
from vlmkit.fusion.base import Fusion
from vlmkit.language_model import LanguageModel
from vlmkit.layout.base import TokenLayout
from vlmkit.layout.pieces import ImageTokens
from vlmkit.preprocess.geometry import Clip, ImagePlan, ImageSizeError, Size
from vlmkit.preprocess.policies.base import ImagePolicy
from vlmkit.preprocess.sampling import Sampling
from vlmkit.spec import Spec, SpecError
from vlmkit.towers import VisionTower as VisionTower
from vlmkit.towers import grids_out
from vlmkit.towers import replan as replan
from vlmkit.written import read_part

if TYPE_CHECKING:
    from torch import nn


class ArchitectureError(SpecError):
    """Parts that do not fit together; every problem in one message."""


class Parameters(NamedTuple):
    """Numbers of parameters. A weight that is tied counts once; a layout's learned embeddings are the fusion's."""

    encoder: int
    connector: int
    fusion: int
    language_model: int

    @property
    def total(self) -> int:
        return sum(self)


PARTS = Parameters._fields
"""Every parameter of a model belongs to exactly one of these; a stage of training gives each a learning rate, or freezes it."""


@dataclass(frozen=True, kw_only=True)
class Architecture(Spec):
    """Six parts, in the order in which an image travels, and further towers where one is not enough."""

    name: str
    policy: ImagePolicy
    encoder: Encoder
    connector: Connector
    layout: TokenLayout
    fusion: Fusion
    language_model: LanguageModel
    beside: tuple[VisionTower, ...] = ()
    """Towers that see each image beside the first one, which `policy` and `encoder` are; the connector joins them."""
    sampling: Sampling | None = None
    """Which frames of a film are shown, where nobody says it of the film; None: Sampling()."""

    later: ClassVar[frozenset[str]] = frozenset({"beside", "sampling"})

    @functools.cached_property
    def towers(self) -> tuple[VisionTower, ...]:
        """All towers, the first one first."""
        return (VisionTower(policy=self.policy, encoder=self.encoder), *self.beside)

    @functools.cached_property
    def pixel_sets(self) -> tuple[int, ...]:
        """For each tower the number of the pixels that it reads: those with the same patches of the same views share theirs."""
        cuts = [(tower.policy, tower.encoder.patch_size, tower.encoder.patch_frames, tower.encoder.clips) for tower in self.towers]
        distinct = list(dict.fromkeys(cuts))
        return tuple(distinct.index(cut) for cut in cuts)

    @functools.cached_property
    def cutters(self) -> tuple[VisionTower, ...]:
        """For each set of pixels the first tower that reads it."""
        return tuple(self.towers[self.pixel_sets.index(number)] for number in range(max(self.pixel_sets) + 1))

    def cuts(self, plan: ImagePlan) -> tuple[tuple[VisionTower, ImagePlan], ...]:
        """Each set of pixels: the tower that cuts it, and its plan, for a plan of the first tower's policy."""
        first, *beside = self.cutters
        return ((first, plan), *((tower, replan(tower.policy, plan)) for tower in beside))

    def kinds(self) -> dict[str, str]:
        """The kind of every part, in the order in which an image travels; of several towers 'squash+letterbox', a policy that all of
        them have once."""
        policies = dict.fromkeys(tower.policy for tower in self.towers)
        return {
            "policy": "+".join(policy.kind for policy in policies),
            "encoder": "+".join(tower.encoder.kind for tower in self.towers),
            "connector": self.connector.kind,
            "layout": self.layout.kind,
            "fusion": self.fusion.kind,
            "language model": self.language_model.model_type,
        }

    @functools.cached_property
    def blank_views(self) -> tuple[tuple[Grid, int], ...]:
        """For each tower the grid of the smallest view that it takes, and how many values a patch of it has."""
        return tuple((tower.encoder.smallest(self.connector.merge), tower.encoder.values) for tower in self.towers)

    def replace(self, **changes: Any) -> Self:
        """A copy with some parts exchanged: `replace(connector=vlmkit.connectors["mlp"](depth=3))`, or a part as
        command lines write it, `replace(connector="mlp:depth=3")`, `replace(encoder="timm:model=vit_base_patch16_siglip_224")`, or as
        `to_dict` does.

        A language model also by its directory or hub name: `replace(language_model="a/directory")`. The layout follows the tokenizer of
        one that can be read here, unless `layout` is given: its turns, and the special tokens around an image (`vlmkit.exchange`).
        Raises SpecError for a language model that cannot be read.
        """
        for name, value in changes.items():
            family = _FAMILIES.get(name)
            if name == "language_model" and isinstance(value, str | os.PathLike):
                changes[name] = LanguageModel.from_pretrained(value)
            elif family is not None and isinstance(value, dict):
                changes[name] = family.from_dict(value, name)
            elif name == "sampling" and isinstance(value, dict):
                changes[name] = Sampling.from_dict(value, name)
            elif name == "beside":
                changes[name] = tuple(
                    VisionTower.from_dict(tower, f"beside[{number}]") if isinstance(tower, dict) else tower
                    for number, tower in enumerate(value)
                )
            elif family is not None and family.registry is not None and isinstance(value, str):
                changes[name] = read_part(family, value, name)
        changed = super().replace(**changes)
        words = changed.language_model
        if "layout" in changes or not words.is_here or words.named_tokenizer == self.language_model.named_tokenizer:
            return changed
        return dataclasses.replace(changed, layout=followed(changed.layout, words))

    def plan(self, size: Size) -> ImagePlan:
        """How an image of this size is cut into views. Raises ImageSizeError for a size that the policy cannot serve."""
        if not isinstance(size, Size):
            raise ImageSizeError(f"expected a size such as vlmkit.Size(height=480, width=640), got {size!r}")
        return self.policy.plan(size)

    def plan_clip(self, clip: Clip, sampling: Sampling | None = None) -> ImagePlan:
        """How a film is shown: which frames, and how each is cut into views. Raises ImageSizeError for a size that the policy cannot
        serve."""
        if not isinstance(clip, Clip):
            raise ImageSizeError(f"expected a clip such as vlmkit.Clip(seconds=20, fps=30, size=vlmkit.Size(1080, 1920)), got {clip!r}")
        return self.policy.plan_clip(clip.size, (sampling or self.sampling or Sampling()).times(clip.frames, clip.fps))

    def cut(self, plan: ImagePlan, tower: VisionTower) -> tuple[Grid, ...]:
        """The grids of patches that a tower sees under a plan of its policy."""
        encoder = tower.encoder
        return plan.grids(encoder.patch_size, encoder.patch_frames, encoder.clips, self.connector.least_frames)

    def image_tokens(self, plan: ImagePlan) -> ImageTokens:
        """The grid of every view as the language model receives it, for a plan of the first tower's policy. Raises GridError where
        parts do not fit."""
        plans = (plan, *(replan(tower.policy, plan) for tower in self.beside))
        for one, tower in zip(plans, self.towers, strict=True):
            tower.encoder.check_tiles(one)
        grids = (self.cut(one, tower) for one, tower in zip(plans, self.towers, strict=True))
        return ImageTokens(plan, self.grids_out(*grids), seconds=plan.times)

    def grids_out(self, *grids: Sequence[Grid]) -> tuple[Grid, ...]:
        """The grid of every view behind the connector, for the grids of patches that each tower sees. Raises GridError where towers see
        different numbers of views, or parts do not fit."""
        return grids_out(self.towers, self.connector, *grids)

    def tokens(self, size: Size | None = None, *, clip: Clip | None = None) -> int:
        """Visual tokens of one image of this size, or of one film, that the language model receives, or looks at: 234 for 480x640
        under univa-vl. Learned embeddings among them count, and those that the layout leaves out do not; tokens that are left out for
        what their pixels show do, for no pixels are known."""
        if clip is None:
            return self.layout.places(self.image_tokens(self.plan(size)))  # type: ignore[arg-type]
        if size is not None:
            raise ImageSizeError(f"tokens of an image of {size} or of a clip, not of both")
        return self.layout.places(self.image_tokens(self.plan_clip(clip)))

    def problems(self, *, words: bool = True) -> list[str]:
        """Everything that keeps the parts from working together, in words; empty where they fit. Needs no weights.

        A language model that lies here is looked at too, and where `words` its tokenizer; one that only a hub has is not looked up.
        """
        of_sight = problems_of_sight(self.towers, self.connector, self.fusion, self.layout, self.language_model)
        return list(dict.fromkeys((*of_sight, *self._problems_of_language(words))))

    def validate(self, *, words: bool = True) -> Self:
        """This architecture. Raises ArchitectureError with every one of its `problems` where it has any."""
        if problems := self.problems(words=words):
            raise ArchitectureError(f"{self.name}: " + "\n".join(problems))
        return self

    def parameters(self) -> Parameters:
        """Parameter counts, taken on the meta device: nothing is allocated."""
        return _parameters(self)

    def build_connector(self) -> nn.Module:
        """The connector between the towers' widths and the language model's, with random weights. Raises SpecError."""
        widths = tuple(tower.encoder.dim_out for tower in self.towers)
        return self.connector.build(widths[0] if self.connector.towers == 1 else widths, self.fusion.dim_visual(self.language_model.dim))

    def _problems_of_language(self, words: bool) -> Iterator[str]:
        language_model = self.language_model
        if not language_model.is_here:
            return
        found = list(language_model.problems())
        yield from found
        if self.fusion.needs_visible and not found:  # the only fusions that put layers between those of the language model
            try:
                _parameters(self)
            except SpecError as error:
                yield str(error)
        if words:
            yield from problems_of_words(self.layout, language_model)


_FAMILIES: dict[str, type[Spec]] = {
    "policy": ImagePolicy,
    "encoder": Encoder,
    "connector": Connector,
    "layout": TokenLayout,
    "fusion": Fusion,
    "language_model": LanguageModel,
}


@functools.lru_cache(maxsize=256)
def _parameters(architecture: Architecture) -> Parameters:
    import torch

    language_model = architecture.language_model
    with torch.device("meta"):
        towers = [tower.encoder.build() for tower in architecture.towers]
        connector = architecture.build_connector()
        model = language_model.build(language_model.transformers_config())
        fusion = architecture.fusion.build(model, architecture.layout)
    return Parameters(
        sum(map(_count, towers)),
        _count(connector),
        _count(fusion),
        _count(model),
    )


def _count(module: nn.Module) -> int:
    """A weight that is tied counts once."""
    return sum(parameter.numel() for parameter in module.parameters())
