"""The command line: what it prints, what it refuses and with which words and exit codes."""

from __future__ import annotations

import io
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import vlmkit
from tests.films import write
from tests.photos import picture
from vlmkit.cli import COMMANDS, TRACEBACK, main
from vlmkit.commands import UsageError
from vlmkit.commands.checkpoint import CheckpointError, find_checkpoint
from vlmkit.commands.choice import read_part
from vlmkit.commands.film import read_video
from vlmkit.commands.list import FAMILIES
from vlmkit.commands.photo import photo_size, read_size
from vlmkit.commands.picture import MARK
from vlmkit.commands.show import default_output
from vlmkit.commands.tokens import counted
from vlmkit.preprocess import Clip, Size, open_image
from vlmkit.registry import Registry
from vlmkit.terminal import printable

STRANGER = '''
"""A file of parts."""

from dataclasses import dataclass

import vlmkit
from torch import nn
from vlmkit.connectors.base import Connector
from vlmkit.features import Grid


@vlmkit.connectors.register("queries")
@dataclass(frozen=True, kw_only=True)
class Queries(Connector):
    """As many queries as you like, whatever the image."""

    count: int = 64

    def grid_out(self, grid: Grid) -> Grid:
        return Grid(1, 1, self.count)

    def build(self, dim_in: int, dim_out: int) -> nn.Module:
        raise NotImplementedError
'''


@pytest.fixture
def stranger(tmp_path, monkeypatch):
    """A plugin's path; what it registers is gone after the test."""
    monkeypatch.setattr(vlmkit.connectors, "_parts", dict(vlmkit.connectors._parts))
    path = tmp_path / "a stranger's parts.py"
    path.write_text(STRANGER)
    return str(path)


@pytest.fixture
def here(tmp_path, monkeypatch):
    """A working directory with photographs."""
    folder = tmp_path / "here"
    folder.mkdir()
    monkeypatch.chdir(folder)
    picture("astronaut").save("photo.png")
    picture("coffee").save("coffee.jpg")
    Path("notes.txt").write_text("no picture")
    Path("text.png").write_text("no picture either")
    return folder


def output(capsys, *argv: str, code: int = 0) -> str:
    assert main(argv) == code, capsys.readouterr().err
    return capsys.readouterr().out


# Help and what it costs.


def test_help_names_every_command(capsys):
    text = output(capsys, "--help")
    for name in COMMANDS:
        assert f"\n    {name} " in text


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_has_help(capsys, name):
    text = output(capsys, name, "--help")
    assert text.startswith(f"usage: vlmkit {name}")
    assert "--plugin" in text


