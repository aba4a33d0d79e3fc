"""`vlmkit show --steps`: how a photo is resized, placed and cut into views by the image policy of a model.

Sizes are width x height, grids columns x rows, corners left, top. Of a photo only the header is read.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import asdict
from itertools import groupby
from typing import Any

from vlmkit.architecture import Architecture, VisionTower
from vlmkit.commands.photo import across
from vlmkit.commands.terminal import say
from vlmkit.commands.tokens import grid_across, grid_json
from vlmkit.layout.pieces import ImageTokens
from vlmkit.preprocess.geometry import ImagePlan, Render, Size


def print_steps(model: Architecture, name: str, size: Size, as_json: bool) -> None:
    """The steps of an image of this size, in words or as JSON. Raises ImageSizeError for a size that the policy cannot serve."""
    tokens = model.image_tokens(model.plan(size))
    if as_json:
        first, *beside = [_as_json(*cut) for cut in model.cuts(tokens.plan)]
        found = first | {
            "token_grids": [grid_json(grid) for grid in tokens.grids],
            "visual_tokens": model.layout.places(tokens),
        }
        say(json.dumps(found | {"beside": beside} if beside else found, indent=2))
    else:
        title = name if name == across(size) else f"{name}, {across(size)}"
        say(f"{title}, under {model.name} (policy {model.kinds()['policy']})")
        say("\n".join(_lines(model, tokens)))


def _as_json(tower: VisionTower, plan: ImagePlan) -> dict[str, Any]:
    patch = tower.encoder.patch_size
    return asdict(plan) | {"patch": patch, "patch_grids": [grid_json(grid) for grid in plan.grids(patch)]}


def _lines(model: Architecture, tokens: ImageTokens) -> Iterator[str]:
    cuts = model.cuts(tokens.plan)
    for number, (tower, plan) in enumerate(cuts):
        if len(cuts) > 1:
            of = zip(model.towers, model.pixel_sets, strict=True)
            yield f"for {' and '.join(other.encoder.kind for other, pixels in of if pixels == number)} (policy {tower.policy.kind})"
        yield from _steps(tower, plan, tokens)
    yield f"{model.layout.places(tokens):,} visual tokens"


def _steps(tower: VisionTower, plan: ImagePlan, tokens: ImageTokens) -> Iterator[str]:
    policy = tower.policy
    views = iter(zip(plan.grids(tower.encoder.patch_size), tokens.grids, strict=True))
    number = 0
    for render in plan.renders:
        frame = render.frame
        if frame is not None:
            yield f"take {across(frame.size)} from {frame.left}, {frame.top} of the image, filled with RGB {_rgb(render)} beyond it"
        # Two sizes that are the same are no step: policies round to what a picture has already.
        sizes = [size for size, _ in groupby((frame.size if frame else plan.source, *render.via, render.resize))]
        for step in sizes[1:-1]:
            yield f"resize to {across(step)} first"
        if len(sizes) > 1:
            yield f"resize to {across(render.resize)} ({policy.resample}{', antialias' if policy.antialias else ''})"
        elif frame is None:
            yield f"leave it at {across(plan.source)}"
        if render.canvas != render.resize or render.top or render.left:
            yield f"  place at {render.left}, {render.top} of a canvas of {across(render.canvas)} filled with RGB {_rgb(render)}"
        for tile in render.tiles:
            number += 1
            patches, merged = next(views)
            yield (
                f"  view {number}: {across(tile.size)} at {tile.left}, {tile.top} -> "
                f"{grid_across(patches)} patches -> {grid_across(merged)} = {merged.tokens} tokens"
            )


def _rgb(render: Render) -> str:
    return ", ".join(map(str, render.fill))
