"""Films: what is read at which time, how little is held, and what is said about files that are no films."""

from __future__ import annotations

import os
import subprocess
import sys
import tracemalloc
import weakref
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
import torch
from PIL import Image

from tests.films import frame, number_of, write
from vlmkit.preprocess import Sampling, Size, VideoError, film, film_file, open_video
from vlmkit.preprocess.film_file import VideoReaderError

CODECS = {
    "film.mp4": ("libx264", "yuv420p"),
    "parts.mp4": ("mpeg4", "yuv420p"),
    "film.mov": ("mjpeg", "yuvj420p"),
    "film.mkv": ("libx264", "yuv420p"),
    "film.webm": ("libvpx-vp9", "yuv420p"),
    "small.webm": ("libvpx", "yuv420p"),
    "film.avi": ("mpeg4", "yuv420p"),
    "film.ts": ("libx264", "yuv420p"),
    "film.mpg": ("mpeg2video", "yuv420p"),
    "film.flv": ("flv", "yuv420p"),
    "film.wmv": ("wmv2", "yuv420p"),
    "film.gif": ("gif", "gray"),
}
RATES = {"film.gif": 25}


def numbers(film, times) -> list[int]:
    return [number_of(pixels) for pixels in film.at(times)]


@pytest.mark.parametrize("name", CODECS)
def test_every_container_gives_every_frame_at_its_time(tmp_path, name):
    codec, pixels = CODECS[name]
    rate = RATES.get(name, 30)
    film = open_video(write(tmp_path / name, 50, codec, rate=rate, pixels=pixels))
    assert (film.size, film.total, film.fps) == (Size(48, 64), 50, rate)
    assert (film.clip.frames, film.clip.fps, film.clip.size) == (50, rate, Size(48, 64))
    assert numbers(film, [number / rate for number in range(50)]) == list(range(50))
    assert numbers(film, [7 / rate, 7 / rate, 31.2 / rate, 1000.0]) == [7, 7, 31, 49]
    assert list(film.at([])) == []
    assert film.shown(Sampling()) == tuple(index / rate for index in Sampling().indices(50, rate))
    for pixels in film.at([0.5]):
        assert pixels.shape == (48, 64, 3)
        assert pixels.dtype == np.uint8


def test_pixels_are_those_that_ffmpeg_gives(tmp_path):
    path = write(tmp_path / "film.mp4", 12, height=50, width=70)
    with av.open(str(path)) as container:
        expected = [each.to_ndarray(format="rgb24") for each in container.decode(video=0)]
    found = list(open_video(str(path)).at([number / 30 for number in range(12)]))
    assert all(map(np.array_equal, found, expected))
    assert abs(found[3].astype(int) - frame(3, 50, 70)).mean() < 3  # measured 0.4: what x264 loses


@pytest.mark.parametrize(("height", "width"), [(47, 63), (2, 2), (1, 9), (16, 500)])
def test_odd_sizes_are_read(tmp_path, height, width):
    film = open_video(write(tmp_path / "film.mkv", 5, "ffv1", height=height, width=width, pixels="bgr0"))
    assert film.size == Size(height, width)
    assert all(map(np.array_equal, film.at([0, 2 / 30]), [frame(0, height, width), frame(2, height, width)]))


