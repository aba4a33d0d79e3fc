"""Every reader against a data set in the published layout: nothing rejected, every word and image where it belongs."""

from __future__ import annotations

import functools
import gzip
import importlib
import json
from hashlib import sha256
from pathlib import Path

import pytest
from published import ANNOTATIONS, MAKERS, URLS, parquet, picture, put, tar

import vlmkit
from vlmkit.conversation import pictures, read_conversation
from vlmkit.data.reading.wording import CAPTION, DESCRIPTION, SPOKEN, TIME, WORDS, agreed
from vlmkit.data.sample import DataError, Rejected, Sample


def read(kind: str, folder: Path, **options) -> tuple[list[Sample], list[Rejected]]:
    items = list(vlmkit.formats[kind](folder, **options))
    return [item for item in items if isinstance(item, Sample)], [item for item in items if isinstance(item, Rejected)]


def words(sample: Sample) -> list[list[str]]:
    """Per conversation the texts of its turns; <k> stands for image k."""
    said = []
    for conversation in sample.conversations:
        turns, media = read_conversation(conversation)
        images = pictures(media)
        said.append(["".join(part if isinstance(part, str) else f"<{images[part]}>" for part in turn.content) for turn in turns])
    return said


def names(samples: list[Sample], folder: Path) -> list[list[str]]:
    return [[str(image.relative_to(folder)) for image in sample.images if isinstance(image, Path)] for sample in samples]


@pytest.fixture(params=sorted(MAKERS))
def kind(request: pytest.FixtureRequest) -> str:
    return request.param


def test_every_reader_has_a_published_data_set():
    builtin = [kind for kind in vlmkit.list_formats() if vlmkit.formats[kind].__module__.startswith("vlmkit.")]
    assert builtin == sorted(MAKERS) == sorted(ANNOTATIONS)
    assert len(builtin) == 14


def test_a_published_data_set_is_read_whole(kind, tmp_path):
    samples, rejected = read(kind, MAKERS[kind](tmp_path / "data set"))
    assert not rejected
    assert len(samples) >= 2
    assert len({sample.id for sample in samples}) == len(samples)
    for sample in samples:
        assert sample.source == "data set"
        assert all(isinstance(image, bytes) or (image.is_absolute() and image.is_file()) for image in sample.images)
        for conversation in sample.conversations:
            turns, media = read_conversation(conversation)
            assert pictures(media) == list(range(len(sample.images)))
            assert turns[-1].role == "assistant"
            json.dumps(conversation)


def test_reading_twice_gives_the_same(kind, tmp_path):
    folder = MAKERS[kind](tmp_path)
    assert read(kind, folder) == read(kind, folder)


def test_a_folder_without_the_data_set_is_named_with_what_it_holds(kind, tmp_path):
    (tmp_path / "readme.md").write_text("")
    with pytest.raises(DataError, match=r"has no .*; it holds readme\.md"):
        read(kind, tmp_path)
    with pytest.raises(DataError, match="is not a folder"):
        read(kind, tmp_path / "absent")


def test_coco(tmp_path):
    samples, _ = read("coco", MAKERS["coco"](tmp_path))
    assert [words(sample) for sample in samples] == [
        [[f"<0>{CAPTION}", "A man with a red helmet."], [f"<0>{CAPTION}", "Man riding a motor bike."]],
        [[f"<0>{CAPTION}", "A woman cutting a cake."]],
    ]
    assert names(samples, tmp_path) == [["train2017/000000391895.jpg"], ["train2017/000000522418.jpg"]]
    assert [sample.id for sample in samples] == ["391895", "522418"]


def test_coco_splits_and_what_does_not_belong_together(tmp_path):
    MAKERS["coco"](tmp_path)
    file = tmp_path / "annotations/captions_train2017.json"
    content = json.loads(file.read_text())
    put(tmp_path / "annotations/captions_train2014.json", content)
    with pytest.raises(DataError, match=r"several annotation files: captions_train2014\.json, captions_train2017\.json\. Name the split"):
        read("coco", tmp_path)
    content["images"][0]["id"] = 7
    put(file, content)
    samples, rejected = read("coco", tmp_path, split="train2017")
    assert [sample.id for sample in samples] == ["522418"]
    assert [(item.id, item.reason) for item in rejected] == [("7", "no answer"), ("391895", "image is not listed")]


