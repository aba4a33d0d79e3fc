"""Towers that see one image: an image policy each, and the encoder of the views that it makes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from vlmkit.connectors.base import Connector
from vlmkit.encoders.base import Encoder
from vlmkit.features import Grid, GridError
from vlmkit.preprocess.geometry import ImagePlan
from vlmkit.preprocess.policies.base import ImagePolicy
from vlmkit.spec import Spec


@dataclass(frozen=True, kw_only=True)
class VisionTower(Spec):
    """One way to see: an image policy, and the encoder of the views that it makes."""

    policy: ImagePolicy
    encoder: Encoder


def replan(policy: ImagePolicy, plan: ImagePlan) -> ImagePlan:
    """What another policy does with the same picture, or with the same frames of a film."""
    return policy.plan_clip(plan.source, plan.times) if plan.times else policy.plan(plan.source)


def grids_out(towers: Sequence[VisionTower], connector: Connector, *grids: Sequence[Grid]) -> tuple[Grid, ...]:
    """The grid of every view behind the connector, for the grids of patches that each tower sees. Raises GridError where towers see
    different numbers of views, or parts do not fit."""
    if len({len(one) for one in grids}) > 1:
        counts = ", ".join(f"{len(one)} with {tower.policy.kind!r}" for one, tower in zip(grids, towers, strict=True))
        raise GridError(f"towers see different numbers of views of one image: {counts}; join towers whose policies cut alike")
    return tuple(
        connector.grid_out(*(tower.encoder.grid_out(grid) for tower, grid in zip(towers, views, strict=True)))
        for views in zip(*grids, strict=True)
    )