@pytest.mark.parametrize("argv", [["--help"], ["tokens", "--help"], ["--version"]])
def test_help_loads_nothing_heavy(argv):
    code = (
        "import sys; from vlmkit.cli import main; main(sys.argv[1:]);"
        "print([name for name in ('torch', 'transformers', 'PIL', 'numpy', 'rich', 'timm', 'open_clip') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code, *argv], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "[]"


def test_version(capsys):
    assert output(capsys, "--version") == f"vlmkit {vlmkit.__version__}\n"


def test_python_m_vlmkit_is_the_command():
    done = subprocess.run([sys.executable, "-m", "vlmkit", "--version"], capture_output=True, text=True, check=True)
    assert done.stdout == f"vlmkit {vlmkit.__version__}\n"


# list


def test_list_names_every_model_and_its_parts(capsys):
    lines = {line.split()[0]: line.split() for line in output(capsys, "list").splitlines() if line}
    for name in vlmkit.list_models():
        model = vlmkit.architecture(name)
        assert lines[name] == [name, *model.kinds().values()]


def test_list_takes_a_pattern_and_counts_parameters(capsys):
    text = output(capsys, "list", "univa-vl-t*", "--parameters")
    assert f"{vlmkit.architecture('univa-vl-tiny').parameters().total:,}" in text
    assert len(text.split("\n")) == 4  # heading, rule, the model, nothing


@pytest.mark.parametrize("family", FAMILIES)
def test_list_tells_of_every_kind_of_part_what_it_is(capsys, family):
    registry: Registry[object] = FAMILIES[family]
    text = output(capsys, "list", f"--{family}")
    lines = {line.split()[0]: line.split(maxsplit=1) for line in text.splitlines()[2:]}
    assert sorted(lines) == registry.names()
    for kind, line in lines.items():
        assert len(line) == 2, f"{kind} has no docstring"


def test_list_shows_a_strangers_part(capsys, stranger):
    text = output(capsys, "list", "--connectors", "queries", "--plugin", stranger)
    assert "As many queries as you like, whatever the image." in text


def test_list_takes_the_words_of_the_file_where_a_strangers_part_has_none(capsys, stranger):
    Path(stranger).write_text(STRANGER.replace('    """As many queries as you like, whatever the image."""\n', ""))
    text = output(capsys, "list", "--connectors", "queries", "--plugin", stranger)
    assert text.splitlines()[-1].split(maxsplit=1) == ["queries", "A file of parts."]


# tokens


def test_every_model_appears_in_tokens(capsys):
    text = output(capsys, "tokens", "--size", "640x480")
    lines = {line.split()[0]: line.split() for line in text.splitlines() if line}
    for name in vlmkit.list_models():
        assert name in lines
    assert lines["univa-vl"] == ["univa-vl", "234", "504x364", "504x364", "36x26", "18x13"]


def test_tokens_as_json_are_those_of_the_architecture(capsys):
    found = json.loads(output(capsys, "tokens", "--size", "640x480", "--size", "1000x3", "--json"))
    assert [image["image"] for image in found] == ["640x480", "1000x3"]
    for image in found:
        assert [row["model"] for row in image["models"]] == vlmkit.list_models()
        for row in image["models"]:
            model, size = vlmkit.architecture(row["model"]), Size(image["height"], image["width"])
            if row["visual_tokens"] is None:
                with pytest.raises(vlmkit.ImageSizeError):
                    model.tokens(size)
            else:
                assert row["visual_tokens"] == model.tokens(size)
                if not model.layout.partial and not model.layout.learned:
                    grids = (view["tokens"] for view in row["views"])
                    assert sum(grid["rows"] * grid["columns"] + grid["prefix"] for grid in grids) == row["visual_tokens"]


def test_a_size_that_cannot_be_served_has_its_reason_in_the_row(capsys):
    text = output(capsys, "tokens", "--size", "1000x3", "--model", "univa-vl", code=1)
    (line,) = (line for line in text.splitlines() if "univa" in line)
    assert "aspect ratios up to 200" in line
    assert "3x1000 (height x width) has 333.333" in line


def test_parts_that_do_not_fit_have_their_reason_in_the_row(capsys):
    text = output(capsys, "tokens", "--size", "640x480", "--model", "univa-vl", "--policy", "squash:size=378", code=1)
    assert "multiple of 28, such as 392" in text


def test_reasons_say_that_they_write_the_height_first(capsys):
    text = output(capsys, "tokens", "--size", "640x480", "--model", "univa-vl", "--encoder", "siglip", code=1)
    assert text.splitlines()[1].rstrip().endswith("why not (height x width, rows x columns)")
    assert "cuts views of 364x504 pixels (height x width)" in text


def test_a_bad_photo_costs_neither_the_others_nor_the_exit_code(capsys, here):
    photos = ("photo.png", "notes.txt", "nowhere.jpg", "coffee.jpg")
    assert main(["tokens", *photos, "--model", "univa-vl"]) == 1
    printed = capsys.readouterr()
    assert [line for line in printed.out.splitlines() if "," in line] == ["photo.png, 512x512", "coffee.jpg, 600x400"]
    assert "'notes.txt' cannot be read" in printed.err
    assert "'nowhere.jpg' does not exist" in printed.err

    found = json.loads(output(capsys, "tokens", *photos, "--model", "univa-vl", "--json", code=1))
    assert [(image["image"], image["width"], len(image["models"])) for image in found] == [
        ("photo.png", 512, 1),
        ("notes.txt", None, 0),
        ("nowhere.jpg", None, 0),
        ("coffee.jpg", 600, 1),
    ]
    assert [image["image"] for image in found if "why_not" in image] == ["notes.txt", "nowhere.jpg"]


@pytest.mark.parametrize("form", [[], ["--json"]])
def test_an_image_that_no_model_takes_is_a_failure(capsys, form):
    assert main(["tokens", "--size", "640x480", "--size", "1000x3", "--model", "univa*", *form]) == 1
    assert capsys.readouterr().err == "vlmkit tokens: 1000x3: no model takes it, and each says why not\n"
    assert main(["tokens", "--size", "1000x3", "--model", "*", *form]) == 0


def test_exchanged_parts_are_counted_and_named(capsys):
    text = output(capsys, "tokens", "--size", "640x480", "--model", "univa-vl", "--policy", "squash:size=392", "--connector", "mlp:depth=3")
    assert text.splitlines()[-1].split() == ["univa-vl+squash:size=392+mlp:depth=3", "784", "392x392", "392x392", "28x28", "28x28"]


SIGLIP = "siglip:width=32,layers=2,heads=2,mlp=64,patch=14,image_size=392"


def test_towers_stand_beside_each_other(capsys):
    squash = ("--size", "640x480", "--model", "univa-vl", "--policy", "squash:size=392")
    text = output(capsys, "tokens", *squash, "--connector", "joined", "--beside", SIGLIP)
    name = f"univa-vl+squash:size=392+joined+beside={SIGLIP}"
    assert text.splitlines()[-1].split() == [name, "784", "392x392", "392x392", "28x28", "28x28"]
    letterbox = json.dumps({"policy": {"kind": "letterbox", "size": 448}, "encoder": {"kind": "siglip", "patch": 16, "image_size": 448}})
    exchanged = (*squash, "--connector", "joined", "--beside", letterbox)
    text = output(capsys, "tokens", *exchanged)
    assert text.splitlines()[-1].split()[1:] == ["784", "392x392", "+", "448x336", "392x392", "+", "448x448", "28x28", "28x28"]
    assert output(capsys, "show", "--steps", *exchanged).splitlines()[1:] == [
        "for open_clip (policy squash)",
        "resize to 392x392 (bicubic, antialias)",
        "  view 1: 392x392 at 0, 0 -> 28x28 patches -> 28x28 = 784 tokens",
        "for siglip (policy letterbox)",
        "resize to 448x336 (bicubic, antialias)",
        "  place at 0, 56 of a canvas of 448x448 filled with RGB 127, 127, 127",
        "  view 1: 448x448 at 0, 0 -> 28x28 patches -> 28x28 = 784 tokens",
        "784 visual tokens",
    ]
    (beside,) = json.loads(output(capsys, "show", "--steps", *exchanged, "--json"))["beside"]
    assert (beside["patch"], beside["renders"][0]["resize"]) == (16, {"height": 336, "width": 448})
    (image,) = json.loads(output(capsys, "tokens", *exchanged, "--json"))
    (row,) = image["models"]
    assert [view["width"] for view in row["views"]] == [392]
    assert [view["width"] for view in row["beside"][0]["views"]] == [448]


def test_all_towers_of_a_model_are_listed_and_joined_ones_are_asked_for(capsys):
    assert "timm+timm" in output(capsys, "list", "prismatic-tiny")
    line = output(capsys, "tokens", "--size", "640x480", "--model", "univa-vl", "--beside", "siglip", code=1)
    assert "use 'joined' around it" in line
    for given in ("sigli", "siglip:widht=3", '{"encoder": {"kind": "siglip"}}', '{"encoder": '):
        assert main(["tokens", "--size", "640x480", "--model", "univa-vl", "--beside", given]) != 0
        assert "Traceback" not in capsys.readouterr().err


def test_a_strangers_connector_works_by_its_name(capsys, stranger):
    for kind, count in (("queries", "64"), ("queries:count=7", "7")):
        text = output(capsys, "tokens", "--size", "640x480", "--model", "univa-vl", "--connector", kind, "--plugin", stranger)
        assert text.splitlines()[-1].split()[:2] == [f"univa-vl+{kind}", count]


def test_photos_are_measured_upright_and_named_as_they_are(capsys, tmp_path):
    names = ["ein Foto mit Übung.jpg", "[red]写真 :smile:.png", "plain.webp"]
    exif = Image.Exif()
    exif[0x0112] = 6
    for name in names:
        picture("coffee", (40, 60)).save(tmp_path / name, exif=exif)
    text = output(capsys, "tokens", *(str(tmp_path / name) for name in names), "--model", "univa-vl")
    titles = [line for line in text.splitlines() if line.endswith("40x60")]
    assert titles == [f"{tmp_path / name}, 40x60" for name in names]


def test_a_table_in_a_pipe_is_neither_wrapped_nor_coloured(capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "40")
    text = output(capsys, "list", "--connectors")
    assert len(text.splitlines()) == 2 + len(vlmkit.connectors)
    assert "\x1b" not in text


def test_no_color_is_respected_on_a_terminal(capsys, monkeypatch):
    monkeypatch.setenv("NO_COLOR", "1")
    monkeypatch.setenv("COLUMNS", "60")
    monkeypatch.setattr(type(sys.stdout), "isatty", lambda self: True)
    text = output(capsys, "list", "--connectors")
    plain = re.sub("\x1b\\[[01]?m", "", text)
    assert "\x1b" not in plain, "bold at most"
    assert max(map(len, plain.splitlines())) <= 60, "wrapped at the width of the terminal"


@pytest.mark.parametrize(
    ("text", "size"),
    [
        ("640x480", Size(480, 640)),
        ("640X480", Size(480, 640)),
        (" 1 x 2 ", Size(2, 1)),
        ("640*480", Size(480, 640)),
        ("007x08", Size(8, 7)),
    ],
)
def test_sizes_are_written_width_first(text, size):
    assert read_size(text) == size


@pytest.mark.parametrize(
    ("items", "text"), [([], ""), (["a"], "a"), (["a", "a", "b"], "2 of a, b"), (["b", "a", "b", "a"], "2 of b, 2 of a")]
)
def test_counted(items, text):
    assert counted(items) == text


# The size of a photo


@pytest.mark.parametrize("orientation", [0, 1, 3, 5, 6, 8, 9])
@pytest.mark.parametrize("suffix", ["jpg", "png", "webp", "tiff", "gif", "bmp"])
def test_the_header_tells_the_size_that_opening_gives(tmp_path, suffix, orientation):
    path = tmp_path / f"a.{suffix}"
    exif = Image.Exif()
    exif[0x0112] = orientation
    image = picture("coffee", (30, 50))
    image.save(path, **({} if suffix in ("gif", "bmp") else {"exif": exif}))
    opened = open_image(path)
    assert photo_size(str(path)) == Size(opened.height, opened.width)


@pytest.mark.parametrize("mode", ["CMYK", "L", "P", "1", "RGBA", "I;16", "LA"])
def test_the_size_of_pictures_of_any_mode(tmp_path, mode):
    path = tmp_path / ("a.jpg" if mode == "CMYK" else "a.png")
    (picture("coffee", (1, 50)).convert("L").convert(mode) if mode != "CMYK" else picture("coffee", (1, 50)).convert(mode)).save(path)
    assert photo_size(str(path)) == Size(1, 50)


def test_only_the_header_is_read(tmp_path):
    path = tmp_path / "a.jpg"
    picture("coffee").save(path)
    path.write_bytes(path.read_bytes()[:2000])
    assert photo_size(str(path)) == Size(400, 600)
    with pytest.raises(vlmkit.ImageError):
        open_image(path)


def test_a_sheet_is_written_and_named(capsys, here):
    assert output(capsys, "tokens", "coffee.jpg", "--sheet", "sheet.png", "--model", "univa*") == "sheet.png\n"
    with Image.open("sheet.png") as sheet:
        assert sheet.info["Software"] == MARK
    assert sorted(path.name for path in here.iterdir()) == ["coffee.jpg", "notes.txt", "photo.png", "sheet.png", "text.png"]


# show --steps


def test_steps_in_words(capsys):
    text = output(capsys, "show", "--steps", "--size", "640x480", "--model", "univa-vl", "--policy", "pad_square:size=392")
    assert text.splitlines()[-1] == "196 visual tokens"
    assert "392x392 at 0, 0 -> 28x28 patches -> 14x14 = 196 tokens" in text


@pytest.mark.parametrize(
    ("model", "steps"),
    [
        (
            "smolvlm-256m",
            ["resize to 2048x1536 (lanczos, antialias)", "resize to 2048x1536 first", "resize to 512x512 (lanczos, antialias)"],
        ),
        (
            "idefics3-8b-llama3",
            ["resize to 1456x1092 (lanczos, antialias)", "resize to 1456x1092 first", "resize to 364x364 (lanczos, antialias)"],
        ),
        ("pixtral-12b", ["leave it at 640x480"]),
        ("univa-vl", ["resize to 504x364 (bicubic, antialias)"]),
    ],
)
def test_no_step_is_named_that_changes_nothing(capsys, model, steps):
    lines = output(capsys, "show", "--steps", "--size", "640x480", "--model", model).splitlines()
    assert [line for line in lines[1:-1] if not line.startswith(" ")] == steps


def test_steps_as_json_are_the_plan(capsys, here):
    found = json.loads(output(capsys, "show", "--steps", "coffee.jpg", "--model", "univa-vl", "--json"))
    model = vlmkit.architecture("univa-vl")
    plan = model.plan(Size(400, 600))
    assert found["source"] == {"height": 400, "width": 600}
    assert found["renders"][0]["resize"] == {"height": plan.renders[0].resize.height, "width": plan.renders[0].resize.width}
    assert found["visual_tokens"] == model.tokens(Size(400, 600))


def test_a_film_is_counted_by_its_length_or_from_its_file(capsys, here):
    write(here / "clip.mp4", 20, height=60, width=90)
    (here / "broken.mp4").write_bytes(b"no film")
    videos = ("--video", "20s@30fps,1920x1080", "--video", "clip.mp4", "--video", "broken.mp4")
    text = output(capsys, "tokens", *videos, "--model", "*-tiny", code=1)
    titles = [line for line in text.splitlines() if "fps," in line]
    assert titles == ["20s@30fps,1920x1080", "clip.mp4, 0.666667s@30fps,90x60"]
    row = next(line.split() for line in text.splitlines() if line.startswith("qwen2-vl-tiny"))
    assert row[4] == "20x10x6"  # frames x columns x rows of patches
    long, short, broken = json.loads(output(capsys, "tokens", *videos, "--model", "*-tiny", "--json", code=1))
    assert "'broken.mp4' cannot be read" in broken["why_not"]
    for found, clip in ((long, Clip(20, 30, Size(1080, 1920))), (short, Clip(20 / 30, 30, Size(60, 90)))):
        assert [found[name] for name in ("seconds", "fps", "width", "height")] == [
            clip.seconds,
            clip.fps,
            clip.size.width,
            clip.size.height,
        ]
        assert [row["model"] for row in found["models"]] == vlmkit.list_models("*-tiny")
        for row in found["models"]:
            model = vlmkit.architecture(row["model"])
            if row["visual_tokens"] is None:
                assert "takes no films" in row["why_not"]
                continue
            assert row["visual_tokens"] == model.tokens(clip=clip)
            shown = model.plan_clip(clip).frames
            assert row["frames"] == shown
            each = 1 if model.encoder.clips else shown
            assert len(row["views"]) == each * len(model.plan_clip(clip).views)


# show


@pytest.mark.parametrize("model", ["qwen2-vl-tiny", "univa-vl-tiny", "videollama3-tiny"])
def test_show_draws_the_frames_of_a_film(capsys, here, model):
    write(here / "clip.mp4", 100, height=60, width=90)
    assert output(capsys, "show", "clip.mp4", "--model", model) == f"clip.{model}.png\n"
    with Image.open(f"clip.{model}.png") as page:
        drawn = np.asarray(page.convert("RGB")).astype(int)
    # Four frames or six, 260 pixels wide, with light upper right quarters, stand side by side.
    light = (abs(drawn - 220) <= 8).all(axis=2)
    assert (light.sum(axis=1) > 4 * 100).sum() > 80


def test_show_takes_a_gif_for_a_picture_unless_it_is_told(capsys, here):
    write(here / "moving.gif", 10, "gif", rate=25, pixels="gray")
    for arguments in ((), ("--video",)):
        output(capsys, "show", "moving.gif", "--model", "univa-vl-tiny", "-o", "out.png", *arguments)
        Path("out.png").rename(f"out{len(arguments)}.png")
    assert Path("out0.png").read_bytes() != Path("out1.png").read_bytes()
    assert main(["show", "notes.mp4", "--model", "univa-vl-tiny"]) == 1
    assert "'notes.mp4' does not exist, expected the path of a video file" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("text", "clip"),
    [
        ("20s@30fps,1920x1080", Clip(20.0, 30.0, Size(1080, 1920))),
        (" 0.5 s @ 29.97 fps, 64\u00d7048 ", Clip(0.5, 29.97, Size(48, 64))),
    ],
)
def test_a_film_is_written_as_its_length_rate_and_size(text, clip):
    assert read_video(text) == clip
    assert read_video(str(clip)) == clip


