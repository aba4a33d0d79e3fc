"""`vlmkit data`: what it writes, prints and refuses."""

from __future__ import annotations

import errno
import json
import subprocess
import sys
import warnings
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import vlmkit
from tests.data.packs import conversation, jpeg, sample
from vlmkit.cli import main
from vlmkit.data.looking.contact_sheet import CELL_WIDTH, draw, wrapped
from vlmkit.data.looking.statistics import Values, content, cost
from vlmkit.data.packing import first_fit
from vlmkit.data.sample import DataError, Sample
from vlmkit.data.shards import Shards, ShardWriter
from vlmkit.page import text_width

READER = """
from vlmkit.data.formats import formats
from vlmkit.data.sample import Sample


@formats.register("one_a_file")
def read(folder, ending="jpg"):
    for file in sorted(folder.glob(f"*.{ending}")):
        said = [{"role": "user", "content": [{"type": "image", "image": 0}]}, {"role": "assistant", "content": file.stem}]
        yield Sample((file,), (said,), "mine", file.stem)
"""


@pytest.fixture
def here(tmp_path, monkeypatch):
    """A working directory with a folder of pictures and a reader for it."""
    monkeypatch.chdir(tmp_path)
    assert all(vlmkit.formats[kind] for kind in vlmkit.formats)  # loaded, or they would be registered for this test alone
    monkeypatch.setattr(vlmkit.formats, "_parts", dict(vlmkit.formats._parts))
    (tmp_path / "pictures").mkdir()
    for number in range(5):
        (tmp_path / "pictures" / f"{number}.jpg").write_bytes(jpeg(number, 240, 320))
    (tmp_path / "reader.py").write_text(READER)
    return tmp_path


@pytest.fixture(scope="module")
def packed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("packed") / "shards"
    with ShardWriter(directory) as writer:
        for number in range(20):
            assert writer.write(sample(number, "ab"[number % 2]))
        assert writer.write(Sample((jpeg(1), jpeg(2, 80, 16)), (conversation(0, 2), conversation(1, 2)), "b", "two"))
        assert writer.write(Sample((), (conversation(0, 0),), "b", "none"))
        assert not writer.write(Sample((b"",), (conversation(0),), "b", "bad"))
    return directory


def run(capsys, *argv: str, code: int = 0) -> tuple[str, str]:
    assert main(["data", *argv]) == code, capsys.readouterr().err
    captured = capsys.readouterr()
    return captured.out, captured.err


PACK = ("pack", "--plugin", "reader.py", "--format", "one_a_file", "--workers", "0", "pictures", "shards")


def test_a_reader_of_one_s_own_is_packed(here, capsys):
    out, _ = run(capsys, *PACK)
    assert out.startswith("shards: 5 samples, 5 images, ")
    shards = Shards("shards")
    assert [shards[number].id for number in range(5)] == list("01234")
    assert shards.summary.job == {"format": "one_a_file", "options": {}, "folder": "pictures", "whole": True, "shard_bytes": 256 << 20}
    _, err = run(capsys, *PACK, code=1)
    assert "holds packed samples already" in err


def test_a_registered_format_with_options_is_packed(here, capsys):
    annotations = {
        "images": [{"id": 1, "file_name": "0.jpg", "height": 240, "width": 320}],
        "annotations": [{"id": number, "image_id": 1, "caption": f"caption {number}"} for number in range(2)],
    }
    folder = here / "coco"
    (folder / "annotations").mkdir(parents=True)
    (folder / "annotations" / "captions_val2017.json").write_text(json.dumps(annotations))
    (here / "pictures").rename(folder / "val2017")
    out, _ = run(capsys, "pack", "--format", "coco:split=val", "--workers", "0", "coco", "shards")
    assert out.startswith("shards: 1 samples, 1 images")
    assert len(Shards("shards")[0].conversations) == 2


