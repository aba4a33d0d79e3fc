"""Positions by time, row and column: Qwen2-VL's own where it has them, and their laws for every layout."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from itertools import pairwise

import pytest
import torch
import transformers
from hypothesis import given
from hypothesis import strategies as st

import vlmkit
from tests.tiny import part
from vlmkit.features import Grid
from vlmkit.layout.laid_out import Layout, Turn
from vlmkit.layout.pieces import ImageTokens
from vlmkit.layout.positions import three_positions
from vlmkit.layout.template import CHATML
from vlmkit.preprocess.geometry import ImagePlan, Render, Size
from vlmkit.tokenizer import PlainTokenizer, bytes_tokenizer

TOKENIZER = PlainTokenizer(bytes_tokenizer())
PLACEHOLDER = TOKENIZER.specials["<|image|>"]
BRACKETED = part(vlmkit.layouts, "bracketed")


def image(*grids: Grid) -> ImageTokens:
    """An image whose views have these grids after the connector."""
    return ImageTokens(ImagePlan(Size(10, 10), tuple(Render.whole(Size(grid.rows, grid.columns)) for grid in grids)), grids)


side = st.integers(1, 6)
views = st.builds(Grid, st.integers(1, 9), side, side)
prefixed = st.builds(Grid, st.integers(1, 3), side, side, st.integers(0, 2))


@functools.cache
def published() -> transformers.Qwen2VLModel:
    with torch.device("meta"):
        return transformers.Qwen2VLModel(
            transformers.Qwen2VLConfig(
                vision_config={"depth": 1, "embed_dim": 16, "num_heads": 2, "hidden_size": 16},
                text_config={"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "vocab_size": 8},
            )
        )


def conversation(images: Sequence[ImageTokens], words: Sequence[str]) -> Layout:
    content = [item for number, word in enumerate(words) for item in ((word,) if number == len(images) else (word, number))]
    layout: Layout = BRACKETED.lay_out([Turn("user", tuple(content))], images, TOKENIZER, add_generation_prompt=True)
    return layout


@given(st.lists(views, max_size=3), st.lists(st.text("ab", max_size=4), min_size=4, max_size=4))
def test_positions_of_pictures_and_films_are_qwen2_vls(grids: list[Grid], words: list[str]) -> None:
    """transformers since version 5 lets a film of more frames than rows and columns count as if it had no more, so that words behind it
    stand where its frames do; before, and in the paper, they stand behind the last frame. Such films are another test's."""
    grids = [Grid(min(grid.frames, max(grid.rows, grid.columns)), grid.rows, grid.columns) for grid in grids]
    images = [image(grid) for grid in grids]
    layout = conversation(images, words[: len(images) + 1])
    # A picture is a film of one frame to them, but for its number: 1, not 2.
    kinds = [2 if grid.frames > 1 else 1 for grid in grids]
    types = torch.zeros(1, len(layout.ids), dtype=torch.int32)
    for span in layout.spans:
        types[0, span.start : span.start + span.length] = kinds[span.image]
    patches = {
        kind: torch.tensor([(g.frames, g.rows * 2, g.columns * 2) for g, other in zip(grids, kinds, strict=True) if other == kind])
        for kind in (1, 2)
    }
    ids = torch.tensor([layout.ids])
    expected, _ = published().get_rope_index(ids, mm_token_type_ids=types, image_grid_thw=patches[1], video_grid_thw=patches[2])
    assert [list(axis) for axis in three_positions(layout, images)] == expected[:, 0].tolist()


def test_words_go_on_behind_the_last_frame_of_a_film_that_has_more_frames_than_rows_and_columns() -> None:
    images = [image(Grid(7, 2, 3))]
    layout = conversation(images, ("a", "b"))
    time, row, column = three_positions(layout, images)
    (span,) = layout.spans
    behind = span.start + span.length
    assert {axis[span.start] for axis in (time, row, column)} == {span.start}
    assert (time[behind - 1], row[behind - 1], column[behind - 1]) == (span.start + 6, span.start + 1, span.start + 2)
    assert {axis[behind] for axis in (time, row, column)} == {span.start + 7}


@pytest.mark.parametrize("kind", vlmkit.list_layouts())
@given(st.lists(st.lists(prefixed, min_size=1, max_size=3).map(lambda grids: image(*grids)), max_size=2), st.data())
def test_of_every_layout_cells_keep_their_places_in_their_view_and_the_rest_counts_on(
    kind: str, images: list[ImageTokens], data: st.DataObject
) -> None:
    turns = [Turn("user", (*range(len(images)), "ab")), Turn("assistant", ("c",))]
    layout = part(vlmkit.layouts, kind).lay_out(turns, images, TOKENIZER)
    axes = [list(axis) for axis in three_positions(layout, images)]
    assert [len(axis) for axis in axes] == [len(layout.ids)] * 3
    origins: dict[tuple[int, int], set[tuple[int, ...]]] = {}
    cells: set[int] = set()
    for span in layout.spans:
        starts = [0, *(sum(grid.tokens for grid in images[span.image].grids[: number + 1]) for number in range(9))]
        for step in range(span.length):
            view = max(number for number, start in enumerate(starts[:-1]) if start <= span.offset + step)
            grid = images[span.image].grids[view]
            cell = span.offset + step - starts[view] - grid.prefix
            if cell < 0:
                continue
            place = span.start + step
            cells.add(place)
            own = (cell // (grid.rows * grid.columns), cell // grid.columns % grid.rows, cell % grid.columns)
            origins.setdefault((span.image, view), set()).add(tuple(axis[place] - at for axis, at in zip(axes, own, strict=True)))
    for origin in origins.values():
        assert len(origin) == 1, "all cells of a view are counted from one corner"
        assert len({*next(iter(origin))}) == 1, "which has one number on all axes"
    others = [place for place in range(len(layout.ids)) if place not in cells]
    for place in others:
        largest = max((axis[before] for axis in axes for before in range(place)), default=-1)
        assert [axis[place] for axis in axes] == [largest + 1] * 3
    assert all(axes[0][one] < axes[0][other] for one, other in pairwise(others))
    shorter = layout.truncated(data.draw(st.integers(0, len(layout.ids))))
    assert [list(axis) for axis in three_positions(shorter, images)] == [axis[: len(shorter.ids)] for axis in axes]


def test_rows_with_something_between_them_stand_beside_one_another() -> None:
    """Pixtral's rows: a separator counts on, and the next row begins beside the first."""
    layout = part(vlmkit.layouts, "rows", template=CHATML.replace(user=("", ""))).lay_out(
        [Turn("user", (0,))], [image(Grid(1, 2, 3))], TOKENIZER
    )
    time, row, column = map(list, three_positions(layout, [image(Grid(1, 2, 3))]))
    assert time == [0, 0, 0, 3, 0, 0, 0, 4]
    assert row == [0, 0, 0, 3, 1, 1, 1, 4]
    assert column == [0, 1, 2, 3, 0, 1, 2, 4]
