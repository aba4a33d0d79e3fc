"""One square of the whole image, beside SigLIP's processor in transformers (torchvision backend): PaliGemma, Maya."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import SiglipImageProcessor

from tests.preprocess.policies.published import difference, image, processed, seen, shapes, views_of
from vlmkit.preprocess import Box, ImagePlan, Render, Size, policies
from vlmkit.spec import SpecError

Squash = policies["squash"]
SIGLIP = SiglipImageProcessor()


@settings(max_examples=40, deadline=None)
@given(shapes, st.booleans(), st.sampled_from([224, 256]))
def test_pixels_are_those_of_siglip(shape, noise, size):
    picture = image(shape, noise)
    published = processed(SIGLIP, picture, size={"height": size, "width": size})
    assert difference(seen(Squash(size=size), picture), views_of(published["pixel_values"])) == 0


def test_of_384_pixels_siglip_sees_378():
    (whole,), (part,) = seen(Squash(size=384), image((480, 640))), seen(Squash(size=384, view=378), image((480, 640)))
    assert (part == whole[:378, :378]).all()
    assert Squash(size=384, view=378).problems(14) == []
    assert Squash(size=384, view=380).problems(14)[0].endswith("Use a view that is a multiple of 14, such as 378.")
    assert Squash(size=20, view=10).problems(28)[0].endswith("Use view=None and a size that is a multiple of 28, such as 28.")


@pytest.mark.parametrize("view", [0, 385])
def test_a_view_beyond_the_square_is_refused(view):
    with pytest.raises(SpecError, match=rf"squash\.view: expected 1 to 384 pixels \(size\), got {view}"):
        Squash(size=384, view=view)


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