def test_show_writes_a_picture_and_says_where(capsys, here):
    assert output(capsys, "show", "photo.png", "--model", "univa-vl") == "photo.univa-vl.png\n"
    with Image.open("photo.univa-vl.png") as page:
        assert page.info["Software"] == MARK
        assert min(page.size) > 1000
    assert sorted(path.name for path in here.iterdir()) == ["coffee.jpg", "notes.txt", "photo.png", "photo.univa-vl.png", "text.png"]


def test_show_draws_its_own_pictures_anew(capsys, here):
    for policy in ("squash:size=392", "squash:size=112"):
        output(capsys, "show", "photo.png", "--model", "univa-vl-tiny", "-o", "out.png", "--policy", policy)
    first = Path("out.png").read_bytes()
    output(capsys, "show", "photo.png", "--model", "univa-vl-tiny", "-o", "out.png")
    assert Path("out.png").read_bytes() != first


def test_show_overwrites_others_only_when_told(capsys, here):
    before = Path("text.png").read_bytes()
    assert main(["show", "photo.png", "--model", "univa-vl-tiny", "-o", "text.png"]) == 1
    assert "-f to overwrite" in capsys.readouterr().err
    assert Path("text.png").read_bytes() == before
    assert output(capsys, "show", "photo.png", "--model", "univa-vl-tiny", "-o", "text.png", "-f") == "text.png\n"
    assert Path("text.png").read_bytes() != before