def test_redcaps(tmp_path):
    samples, _ = read("redcaps", MAKERS["redcaps"](tmp_path))
    assert [words(sample) for sample in samples] == [
        [[f"<0>{CAPTION}", "found this house"]],
        [[f"<0>{CAPTION}", "itap of <usr> and a fox"]],
    ]
    assert names(samples, tmp_path) == [["images/abandoned/guli1.jpg"], ["images/itookapicture/1bd79.jpg"]]


def test_synthtext_one_word_and_many(tmp_path):
    samples, _ = read("synthtext", MAKERS["synthtext"](tmp_path))
    assert [words(sample) for sample in samples] == [[[f"<0>{WORDS}", "Lines: I lost Kevin will"]], [[f"<0>{WORDS}", "hello"]]]
    assert names(samples, tmp_path) == [["8/ballet_106_0.jpg"], ["8/ballet_106_1.jpg"]]


def test_synthtext_of_other_numbers_of_words_and_boxes(tmp_path):
    import scipy.io

    folder = MAKERS["synthtext"](tmp_path)
    content = scipy.io.loadmat(folder / "gt.mat")
    content["txt"][0, 0] = content["txt"][0, 1]
    scipy.io.savemat(folder / "gt.mat", {name: content[name] for name in ("imnames", "wordBB", "charBB", "txt")})
    samples, (rejected,) = read("synthtext", folder)
    assert len(samples) == 1
    assert rejected.reason == "row has wrong fields"
    assert rejected.detail == "gt.mat, image 0: 1 words, but 5 boxes"
    scipy.io.savemat(folder / "gt.mat", {"imnames": content["imnames"], "txt": content["txt"], "wordBB": content["wordBB"][:, :1]})
    with pytest.raises(DataError, match="2 imnames, 2 txt, 1 wordBB, expected as many of each"):
        read("synthtext", folder)


@pytest.mark.parametrize("split", ["train_balanced", "train_all"])
def test_gqa(tmp_path, split):
    samples, _ = read("gqa", MAKERS["gqa"](tmp_path), split=split)
    assert [words(sample) for sample in samples] == [
        [["<0>Is the sky dark?", "yes"], ["<0>What is red?", "car"]],
        [["<0>What is on the wall?", "pipe"]],
    ]
    assert names(samples, tmp_path) == [["images/2405722.jpg"], ["images/n161313.jpg"]]


def test_textvqa_most_frequent_answer(tmp_path):
    samples, _ = read("textvqa", MAKERS["textvqa"](tmp_path))
    assert [words(sample) for sample in samples] == [
        [["<0>what is the brand?", "nokia"], ["<0>what number?", "7"]],
        [["<0>what is written?", "b"]],
    ]
    assert names(samples, tmp_path) == [["train_images/0054c91397f2fe05.jpg"], ["train_images/a1.jpg"]]
    validation, _ = read("textvqa", tmp_path, split="val")
    assert names(validation, tmp_path) == [["train_images/a1.jpg"]]
    assert agreed(["b", "a", "a", "b"]) == "b"


def test_docvqa_in_both_archives(tmp_path):
    samples, _ = read("docvqa", MAKERS["docvqa"](tmp_path))
    expected = [[["<0>what is the date?", "1/8/93"], ["<0>to?", "P. Carter"]], [["<0>who?", "Paul"]]]
    assert [words(sample) for sample in samples] == expected
    assert names(samples, tmp_path) == [["spdocvqa_images/xnbl0037_1.png"], ["spdocvqa_images/mxcj0037_2.png"]]
    (tmp_path / "train").mkdir()
    (tmp_path / "spdocvqa_images").rename(tmp_path / "train" / "documents")
    (tmp_path / "spdocvqa_qas" / "train_v1.0_withQT.json").rename(tmp_path / "train" / "train_v1.0.json")
    samples, _ = read("docvqa", tmp_path)
    assert [words(sample) for sample in samples] == expected
    assert names(samples, tmp_path) == [["train/documents/xnbl0037_1.png"], ["train/documents/mxcj0037_2.png"]]


