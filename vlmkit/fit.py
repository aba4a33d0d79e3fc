"""Whether parts fit together, in words, before anything is built: towers, connector, fusion and layout."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from vlmkit.connectors.base import Connector
from vlmkit.features import GridError
from vlmkit.fusion.base import Fusion
from vlmkit.language_model import LanguageModel
from vlmkit.layout.base import TokenLayout
from vlmkit.preprocess.geometry import ImageSizeError, Size
from vlmkit.spec import SpecError
from vlmkit.towers import VisionTower, grids_out

PROBES = (Size(480, 640), Size(640, 480), Size(336, 336), Size(60, 500), Size(3000, 2000))
"""Sizes on which a combination of parts is tried out before anything is built."""


def problems_of_sight(
    towers: Sequence[VisionTower], connector: Connector, fusion: Fusion, layout: TokenLayout, language_model: LanguageModel
) -> Iterator[str]:
    """Everything that keeps these parts from working together; of the language model only its width counts."""
    wanted = connector.towers
    if wanted is not None and wanted != len(towers):
        yield (
            f"connector {connector.kind!r} takes the features of {wanted} tower(s), but the architecture has {len(towers)} "
            f"({', '.join(tower.encoder.kind for tower in towers)}); use 'joined' around it, or {wanted} tower(s)"
        )
        return
    merge = connector.merge
    unaligned = []
    for tower in towers:
        patch = tower.encoder.patch_size
        for problem in tower.policy.problems(patch * merge):
            unaligned.append(problem)
            yield f"{problem} (patch {patch} of encoder {tower.encoder.kind!r}, merge {merge} of connector {connector.kind!r})"
    widths = tuple(tower.encoder.dim_out for tower in towers)
    try:
        yield from connector.problems(widths[0] if wanted == 1 else widths, fusion.dim_visual(language_model.dim))
    except SpecError as error:
        yield str(error)
    yield from fusion.problems(layout)
    if not unaligned:
        yield from _probe(towers, connector)


def _probe(towers: Sequence[VisionTower], connector: Connector) -> Iterator[str]:
    for size in PROBES:
        try:
            plans = [tower.policy.plan(size) for tower in towers]
        except ImageSizeError:
            continue
        if len({len(plan.views) for plan in plans}) > 1:
            counts = ", ".join(f"{len(plan.views)} ({tower.policy.kind})" for plan, tower in zip(plans, towers, strict=True))
            yield f"towers see different numbers of views of an image of {size}: {counts}; join towers whose policies cut alike"
            return
        fits = True
        for views in dict.fromkeys(zip(*(plan.views for plan in plans), strict=True)):
            try:
                grids_out(towers, connector, *([view.grid(tower.encoder.patch_size)] for view, tower in zip(views, towers, strict=True)))
            except GridError as error:
                for view, tower in zip(views, towers, strict=True):
                    yield (
                        f"policy {tower.policy.kind!r} cuts views of {view} pixels (height x width), with encoder "
                        f"{tower.encoder.kind!r} (patch {tower.encoder.patch_size}) and connector {connector.kind!r}: {error}"
                    )
                fits = False
        for plan, tower in zip(plans if fits else (), towers, strict=fits):
            try:
                tower.encoder.check_tiles(plan)
            except GridError as error:
                yield (
                    f"policy {tower.policy.kind!r} cuts an image of {size} into {len(plan.views)} views, with encoder "
                    f"{tower.encoder.kind!r} and connector {connector.kind!r}: {error}"
                )