def test_show_never_overwrites_the_photo(capsys, here):
    os.link("photo.png", "other.png")
    before = Path("photo.png").read_bytes()
    for name in ("photo.png", "./photo.png", "other.png"):
        assert main(["show", "photo.png", "--model", "univa-vl-tiny", "-f", "-o", name]) == 1
        assert "the photo itself" in capsys.readouterr().err
    assert Path("photo.png").read_bytes() == before


def test_show_with_a_strangers_connector_and_an_odd_photo(capsys, here, stranger):
    exif = Image.Exif()
    exif[0x0112] = 8
    picture("coffee", (30, 50)).convert("CMYK").save("ein Bild, фото.jpg", exif=exif)
    name = output(capsys, "show", "ein Bild, фото.jpg", "--model", "univa-vl", "--connector", "queries:count=7", "--plugin", stranger)
    assert name == "ein Bild, фото.univa-vl+queries-count-7.png\n"
    assert Path(name.strip()).is_file()


@pytest.mark.parametrize(
    ("photo", "model", "name"),
    [
        ("a/b/photo.jpg", "univa-vl", "photo.univa-vl.png"),
        ("photo", "univa-vl+mlp", "photo.univa-vl+mlp.png"),
        ("photo.tar.jpg", "owner/name:x=1", "photo.tar.owner-name-x-1.png"),
    ],
)
def test_the_name_of_the_picture(photo, model, name):
    assert default_output(photo, model) == name