def test_bad_images_are_reported_and_too_many_stop_with_one_sentence(here, capsys):
    bad = here / "pictures" / "3.jpg"
    bad.write_bytes(bad.read_bytes()[:-2000])
    _, err = run(capsys, *PACK, code=1)
    assert err.startswith("vlmkit data pack: 1 of 5 samples of 'mine' cannot be used (20.0%, allowed 5.0%)")
    assert "--max-rejected" in err
    assert len(err.splitlines()) == 1
    out, err = run(capsys, *PACK, "--max-rejected", "0.2")
    assert out.startswith("shards: 4 samples")
    assert "1  image cannot be opened" in err
    out, _ = run(capsys, *PACK[:-1], "headers", "--headers-only")
    assert out.startswith("headers: 5 samples")


@pytest.mark.parametrize(
    ("argv", "words"),
    [
        ((), "the following arguments are required: COMMAND"),
        (("unpack",), "invalid choice: 'unpack'"),
        (("pack", "pictures", "shards"), "required: --format"),
        (("pack", "--format", "cocoa", "pictures", "shards"), "unknown format 'cocoa'; did you mean 'coco'?"),
        (("pack", "--format", "coco:splat=1", "pictures", "shards"), "unknown option 'splat'"),
        (("pack", "--format", "coco:split", "pictures", "shards"), "expected FIELD=VALUE"),
        (("pack", "--format", "coco", "--workers", "-1", "pictures", "shards"), "expected a whole number from 0 up"),
        (("pack", "--format", "coco", "--max-rejected", "5", "pictures", "shards"), "expected a share from 0 to 1"),
        (("pack", "--format", "coco", "--shard-size", "0", "pictures", "shards"), "expected a whole number from 1 up"),
        (("stats", "--model", "univa-vl-tinny", "x"), "did you mean"),
        (("stats", "-o", "x.jpg", "x"), "the picture is a PNG"),
        (("show", "x", "one"), "invalid int value: 'one'"),
    ],
)
def test_wrong_arguments_get_help(here, capsys, argv, words):
    _, err = run(capsys, *argv, code=2)
    assert words in err
    assert "Traceback" not in err
    assert "usage: vlmkit data" in err or "--help' tells what it takes" in err
    assert not (here / "shards").exists()


@pytest.mark.parametrize(
    ("argv", "words"),
    [
        (("pack", "--format", "coco", "--workers", "0", "nowhere", "shards"), "nowhere is not a folder"),
        (("stats", "nowhere"), "is no directory that 'vlmkit data pack' wrote"),
        (("show", "nowhere"), "is no directory that 'vlmkit data pack' wrote"),
    ],
)
def test_what_is_not_there_is_one_sentence(here, capsys, argv, words):
    _, err = run(capsys, *argv, code=1)
    assert words in err
    assert len(err.splitlines()) == 1


