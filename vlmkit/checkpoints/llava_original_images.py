"""How github.com/haotian-liu/LLaVA's `process_images` sees an image: `image_aspect_ratio` chooses, over the tower's own processor."""

from __future__ import annotations

import ast
from typing import Any

from vlmkit.checkpoints.image_processors import mean_colour
from vlmkit.checkpoints.one_view import image_policy
from vlmkit.encoders.base import Encoder
from vlmkit.layout.base import TokenLayout
from vlmkit.layout.bracketed import Bracketed
from vlmkit.layout.run import Run
from vlmkit.layout.unpadded_rows import UnpaddedRows
from vlmkit.preprocess.policies.anyres import AnyRes
from vlmkit.preprocess.policies.base import ImagePolicy
from vlmkit.preprocess.policies.center_crop import CenterCrop
from vlmkit.preprocess.policies.pad_square import MEAN_COLOUR, PadSquare
from vlmkit.spec import SpecError

RATIOS = ("square", "pad", "anyres")
"""As the tower's processor does; padded to a square; cut into tiles."""
MERGED: dict[type[TokenLayout], str] = {Run: "flat", Bracketed: "flat", UnpaddedRows: "spatial_unpad"}
MOST_POINTS = 1000


def policy_of(config: dict[str, Any], images: Any, encoder: Encoder) -> ImagePolicy:
    """images: transformers' image processor of the tower. Raises SpecError naming a field that no policy honours."""
    ratio = config.get("image_aspect_ratio") or "square"
    if ratio not in RATIOS:
        raise SpecError(f"config.json.image_aspect_ratio: {ratio!r} is not built; expected one of {', '.join(map(repr, RATIOS))}")
    policy = image_policy(images, encoder)
    if ratio == "square":
        return policy
    if not isinstance(policy, CenterCrop):
        raise SpecError(
            f"config.json.image_aspect_ratio: {ratio!r} is built over a tower's processor that cuts a square out of the middle, but this "
            f"one makes {policy}"
        )
    common: dict[str, Any] = {"size": policy.size, "view": policy.view, "resample": policy.resample}
    if ratio == "anyres":
        if policy.resample != "bicubic":
            raise SpecError(
                f"config.json.image_aspect_ratio: 'anyres' resizes with 'bicubic', the tower's processor with {policy.resample!r}"
            )
        return AnyRes(grids=grids_of(config, policy.size), **common)
    fill = mean_colour(images)
    return PadSquare(fill="mean" if fill == MEAN_COLOUR else fill, **common)


def grids_of(config: dict[str, Any], side: int) -> tuple[tuple[int, int], ...]:
    """`image_grid_pinpoints`, pairs of width and height in pixels, maybe spelled as Python -> rows and columns of tiles."""
    points = config.get("image_grid_pinpoints")
    if isinstance(points, str) and len(points) < 100 * MOST_POINTS:
        try:
            points = ast.literal_eval(points)
        except (ValueError, SyntaxError, RecursionError, MemoryError):
            points = None
    sound: list[Any] = list(points) if isinstance(points, list | tuple) and len(points) <= MOST_POINTS else []
    if not sound or not all(_is_whole(point, side) for point in sound):
        raise SpecError(
            f"config.json.image_grid_pinpoints: expected pairs of width and height that are multiples of the tile's {side} pixels, got "
            f"{config.get('image_grid_pinpoints')!r:.200}"
        )
    return tuple((height // side, width // side) for width, height in sound)


def _is_whole(point: Any, side: int) -> bool:
    numbers = isinstance(point, list | tuple) and len(point) == 2 and all(type(length) is int for length in point)
    return numbers and all(length > 0 and length % side == 0 for length in point)


def policy_fields(policy: ImagePolicy) -> dict[str, Any]:
    """The inverse of `policy_of`, of what the processor does not say."""
    if isinstance(policy, AnyRes):
        points = [[columns * policy.size, rows * policy.size] for rows, columns in policy.grids]
        return {"image_aspect_ratio": "anyres", "image_grid_pinpoints": points}
    return {"image_aspect_ratio": "pad" if isinstance(policy, PadSquare) else "square", "image_grid_pinpoints": None}


def merge_type(layout: TokenLayout) -> str:
    """`mm_patch_merge_type` of a layout. Raises SpecError for one that upstream does not have."""
    if type(layout) not in MERGED:
        raise SpecError(f"LlavaLlamaForCausalLM has layouts {', '.join(part.kind for part in MERGED)}, but this one is {layout.kind!r}")
    return MERGED[type(layout)]