# chat


@pytest.fixture(scope="module")
def run_directory(tmp_path_factory):
    """A training run's directory, with random weights."""
    folder = tmp_path_factory.mktemp("run")
    vlmkit.build("univa-vl-tiny", seed=0).save_pretrained(folder / "checkpoint")
    vlmkit.build_processor("univa-vl-tiny").save_pretrained(folder / "checkpoint")
    return folder


def test_chat_streams_what_the_model_answers(capsys, here, run_directory):
    model, processor = vlmkit.load(run_directory / "checkpoint")
    answer = model.chat(processor, "photo.png", "What is this?", max_new_tokens=6)
    for directory in (run_directory, run_directory / "checkpoint"):
        text = output(capsys, "chat", str(directory), "photo.png", "What is this?", "--max-new-tokens", "6", "--device", "cpu")
        assert text.strip() == printable(answer)  # random weights say control characters too
        assert text.endswith("\n")


def test_chat_reads_questions_until_they_end(capsys, here, run_directory, monkeypatch):
    arguments = ("chat", str(run_directory), "photo.png", "--max-new-tokens", "6", "--temperature", "1.5", "--seed", "3", "--device", "cpu")
    answers = []
    for question in ("What is this?", "Really?"):
        monkeypatch.setattr("sys.stdin", io.StringIO(question))
        answers.append(output(capsys, *arguments))
    monkeypatch.setattr("sys.stdin", io.StringIO("What is this?\n\nReally?\n"))
    assert output(capsys, *arguments) == "".join(answers), "each stands for itself, its draws begin with the seed"


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("empty", "neither config.json nor checkpoint/config.json"),
        ("emty", "did you mean 'empty'"),
        ("file", "is a file"),
        ("a/b", "no directory"),
        ("begun", "this run has not finished, so it has no checkpoint yet; the training command goes on from where it stopped"),
    ],
)
def test_a_run_without_a_checkpoint(tmp_path, name, words):
    (tmp_path / "empty").mkdir()
    (tmp_path / "file").touch()
    (tmp_path / "begun").mkdir()
    (tmp_path / "begun" / "run.json").write_text("{}")
    with pytest.raises(CheckpointError, match=words):
        find_checkpoint(tmp_path / name)


