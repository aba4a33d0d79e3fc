"""Every format and every value without measure: rejected with its reason or read past, under 300 MB more than idle, in 2 s of a core.

The bounds are lowered in the default tests, and the files with them. At full size: `-m slow`.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.data.packs import jpeg
from tests.data.reading.bombs import JSON, places, put
from vlmkit.data.formats import formats
from vlmkit.data.reading import json_stream, large_json, rows
from vlmkit.data.sample import DataError, Rejected, Sample

SECONDS, BYTES = 2.0, 300e6
PLACES = {f"{kind} {number}": (kind, file, text) for number, (kind, file, text) in enumerate(places())}
FILES = {place[:2]: [name for name, other in PLACES.items() if other[:2] == place[:2]] for place in PLACES.values()}
LARGE = [names[place] for names in FILES.values() for place in (0, -1)]
"""The first and the last place of each file."""
WHOLE = {"annotation file is broken"}
REASONS = WHOLE | {
    *("row is too large", "row is not JSON", "row has wrong fields", "text is too long", "sample is too large", "image is missing"),
    *("images and text differ", "no answer", "image is no base64", "media other than images", "image is not listed"),
}
READ = """
import json, os, resource, sys, time
from collections import Counter
from pathlib import Path
import numpy, pyarrow.parquet, scipy.io
from vlmkit.data.formats import formats
from vlmkit.data.sample import DataError, Rejected
assert all(formats[kind] for kind in formats)
def used(who): return sum(resource.getrusage(who)[:2])
def status(name): return int(Path("/proc/self/status").read_text().split(name)[1].split()[0]) * 1024
for line in sys.stdin:
    if child := os.fork():
        os.waitpid(child, 0)
        continue
    kind, folder, options = json.loads(line)
    Path("/proc/self/clear_refs").write_text("5")
    before, start = status("VmHWM:"), time.process_time() + used(resource.RUSAGE_CHILDREN)
    found = Counter()
    try:
        for item in formats[kind](Path(folder), **options):
            found[item.reason if isinstance(item, Rejected) else ""] += 1
    except DataError as error:
        found[str(error)] += 1
    seconds = time.process_time() + used(resource.RUSAGE_CHILDREN) - start
    print(json.dumps([seconds, status("VmHWM:") - before, found]), flush=True)
    os._exit(0)
"""


def test_every_format_is_bombed():
    tables = {"cauldron", "pixmo_cap", "pixmo_clocks", "pixmo_count", "pixmo_points"}
    assert {kind for kind, _, _ in PLACES.values()} | tables | {"synthtext"} == set(formats)
    assert len(formats) == 14


@pytest.mark.parametrize("place", PLACES)
def test_a_value_without_measure_is_rejected_or_read_past(place, tmp_path, monkeypatch):
    kind, file, text = PLACES[place]
    size = 1 << 16
    monkeypatch.setattr(large_json, "LONGEST", size)
    monkeypatch.setattr(json_stream, "_FARTHEST", 2 * size)
    for module in (large_json, json_stream, rows):
        monkeypatch.setattr(module, "CHUNK", 1 << 12)
    (tmp_path / "a.jpg").write_bytes(jpeg(0))
    for name, value in JSON.items():
        options = put(tmp_path, file, text, value(2 * size))
        items: list[Sample | Rejected] = []
        try:
            items += formats[kind](tmp_path, **options)
        except DataError as error:
            assert "found no sample" in str(error), name
        reasons = {item.reason for item in items if isinstance(item, Rejected)}
        assert reasons <= REASONS, name
        assert all(len(item.detail) < 1000 and len(item.id) < 1000 for item in items if isinstance(item, Rejected)), name
        assert all(len(json.dumps(item.conversations)) < 300_000 for item in items if isinstance(item, Sample)), name


@pytest.fixture(scope="module")
def measured() -> Iterator[Callable[..., tuple[float, int, dict[str, int]]]]:
    """Seconds, bytes and what was found by a reader, each time in a process of its own."""
    with subprocess.Popen([sys.executable, "-c", READ], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as reading:
        stdin, stdout = reading.stdin, reading.stdout
        assert stdin is not None
        assert stdout is not None

        def measure(kind: str, folder: Path, **options: str) -> tuple[float, int, dict[str, int]]:
            stdin.write(json.dumps([kind, str(folder), options]) + "\n")
            stdin.flush()
            seconds, grown, found = json.loads(stdout.readline())
            print(f"{kind:12} {folder.name:22} {seconds:5.2f} s {grown / 1e6:5.0f} MB {found}")
            return seconds, grown, found

        yield measure


@pytest.mark.slow
@pytest.mark.parametrize("place", LARGE)
def test_a_value_without_measure_takes_little(place, tmp_path, measured):
    kind, file, text = PLACES[place]
    over = []
    for name, value in JSON.items():
        folder = tmp_path / name
        options = put(folder, file, text, value(64_000_000))
        seconds, grown, found = measured(kind, folder, **options)
        if seconds > SECONDS or grown > BYTES:
            over.append((name, seconds, grown, found))
        shutil.rmtree(folder)
    assert not over
