"""Carrying out a plan: resample, place on a canvas, cut views, cut patches. Pixels stay uint8 to the end."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from functools import lru_cache
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.nn.functional import interpolate

from vlmkit.features import Grid
from vlmkit.preprocess.geometry import Box, ImagePlan, Render, Size
from vlmkit.preprocess.policies.base import Resample

MAX_PADDED = 1 << 26
"""Pixels that an image may be padded to at once before it is resampled: 200 MB."""

Made = dict[tuple[Box | None, tuple[int, int, int], tuple[Size, ...]], Tensor]
"""Pictures of one plan, by frame, fill and the sizes they went through."""


def render(
    image: Any,
    plan: ImagePlan,
    *,
    patch: int,
    patch_frames: int = 1,
    resample: Resample = "bicubic",
    antialias: bool = True,
    mean: tuple[float, float, float] | None = None,
    std: tuple[float, float, float] | None = None,
    out: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """Patches (N, 3*t*p*p) and grids (V, 3) of the views of a picture's plan, in its order.

    image: a PIL image of mode RGB, or (H, W, 3) uint8 as an array or tensor. A patch is laid out (channel, frame, row, column), the
    picture repeated where an encoder's patches have t = `patch_frames` frames; patches of a view in raster order, uint8; with `mean`
    and `std` they are float32, (value / 255 - mean) / std. A grid is (frames, rows, columns). out: where uint8 patches are written,
    (N, 3*t*p*p) in one piece. Raises ValueError where the image is not the size that was planned for, and GridError where a view is
    not a whole number of patches.
    """
    if plan.times:
        raise ValueError(f"the plan is for a film of {plan.frames} frame(s), render its frames with render_clip")
    grids = plan.grids(patch)
    patches, cells = _room(grids, patch, patch_frames, out)
    _draw(image, plan, patch, resample, antialias, _split(cells[:, :, 0], grids))
    if patch_frames > 1:
        cells[:, :, 1:] = cells[:, :, :1]
    return _normalised(patches, mean, std), grid_tensor(grids)


def render_clip(
    frames: Iterable[Any],
    plan: ImagePlan,
    *,
    patch: int,
    patch_frames: int = 1,
    clips: bool = False,
    least_frames: int = 1,
    resample: Resample = "bicubic",
    antialias: bool = True,
    mean: tuple[float, float, float] | None = None,
    std: tuple[float, float, float] | None = None,
    out: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """Patches (N, 3*t*p*p) and grids (V, 3) of the views of a film's plan, in its order; see `render` for what is the same.

    frames: the shown frames, each as `render` takes a picture, one after the other and never more than one of them at once.

    clips: the encoder sees a view as one film. Frames 0 to t - 1 make the first patches of the view, frames t to 2t - 1 the next; the last
    frame is repeated to fill the last patch, and up to `least_frames` further ones. Patches of a view are in the order (group of frames,
    row, column). Otherwise every frame is a picture for itself: the views of the first, then those of the second. Raises ValueError where
    there are more or fewer frames than planned.
    """
    if not plan.times:
        raise ValueError("the plan is for a picture, render it with render")
    grids = plan.grids(patch, patch_frames, clips, least_frames)
    patches, cells = _room(grids, patch, patch_frames, out)
    # By view, group of frames and patch, or by group and patch alone where a group is one frame with all its views.
    groups = grids[0].frames if clips else plan.frames
    parts = _split(cells, grids) if clips else (cells,)
    blocks = [part.view(groups, -1, *part.shape[1:]) for part in parts]
    deep = patch_frames if clips else 1
    number = -1
    for number, frame in enumerate(frames):
        if number == plan.frames:
            raise ValueError(f"the plan is for {plan.frames} frame(s) of a film, but there are more")
        slots = [block[number // deep, :, :, number % deep] for block in blocks]
        _draw(frame, plan, patch, resample, antialias, slots if clips else _split(slots[0], grids[: len(grids) // plan.frames]))
    if number + 1 < plan.frames:
        raise ValueError(f"the plan is for {plan.frames} frames of a film, but there are {number + 1}")
    for block in blocks:
        if clips:
            last = block[number // deep, :, :, number % deep]
            for copy in range(number + 1, groups * deep):
                block[copy // deep, :, :, copy % deep] = last
        else:
            block[:, :, :, 1:] = block[:, :, :, :1]
    return _normalised(patches, mean, std), grid_tensor(grids)


def _room(grids: tuple[Grid, ...], patch: int, patch_frames: int, out: Tensor | None) -> tuple[Tensor, Tensor]:
    """Where patches are written, (N, 3*t*p*p), and the same memory as (N, 3, t, p*p)."""
    shape = (sum(grid.tokens for grid in grids), 3 * patch_frames * patch * patch)
    patches = torch.empty(shape, dtype=torch.uint8) if out is None else out
    return patches, patches.view(shape[0], 3, patch_frames, patch * patch)


def _split(cells: Tensor, grids: tuple[Grid, ...]) -> tuple[Tensor, ...]:
    """(N, ...) -> that of each view."""
    return torch.split(cells, [grid.tokens for grid in grids])


def _draw(image: Any, plan: ImagePlan, patch: int, resample: Resample, antialias: bool, slots: Sequence[Tensor]) -> None:
    """Carry out all renders of one picture, the patches of each view into its slot (rows * columns, 3, p*p)."""
    pixels = _pixels(image)
    size = Size(*pixels.shape[:2])
    if size != plan.source:
        raise ValueError(
            f"the plan is for an image of {plan.source}, but the image is {size} (height x width); plan with the image's own size"
        )
    following = iter(slots)
    made: Made = {}
    for part in plan.renders:
        picture = _resample(pixels, part, resample, antialias, made)
        canvas = _place(picture, part.canvas, part.top, part.left, part.fill)
        for tile, size in zip(part.tiles, part.views, strict=True):
            if min(tile.top, tile.left) < 0 or tile.top + tile.height > part.canvas.height or tile.left + tile.width > part.canvas.width:
                raise ValueError(f"{tile} reaches beyond its canvas of {part.canvas}")
            view = canvas[tile.top : tile.top + tile.height, tile.left : tile.left + tile.width]
            if size != tile.size:
                view = _resize(view.contiguous(), size, resample, antialias)
            patchify(view, patch, out=next(following))


def _normalised(patches: Tensor, mean: tuple[float, ...] | None, std: tuple[float, ...] | None) -> Tensor:
    if mean is None and std is None:
        return patches
    if mean is None or std is None:
        raise ValueError(f"mean and std come together, got mean={mean} and std={std}")
    shift, scale = _affine(tuple(mean), tuple(std), patches.shape[1] // 3)
    return torch.addcmul(shift, patches.float(), scale)


def grid_tensor(grids: tuple[Grid, ...]) -> Tensor:
    """(V, 3) of frames, rows, columns."""
    return torch.tensor([(grid.frames, grid.rows, grid.columns) for grid in grids], dtype=torch.int64).view(-1, 3)


def patchify(view: Tensor, patch: int, out: Tensor | None = None) -> Tensor:
    """(rows * p, columns * p, 3) -> (rows * columns, 3*p*p), each (channel, row, column); the inverse of `unpatchify`.

    out: where it is written, of that shape in one piece, or (rows * columns, 3, p*p), which may be a part of larger patches.
    """
    height, width, channels = view.shape
    rows, columns = height // patch, width // patch
    if out is None:
        out = view.new_empty(rows * columns, channels * patch * patch)
    # By numpy, in half the time that torch takes over bytes: first a patch's pixels side by side, a line of them as one item,
    # then its channels.
    lines = view.numpy()
    if not lines[0].flags.c_contiguous:
        lines = np.ascontiguousarray(lines)
    item = lines.itemsize * channels * patch
    cells = lines.reshape(height, width * channels).view(f"V{item}").reshape(rows, patch, columns)
    pixels = np.ascontiguousarray(cells.swapaxes(1, 2)).view(lines.dtype).reshape(rows * columns, patch * patch, channels)
    np.copyto(out.numpy().reshape(rows * columns, channels, patch * patch), pixels.swapaxes(1, 2))
    return out


def _pixels(image: Any) -> Tensor:
    """(H, W, 3) uint8 without a copy, except from PIL and from arrays that are read-only or not contiguous."""
    if isinstance(image, Image.Image):
        if image.mode != "RGB":
            raise ValueError(f"expected an image of mode RGB, got {image.mode}; open it with open_image")
        image = np.array(image)
    if isinstance(image, np.ndarray):
        if image.dtype == np.uint8:
            image = torch.from_numpy(np.require(image, requirements=("C", "W")))
        else:
            raise ValueError(f"expected pixels of type uint8, got {image.dtype}; open them with open_image")
    if not isinstance(image, Tensor) or image.dtype != torch.uint8 or image.ndim != 3 or image.shape[2] != 3:
        got = f"{tuple(image.shape)} of {image.dtype}" if isinstance(image, Tensor) else type(image).__name__
        raise ValueError(f"expected a PIL image or (H, W, 3) uint8 pixels, got {got}; open it with open_image")
    return image


def _resize(pixels: Tensor, size: Size, resample: Resample, antialias: bool) -> Tensor:
    """(H, W, 3) -> (size.height, size.width, 3).

    nearest takes the pixel under the centre, as PIL does, and the later one where the centre lies between two. bicubic is
    Keys' with a = -0.5 with antialias (PIL) and -0.75 without (torch).
    """
    height, width = pixels.shape[:2]
    if (height, width) == (size.height, size.width):
        return pixels
    if resample == "lanczos":
        if not antialias:
            raise ValueError("resample 'lanczos' exists with antialias only; set antialias=True or take 'bicubic'")
        picture = Image.fromarray(pixels.numpy()).resize((size.width, size.height), Image.Resampling.LANCZOS)
        return torch.from_numpy(np.array(picture))
    if resample == "nearest":
        rows = (2 * torch.arange(size.height) + 1) * height // (2 * size.height)
        columns = (2 * torch.arange(size.width) + 1) * width // (2 * size.width)
        return pixels[rows[:, None], columns]
    # A view, channels last in memory: torch has a fast kernel for it. Its batch stride must be that of a full image, or
    # torch takes the single image for a contiguous one, and returns it so.
    planes = pixels.permute(2, 0, 1)[None]
    planes = planes.as_strided(planes.shape, (planes.numel(), *planes.stride()[1:]))
    resized: Tensor = interpolate(planes, size=(size.height, size.width), mode=resample, antialias=antialias)
    return resized[0].permute(1, 2, 0)


def _resample(pixels: Tensor, part: Render, resample: Resample, antialias: bool, made: Made) -> Tensor:
    """The frame after every resize of `part`. `made` keeps what earlier renders of the plan went through."""
    sizes = (*part.via, part.resize)
    picture = pixels
    for step, size in enumerate(sizes):
        key = (part.frame, part.fill, sizes[: step + 1])
        if key not in made:
            if step == 0 and part.frame is not None:
                made[key] = _resize_frame(pixels, part.frame, part.fill, size, resample, antialias)
            else:
                made[key] = _resize(picture, size, resample, antialias)
        picture = made[key]
    return picture


def _resize_frame(pixels: Tensor, frame: Box, fill: tuple[int, int, int], size: Size, resample: Resample, antialias: bool) -> Tensor:
    """A box on the image, padded where it reaches beyond it, -> (size.height, size.width, 3).

    A filter works on one side after the other. So where padding would make much of little (1 x 10,000 pixels a square of
    10,000), the side that needs the least is padded and resampled before the other side is padded.
    """
    height, width = pixels.shape[:2]
    if frame.height * frame.width <= max(MAX_PADDED, 4 * height * width):
        return _resize(_place(pixels, frame.size, -frame.top, -frame.left, fill), size, resample, antialias)
    if height * frame.width > width * frame.height:
        turned = Box(frame.left, frame.top, frame.width, frame.height)
        across = pixels.transpose(0, 1).contiguous()
        return _resize_frame(across, turned, fill, Size(size.width, size.height), resample, antialias).transpose(0, 1)
    strip = _place(pixels, Size(height, frame.width), 0, -frame.left, fill)
    strip = _resize(strip, Size(height, size.width), resample, antialias)
    return _resize(_place(strip, Size(frame.height, size.width), -frame.top, 0, fill), size, resample, antialias)


def _place(picture: Tensor, canvas: Size, top: int, left: int, fill: tuple[int, int, int]) -> Tensor:
    """The picture with its corner at (top, left) of a canvas; itself, or a cut of it, where it covers the canvas."""
    above, before = max(0, -top), max(0, -left)
    shown = picture[above : max(above, canvas.height - top), before : max(before, canvas.width - left)]
    if shown.shape[:2] == (canvas.height, canvas.width):
        return shown
    board = torch.tensor(fill, dtype=torch.uint8).repeat(canvas.height, canvas.width, 1)
    top, left = max(0, top), max(0, left)
    board[top : top + shown.shape[0], left : left + shown.shape[1]] = shown
    return board


@lru_cache(maxsize=16)
def _affine(mean: tuple[float, ...], std: tuple[float, ...], each: int) -> tuple[Tensor, Tensor]:
    """Shift and scale of a whole patch of `each` values a channel, for one multiply-add."""
    means, stds = torch.tensor(mean), torch.tensor(std)
    return (-means / stds).repeat_interleave(each), (1 / (255 * stds)).repeat_interleave(each)