def test_a_named_model_has_no_weights_to_chat_with(here):
    words = "'univa-vl-tiny' is a named model, of which no trained weights are here: train it, or give the directory of a run or checkpoint"
    with pytest.raises(CheckpointError, match=words):
        find_checkpoint(Path("univa-vl-tiny"))
    Path("univa-vl-tiny").mkdir()
    with pytest.raises(CheckpointError, match="no checkpoint in 'univa-vl-tiny'"):
        find_checkpoint(Path("univa-vl-tiny"))


# What goes wrong


@pytest.mark.parametrize(
    ("line", "code", "words"),
    [
        ("", 2, "usage: vlmkit"),
        ("nonsense", 2, "invalid choice: 'nonsense'"),
        ("tokens", 2, "name a photo, or a size such as --size 640x480"),
        ("tokens --size 640", 2, "expected WIDTHxHEIGHT in pixels such as 640x480, got '640'"),
        ("tokens --size 0x480", 2, "expected WIDTHxHEIGHT"),
        ("tokens --size -3x480", 2, "--size"),
        ("tokens --size 640x480 --model llava", 2, "no model matches 'llava'"),
        ("tokens --size 640x480 --model univa", 2, "did you mean 'univa*'?"),
        ("tokens --size 640x480 --connector mpl", 2, "unknown connector 'mpl'; did you mean 'mlp'?"),
        ("tokens --size 640x480 --connector mlp:dept=3", 2, "connector.dept: unknown field, did you mean 'depth'?"),
        ("tokens --size 640x480 --connector mlp:3", 2, "expected FIELD=VALUE after the colon, got '3'"),
        ("tokens --size 640x480 --connector mlp:depth=x", 2, "connector.depth: expected int, got 'x'"),
        ("tokens --size 640x480 --policy squash", 2, "policy.size: missing"),
        ("tokens --size 640x480 --plugin nowhere.py", 2, "there is no file nowhere.py"),
        ("tokens --size 640x480 --plugin no_such_module", 2, "No module named 'no_such_module'"),
        ("tokens --video 20s", 2, "expected a film such as 20s@30fps,1920x1080, width first, or the name of its file, got '20s'"),
        ("tokens --video 0s@30fps,64x48", 2, "expected more than 0 seconds and frames a second"),
        ("tokens --video clip.mp4", 1, "'clip.mp4' does not exist, expected the path of a video file"),
        ("tokens photo.png --video 1s@1fps,64x48 --sheet out.png", 2, "a sheet is of one photo"),
        ("tokens --sizes 640x480", 2, "unrecognized arguments: --sizes; did you mean --size?"),
        ("show photo.png --out x.png", 2, "vlmkit show: error: unrecognized arguments: --out x.png; did you mean --output?"),
        ("show photo.png --out x.png", 2, "usage: vlmkit show [-h]"),
        ("data show . --nonsense", 2, "usage: vlmkit data show [-h]"),
        ("tokens nowhere.jpg", 1, "'nowhere.jpg' does not exist, expected the path of a picture file"),
        ("tokens notes.txt", 1, "'notes.txt' cannot be read"),
        ("tokens .", 1, "'.' is a directory, expected the path of a picture file"),
        ("tokens photo.png coffee.jpg --sheet out.png", 2, "a sheet is of one photo"),
        ("tokens --size 640x480 --sheet out.png", 2, "a sheet is of one photo"),
        ("tokens photo.png --sheet out.jpg", 2, "call it 'out.png', not 'out.jpg'"),
        ("tokens photo.png --sheet text.png", 1, "-f to overwrite"),
        ("tokens photo.png --sheet photo.png -f", 1, "the photo itself"),
        ("tokens photo.png --sheet out.png --json", 2, "not allowed with argument"),
        ("list nonsense", 2, "no model matches 'nonsense'"),
        ("list --connectors pixelshuffle", 2, "no connector matches 'pixelshuffle'; did you mean 'pixel_shuffle'?"),
        ("list --connectors --encoders", 2, "not allowed with argument"),
        ("show --steps coffee.jpg --model univa-v", 2, "unknown model 'univa-v'; did you mean 'univa-vl'?"),
        ("show --steps", 2, "name a photo, or a size such as --size 640x480"),
        ("show --steps coffee.jpg photo.png", 2, "steps are of one photo"),
        ("show --steps clip.mp4", 2, "it takes no film"),
        ("show --steps photo.png -o out.png", 2, "writes no --output"),
        ("show --steps --size 1000x3 --model univa-vl", 1, "aspect ratios up to 200"),
        ("show --steps --size 640x480 --model univa-vl --policy squash:size=378", 2, "multiple of 28, such as 392"),
        ("show", 2, "name one photo or film to draw, got 0"),
        ("show photo.png coffee.jpg", 2, "name one photo or film to draw, got 2"),
        ("show photo.png --json", 2, "--size and --json go with --steps"),
        ("show nowhere.jpg --model univa-vl", 1, "does not exist"),
        ("show text.png --model univa-vl", 1, "'text.png' cannot be read"),
        ("show photo.png --model univa-vl -o out.jpg", 2, "call it 'out.png', not 'out.jpg'"),
        ("show photo.png --model univa-vl -o nowhere/out.png", 1, "there is no directory 'nowhere'"),
        ("show photo.png --model univa-vl -o photo.png", 1, "the photo itself"),
        ("chat nowhere photo.png hi", 1, "there is no directory 'nowhere'"),
        ("chat . photo.png hi", 1, "no checkpoint in '.'"),
        ("chat . photo.png hi --max-new-tokens 0", 2, "expected a whole number from 1 up, got '0'"),
        ("chat . photo.png hi --temperature nan", 2, "expected a number from 0 up, got 'nan'"),
    ],
)
def test_wrong_arguments_get_words_and_no_traceback(capsys, here, line, code, words):
    assert main(line.split()) == code
    printed = capsys.readouterr()
    assert words in printed.err
    assert "Traceback" not in printed.err
    assert not printed.out
    assert not list(here.glob("*univa*")), "nothing is written"


