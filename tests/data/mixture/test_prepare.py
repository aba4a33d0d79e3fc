"""What a mixture makes of samples that are too long, cannot be used, or fill rows."""

from __future__ import annotations

import re
from typing import Any

import numpy as np
import pytest

import vlmkit
from tests.data.mixed import asked, jpeg, processor, run, sample
from vlmkit.data.mixture import DataSource, Mixture
from vlmkit.data.mixture.prepare import OverlongError, Preparer
from vlmkit.data.rejections import TooManyRejected
from vlmkit.data.sample import DataError, Sample
from vlmkit.layout.laid_out import IGNORE, LayoutError
from vlmkit.preprocess.geometry import Size

SIZES = (Size(56, 84), Size(84, 56))
TURNS = asked("one", "yes", 0) + asked("two", "no " * 9, 1) + asked("three", "maybe " * 20)


def words(ids: Any) -> str:
    return str(processor().decode(list(ids)))


@pytest.mark.parametrize(("room", "exchanges", "images"), [(0, 3, 2), (1, 2, 2), (130, 2, 2), (160, 1, 1)])
def test_a_long_conversation_loses_whole_exchanges_from_its_end_and_images_that_only_they_show(
    room: int, exchanges: int, images: int
) -> None:
    longest = len(Preparer(processor()).plan([TURNS], SIZES).pieces[0].layouts[0].ids)
    planned = Preparer(processor(), length=longest - room).plan([TURNS], SIZES)
    (piece,) = planned.pieces
    assert piece.length <= longest - room
    assert piece.layouts == Preparer(processor()).plan([TURNS[: 2 * exchanges]], SIZES[:images]).pieces[0].layouts
    assert piece.images == tuple(range(images))
    assert (planned.cut is None) == (exchanges == 3)
    assert planned.rejected is None


def test_where_the_first_exchange_does_not_fit_the_conversation_goes_and_others_stay() -> None:
    planned = Preparer(processor(), length=60).plan([asked("short", "yes"), asked("long", "yes " * 99)], [])
    assert planned.rejected is not None
    assert planned.rejected[0] == "longer than a row"
    assert "conversation 1 has 4" in planned.rejected[1]
    assert "short" in words(planned.pieces[0].layouts[0].ids)
    assert Preparer(processor(), length=60, overlong="reject").plan([TURNS], SIZES).pieces == ()
    with pytest.raises(OverlongError, match=r"conversation 0 has 4.. tokens, a row holds 60"):
        Preparer(processor(), length=60, overlong="raise").plan([asked("long", "yes " * 99)], [])
    with pytest.raises(OverlongError, match="a, sample a0: conversation 0 has"):
        next(Mixture([DataSource("a", [sample("a", 0, "endless")])], processor(), rows=1, length=60, overlong="raise").batches())


def test_conversations_that_do_not_fit_into_one_row_stand_in_several_each_with_the_image() -> None:
    conversations = [asked(f"question {number}", "yes", 0) for number in range(5)]
    one = Preparer(processor()).plan(conversations[:1], SIZES[:1]).pieces[0].length
    pieces = Preparer(processor(), length=2 * one + 1, pack=True).plan(conversations, SIZES[:1]).pieces
    assert [len(piece.layouts) for piece in pieces] == [2, 2, 1]
    assert all(piece.images == (0,) for piece in pieces)


def test_images_are_found_by_their_number_in_any_order_and_more_than_once() -> None:
    conversation = [
        {"role": "user", "content": [{"type": "image", "image": number} for number in (2, 0, 2)]},
        {"role": "assistant", "content": "yes"},
    ]
    sizes = [Size(56, 84), Size(56, 56), Size(112, 56)]
    (piece,) = Preparer(processor()).plan([conversation], sizes).pieces
    assert piece.images == (0, 2)
    assert [span.image for span in piece.layouts[0].spans] == [1, 0, 1]
    with pytest.raises(LayoutError, match="shows image 3 of a sample that has 3"):
        Preparer(processor()).plan([asked("?", "", 3)], sizes)


def test_special_tokens_in_the_text_of_a_sample_stay_text() -> None:
    texts = "".join(processor().plain_tokenizer.specials)
    (piece,) = Preparer(processor()).plan([asked(texts, texts)], []).pieces
    layout = piece.layouts[0]
    assert words(token for token in layout.ids if token < 256).count(texts) == 2
    assert layout.spans == ()


