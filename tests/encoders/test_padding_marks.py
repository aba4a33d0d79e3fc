"""What is padding of a view is marked patch by patch, in the view itself or one view too early."""

from __future__ import annotations

import pytest
import torch
from drawn import draw, pixels, tiny

from vlmkit.features import Grid, View
from vlmkit.preprocess import Size, policies
from vlmkit.spec import SpecError

GRID = Grid(1, 3, 4)
VIEWS = (View(GRID), View(GRID, 0, 0, 0, 0, 5, 0, 4, 2), View(GRID, 1, 0, 0, 0, 12, 0, 0, 0))
"""Patches of 4 pixels: nothing padded; 5 pixels above, 4 below, 2 on the right; all of it."""
NONE = [0] * 12
SECOND = [1, 1, 1, 1, 2, 2, 2, 2, 1, 1, 1, 1]


@pytest.mark.parametrize(("padding", "wanted"), [("own", [NONE, SECOND, [1] * 12]), ("next", [SECOND, [2] * 12, [2] * 12])])
@pytest.mark.parametrize("class_token", ["drop", "keep"])
def test_features_move_by_the_embedding_of_what_a_patch_shows(padding: str, wanted: list[list[int]], class_token: str) -> None:
    marked, plain = (draw(tiny("clip", class_token=class_token, **more).build()) for more in ({"padding": padding}, {}))
    marks = marked.marks.pad_embed.detach()
    plain.load_state_dict({name: value for name, value in marked.state_dict().items() if not name.startswith("marks")})
    patches = pixels((GRID,) * 3, 4)
    table = torch.cat([torch.zeros(1, marks.shape[1]), marks])
    kept = [0] if class_token == "keep" else []
    states = torch.tensor([state for view in wanted for state in kept + view])
    with torch.no_grad():
        moved = marked(patches, VIEWS).tokens - plain(patches, VIEWS).tokens
    assert (moved - table[states]).abs().max() < 1e-5


def test_plans_say_what_is_padding() -> None:
    plan = policies["multicrop"](size=84, margin=28, crops=4).plan(Size(60, 200))
    whole, first, *_, last = plan.padding
    assert whole == (29, 0, 30, 0)
    assert first[0] > 0
    assert last[1] == 0
    square = policies["pad_square"](size=28, fill=(0, 0, 0)).plan(Size(10, 20))
    assert square.padding == ((7, 0, 7, 0),), "padding that is resampled along with the image"
    assert policies["squash"](size=28).plan(Size(10, 20)).padding == ((0, 0, 0, 0),)


def test_kept_blocks_hold_what_is_selected() -> None:
    tower = tiny("clip", layer=1, kept_blocks=2).build()
    assert len(tower.encoder.layers) == 2
    assert tower.post_layernorm is None
    with pytest.raises(SpecError, match=r"clip\.kept_blocks: expected 2 \(the last one selected\) to 3 \(layers\)"):
        tiny("clip", layer=2, kept_blocks=1)
