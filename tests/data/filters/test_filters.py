"""Filters keep what they are to keep, say why they leave out the rest, and refuse files that cannot be meant."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

import vlmkit
from tests.data.packs import jpeg
from vlmkit.cli import main
from vlmkit.data.filters import filtered
from vlmkit.data.sample import DataError, Rejected, Sample


def sample(number: int, words: str = "a red cup") -> Sample:
    said = [{"role": "user", "content": [{"type": "image", "image": 0}]}, {"role": "assistant", "content": words}]
    return Sample((Path(f"/data/coco/{number:03}.jpg"),), (said,), "coco", f"captions/{number}")


def text(path: Path, *lines: str) -> str:
    path.write_text("\n".join(lines), "utf-8")
    return str(path)


def test_every_filter_is_tried_here():
    assert vlmkit.list_filters() == ["length", "saying", "scored", "without"]


@pytest.mark.parametrize("name", ["captions/1", "1", "001", "001.jpg", "coco/001.jpg", "images/coco/001.jpg"])
def test_a_list_knows_a_sample_by_its_id_and_by_its_image(tmp_path, name):
    keep = vlmkit.filters["without"](file=text(tmp_path / "list", "# toxic", "", name), reason="it is toxic")
    assert [keep(sample(number)) for number in (0, 1, 2, 11)] == [None, "it is toxic", None, None]


def test_scores_keep_what_lies_within_both_bounds(tmp_path):
    rows = [json.dumps({"id": f"captions/{number}", "score": score}) for number, score in enumerate((0.1, 0.5, 0.9))]
    file = text(tmp_path / "scores.jsonl", *rows)
    keep = vlmkit.filters["scored"](file=file, below=0.9, least=0.5)
    assert [keep(sample(number)) for number in range(4)] == [
        "its score is below 0.5",
        None,
        "its score is not below 0.9",
        "it has no score",
    ]


def test_listed_words_stand_alone_in_any_case(tmp_path):
    keep = vlmkit.filters["saying"](file=text(tmp_path / "words", "red cup", "C++"))
    said = ["A RED CUP.", "a red cupboard", "written in c++", "written in c", "tired cup"]
    assert [keep(sample(0, words)) is None for words in said] == [False, True, False, True, True]


def test_answers_of_a_length():
    keep = vlmkit.filters["length"](least=2, most=3)
    assert [keep(sample(0, words)) for words in ("one", "one two", "a b c", "a b c d")] == [
        "it has fewer than 2 words",
        None,
        None,
        "it has more than 3 words",
    ]


def test_what_is_left_out_is_said_and_the_rest_passes(tmp_path):
    broken = Rejected("coco", "9", "image is missing", "9: ...")
    items = list(filtered([sample(0), broken, sample(1, "x")], [vlmkit.filters["length"](least=2)]))
    assert items[:2] == [sample(0), broken]
    assert items[2] == Rejected("coco", "captions/1", "it has fewer than 2 words", "captions/1: it has fewer than 2 words", meant=True)


@pytest.mark.parametrize(
    ("name", "content", "options", "told"),
    [
        ("without", "# nothing\n", {}, "names nothing; expected a name a line"),
        ("without", b"\xff", {}, "it is no text in UTF-8"),
        ("saying", "\n", {}, "names nothing; expected a word a line"),
        ("scored", "[1]", {}, r"line 1: expected an object with 'id' and 'score', got '\[1\]'"),
        ("scored", '{"id": "1", "score": NaN}', {}, "'score' is nan, expected a number"),
        ("scored", '{"id": "1", "score": true}', {}, "'score' is True, expected a number"),
        ("scored", '{"name": "1", "score": 1}', {}, "expected an object with 'id'"),
    ],
)
def test_a_file_that_cannot_be_meant_is_refused(tmp_path, name, content, options, told):
    file = tmp_path / "file"
    file.write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(DataError, match=told):
        vlmkit.filters[name](file=str(file), **options)


def test_pack_filters_and_counts_what_it_leaves_out(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    rows = []
    for number in range(3):
        Path(f"{number}.jpg").write_bytes(jpeg(number))
        rows.append({"id": str(number), "image": f"{number}.jpg", "conversations": [{"from": "human", "value": "<image>?"}]})
        rows[-1]["conversations"].append({"from": "gpt", "value": "one two" if number else "one"})
    Path("data.json").write_text(json.dumps(rows), "utf-8")
    Path("toxic.txt").write_text("2.jpg\n", "utf-8")
    command = ["data", "pack", ".", "../packed", "--format", "llava:name=data.json", "--workers", "0"]
    chosen = ["--filter", "length:least=2", "--filter", "without:file=toxic.txt,reason=the image is toxic"]
    assert main([*command, *chosen]) == 0
    told = capsys.readouterr()
    assert "1 samples, 1 images" in told.out
    assert "2 of 3 samples left out by filters" in told.err
    assert "the image is toxic" in told.err
    assert json.loads(Path("../packed/index.json").read_text("utf-8"))["job"]["filters"] == chosen[1::2]
    for wrong, code, words in (
        ("lenght", 2, "did you mean 'length'"),
        ("length:fewest=2", 2, "unknown option 'fewest'"),
        ("without", 2, "'without' needs file=..."),
        ("without:file", 2, "expected FIELD=VALUE"),
        ("without:file=nowhere", 1, "nowhere: No such file"),
    ):
        assert main([*command[:3], "../new", *command[4:], "--filter", wrong]) == code
        assert words in capsys.readouterr().err