def test_what_cannot_be_used_leaves_a_gap_and_nothing_else_and_is_counted_by_source_and_reason() -> None:
    def batches(*bad: str) -> tuple[list[Any], dict[str, Any]]:
        samples = [sample("a", number, "one") for number in range(12)]
        samples += [sample("a", 12 + number, kind) for number, kind in enumerate(bad or ["one"] * 4)]
        mixture = Mixture([DataSource("a", samples)], processor(), rows=2, length=150, epochs=1, limit=1.0, pack=True)
        return run(mixture, None)

    taken, state = batches("truncated", "missing", "endless", "silent")
    texts = " ".join(row for batch in taken for row in processor().batch_decode(batch["input_ids"]))
    assert sorted(map(int, re.findall(r"a(\d+)\?", texts))) == list(range(12))
    assert state["rejected"]["seen"] == {"a": 16}
    counts = {row["reason"]: row["count"] for row in state["rejected"]["rejected"]}
    assert counts == {"image cannot be decoded": 1, "image cannot be opened": 1, "longer than a row": 1, "has no conversation": 1}


def test_a_batch_of_which_nothing_is_left_teaches_nothing() -> None:
    mixture = Mixture([DataSource("a", [sample("a", 0, "truncated")])], processor(), rows=1, length=150, pack=True, limit=1.0)
    batch = next(mixture.batches())
    assert (batch["labels"] == IGNORE).all()
    assert (batch["visual_index"] == -1).all()
    assert batch["input_ids"].shape == (1, 150)
    assert "pixel_values" not in batch, "the model sees to it that ranks stay in step"


def test_above_a_set_share_it_stops_and_where_nothing_can_be_used_at_all() -> None:
    samples = [sample("a", number, "truncated" if number % 10 == 0 else "none") for number in range(300)]
    with pytest.raises(TooManyRejected, match=r"'a' cannot be used \(\d+\.\d%, allowed 5\.0%\)"):
        run(Mixture([DataSource("a", samples)], processor(), rows=10), 60)
    run(Mixture([DataSource("a", samples)], processor(), rows=10, limit=0.2), 60)
    with pytest.raises(DataError, match=r"no sample can be used, .* were rejected one after the other"):
        run(Mixture([DataSource("a", [sample("a", 0, "missing")])], processor(), rows=1, limit=1.0), 1)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"rows": 0}, "rows of 1 or more"),
        ({"rows": 1, "pack": True}, "packed rows are all of one length; give length="),
        ({"rows": 1, "sources": []}, "one or more sources"),
        ({"rows": 1, "sources": [DataSource("a", [])]}, "source 'a' has no samples"),
        ({"rows": 1, "sources": [DataSource("a", [sample("a", 0, "one")], -1.0)]}, "a weight is a number above 0, got -1.0"),
        (
            {"rows": 1, "sources": [DataSource(name, [sample("a", 0, "one")], weight) for name, weight in (("a", 1.0), ("b", None))]},
            "or none",
        ),
    ],
)
def test_what_makes_no_mixture_is_refused(arguments: dict[str, Any], words: str) -> None:
    with pytest.raises(DataError, match=words):
        Mixture(**({"sources": [DataSource("a", [sample("a", 0, "one")])], "processor": processor()} | arguments))


class Indexed(list[Any]):
    """Samples whose images are never read: their sizes stand in an index."""

    def image_sizes(self, number: int) -> tuple[Size, ...]:
        rng = np.random.default_rng(number)
        return (Size(*(int(side) for side in rng.integers(240, 1200, 2))),)


def test_rows_of_4096_hold_at_least_99_percent_real_tokens_on_questions_about_photos() -> None:
    rng = np.random.default_rng(0)

    def text(longest: int) -> str:
        return "word " * int(np.clip(rng.lognormal(2.2, 0.8), 1, longest))

    samples = Indexed(Sample((b"",), (asked(text(60), text(120), 0),), "vqa", str(number)) for number in range(4000))
    mixture = Mixture([DataSource("vqa", samples)], vlmkit.build_processor("univa-vl-tiny"), rows=1, length=4096, pack=True)
    windows = [mixture.windows[number] for number in range(2)]
    rows = [sum(part.piece.length for part in row) for window in windows for row in window.rows]
    assert sum(rows) / (4096 * len(rows)) >= 0.99


def test_threads_decode_the_same_pictures() -> None:
    samples = [Sample((jpeg(number), jpeg(number + 1)), (asked("?", "yes", 0, 1),), "a", str(number)) for number in range(6)]
    made = [run(Mixture([DataSource("a", samples)], processor(), rows=6), 2, threads=threads)[0] for threads in (1, 4)]
    assert all(one[name].equal(other[name]) for one, other in zip(*made, strict=True) for name in one)