@pytest.mark.parametrize(("kind", "split"), [("gqa", "challenge_all"), ("textvqa", "test"), ("docvqa", "test")])
def test_a_split_without_answers_is_counted_as_such(tmp_path, kind, split):
    samples, rejected = read(kind, MAKERS[kind](tmp_path), split=split)
    assert not samples
    assert [item.reason for item in rejected] == ["no answer"]


def test_llava(tmp_path):
    samples, _ = read("llava", MAKERS["llava"](tmp_path))
    assert [words(sample) for sample in samples] == [
        [["<0>What are the colors?", "White and red.", "What else?", "An <img> tag."]],
        [["Render a clear summary.<0>", "select luxury furniture"]],
        [["What is a <video></video> in HTML?", "Nothing."]],
    ]
    assert names(samples, tmp_path) == [["coco/train2017/000000033471.jpg"], ["images/00453/004539375.jpg"], []]


def test_llava_rows_that_do_not_fit(tmp_path):
    pictures = MAKERS["llava"](tmp_path)
    answer = {"from": "gpt", "value": "Yes."}
    turns = [
        [{"from": "human", "value": "No tag?"}, answer],
        [{"from": "human", "value": "<image><image>"}, answer],
        [{"from": "robot", "value": "<image>"}, answer],
        [{"from": "human", "value": "<image>"}],
        [{"from": "human", "value": "<image>"}, {"from": "gpt", "value": " \n"}],
        [{"from": ["human"], "value": "<image>"}, answer],
        ["<image>", answer],
        [],
    ]
    rows = [{"id": str(number), "image": "00453/004539375.jpg", "conversations": said} for number, said in enumerate(turns)]
    put(tmp_path / "llava_v1_5_mix665k.json", rows)
    samples, rejected = read("llava", pictures)
    assert not samples
    differ, fields, answerless = "images and text differ", "row has wrong fields", "no answer"
    assert [item.reason for item in rejected] == [differ, differ, fields, answerless, answerless, fields, fields, fields]
    put(tmp_path / "conversation_58k.json", [])
    with pytest.raises(DataError, match="Name one, such as name="):
        read("llava", pictures)


def test_pixmo_cap(tmp_path):
    samples, _ = read("pixmo_cap", MAKERS["pixmo_cap"](tmp_path))
    assert [words(sample) for sample in samples] == [
        [[f"<0>{DESCRIPTION}", "A long description of a."]],
        [[f"<0>{DESCRIPTION}", "A long description of b."]],
    ]
    assert [sample.images[0].suffix for sample in samples] == ["", ".png"]
    samples, _ = read("pixmo_cap", tmp_path, transcripts=True)
    assert words(samples[0]) == [[f"<0>{DESCRIPTION}", "A long description of a."], [f"<0>{SPOKEN}", "uh a"]]


def test_pixmo_clocks(tmp_path):
    samples, _ = read("pixmo_clocks", MAKERS["pixmo_clocks"](tmp_path))
    assert [words(sample) for sample in samples] == [[[f"<0>{TIME}", "It is 3:00:00."]], [[f"<0>{TIME}", "10:15 PM."]]]
    assert [sample.id for sample in samples] == ["w1_0300", "w2_1015"]
    (tmp_path / "images/w1_0300.jpg").unlink()
    _, (rejected,) = read("pixmo_clocks", tmp_path)
    assert (rejected.reason, "w1_0300" in rejected.detail) == ("image is missing", True)
    with pytest.raises(DataError, match="split is 'test', expected one of train, validation"):
        read("pixmo_clocks", tmp_path, split="test")