def test_a_full_disk_leaves_nothing_behind(capsys, here, monkeypatch):
    def full(*arguments: object, **options: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Image.Image, "save", full)
    assert main(["show", "photo.png", "--model", "univa-vl-tiny"]) == 1
    assert capsys.readouterr().err == "vlmkit show: cannot write 'photo.univa-vl-tiny.png': No space left on device\n"
    assert not list(here.glob(".*"))


def test_an_unknown_error_is_one_line_and_says_how_to_see_more(capsys, monkeypatch):
    def broken(arguments: object) -> None:
        raise ZeroDivisionError("division by zero\nand more")

    monkeypatch.setattr("vlmkit.commands.list.run", broken)
    monkeypatch.delenv(TRACEBACK, raising=False)
    assert main(["list"]) == 1
    assert capsys.readouterr().err == f"vlmkit list: ZeroDivisionError: division by zero\nSet {TRACEBACK}=1 to see where it comes from.\n"
    monkeypatch.setenv(TRACEBACK, "1")
    with pytest.raises(ZeroDivisionError):
        main(["list"])


def test_ctrl_c_is_quiet(capsys, monkeypatch):
    def interrupted(arguments: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("vlmkit.commands.list.run", interrupted)
    assert main(["list"]) == 130
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize("argv", [["--help"], ["show", "--steps", "--size", "640x480", "--model", "univa-vl"]])
def test_nobody_reads_what_is_printed(argv):
    process = subprocess.Popen([sys.executable, "-m", "vlmkit", *argv], stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    assert process.stdout is not None
    assert process.stderr is not None
    process.stdout.close()
    assert process.stderr.read() == b""
    process.stderr.close()
    assert process.wait() in (0, 141)  # argparse keeps it to itself that nobody reads its help


@pytest.mark.parametrize(
    ("text", "fields"),
    [
        ("mlp", {}),
        ("mlp:", {}),
        ("mlp:depth=3", {"depth": 3}),
        ("pixel_shuffle:ratio=4,bias=true", {"ratio": 4, "bias": True}),
        ("pixel_shuffle:order=c dh dw, ratio=4", {"order": "c dh dw", "ratio": 4}),
    ],
)
def test_a_part_is_read_as_python_would_make_it(text, fields):
    assert read_part("connector", text) == vlmkit.connectors[text.partition(":")[0]](**fields)


def test_a_part_is_read_from_its_json_and_named_briefly(capsys):
    given = '{"kind": "mlp", "depth": 3}'
    assert read_part("connector", given) == vlmkit.connectors["mlp"](depth=3)
    text = output(capsys, "tokens", "--size", "640x480", "--model", "univa-vl", "--connector", given)
    assert text.splitlines()[-1].split()[0] == "univa-vl+mlp:depth=3"
    with pytest.raises(UsageError, match=r"connector\.dept: unknown field, did you mean 'depth'"):
        read_part("connector", given.replace("depth", "dept"))


def test_values_of_a_part_may_hold_commas():
    assert read_part("policy", "pad_square:fill=[0,128,255],size=392") == vlmkit.policies["pad_square"](size=392, fill=(0, 128, 255))
