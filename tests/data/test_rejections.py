from __future__ import annotations

import dataclasses

import pytest

from vlmkit.data.rejections import EXAMPLES, Rejections, TooManyRejected
from vlmkit.data.sample import DataError, Rejected, Sample


def sample(source: str, number: int) -> Sample:
    return Sample((b"",), ([{"role": "user", "content": "?"}],), source, str(number))


def counted(source: str = "a", good: int = 6, missing: int = 3, wrong: int = 1) -> Rejections:
    rejections = Rejections()
    items: list[Sample | Rejected] = [sample(source, number) for number in range(good)]
    items += [Rejected(source, f"m{number}", "image is missing", f"{number}.jpg is not there") for number in range(missing)]
    items += [Rejected(source, f"w{number}", "row has wrong fields", f"row {number}") for number in range(wrong)]
    assert len(list(rejections.kept(items))) == good
    return rejections


def test_samples_cannot_be_changed():
    with pytest.raises(dataclasses.FrozenInstanceError):
        sample("a", 0).id = "1"


def test_everything_is_counted_by_source_and_reason():
    rejections = counted()
    rejections.merge(counted("b", good=1, missing=0, wrong=1))
    assert rejections.sources == ("a", "b")
    assert rejections.by_reason("a") == {"image is missing": 3, "row has wrong fields": 1}
    assert (rejections.total(), rejections.total("b")) == (5, 1)
    assert (rejections.share("a"), rejections.share("b"), rejections.share("c")) == (0.4, 0.5, 0)
    assert rejections.report().splitlines()[:3] == [
        "a: 4 of 10 samples rejected (40.00%)",
        "           3  image is missing",
        "              - 0.jpg is not there",
    ]
    assert counted(missing=0, wrong=0).report() == ""


def test_merged_is_counted_together_and_json_is_exact():
    together = counted()
    together.merge(counted())
    assert together.by_reason("a") == {"image is missing": 6, "row has wrong fields": 2}
    assert together.share("a") == 0.4
    assert Rejections.from_json(together.to_json()) == together


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"seen": {"a": "x"}, "rejected": []}', '{"seen": {}, "rejected": [{}]}'])
def test_what_is_no_count_is_refused(text):
    with pytest.raises(DataError, match="not a count of rejections"):
        Rejections.from_json(text)


def test_a_share_above_the_limit_stops_with_one_sentence():
    rejections = counted()
    rejections.check(0.4)
    rejections.check(0.1, at_least=11)
    with pytest.raises(
        TooManyRejected,
        match=r"^4 of 10 samples of 'a' cannot be used \(40\.0%, allowed 39\.0%\), 3 of them because: image is missing "
        r"\(such as: 0\.jpg is not there\)",
    ):
        rejections.check(0.39)


def test_a_source_that_no_terminal_should_see_is_spelled():
    rejections = Rejections()
    rejections.add(Rejected("s\x1b[2J", "1", "bad\nreason", "why"))
    assert rejections.report().splitlines()[:2] == [r"s\x1b[2J: 1 of 1 samples rejected (100.00%)", r"           1  bad\nreason"]
    assert rejections.by_reason("s\x1b[2J") == {"bad\nreason": 1}


def test_examples_are_few_and_short_and_printable():
    rejections = Rejections()
    for detail in ("x" * 10**6, "two\nlines\x1b[2J", "\ud800", "fourth"):
        rejections.add(Rejected("a", "1", "bad", detail))
    report = rejections.report()
    assert len(report.splitlines()) == 2 + EXAMPLES
    assert len(report) < 500
    assert r"two\nlines\x1b[2J" in report
    assert r"\ud800" in report.encode("utf-8").decode()
    assert Rejections.from_json(rejections.to_json()) == rejections


def test_what_a_filter_leaves_out_is_counted_apart_and_stops_nothing():
    items = [Sample((), ((),), "mine", "0"), Rejected("mine", "1", "it is on the list", "1: it is on the list", meant=True)]
    rejections = Rejections()
    assert len(list(rejections.kept(items))) == 1
    rejections.check(0.0)
    assert (rejections.total("mine"), rejections.by_reason("mine"), rejections.left_out("mine")) == (0, {}, {"it is on the list": 1})
    assert "mine: 1 of 2 samples left out by filters" in rejections.report()
    assert Rejections.from_json(rejections.to_json()) == rejections
    both = Rejections()
    both.merge(rejections)
    assert both == rejections