def test_pixmo_counts_are_points_in_pixels_of_their_image(tmp_path):
    samples, _ = read("pixmo_count", MAKERS["pixmo_count"](tmp_path))
    both = '<points x1="12.5" y1="25.0" x2="50.0" y2="100.0" alt="cups">cups</points>'
    assert [words(sample) for sample in samples] == [
        [["<0>How many cups are there?", f"Counting the {both} shows a total of 2."]],
        [["<0>How many dogs are there?", "There are none."]],
    ]
    samples, _ = read("pixmo_count", tmp_path, answers="points")
    assert words(samples[0]) == [["<0>Point to: cups", both]]
    samples, _ = read("pixmo_count", tmp_path, split="test", answers="number")
    assert [words(sample)[0][1] for sample in samples] == ["2", "0"]
    _, rejected = read("pixmo_count", tmp_path, split="test")
    assert [item.reason for item in rejected] == ["row has wrong fields"] * 2
    wrong = [(1, [17.0], [3.0]), (2, [1.0], [3.0]), (1, [1.0], [float("nan")]), (-1, [], []), (1, ["a"], [0.0])]
    for count, x, y in wrong:
        row = {"image_url": URLS[0], "label": "cup", "count": count, "points": {"x": x, "y": y}}
        parquet(tmp_path / "data/train-00000-of-00001.parquet", [row])
        samples, (told,) = read("pixmo_count", tmp_path)
        assert (samples, told.reason) == ([], "row has wrong fields"), row
    put(tmp_path / "pixmo_images" / sha256(URLS[1].encode()).hexdigest(), b"no picture")
    parquet(tmp_path / "data/train-00000-of-00001.parquet", [row | {"image_url": URLS[1], "points": {"x": [1.0], "y": [1.0]}}])
    _, (told,) = read("pixmo_count", tmp_path)
    assert told.reason == "image cannot be opened"


def test_pixmo_points_may_be_counted_and_chosen_by_how_they_were_collected(tmp_path):
    rows = [
        {"image_url": url, "label": "cup", "points": points, "collection_method": method}
        for url, points, method in (
            (URLS[0], [{"x": 5.0, "y": 1.0}, {"x": 4.0, "y": 2.0}], "counting"),
            (URLS[1], [], "pointing"),
        )
    ]
    MAKERS["pixmo_points"](tmp_path)
    parquet(tmp_path / "data/train-00000-of-00001.parquet", rows)
    samples, rejected = read("pixmo_points", tmp_path, answers="counts", method="counting")
    assert not rejected
    answer = 'Counting the <points x1="4.0" y1="2.0" x2="5.0" y2="1.0" alt="cup">cup</points> shows a total of 2.'
    assert [words(sample) for sample in samples] == [[["<0>How many cup are there?", answer]]]
    with pytest.raises(DataError, match="method is 'count', expected one of pointing, counting"):
        read("pixmo_points", tmp_path, method="count")


def test_pixmo_points_as_molmo_writes_them(tmp_path):
    samples, _ = read("pixmo_points", MAKERS["pixmo_points"](tmp_path))
    assert [words(sample) for sample in samples] == [
        [
            ["<0>Point to: cups", '<points x1="12.5" y1="80.0" x2="50.0" y2="1.0" alt="cups">cups</points>'],
            ["<0>Point to: cats", "There are none."],
        ],
        [["<0>Point to: dog", '<point x="100.0" y="0.0" alt="dog">dog</point>']],
    ]
    rows = [{"image_url": URLS[0], "label": "cup", "points": [{"x": x, "y": 1.0}]} for x in (100.5, float("nan"), 3.0)]
    parquet(tmp_path / "data/train-00000-of-00001.parquet", rows)
    samples, rejected = read("pixmo_points", tmp_path)
    assert len(samples) == 1
    assert [item.reason for item in rejected] == ["row has wrong fields"] * 2


def test_cauldron_turns_and_several_images(tmp_path):
    samples, _ = read("cauldron", MAKERS["cauldron"](tmp_path))
    assert [words(sample) for sample in samples] == [[["<0>What?", "A chart.", "And?", "A table."]], [["<0><1>What?", "A chart."]]]
    assert [sample.images for sample in samples] == [(picture(0),), (picture(1), picture(2))]


def test_cauldron_rows_without_images_have_none_and_files_without_the_column_are_another_format(tmp_path):
    turns = [{"user": "What?", "assistant": "A chart."}]
    image = {"bytes": picture(), "path": None}
    parquet(tmp_path / "a.parquet", [{"images": images, "texts": turns} for images in (None, [], [image])])
    samples, rejected = read("cauldron", tmp_path)
    assert ([len(sample.images) for sample in samples], rejected) == ([0, 0, 1], [])
    parquet(tmp_path / "a.parquet", [{"image": image, "texts": turns}])
    samples, rejected = read("cauldron", tmp_path)
    assert not samples
    assert [(item.reason, item.detail) for item in rejected] == [("row has wrong fields", "a.parquet, row 0: there is no column 'images'")]


