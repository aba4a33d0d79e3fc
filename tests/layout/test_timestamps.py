"""Times before frames, and which of a film's tokens stand behind them."""

from __future__ import annotations

import pytest

import vlmkit
from vlmkit.features import Grid
from vlmkit.layout.laid_out import Turn
from vlmkit.layout.pieces import ImageTokens, Trusted, Visual
from vlmkit.layout.template import CHATML
from vlmkit.preprocess.geometry import ImagePlan, Render, Size
from vlmkit.spec import SpecError
from vlmkit.tokenizer import PlainTokenizer, bytes_tokenizer

Timestamps = vlmkit.layouts["timestamps"]
LAYOUT = Timestamps(template=CHATML, placeholder="<|image|>", video_placeholder="<|video|>", after_image="\n")
PLAN = ImagePlan(Size(28, 56), (Render.whole(Size(28, 56)),))


def film(kept: list[int] | None = None, seconds: tuple[float, ...] = (0.0, 0.5, 12.34)) -> ImageTokens:
    return ImageTokens(PLAN, (Grid(3, 1, 2),), None if kept is None else bytes(kept), seconds)


def test_each_frame_stands_behind_its_time() -> None:
    assert LAYOUT.image_pieces(film()) == (
        Trusted("Time 0.0s:"),
        Visual(0, 2, "<|video|>"),
        Trusted(",Time 0.5s:"),
        Visual(2, 2, "<|video|>"),
        Trusted(",Time 12.3s:"),
        Visual(4, 2, "<|video|>"),
    )


def test_only_kept_tokens_have_a_place() -> None:
    pieces = LAYOUT.image_pieces(film([1, 1, 0, 1, 1, 0]))
    assert [piece for piece in pieces if isinstance(piece, Visual)] == [
        Visual(0, 2, "<|video|>"),
        Visual(3, 1, "<|video|>"),
        Visual(4, 1, "<|video|>"),
    ]
    assert LAYOUT.places(film([1, 0, 0, 0, 0, 1])) == 2


def test_frames_may_be_views_of_their_own() -> None:
    views = ImageTokens(PLAN, (Grid(1, 1, 2),) * 3, None, (0.0, 0.5, 12.34))
    assert LAYOUT.image_pieces(views) == LAYOUT.image_pieces(film())


def test_a_frame_without_a_time_is_not_placed() -> None:
    """A film of one frame, which the encoder is shown twice."""
    assert LAYOUT.image_pieces(film(seconds=(3.0,))) == (Trusted("Time 3.0s:"), Visual(0, 2, "<|video|>"))


def test_ids_of_a_film_and_of_a_picture() -> None:
    tokenizer = PlainTokenizer(bytes_tokenizer(LAYOUT.required_specials()))
    picture = ImageTokens(PLAN, (Grid(1, 1, 2),))
    layout = LAYOUT.lay_out([Turn("user", (0, 1, "What?"))], [film([1, 1, 1, 0, 0, 1]), picture], tokenizer)
    names = {token: name for name, token in tokenizer.specials.items()}
    written = "".join(names.get(token) or chr(token) for token in layout.ids)
    assert written == (
        "<|im_start|>user\nTime 0.0s:<|video|><|video|>,Time 0.5s:<|video|>,Time 12.3s:<|video|>\n<|image|><|image|>\nWhat?<|im_end|>\n"
    )


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"stamp": "Time {:d}s:"}, "is no format of one number"),
        ({"stamp": "Time {} {}:"}, "is no format of one number"),
        ({"stamp": "Time:"}, "does not say the time"),
        ({"drop_unchanged": -0.1}, "drop_unchanged: expected 0 or more, got -0.1"),
    ],
)
def test_what_is_no_time_and_no_threshold_is_refused(changes: dict[str, object], reason: str) -> None:
    with pytest.raises(SpecError, match=rf"^timestamps\..*{reason}"):
        LAYOUT.replace(**changes)
