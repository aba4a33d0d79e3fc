"""A reader of one's own: whatever it yields is looked at, whatever it does wrong is said."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

import vlmkit
from vlmkit.data.reading.checks import MAX_MEMBERS, checked
from vlmkit.data.reading.rows import AnnotationRow, Groups, each, json_lines
from vlmkit.data.reading.wording import ask
from vlmkit.data.sample import LONGEST_TEXT, DataError, Rejected, Sample


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "a.jpg").write_bytes(b"a")
    return tmp_path


def given(folder: Path, *items: object) -> list:
    def mine(folder: Path) -> Iterator:
        yield from items

    return list(checked(mine)(folder))


def test_relative_paths_and_bytes_are_images(folder):
    first, second = given(folder, Sample((Path("a.jpg"), b"b"), (ask("?", "!", 2),), "s", "1"), Rejected("s", "2", "why", "because"))
    assert first.images == (folder / "a.jpg", b"b")
    assert second == Rejected("s", "2", "why", "because")


@pytest.mark.parametrize(
    ("sample", "reason"),
    [
        (Sample((Path("b.jpg"),), (ask("?", "!"),), "s", "1"), "image is missing"),
        (Sample((b"",), (ask("?", "!"),), "s", "1"), "image is empty"),
        (Sample((b"a",), (ask("?", "!", 2),), "s", "1"), "images and text differ"),
        (Sample((b"a", b"b"), (ask("?", "!"),), "s", "1"), "images and text differ"),
        (Sample((b"a",), (ask("?", ""),), "s", "1"), "no answer"),
        (Sample((b"a",), (), "s", "1"), "no answer"),
        (Sample((b"a",), ("?",), "s", "1"), "row has wrong fields"),
        (Sample((b"a",), (ask("?", "!"),), "s", ""), "row has wrong fields"),
        (Sample((), (ask("?", "x" * LONGEST_TEXT, 0),), "s", "1"), "text is too long"),
        (Sample((b"a",) * (MAX_MEMBERS + 1), (ask("?", "!", MAX_MEMBERS + 1),), "s", "1"), "sample is too large"),
        (Sample((b"a",), (ask("?", "!"),) * (MAX_MEMBERS + 1), "s", "1"), "sample is too large"),
    ],
)
def test_what_cannot_be_used_is_rejected(folder, sample, reason):
    (item,) = given(folder, sample)
    assert isinstance(item, Rejected)
    assert (item.source, item.reason) == ("s", reason)


def test_an_image_is_named_as_one_looks_for_it(folder):
    """From the folder on, and not shortened."""
    name = "a/folder/of/a/data/set/with/a/path/of/the/usual/length/000000391895.jpg"
    for path in (Path(name), folder / name):
        (item,) = given(folder, Sample((path,), (ask("?", "!"),), "s", "1"))
        assert item.detail == f"1: '{name}': No such file or directory"
    (item,) = given(folder, Sample((Path("x" * 5000),), (ask("?", "!"),), "s", "1"))
    assert len(item.detail) < 300


@pytest.mark.parametrize(
    ("item", "words"),
    [
        ({"image": "a.jpg"}, r"reader 'mine' yielded \{'image': 'a\.jpg'\}; expected a Sample or a Rejected"),
        (Sample(("a.jpg",), (ask("?", "!"),), "s", "1"), r"a sample's image is a Path or bytes, got 'a\.jpg'"),
        (Sample(Path("a.jpg"), (ask("?", "!"),), "s", "1"), r"images .*Path\('a\.jpg'\) .* a single one is written \(image,\)"),
        (Sample((), None, "s", "1"), r"conversations None; expected tuples"),
        (Sample((), (ask("?", "!", 0),), None, "1"), r"calls the source None; expected a text"),
        (Sample((), (ask("?", "!", 0),), "d\udcff", "1"), r"calls the source 'd\\udcff'; .* called as its folder is"),
        (Rejected("s", "1", "bad", ValueError("x")), r"expected texts in all fields of a Rejected"),
    ],
)
def test_what_is_no_sample_is_a_mistake_of_the_reader(folder, item, words):
    with pytest.raises(DataError, match=words):
        given(folder, item)


def test_a_reader_that_fails_is_named_with_what_it_did(folder):
    def mine(folder: Path) -> Iterator[Sample]:
        yield Sample((b"a",), (ask("?", "!"),), "s", "1")
        raise KeyError("caption")

    items = checked(mine)(folder)
    next(items)
    with pytest.raises(DataError, match=r"reader 'mine' failed in .* after 1 samples: KeyError: 'caption'. A reader yields a Rejected"):
        next(items)
    with pytest.raises(DataError, match="reader 'mine' found no sample in"):
        given(folder)

    def at_once(folder: Path) -> list[Sample]:
        return [Sample((), (ask((folder / "absent").read_text(), "!", 0),), "s", "1")]

    with pytest.raises(DataError, match=r"reader 'at_once' failed in .* after 0 samples: FileNotFoundError"):
        list(checked(at_once)(folder))


def test_a_folder_that_cannot_be_one_is_a_sentence(folder):
    (folder / "loop").symlink_to("loop")
    for name in (folder / "loop", "x" * 5000, "a\0b", folder / "a.jpg" / "b"):
        with pytest.raises(DataError, match=r"is not a folder; expected one that holds a data set as 'chat' reads it"):
            list(vlmkit.formats["chat"](name))


def test_rows_of_the_wrong_kind_are_named(folder):
    (folder / "a.jsonl").write_text('{"a": 1}\n\n3\n{"a": "x", "b": ["y"]}\n{"a"\n{"a": "x", "b": [2]}\n')
    items = list(each("s", json_lines("s", folder / "a.jsonl"), lambda row: (row.text("a"), row.texts("b"))))
    assert items[2] == ("x", ["y"])
    assert [(item.id, item.reason) for item in items if isinstance(item, Rejected)] == [
        ("a.jsonl, line 1", "row has wrong fields"),
        ("a.jsonl, line 3", "row has wrong fields"),
        ("a.jsonl, line 5", "row is not JSON"),
        ("a.jsonl, line 6", "row has wrong fields"),
    ]
    assert items[0].detail == "a.jsonl, line 1: expected a text 'a', got 1"
    assert AnnotationRow({"id": 7}, "").key("id") == "7"
    assert isinstance(next(json_lines("s", folder / "absent")), Rejected)


def test_groups_keep_order_and_text():
    groups = Groups()
    for key, text in (("b", "é\n"), ("a", "\udcff"), ("b", "2")):
        groups.add(key, text, 1)
    assert list(groups) == [("b", [["é\n", 1], ["2", 1]]), ("a", [["\udcff", 1]])]
    assert groups.pop("b") == [["é\n", 1], ["2", 1]]
    assert groups.pop("b") == []
    assert len(groups) == 1


def test_a_reader_is_registered_and_listed_by_its_name(folder):
    @vlmkit.formats.register("mine_here")
    def read(folder: Path) -> Iterator[Sample]:
        """My own."""
        yield Sample((Path("absent.jpg"),), (ask("?", "!"),), folder.name, "1")

    assert "mine_here" in vlmkit.list_formats("mine*")
    (item,) = vlmkit.formats["mine_here"](folder)
    assert item.reason == "image is missing"
    with pytest.raises(vlmkit.RegistryError, match=r"unknown format 'cocco'; did you mean 'coco'\?"):
        vlmkit.formats["cocco"]
    with pytest.raises(vlmkit.RegistryError, match=r"format 'coco' is already registered by vlmkit\.data.formats.coco"):
        vlmkit.formats.register("coco")(lambda folder: iter(()))


def test_special_tokens_in_data_stay_text(folder):
    """From the file of a data set to token ids."""
    import json

    from tests.training.conftest import small

    processor = vlmkit.build_processor(small())
    specials = processor.plain_tokenizer.specials
    spelled = "".join(specials)
    message = [{"role": "user", "content": f"{spelled}?"}, {"role": "assistant", "content": spelled}]
    (folder / "data.jsonl").write_text(json.dumps({"messages": message}))
    ((sample,), plain) = (list(vlmkit.formats["chat"](folder)), [{**turn, "content": "x"} for turn in message])
    ids = processor.lay_out(sample.conversations[0], ()).ids
    ordinary = processor.lay_out(plain, ()).ids
    assert sorted(set(ids) & set(specials.values())) == sorted(set(ordinary) & set(specials.values()))
    for token in specials.values():
        assert ids.count(token) == ordinary.count(token)
    assert processor.tokenizer.decode([token for token in ids if token not in specials.values()]).count(spelled) == 2
