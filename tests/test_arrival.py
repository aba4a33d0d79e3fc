"""Places of a batch from elsewhere: what does not add up is said with both numbers."""

from __future__ import annotations

import pytest
import torch

from vlmkit.arrival import check_places
from vlmkit.features import Grid
from vlmkit.fusion.incoming import FusionError

GRIDS = (Grid(1, 1, 2), Grid(1, 1, 3))


@pytest.mark.parametrize(
    ("index", "message"),
    [
        ([[0, 1, -1], [0, 1, 5]], r"sample 1 refers to visual token 5, but the images of the batch gave 5 \(2 views\)"),
        ([[0, 1, -1, -1], [2, 3, -1, -1]], r"sample 1: view 1 \(grid 1x3\) has 3 visual tokens, but 2 places in the text"),
        ([[0, -1, -1, -1]], r"sample 0: view 0 \(grid 1x2\) has 2 visual tokens, but 1 places in the text"),
        ([[0, 1, 0, -1]], r"sample 0: view 0 \(grid 1x2\) has 2 visual tokens, but 3 places in the text"),
    ],
)
def test_what_does_not_add_up_names_sample_view_and_both_numbers(index: list[list[int]], message: str) -> None:
    with pytest.raises(FusionError, match=message):
        check_places(GRIDS, torch.tensor(index), whole=True)


def test_a_view_may_be_shown_by_several_samples_twice_or_not_at_all() -> None:
    check_places(GRIDS, torch.tensor([[0, 1, -1, -1], [0, 1, 0, 1], [-1, -1, -1, -1]]), whole=True)


def test_part_of_a_view_is_taken_where_the_layout_shows_parts() -> None:
    check_places(GRIDS, torch.tensor([[0, -1, 3, -1]]), whole=False)


def test_places_without_any_image_in_the_batch_are_refused() -> None:
    with pytest.raises(FusionError, match=r"refers to visual token 0, but the images of the batch gave 0 \(0 views\)"):
        check_places((), torch.tensor([[0]]), whole=True)