def test_webdataset(tmp_path):
    samples, _ = read("webdataset", MAKERS["webdataset"](tmp_path))
    assert [words(sample) for sample in samples] == [
        [[f"<0>{CAPTION}", "a caption"]],
        [["<0><1>Same?", "No."]],
        [["<0><1>a", "a"], ["<0><1>b", "b"]],
    ]
    assert [sample.images for sample in samples] == [(picture(0),), (picture(1), picture(2)), (picture(3), picture(4))]
    assert [sample.id for sample in samples] == ["00000/000000000", "00001/two", "00001/many"]


def test_a_tar_that_the_webdataset_library_wrote(tmp_path):
    webdataset = pytest.importorskip("webdataset")
    turns = [{"from": "human", "value": "<image>\nWhat?"}, {"from": "gpt", "value": "A dog."}]
    with webdataset.TarWriter(str(tmp_path / "shard-000000.tar.gz")) as writer:
        for number in range(3):
            writer.write({"__key__": f"sub/{number:06}", "jpg": picture(number), "json": {"conversations": turns}})
    samples, rejected = read("webdataset", tmp_path)
    assert not rejected
    assert [sample.id for sample in samples] == [f"shard-000000/sub/{number:06}" for number in range(3)]
    assert words(samples[0]) == [["<0>What?", "A dog."]]


def test_plain_and_compressed_tars_lie_side_by_side(tmp_path):
    members = [("0.jpg", picture()), ("0.txt", b"words")]
    for place in (tmp_path, tmp_path / "below"):
        content = tar(place / "a.tar", members).read_bytes()
        (place / "b.tar.gz").write_bytes(gzip.compress(content))
        (place / "c.tgz").write_bytes(gzip.compress(content))
    samples, _ = read("webdataset", tmp_path)
    assert [sample.id for sample in samples] == ["a/0", "b/0", "c.tgz/0"]
    samples, _ = read("webdataset", tmp_path / "below")
    assert [sample.id for sample in samples] == ["a/0", "b/0", "c.tgz/0"]
    (tmp_path / "above").mkdir()
    (tmp_path / "below").rename(tmp_path / "above" / "below")
    samples, _ = read("webdataset", tmp_path / "above")
    assert [sample.id for sample in samples] == ["below/a/0", "below/b/0", "below/c.tgz/0"]
    (tmp_path / "a.tar.gz").write_bytes(gzip.compress(content))
    with pytest.raises(DataError, match=r"a\.tar and a\.tar\.gz, which would be read as the same samples twice"):
        read("webdataset", tmp_path)


def test_webdataset_as_other_systems_write_it(tmp_path):
    """macOS puts a hidden member before each; Windows begins a text with a mark and its names end in capitals."""
    shown = {"messages": [{"role": "user", "content": [{"type": "image", "image": "0.JPG"}]}, {"role": "assistant", "content": "?"}]}
    members = [
        *(("._a.jpg", b"?"), ("a.jpg", picture()), ("._a.txt", b"?"), ("a.txt", b"\xef\xbb\xbfwords\r\n"), (".DS_Store", b"?")),
        *(("b.0.JPG", picture()), ("b.json", json.dumps(shown).encode())),
    ]
    tar(tmp_path / "a.tar", members)
    samples, rejected = read("webdataset", tmp_path)
    assert [words(sample) for sample in samples] == [[[f"<0>{CAPTION}", "words"]], [["<0>", "?"]]]
    assert [item.id for item in rejected] == ["._a.jpg", "._a.txt", ".DS_Store"]
    assert {item.reason for item in rejected} == {"tar member has no key"}


def test_webdataset_samples_that_do_not_fit(tmp_path):
    said = {"messages": [{"role": "user", "content": [{"type": "image", "image": "9.jpg"}]}, {"role": "assistant", "content": "?"}]}
    members = [
        ("wordless.jpg", picture()),
        ("twice.jpg", picture()),
        ("twice.JPG", picture()),
        ("twice.txt", b"?"),
        ("../outside.jpg", picture()),
        ("../outside.txt", b"?"),
        ("README", b""),
        ("other.jpg", picture()),
        ("other.json", json.dumps(said).encode()),
        ("blind.txt", b"a caption of a picture that is not there"),
        ("list.jpg", picture()),
        ("list.json", b"[]"),
        ("good.jpg", picture()),
        ("good.txt", b"good"),
    ]
    tar(tmp_path / "a.tar", members)
    samples, rejected = read("webdataset", tmp_path)
    assert [sample.id for sample in samples] == ["a/good"]
    assert {item.id: item.reason for item in rejected} == {
        "a/wordless": "no answer",
        "twice": "key occurs twice",
        "../outside": "tar member leaves its folder",
        "README": "tar member has no ending",
        "a/other": "images and text differ",
        "a/blind": "images and text differ",
        "a/list": "row has wrong fields",
    }