@pytest.mark.parametrize("degrees", [0, 90, 180, 270])
@pytest.mark.parametrize("mirrored", [(False, False), (True, False), (False, True)])
def test_frames_come_upright(tmp_path, degrees, mirrored):
    film = open_video(write(tmp_path / "film.mp4", 3, turned=(degrees, *mirrored)))
    # Turned against the clock, then mirrored.
    expected = np.rot90(frame(1), degrees // 90)
    expected = expected[:, ::-1] if mirrored[0] else expected
    expected = expected[::-1] if mirrored[1] else expected
    assert film.size == Size(*expected.shape[:2])
    (found,) = film.at([1 / 30])
    assert found.flags.c_contiguous
    assert abs(found.astype(int) - expected).mean() < 3


@pytest.mark.parametrize("name", ["film.mkv", "film.mp4"])
def test_of_a_film_of_uneven_frames_the_one_is_read_that_is_seen(tmp_path, name):
    stamps = [0, 100, 200, 300, 5000, 9000, 9100, 9200]
    film = open_video(write(tmp_path / name, len(stamps), stamps=stamps))
    assert film.total == 8
    assert film.fps == pytest.approx(7 / 9.2, rel=1e-3)
    assert numbers(film, [0, 0.15, 0.31, 4.5, 4.99, 5.0, 8.9, 9.05, 9.19, 60.0]) == [0, 1, 3, 3, 3, 4, 4, 5, 6, 7]


@pytest.mark.parametrize("rate", [Fraction(30000, 1001), Fraction(24000, 1001), 25, Fraction(25, 2)])
@pytest.mark.parametrize("name", ["film.mp4", "film.mkv"])
def test_evenly_spaced_frames_are_counted_whatever_the_clock(tmp_path, name, rate):
    film = open_video(write(tmp_path / name, 59, rate=rate))
    assert film.fps == pytest.approx(float(rate), rel=2e-4)
    indices = Sampling(fps=5.0).indices(film.total, film.fps)
    assert numbers(film, film.shown(Sampling(fps=5.0))) == list(indices)


def test_a_film_of_one_frame(tmp_path):
    film = open_video(write(tmp_path / "film.mp4", 1))
    assert (film.total, film.shown(Sampling())) == (1, (0.0,))
    assert numbers(film, [0.0, 3.0]) == [0, 0]


def test_a_cover_is_no_film_and_sound_is_none(tmp_path):
    path = write(tmp_path / "sound.mp4", 0, sound=1)
    with pytest.raises(VideoError, match=r"has no pictures, only sound or text; expected a film"):
        open_video(path)
    with_sound = open_video(write(tmp_path / "both.mp4", 10, sound=3))
    assert with_sound.total == 10
    assert numbers(with_sound, [9 / 30]) == [9]


def test_transparent_frames_stand_on_white(tmp_path):
    path = tmp_path / "clear.gif"
    frames = [Image.new("P", (8, 6), 0) for _ in range(2)]
    for number, image in enumerate(frames):
        image.putpalette([0, 0, 0, 200, 0, 0])
        image.paste(1, (number, 0, 4, 3))
    frames[0].save(path, save_all=True, append_images=frames[1:], transparency=0, duration=100, disposal=2)
    first, _ = open_video(path).at([0, 0.1])
    assert first[0, 0].tolist() == [200, 0, 0]
    assert first[5, 7].tolist() == [255, 255, 255]


class Counted(np.ndarray):
    """An array that is counted while it lives."""

    alive = 0
    most = 0

    @classmethod
    def of(cls, pixels):
        found = pixels.view(cls)
        cls.alive += 1
        cls.most = max(cls.most, cls.alive)
        weakref.finalize(found, cls.gone)
        return found

    @classmethod
    def gone(cls):
        cls.alive -= 1


def test_of_a_long_film_one_frame_is_held_at_a_time(tmp_path, monkeypatch):
    path = write(tmp_path / "long.mp4", 2000, g="50")
    made = film_file.FilmFile._pixels
    monkeypatch.setattr(film_file.FilmFile, "_pixels", lambda self, *given: Counted.of(made(self, *given)))
    tracemalloc.start()
    film = open_video(path)
    times = film.shown(Sampling(max_frames=100))
    found = [number_of(pixels) for pixels in film.at(times)]
    held = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert found == [index % 64 for index in Sampling(max_frames=100).indices(2000, 30)]
    assert len(found) == 100
    assert Counted.most <= 2  # the one that is handed out, and the next
    assert held < 40 * 48 * 64 * 3  # measured 0.2 MB; all frames are 18 MB, the sampled ones 0.9


def decoded(monkeypatch):
    """Counts the frames that are decoded."""
    count = []
    number = film_file.FilmFile._number
    monkeypatch.setattr(film_file.FilmFile, "_number", lambda self, *given: count.append(1) or number(self, *given))
    return count


@pytest.mark.parametrize("name", ["film.mp4", "film.mkv", "film.webm"])
def test_what_lies_between_wanted_frames_is_jumped_over(tmp_path, monkeypatch, name):
    codec, _ = CODECS[name]
    film = open_video(write(tmp_path / name, 600, codec, g="30"))
    times = [number / 30 for number in (0, 299, 300, 301, 593)]
    count = decoded(monkeypatch)
    assert numbers(film, times) == [number % 64 for number in (0, 299, 300, 301, 593)]
    assert len(count) < 150
    monkeypatch.setattr(film_file, "_FAR", 10_000)
    count.clear()
    assert numbers(film, times) == [number % 64 for number in (0, 299, 300, 301, 593)]
    assert len(count) == 594


def test_a_file_that_goes_too_far_is_decoded_from_its_start(tmp_path, monkeypatch):
    film = open_video(write(tmp_path / "film.mp4", 300, g="20"))
    stamps = list(film.clock.stamps)
    seek = av.container.InputContainer.seek
    opened = film_file.FilmFile._opened

    class Far:
        def __init__(self, container):
            self.container = container
            self.decode = container.decode

        def seek(self, offset, stream):
            seek(self.container, stamps[min(stamps.index(offset) + 100, 280)], stream=stream)

    from contextlib import contextmanager

    @contextmanager
    def far(self, name):
        with opened(self, name) as (container, stream):
            yield Far(container), stream

    monkeypatch.setattr(film_file.FilmFile, "_opened", far)
    assert numbers(film, [0, 150 / 30, 290 / 30]) == [0, 150 % 64, 290 % 64]


CUT = ["film.mp4", "fast.mp4", "film.mkv", "film.webm", "film.avi", "film.flv"]


@pytest.mark.parametrize("name", CUT)
@pytest.mark.parametrize("part", [0.02, 0.3, 0.6])
def test_a_truncated_file_is_refused(tmp_path, name, part):
    codec, pixels = CODECS.get(name, ("libx264", "yuv420p"))
    whole = write(tmp_path / name, 120, codec, pixels=pixels, container={"movflags": "+faststart"} if name == "fast.mp4" else {})
    data = whole.read_bytes()
    path = tmp_path / f"cut{whole.suffix}"
    path.write_bytes(data[: int(len(data) * part)])
    with pytest.raises(VideoError) as caught:
        open_video(path)
    assert repr(str(path)) in str(caught.value)
    assert "truncated" in str(caught.value)


@pytest.mark.parametrize("name", ["film.mp4", "film.webm", "film.mkv"])
def test_a_damaged_file_is_refused_when_the_damage_is_read(tmp_path, name):
    codec, pixels = CODECS[name]
    path = write(tmp_path / name, 120, codec, pixels=pixels, height=240, width=320)
    data = bytearray(path.read_bytes())
    middle = len(data) // 2
    data[middle : middle + 400] = np.random.default_rng(0).bytes(400)
    path.write_bytes(data)
    with pytest.raises(VideoError, match=r"truncated|damaged") as caught:
        list(open_video(path).at([number / 30 for number in range(120)]))
    assert "0x" not in str(caught.value)


TEXT = "#EXTM3U\n#EXTINF:1,\n/etc/passwd\n"


@pytest.mark.parametrize(
    ("name", "data", "message"),
    [
        ("empty.mp4", b"", "is empty, expected a film (MP4 and MOV, "),
        ("text.mp4", b"hello " * 500, "cannot be read (InvalidDataError), expected a complete film (MP4 and MOV, "),
        ("list.m3u8", TEXT.encode(), "cannot be read (InvalidDataError), expected a complete film"),
        ("list.txt", b"ffconcat version 1.0\nfile /etc/passwd\n", "cannot be read (ArgumentError), expected a complete film"),
        ("noise.mkv", np.random.default_rng(1).bytes(5000), "cannot be read (InvalidDataError), expected a complete film"),
    ],
)
def test_what_is_no_film_is_refused_in_one_sentence(tmp_path, name, data, message):
    path = tmp_path / name
    path.write_bytes(data)
    with pytest.raises(VideoError) as caught:
        open_video(path)
    assert str(caught.value).startswith(f"{str(path)!r} {message}")


def test_pictures_in_other_files_are_no_films(tmp_path):
    Image.new("RGB", (8, 8)).save(tmp_path / "a.png")
    (tmp_path / "b.mp4").write_bytes((tmp_path / "a.png").read_bytes())
    for name in ("a.png", "b.mp4"):
        with pytest.raises(VideoError, match="expected a complete film"):
            open_video(tmp_path / name)


@pytest.mark.parametrize("url", ["https://example.org/a.mp4", "concat:a.mp4|b.mp4", "pipe:0", "rtsp://example.org/"])
def test_urls_are_not_fetched(url):
    with pytest.raises(VideoError, match="is a URL, and URLs are not fetched; download it and pass its path"):
        open_video(url)


def test_a_local_film_may_be_spelled_as_a_url(tmp_path):
    write(tmp_path / "a film.mp4", 3)
    assert open_video((tmp_path / "a film.mp4").as_uri()).total == 3
    with pytest.raises(VideoError, match=r"'file:///no/such\.mp4' does not exist"):
        open_video("file:///no/such.mp4")


def test_a_name_with_a_colon_is_a_name(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write(tmp_path / "film.mp4", 3).rename(tmp_path / "concat:film.mp4")
    assert open_video("concat:film.mp4").total == 3


def test_paths_that_are_no_files_are_refused(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    for path, message in (
        (tmp_path, "is a directory, expected the path of a video file"),
        (tmp_path / "pipe", "is a device, pipe or socket, expected the path of a video file"),
        ("/dev/zero", "is a device, pipe or socket, expected the path of a video file"),
        (tmp_path / "none.mp4", "does not exist, expected the path of a video file"),
        ("a\0b.mp4", "not a valid path"),
    ):
        with pytest.raises(VideoError, match=message):
            open_video(path)


def test_limits_are_checked_before_anything_is_decoded(tmp_path, monkeypatch):
    path = write(tmp_path / "film.mp4", 20)
    with pytest.raises(VideoError, match=r"has frames of 48x64 = 3072 pixels, expected at most 3071; make them smaller"):
        open_video(path, max_pixels=3071)
    assert open_video(path, max_pixels=3072).total == 20
    monkeypatch.setattr(film, "MAX_FRAMES", 19)
    for name in ("film.mp4", "film.mkv"):  # one states its frames, the other does not
        with pytest.raises(VideoError, match=r"has \d+ frames or more, expected at most 19; cut it into parts"):
            open_video(write(tmp_path / name, 20))


def test_a_header_that_states_less_than_is_there_does_not_pass_the_limit(tmp_path):
    path = write(tmp_path / "film.mkv", 5)
    data = path.read_bytes()
    small = data.replace(bytes([0xB0, 0x81, 64, 0xBA, 0x81, 48]), bytes([0xB0, 0x81, 8, 0xBA, 0x81, 8]))
    assert small != data
    path.write_bytes(small)
    with pytest.raises(VideoError, match="expected"):
        open_video(path, max_pixels=1000)


def test_ffmpeg_says_nothing_itself(tmp_path):
    path = write(tmp_path / "film.mp4", 30, height=240, width=320)
    data = bytearray(path.read_bytes())
    data[200:2000] = bytes(1800)
    path.write_bytes(data)
    code = f"""
from vlmkit.preprocess import open_video, VideoError
try:
    list(open_video({str(path)!r}).at([0, 0.5]))
except VideoError as error:
    print("said")
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert (done.stdout, done.stderr) == ("said\n", "")


def test_without_pyav_one_sentence_says_what_to_install(tmp_path, monkeypatch):
    path = write(tmp_path / "film.mp4", 3)
    monkeypatch.setitem(sys.modules, "av", None)
    with pytest.raises(VideoReaderError) as caught:
        open_video(path)
    assert str(caught.value) == "reading video files needs PyAV: pip install 'vlmkit[video]'"
    assert open_video([frame(0), frame(1)]).total == 2


@pytest.mark.parametrize("kind", ["arrays", "pictures", "paths", "array", "tensor"])
def test_frames_that_somebody_cut_are_a_film(tmp_path, kind):
    frames = [frame(number) for number in range(9)]
    source = {
        "arrays": lambda: frames,
        "pictures": lambda: tuple(map(Image.fromarray, frames)),
        "paths": lambda: [saved(tmp_path / f"{number}.png", each) for number, each in enumerate(frames)],
        "array": lambda: np.stack(frames),
        "tensor": lambda: torch.from_numpy(np.stack(frames)),
    }[kind]()
    film = open_video(source)
    assert (film.size, film.total, film.fps) == (Size(48, 64), 9, 2.0)
    assert film.shown(Sampling(frames=2)) == tuple(number / 2 for number in range(9)), "nothing is said of their time: all are shown"
    assert all(map(np.array_equal, film.at(film.shown(Sampling())), frames))
    timed = open_video(source, fps=3)
    assert timed.clip.seconds == 3
    assert timed.shown(Sampling(frames=2)) == (0, 8 / 3)
    assert numbers(timed, timed.shown(Sampling(frames=2))) == [0, 8]


def saved(path: Path, pixels) -> Path:
    Image.fromarray(pixels).save(path)
    return path


@pytest.mark.parametrize(
    ("source", "fps", "message"),
    [
        ([], None, r"^a list of 0 frames has no frames, expected at least one$"),
        (np.zeros((0, 4, 4, 3), np.uint8), None, r"^array of shape \(0, 4, 4, 3\) and type uint8 has no frames"),
        (np.zeros((4, 4, 3), np.uint8), None, r"is no film, expected a path, a list .*; a picture is an item of type 'image'$"),
        (b"film", None, r"^bytes of length 4 is no film, expected a path"),
        (7, None, r"^a int is no film, expected a path, a list of frames or an array \(F, H, W, 3\)$"),
        (["none.png"], None, r"^frame 0 of a list of 1 frames: 'none.png' does not exist"),
        ([frame(0)], 0, r"^the frames a second of a list of 1 frames are a number above 0, got 0$"),
        ("a.mp4", 30, r"^'a.mp4' is a file, which states its frames a second itself; leave out fps=30$"),
        ([np.zeros((5000, 9000, 3), np.uint8)], None, r"has frames of 5000x9000 = 45000000 pixels, expected at most 40000000"),
    ],
)
def test_what_is_no_list_of_frames_is_refused(source, fps, message):
    with pytest.raises(VideoError, match=message):
        open_video(source, fps=fps)


def test_frames_are_of_one_size_and_times_are_in_order():
    film = open_video([frame(0), frame(1, 50, 50)])
    with pytest.raises(VideoError, match=r"frame 1 of a list of 2 frames is 50x50, but the first is 48x64 .* resize them"):
        list(film.at([0, 0.5]))
    for times in ([1.0, 0.5], [-1.0], [float("nan")]):
        with pytest.raises(ValueError, match="are read at ascending times in seconds from 0, got"):
            list(film.at(times))
