"""render carries out a plan, pixel for pixel as PIL would, and gives patches that unpatchify puts together again."""

from __future__ import annotations

import warnings

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from tests.photos import NAMES, difference, picture
from vlmkit.encoders.by_size import unpatchify
from vlmkit.features import Grid, GridError
from vlmkit.preprocess import Box, ImagePlan, Render, Size, policies, render, smart_resize

MEAN, STD = (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)
FILTERS = {
    "nearest": Image.Resampling.NEAREST,
    "bilinear": Image.Resampling.BILINEAR,
    "bicubic": Image.Resampling.BICUBIC,
    "lanczos": Image.Resampling.LANCZOS,
}


def views(patches: torch.Tensor, grids: torch.Tensor, patch: int) -> list[np.ndarray]:
    """The (H, W, 3) pictures that the patches were cut from."""
    shapes = [Grid(*row) for row in grids.tolist()]
    pieces = patches.split([grid.tokens for grid in shapes])
    return [unpatchify(piece, grid, patch).permute(1, 2, 0).numpy() for piece, grid in zip(pieces, shapes, strict=True)]


def resized(image: Image.Image, size: Size, resample: str) -> Image.Image:
    """By PIL. Its nearest adds up floating steps, which errs where a centre lies exactly between two pixels."""
    if resample != "nearest":
        return image.resize((size.width, size.height), FILTERS[resample])
    rows = [(2 * row + 1) * image.height // (2 * size.height) for row in range(size.height)]
    columns = [(2 * column + 1) * image.width // (2 * size.width) for column in range(size.width)]
    return Image.fromarray(np.asarray(image)[rows][:, columns])


def reference(image: Image.Image, plan: ImagePlan, resample: str) -> list[np.ndarray]:
    """The views of a plan, made with PIL alone."""
    found = []
    for part in plan.renders:
        shown = image
        if part.frame is not None:
            shown = Image.new("RGB", (part.frame.width, part.frame.height), part.fill)
            shown.paste(image, (-part.frame.left, -part.frame.top))
        for size in (*part.via, part.resize):
            shown = resized(shown, size, resample)
        board = Image.new("RGB", (part.canvas.width, part.canvas.height), part.fill)
        board.paste(shown, (part.left, part.top))
        found += [np.asarray(board.crop((box.left, box.top, box.left + box.width, box.top + box.height))) for box in part.tiles]
    return found


def whole(image: Image.Image, height: int, width: int) -> ImagePlan:
    return ImagePlan(Size(image.height, image.width), (Render.whole(Size(height, width)),))


@st.composite
def plans(draw: st.DrawFn, size: Size, patch: int) -> ImagePlan:
    """Any plan: enlarging, shrinking, padding, cropping on any side, images wholly off their canvas, overlapping tiles."""
    parts = []
    for _ in range(draw(st.integers(1, 3))):
        rows, columns = draw(st.integers(1, 5)), draw(st.integers(1, 5))
        tiles = []
        for _ in range(draw(st.integers(1, 3))):
            top, left = draw(st.integers(0, rows - 1)), draw(st.integers(0, columns - 1))
            height, width = draw(st.integers(1, rows - top)), draw(st.integers(1, columns - left))
            tiles.append(Box(*(patch * number for number in (top, left, height, width))))
        parts.append(
            Render(
                resize=Size(draw(st.integers(1, 90)), draw(st.integers(1, 90))),
                canvas=Size(rows * patch + draw(st.integers(0, 5)), columns * patch + draw(st.integers(0, 5))),
                tiles=tuple(tiles),
                top=draw(st.integers(-100, 80)),
                left=draw(st.integers(-100, 80)),
                fill=draw(st.tuples(*[st.integers(0, 255)] * 3)),
            )
        )
    return ImagePlan(size, tuple(parts))


@settings(max_examples=300, deadline=None)
@given(st.data())
def test_any_plan_is_what_pil_makes_of_it(data):
    patch = data.draw(st.sampled_from([1, 2, 7, 14, 16]))
    size = Size(data.draw(st.integers(1, 150)), data.draw(st.integers(1, 150)))
    image = picture(data.draw(st.sampled_from(NAMES))).crop((0, 0, size.width, size.height))
    plan, resample = data.draw(plans(size, patch)), data.draw(st.sampled_from(sorted(FILTERS)))
    patches, grids = render(image, plan, patch=patch, resample=resample)
    assert patches.dtype == torch.uint8
    assert patches.shape == (sum(grid.tokens for grid in plan.grids(patch)), 3 * patch * patch)
    assert grids.dtype == torch.int64
    assert grids.tolist() == [[1, view.height // patch, view.width // patch] for view in plan.views]
    allowed = 0 if resample in ("nearest", "lanczos") else 2  # torch's kernel rounds its weights to 16 bits
    for mine, other in zip(views(patches, grids, patch), reference(image, plan, resample), strict=True):
        assert difference(mine, other) <= allowed


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("kind", ["smart_resize", "squash", "pad_square", "center_crop"])
def test_policies_on_photographs(name, kind):
    image = picture(name)
    policy = policies[kind]() if kind == "smart_resize" else policies[kind](size=224)
    plan = policy.plan(Size(image.height, image.width))
    patches, grids = render(image, plan, patch=14)
    for mine, other in zip(views(patches, grids, 14), reference(image, plan, "bicubic"), strict=True):
        assert difference(mine, other) <= 2


def test_extreme_sizes():
    for size, target in (
        ((1, 1), (28, 56)),
        ((1, 5000), (14, 700)),
        ((5000, 1), (700, 14)),
        ((3000, 4000), (14, 14)),
        ((2, 3), (1400, 14)),
    ):
        image = picture("coffee", size)
        patches, grids = render(image, whole(image, *target), patch=14)
        assert difference(views(patches, grids, 14)[0], image.resize((target[1], target[0]), Image.Resampling.BICUBIC)) <= 1


def test_patches_are_channel_row_column_in_raster_order():
    pixels = torch.arange(4 * 6 * 3, dtype=torch.uint8).view(4, 6, 3)
    patches, _ = render(pixels, ImagePlan(Size(4, 6), (Render.whole(Size(4, 6)),)), patch=2)
    for number, (top, left) in enumerate((top, left) for top in (0, 2) for left in (0, 2, 4)):
        for channel in range(3):
            expected = [pixels[top + row, left + column, channel].item() for row in (0, 1) for column in (0, 1)]
            assert patches[number, 4 * channel : 4 * channel + 4].tolist() == expected


@pytest.mark.parametrize("resample", sorted(FILTERS))
def test_every_kind_of_pixels_gives_the_same_patches(resample):
    image = picture("chelsea", (61, 47))
    plan, array = whole(image, 28, 42), np.array(image)
    expected = render(image, plan, patch=14, resample=resample)[0]
    framed = np.pad(array, ((3, 5), (2, 4), (0, 0)))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for pixels in (
            array,
            np.frombuffer(array.tobytes(), np.uint8).reshape(array.shape),
            np.asfortranarray(array),
            framed[3:-5, 2:-4],
            np.ascontiguousarray(array[::-1, ::-1])[::-1, ::-1],
            torch.from_numpy(array),
            torch.from_numpy(framed)[3:-5, 2:-4],
            torch.from_numpy(array).permute(2, 0, 1).contiguous().permute(1, 2, 0),
        ):
            assert torch.equal(render(pixels, plan, patch=14, resample=resample)[0], expected)


@pytest.mark.parametrize("target", [(14, 14), (28, 70), (700, 14), (84, 84)])
def test_nearest_is_pils(target):
    image = picture("coffee", (61, 47))  # odd sides: no centre lies between two pixels
    patches, grids = render(image, whole(image, *target), patch=14, resample="nearest")
    assert difference(views(patches, grids, 14)[0], image.resize((target[1], target[0]), Image.Resampling.NEAREST)) == 0


@pytest.mark.parametrize("resample", ["bilinear", "bicubic"])
def test_without_antialias_it_is_torchs_interpolation(resample):
    image = picture("astronaut", (100, 80))
    patches, grids = render(image, whole(image, 28, 42), patch=14, resample=resample, antialias=False)
    planes = torch.from_numpy(np.array(image)).permute(2, 0, 1)[None].contiguous()
    expected = torch.nn.functional.interpolate(planes, size=(28, 42), mode=resample)[0].permute(1, 2, 0)
    assert difference(views(patches, grids, 14)[0], expected) == 0
    assert not torch.equal(patches, render(image, whole(image, 28, 42), patch=14, resample=resample)[0])


def test_normalised_patches():
    image = picture("flower")
    plan = whole(image, 56, 84)
    raw, _ = render(image, plan, patch=14)
    normalised, grids = render(image, plan, patch=14, mean=MEAN, std=STD)
    assert normalised.dtype == torch.float32
    assert grids.tolist() == [[1, 4, 6]]
    exact = (raw.view(-1, 3, 196).double() / 255 - torch.tensor(MEAN).double().view(3, 1)) / torch.tensor(STD).double().view(3, 1)
    assert (normalised.view(-1, 3, 196) - exact).abs().max() < 1e-6  # measured 4e-7


def merged_order(rows: int, columns: int, merge: int) -> torch.Tensor:
    """Where transformers' Qwen2-VL puts each patch: the patches that one token merges stand together."""
    numbers = torch.arange(rows * columns).view(rows // merge, merge, columns // merge, merge)
    return numbers.permute(0, 2, 1, 3).reshape(-1)


@pytest.mark.parametrize(("backend", "allowed"), [("torchvision", 1e-3), ("PIL", 2.001)])
def test_qwen2_vl_image_processors_agree(backend, allowed):
    """Patches of transformers' two processors, undone from their order; `allowed` counts steps of 255, measured 2e-5 and 2."""
    from transformers import Qwen2VLImageProcessor
    from transformers.models.qwen2_vl.image_processing_pil_qwen2_vl import Qwen2VLImageProcessorPil

    bounds = {"min_pixels": 64 * 28 * 28, "max_pixels": 256 * 28 * 28}
    processor = (Qwen2VLImageProcessor if backend == "torchvision" else Qwen2VLImageProcessorPil)(**bounds)
    images = [picture(name) for name in NAMES]
    images += [picture("china", size) for size in ((333, 251), (1, 90), (90, 1), (480, 640), (1031, 777), (100, 1999))]
    scale = 255 * torch.tensor(STD).view(3, 1)
    worst = 0.0
    for image in images:
        height, width = smart_resize(image.height, image.width)
        patches, grids = render(image, whole(image, height, width), patch=14, mean=MEAN, std=STD)
        theirs = processor(image, return_tensors="pt")
        assert theirs["image_grid_thw"].tolist() == grids.tolist()
        _, rows, columns = grids[0].tolist()
        expected = theirs["pixel_values"].view(-1, 3, 2, 196)
        assert torch.equal(expected[:, :, 0], expected[:, :, 1])
        mine = patches[merged_order(rows, columns, 2)].view(-1, 3, 196)
        worst = max(worst, ((mine - expected[:, :, 0]).abs() * scale).max().item())
    assert worst < allowed


# --- what is refused ---


def test_an_image_of_another_size_than_planned():
    image = picture("chelsea", (40, 60))
    with pytest.raises(ValueError, match=r"for an image of 60x40, but the image is 40x60"):
        render(image, ImagePlan(Size(60, 40), (Render.whole(Size(28, 28)),)), patch=14)


def test_a_view_that_is_no_whole_number_of_patches():
    image = picture("chelsea", (40, 60))
    with pytest.raises(GridError, match="30x28 pixels are not a whole number of 14x14 patches"):
        render(image, whole(image, 30, 28), patch=14)


@pytest.mark.parametrize("box", [Box(-14, 0, 28, 28), Box(0, 14, 28, 28), Box(14, 0, 28, 28)])
def test_a_tile_beyond_its_canvas(box):
    image = picture("chelsea", (40, 60))
    plan = ImagePlan(Size(40, 60), (Render(resize=Size(28, 28), canvas=Size(28, 28), tiles=(box,)),))
    with pytest.raises(ValueError, match="reaches beyond its canvas of 28x28"):
        render(image, plan, patch=14)


@pytest.mark.parametrize(
    ("pixels", "match"),
    [
        (Image.new("L", (28, 28)), "mode RGB, got L; open it with open_image"),
        (np.zeros((28, 28, 3)), "type uint8, got float64"),
        (np.zeros((28, 28), np.uint8), r"got \(28, 28\) of torch.uint8"),
        (torch.zeros(3, 28, 28, dtype=torch.uint8), r"got \(3, 28, 28\)"),
        (torch.zeros(28, 28, 3), "of torch.float32"),
        ("a.jpg", "got str; open it with open_image"),
    ],
)
def test_what_is_no_picture(pixels, match):
    with pytest.raises(ValueError, match=match):
        render(pixels, ImagePlan(Size(28, 28), (Render.whole(Size(28, 28)),)), patch=14)


def test_settings_that_do_not_go_together():
    image = picture("chelsea", (40, 60))
    with pytest.raises(ValueError, match="mean and std come together"):
        render(image, whole(image, 28, 28), patch=14, mean=MEAN)
    with pytest.raises(ValueError, match="'lanczos' exists with antialias only"):
        render(image, whole(image, 28, 28), patch=14, resample="lanczos", antialias=False)


def test_a_plan_without_views_gives_no_patches():
    patches, grids = render(picture("chelsea", (40, 60)), ImagePlan(Size(40, 60), ()), patch=14)
    assert patches.shape == (0, 588)
    assert grids.shape == (0, 3)
