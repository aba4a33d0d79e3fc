"""What `vlmkit show` draws is what the encoder gets, pixel by pixel."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

import vlmkit
from tests.photos import photo
from vlmkit.features import Grid
from vlmkit.page import ACCENT, FAINT
from vlmkit.preprocess.geometry import Box, ImagePlan, Render, Size
from vlmkit.preprocess.pixels import patchify
from vlmkit.show import draw, placed, see
from vlmkit.show.mosaic import Lines, covered, mosaic
from vlmkit.show.words import caption, stats, stretch

TINY = vlmkit.architecture("univa-vl-tiny")
UNIVA = vlmkit.architecture("univa-vl")


def find(part: NDArray[np.uint8], page: NDArray[np.uint8]) -> list[tuple[int, int]]:
    """Corners (top, left) at which the page shows the part exactly."""
    (height, width), (codes, whole) = part.shape[:2], (_codes(part), _codes(page))
    room = (page.shape[0] - height + 1, page.shape[1] - width + 1)
    # Lines look alike: begin with a pixel that is rare in the part.
    values, counts = np.unique(codes, return_counts=True)
    row, column = np.argwhere(codes == values[counts.argmin()])[0]
    corners = np.argwhere(whole[row : row + room[0], column : column + room[1]] == codes[row, column])
    return [(int(top), int(left)) for top, left in corners if np.array_equal(whole[top : top + height, left : left + width], codes)]


def _codes(pixels: NDArray[np.uint8]) -> NDArray[np.uint32]:
    return pixels.astype(np.uint32) @ np.array([1 << 16, 1 << 8, 1], np.uint32)


@pytest.mark.parametrize("size", [(480, 640), (3, 90), (700, 300)])
def test_views_are_the_pixels_that_the_processor_gives_the_encoder(size):
    picture = np.asarray(Image.fromarray(photo("coffee")).resize(size[::-1]))
    sight = see(picture, TINY)
    rendered = vlmkit.build_processor(TINY).render_image(picture)
    (view,) = sight.views
    import torch

    assert torch.equal(patchify(torch.from_numpy(view.copy()), 14), rendered.pixel_values)
    assert sight.tokens.count == rendered.tokens.count


@pytest.mark.parametrize("scale", [1, 2, 7])
@pytest.mark.parametrize("token", [None, (1, 1), (2, 2), (2, 4), (4, 8)])
def test_a_mosaic_holds_every_pixel_and_as_many_lines_as_the_grids_have(scale, token):
    grid, patch, lines = Grid(1, 4, 8), 14, Lines(patch=1, token=3)
    view = np.random.default_rng(0).integers(0, 256, (56, 112, 3), dtype=np.uint8)
    view[..., 2] &= 0x7F  # neither colour of the lines
    board = mosaic(view, grid, token, patch, scale, lines)

    is_line = (board == ACCENT).all(axis=2) | (board == FAINT).all(axis=2)
    rows, columns = is_line.all(axis=1), is_line.all(axis=0)
    enlarged = board[~rows][:, ~columns]
    assert np.array_equal(enlarged, view.repeat(scale, axis=0).repeat(scale, axis=1))

    def runs(flags: NDArray[np.bool_]) -> int:
        return int(np.count_nonzero(np.diff(flags.astype(int), prepend=0) == 1))

    wide = (board == ACCENT).all(axis=2)
    assert (runs(rows), runs(columns)) == (5, 9)
    if token is None:
        assert not wide.any()
    else:
        assert (runs(wide.all(axis=1)), runs(wide.all(axis=0))) == (4 // token[0] + 1, 8 // token[1] + 1)


def test_cells_that_the_layout_leaves_out_are_faded_and_have_no_lines_of_their_own():
    grid, lines = Grid(1, 4, 8), Lines(patch=1, token=3)
    view = np.full((56, 112, 3), 10, np.uint8)
    whole, none = np.ones((2, 4), bool), np.zeros((2, 4), bool)
    assert np.array_equal(mosaic(view, grid, (2, 2), 14, 1, lines, whole), mosaic(view, grid, (2, 2), 14, 1, lines))
    blank = mosaic(view, grid, (2, 2), 14, 1, lines, none)
    assert not (blank == ACCENT).all(axis=2).any()
    assert {tuple(colour) for colour in blank.reshape(-1, 3)} == {FAINT, (193, 193, 193)}
    lower = np.array([[False] * 4, [True] * 4])
    board = mosaic(view, grid, (2, 2), 14, 1, lines, lower)
    middle = 3 + 28 + 1  # the upper tokens, above the line that the lower ones begin with
    assert np.array_equal(board[:middle], blank[:middle])
    assert np.array_equal(board[middle:], mosaic(view, grid, (2, 2), 14, 1, lines)[middle:])


@pytest.mark.parametrize("name", vlmkit.list_models())
def test_what_is_placed_and_learned_is_what_an_image_costs(name):
    model = vlmkit.architecture(name)
    tokens = model.image_tokens(model.plan(Size(480, 640)))
    learned = model.layout.places(tokens) - int(placed(model, tokens).sum())
    assert learned >= 0 if model.layout.learned else learned == 0
    assert placed(model, tokens).all() or model.layout.partial


def test_the_page_says_how_many_tokens_the_layout_leaves_out():
    picture = np.asarray(Image.fromarray(photo("coffee")).resize((640, 480)))
    told = {stat.label: stat.value for stat in stats(see(picture, vlmkit.architecture("llava-1.6-vicuna-7b")))}
    assert told["visual tokens"] == "2,340"
    assert told["left out by the layout"] == "576 of 2,880"
    assert told["learned embeddings added"] == "36"
    assert "left out by the layout" not in {stat.label for stat in stats(see(picture, UNIVA))}


def test_the_page_shows_faded_what_the_layout_leaves_out():
    picture = np.asarray(Image.fromarray(photo("coffee")).resize((640, 480)))
    sight = see(picture, vlmkit.architecture("llava-1.6-vicuna-7b"))
    page = np.asarray(draw(sight, "coffee.png"))
    kept = placed(sight.architecture, sight.tokens).reshape(5, 24, 24)
    assert [int((~view).sum()) for view in kept] == [0, 144, 144, 144, 144]
    for view, grid, mask in zip(sight.views, sight.patches, kept, strict=True):
        assert find(mosaic(view, grid, (1, 1), 14, 1, Lines.between(14), mask), page)
        assert bool(find(mosaic(view, grid, (1, 1), 14, 1, Lines.between(14)), page)) == mask.all()


@pytest.mark.parametrize(
    ("patches", "tokens", "expected"),
    [
        (Grid(1, 26, 36), Grid(1, 13, 18), (2, 2)),
        (Grid(1, 24, 24), Grid(1, 24, 24), (1, 1)),
        (Grid(1, 24, 24), Grid(1, 24, 24, prefix=1), (1, 1)),
        (Grid(1, 24, 24), Grid(1, 24, 6), (1, 4)),
        (Grid(1, 2, 196), Grid(1, 1, 98), (2, 2)),
        (Grid(1, 1, 7), Grid(1, 1, 7), (1, 1)),
        (Grid(1, 28, 28), Grid(1, 1, 64), None),
        (Grid(1, 64, 64), Grid(1, 1, 64), None),
        (Grid(1, 27, 27), Grid(1, 14, 14), None),
    ],
)
def test_which_patches_a_token_covers(patches, tokens, expected):
    assert covered(patches, tokens) == expected


@pytest.mark.parametrize("model", [UNIVA, TINY, UNIVA.replace(connector="mlp")])
def test_the_page_shows_the_view_once_and_exactly(model):
    sight = see(photo("astronaut"), model)
    page = np.asarray(draw(sight, "astronaut.png"))
    (grid,), (view,) = sight.patches, sight.views
    scale = 1080 // max(view.shape)
    part = mosaic(view, grid, covered(grid, sight.tokens.grids[0]), 14, scale, Lines.between(14 * scale))
    assert len(find(part, page)) == 1


def tiled(rows: int, columns: int, side: int) -> ImagePlan:
    canvas = Size(rows * side, columns * side)
    tiles = tuple(Box(row * side, column * side, side, side) for row in range(rows) for column in range(columns))
    return ImagePlan(Size(300, 451), (Render(resize=canvas, canvas=canvas, tiles=tiles), Render.whole(Size(side, side))))


def test_tiles_lie_as_they_were_cut_and_each_is_there(monkeypatch):
    plan = tiled(2, 3, 112)
    monkeypatch.setattr(type(TINY.policy), "plan", lambda self, size: plan)
    sight = see(photo("chelsea"), TINY)
    page = np.asarray(draw(sight, "chelsea.png"))
    scale = 1080 // 336
    corners = []
    for view, grid in zip(sight.views, sight.patches, strict=True):
        ((corner),) = find(mosaic(view, grid, (2, 2), 14, scale, Lines.between(14 * scale)), page)
        corners.append(corner)
    tops, lefts = sorted({top for top, _ in corners[:6]}), sorted({left for _, left in corners[:6]})
    assert corners[:6] == [(top, left) for top in tops for left in lefts]
    assert len(tops) == 2
    assert len(lefts) == 3


def test_tiles_that_begin_at_one_pixel_are_drawn_one_after_the_other(monkeypatch):
    canvas = Size(112, 112)
    render = Render(resize=canvas, canvas=canvas, tiles=(Box(0, 0, 112, 112), Box(0, 0, 56, 56)))
    monkeypatch.setattr(type(TINY.policy), "plan", lambda self, size: ImagePlan(size, (render,)))
    sight = see(photo("chelsea"), TINY)
    page = np.asarray(draw(sight, "chelsea.png"))
    for view, grid in zip(sight.views, sight.patches, strict=True):
        found = find(mosaic(view, grid, (2, 2), 14, 9, Lines.between(126)), page)
        assert len(found) == (2 if len(view) == 56 else 1), "the small tile by itself, and as a corner of the large one"


def test_what_is_cropped_away_is_faded_in_the_original():
    crop = UNIVA.replace(policy=vlmkit.policies["center_crop"](size=392))
    wide = photo("chelsea")  # 300 x 451: about 75 columns at either end are not seen
    page = np.asarray(draw(see(wide, crop), "chelsea.png"))
    assert find(wide[100:200, 80:370], page)
    assert not find(wide[100:200, 0:70], page)
    assert find((wide // 4 + 191)[100:200, 0:70], page)
    assert find(wide, np.asarray(draw(see(wide, UNIVA), "chelsea.png")))


@pytest.mark.parametrize(
    ("height", "width"), [(1, 1), (150, 1), (1, 150), (5, 5), (300, 6000), (3000, 4000), (200, 1), (1, 200), (2, 3)], ids=str
)
@pytest.mark.parametrize("model", [UNIVA, TINY])
def test_every_shape_gives_a_page_that_can_be_read(model, height, width):
    picture = np.asarray(Image.fromarray(photo("coffee")).resize((width, height)))
    page = draw(see(picture, model), "a name " * 40)
    assert page.mode == "RGB"
    assert min(page.size) > 500
    frame = np.asarray(page).copy()
    frame[47:-47, 47:-47] = 255  # the outline of the original stands one pixel out
    assert (frame == 255).all(), "nothing reaches into the margin"


@pytest.mark.parametrize(
    ("name", "captions", "ratio"),
    [
        ("pixtral-12b", ["as it is"], "unchanged"),
        ("univa-vl", ["resized to 504 x 364 (3.8 % wider)"], "3.8 % wider"),
        ("idefics2-8b", ["trimmed to 630 x 476"], "unchanged"),
        (
            "llava-1.6-vicuna-7b",
            ["resized to 336 x 336 (33.3 % taller)", "resized to 672 x 504, placed on 672 x 672, cut into 4 views of 336 x 336"],
            "33.3 % taller and unchanged",
        ),
        (
            "idefics2-8b-split",
            [*["cut to 320 x 240, resized to 378 x 378 (33.3 % taller)"] * 4, "trimmed to 630 x 476"],
            "33.3 % taller and unchanged",
        ),
        (
            "smolvlm-256m",
            [
                "resized to 2048 x 1536, cut into 12 views of 512 x 512",
                "resized to 2048 x 1536 and then to 512 x 512 (33.3 % taller)",
            ],
            "unchanged and 33.3 % taller",
        ),
    ],
)
def test_every_render_has_its_own_words_and_the_ratio_is_that_of_all(name, captions, ratio):
    picture = np.asarray(Image.fromarray(photo("coffee")).resize((640, 480)))
    sight = see(picture, vlmkit.architecture(name))
    found = [caption(part, sight.plan.source) for part in sight.plan.renders]
    assert found == [caption.replace(" x ", " \N{MULTIPLICATION SIGN} ") for caption in captions]
    assert {stat.label: stat.value for stat in stats(sight)}["aspect ratio"] == ratio


@pytest.mark.parametrize(
    ("before", "after", "words"),
    [
        (Size(480, 640), Size(364, 504), "3.8 % wider"),
        (Size(640, 480), Size(504, 364), "3.8 % taller"),
        (Size(100, 100), Size(392, 392), "unchanged"),
        (Size(1, 150), Size(28, 2744), "53.1 % taller"),
    ],
)
def test_stretch(before, after, words):
    assert stretch(before, after) == words