def test_chat(tmp_path):
    samples, _ = read("chat", MAKERS["chat"](tmp_path))
    assert [words(sample) for sample in samples] == [[["<0>What?", "A dog, é."]], [["<0>What?", "A dog, é."]], [["What?", "A dog, é."]]]
    assert samples[0].images == (tmp_path / "images/1.jpg",)
    assert samples[1].images == (b"\xff\xd8\xff\xe0\x00\x10",)


def chat_row(image: object) -> dict:
    return {"messages": [{"role": "user", "content": [{"type": "image", "url": image}]}, {"role": "assistant", "content": "A dog."}]}


def test_urls_are_fetched_only_by_who_is_handed_in(tmp_path):
    put(tmp_path / "data.jsonl", chat_row("https://example.org/a.jpg"))
    _, (rejected,) = read("chat", tmp_path)
    assert rejected.reason == "image is a URL"
    assert "pass fetch=" in rejected.detail
    (sample,), _ = read("chat", tmp_path, fetch=lambda url: url.encode())
    assert sample.images == (b"https://example.org/a.jpg",)

    def refuse(url: str) -> bytes:
        raise TimeoutError("too slow")

    _, (rejected,) = read("chat", tmp_path, fetch=refuse)
    assert (rejected.reason, rejected.detail) == (
        "image cannot be fetched",
        "data.jsonl, line 1: 'https://example.org/a.jpg': TimeoutError: too slow",
    )


@pytest.mark.parametrize("answer", [None, "text", b""])
def test_what_is_fetched_and_is_no_bytes_costs_its_row(tmp_path, answer):
    put(tmp_path / "data.jsonl", chat_row("https://example.org/a.jpg"))
    _, (rejected,) = read("chat", tmp_path, fetch=lambda url: answer)
    assert rejected.reason == ("image is empty" if answer == b"" else "image cannot be fetched")


@pytest.mark.parametrize("kind", ["pixmo_cap", "pixmo_points", "redcaps"])
def test_what_was_not_downloaded_is_rejected_or_fetched(tmp_path, kind):
    folder = MAKERS[kind](tmp_path)
    for path in tmp_path.rglob("*"):
        if path.parent.name in ("pixmo_images", "abandoned", "itookapicture"):
            path.unlink()
    samples, rejected = read(kind, folder)
    assert not samples
    assert {item.reason for item in rejected} == {"image is missing" if kind == "redcaps" else "image is a URL"}
    samples, rejected = read(kind, folder, fetch=lambda url: url.encode())
    assert not rejected
    assert len(samples) == 2


def test_download_takes_http_only():
    from vlmkit.data.reading.urls import download

    with pytest.raises(ValueError, match="expected http"):
        download("file:///etc/passwd")


@pytest.mark.parametrize(("kind", "package"), [("cauldron", "pyarrow"), ("pixmo_cap", "pyarrow"), ("synthtext", "scipy")])
def test_a_package_that_is_not_there_is_named_with_its_extra(tmp_path, monkeypatch, kind, package):
    folder = MAKERS[kind](tmp_path)
    places = importlib.import_module("vlmkit.data.reading.places")

    def absent(name: str) -> None:
        raise ImportError(name)

    monkeypatch.setattr(places, "import_module", absent)
    with pytest.raises(DataError, match=rf"needs {package}: pip install 'vlmkit\[data\]'"):
        read(kind, folder)


def test_options_are_keywords_of_the_reader(tmp_path):
    folder = MAKERS["coco"](tmp_path)
    with pytest.raises(DataError, match="found no sample"):
        list(functools.partial(vlmkit.formats["coco"], split="val")(folder))
    with pytest.raises(TypeError, match="unexpected keyword argument 'splitt'"):
        read("coco", folder, splitt="val")