def test_a_full_disk_is_a_sentence_that_says_how_to_go_on(here, capsys, monkeypatch):
    def full(*arguments: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr("vlmkit.data.shards.writer.verify", full)
        _, err = run(capsys, *PACK, code=1)
    assert err == "vlmkit data pack: 'shards': No space left on device; then the same command goes on behind the last finished shard\n"
    run(capsys, *PACK)


def test_tars_are_not_packed_into_the_folder_that_they_are_read_from(here, capsys):
    """Continued, the packing would read its own shards."""
    Path("link").symlink_to("pictures")
    for output in ("pictures/packed", "link/packed", "pictures"):
        _, err = run(capsys, "pack", "--workers", "0", "--format", "webdataset", "pictures", output, code=2)
        assert f"{output} lies in pictures, whose tars are read: name a directory beside it" in err
    assert not Path("pictures/packed").exists()


def test_links_that_lead_round_are_a_sentence(here, capsys):
    Path("loop").symlink_to("loop")
    for argv in (("coco", "loop", "shards"), ("coco", "pictures", "loop")):
        _, err = run(capsys, "pack", "--workers", "0", "--format", *argv, code=1)
        assert "loop" in err
        assert len(err.splitlines()) == 1


def test_progress_shows_a_name_as_it_is(here, capsys, monkeypatch):
    monkeypatch.setattr("vlmkit.commands.data_pack.SECONDS_BETWEEN_LINES", 0)
    for name, terminal in (("a[red]:smile:", ""), ("b[@click=(]:x:", "1")):
        monkeypatch.setenv("FORCE_COLOR", terminal)
        monkeypatch.setenv("COLUMNS", "200")
        _, err = run(capsys, *PACK[:-1], name)
        assert name in err


def test_what_only_python_can_hand_over_is_no_option_of_the_command(here, capsys):
    _, err = run(capsys, "pack", "--format", "chat:fetch=true", "pictures", "shards", code=2)
    assert "--format chat: unknown option 'fetch'; known: name" in err


@pytest.mark.parametrize("option", [("--policy", "squash:size=1"), ("--tokenizer", "mine"), ("--connector", "mlp")])
def test_what_is_said_about_a_model_needs_one(packed, tmp_path, monkeypatch, capsys, option):
    monkeypatch.chdir(tmp_path)
    _, err = run(capsys, "stats", str(packed), *option, code=2)
    assert f"{option[0]} is about a model: name it with --model" in err
    assert not list(tmp_path.iterdir())


def test_a_sheet_has_an_end(packed, capsys):
    """Of 3,000 samples it took four gigabytes, and nothing could show it."""
    for argv in (("--count", "501"), ("0",) * 501):
        assert "at most 500 samples" in run(capsys, "show", str(packed), *argv, code=2)[1]


def test_each_has_help_that_loads_nothing_heavy():
    code = (
        "import sys; from vlmkit.cli import main\n"
        "for name in ('pack', 'stats', 'show'): assert main(['data', name, '--help']) == 0\n"
        "print([name for name in ('torch', 'numpy', 'PIL', 'rich', 'matplotlib', 'multiprocessing') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.count("usage: vlmkit data ") == 3
    assert done.stdout.splitlines()[-1] == "[]"


def test_stats_count_what_is_there(packed, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    out, _ = run(capsys, "stats", str(packed), "--model", "univa-vl-tiny", "--json")
    told = json.loads(out)
    assert (told["samples"], told["conversations"], told["images"]) == (22, 23, 22)
    assert told["sources"]["a"] == {"samples": 10, "images": 10, "text_bytes": sum(map(Shards(packed).text_bytes, range(0, 20, 2)))}
    assert told["rejected"] == {"b": {"image cannot be opened": 1}}
    assert told["images_per_sample"]["most"] == 2
    processor, shards = vlmkit.build_processor("univa-vl-tiny"), Shards(packed)
    spec = processor.spec
    assert told["tokens"]["visual_tokens"] == sum(spec.tokens(size) for number in range(22) for size in shards.image_sizes(number))
    lengths = [len(layout.ids) for number in range(22) for layout in laid_out(processor, shards[number])]
    found = cost(shards, content(shards), spec, processor)
    assert sorted(found.lengths) == sorted(lengths)
    rows = first_fit(lengths, 256)
    assert found.packed_padding(256) == pytest.approx(1 - sum(lengths) / (256 * len(rows)))
    assert found.padding(10**6) == pytest.approx(1 - sum(lengths) / (max(lengths) * len(lengths)))
    assert found.longer_than(max(lengths)) == 0
    assert not list(tmp_path.iterdir())
    out, _ = run(capsys, "stats", str(packed))
    assert "image cannot be opened" in out
    with Image.open("shards.stats.png") as drawn:
        assert drawn.width > 1000


def laid_out(processor: vlmkit.VLMProcessor, found: Sample) -> list:
    def with_images(message: dict) -> dict:
        content = message["content"]
        if isinstance(content, str):
            return message
        return message | {"content": [{**item, "image": found.images[item["image"]]} if "image" in item else item for item in content]}

    return [processor.sample([with_images(message) for message in turns]).layouts[0] for turns in found.conversations]


def test_without_a_tokenizer_words_are_guessed_and_images_are_not(packed):
    shards, model = Shards(packed), vlmkit.architecture("univa-vl-tiny")
    exact = cost(shards, content(shards), model, vlmkit.build_processor(model))
    guessed = cost(shards, content(shards), model, "there is none")
    assert (guessed.visual.total, len(guessed.lengths)) == (exact.visual.total, len(exact.lengths))
    assert guessed.estimated == "there is none"
    assert guessed.text_tokens >= content(shards).text_bytes / 4


def test_images_that_a_model_refuses_are_counted(tmp_path):
    with ShardWriter(tmp_path / "shards") as writer:
        writer.write(Sample((jpeg(0, 2, 1000),), (conversation(0),), "a", "thin"))
        writer.write(sample(1))
    shards = Shards(tmp_path / "shards")
    model = vlmkit.architecture("univa-vl-tiny")
    found = cost(shards, content(shards), model, vlmkit.build_processor(model))
    assert sum(found.refused.values()) == 1
    assert (found.visual.number, len(found.lengths)) == (1, 1)


def test_where_a_model_refuses_all_there_is_no_padding_and_one_line(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    with ShardWriter("shards") as writer:
        for number in range(20):
            assert writer.write(Sample((jpeg(0, 2, 1000 + number),), (conversation(0),), "数据", str(number)))
        assert not writer.write(Sample((b"",), (conversation(0),), "数据 $x$", "bad"))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        out, _ = run(capsys, "stats", "shards", "--model", "univa-vl-tiny")
    assert [line for line in out.splitlines() if "refused" in line] == [
        "20 of 20 images refused by univa-vl-tiny, such as: smart_resize serves aspect ratios up to 200, "
        "but an image of 2x1000 (height x width) has 500"
    ]
    padding = [line.split()[-1] for line in out.splitlines() if line.startswith(("padded", "packed"))]
    assert padding == ["0.0%"] * 5


def test_values_are_those_of_numpy():
    drawn = np.random.default_rng(0).integers(0, 30, 999)
    values = Values(*np.unique(drawn.astype(float), return_counts=True))
    assert (values.number, values.total) == (999, drawn.sum())
    assert values.mean == pytest.approx(drawn.mean())
    assert [values.at(share) for share in (0.05, 0.5, 1)] == [np.quantile(drawn, share, method="inverted_cdf") for share in (0.05, 0.5, 1)]
    assert (Values(np.zeros(0), np.zeros(0, int)).at(0.5), Values(np.zeros(0), np.zeros(0, int)).mean) == (0, 0)


def test_show_draws_the_samples_that_were_asked_for(packed, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert run(capsys, "show", str(packed))[0] == "shards.samples.png\n"
    first = Path("shards.samples.png").read_bytes()
    run(capsys, "show", str(packed))
    assert Path("shards.samples.png").read_bytes() == first
    run(capsys, "show", str(packed), "--seed", "1")
    assert Path("shards.samples.png").read_bytes() != first
    run(capsys, "show", str(packed), "-1", "20", "-o", "two.png")
    run(capsys, "show", str(packed), "--source", "a", "--count", "99", "-o", "a.png")
    assert "asked for number 22" in run(capsys, "show", str(packed), "22", code=2)[1]
    assert "known: a, b" in run(capsys, "show", str(packed), "--source", "c", code=2)[1]
    Path("mine.png").write_bytes(jpeg(0))
    assert "was not drawn by vlmkit" in run(capsys, "show", str(packed), "-o", "mine.png", code=1)[1]


def test_a_sample_that_cannot_be_read_is_a_cell_with_the_reason():
    broken = Sample((b"", jpeg(0)), (conversation(0, 2),), "a", "1")
    sheet = draw("title", [("0", DataError("a shard is not there")), ("1", broken)])
    assert sheet.width > 2 * CELL_WIDTH


@pytest.mark.parametrize("text", ["", "x" * 1000, "a\x1b[2J\nb\u2028c", "한국어 " * 50, "word " * 700])
def test_words_fit_into_a_cell_whatever_they_are(text):
    lines = wrapped(text, 15)
    assert all(text_width(line, 15) <= CELL_WIDTH and line.isprintable() for line in lines)
    assert "".join("".join(lines).split()) == "".join(char for char in text if char.isprintable() and not char.isspace())


def test_of_a_very_long_text_the_beginning_is_shown():
    assert wrapped("word " * 10**6, 15)[-1].endswith("…")
