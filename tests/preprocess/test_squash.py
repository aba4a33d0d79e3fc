import pytest

from vlmkit.preprocess import Box, ImagePlan, Render, Size, policies
from vlmkit.spec import SpecError

Squash = policies["squash"]


@pytest.mark.parametrize("size", [Size(480, 640), Size(1, 100_000), Size(378, 378)])
def test_every_image_becomes_one_whole_square(size):
    square = Size(378, 378)
    assert Squash(size=378).plan(size) == ImagePlan(size, (Render(resize=square, canvas=square, tiles=(Box(0, 0, 378, 378),)),))


def test_a_size_that_does_not_fit_is_a_problem_with_a_way_out():
    assert Squash(size=378).problems(14) == []
    (problem,) = Squash(size=378).problems(28)
    assert problem.startswith("policy 'squash(size=378)' gives views of 378x378 pixels")
    assert problem.endswith("Use a size that is a multiple of 28, such as 392.")
    assert "such as 28." in Squash(size=3).problems(28)[0]


@pytest.mark.parametrize("size", [0, -1])
def test_a_side_below_1_is_refused(size):
    with pytest.raises(SpecError, match=rf"squash\.size: expected 1 or more pixels, got {size}"):
        Squash(size=size)
