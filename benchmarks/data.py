"""From image files to packed batches on one core: packing, raw reading, decode + resize + patches, the mixture.

    python benchmarks/data.py --json data.json

Photographs of several sizes with a few words each are written as a folder of files, packed, read back, and turned into packed
rows. Figures are images for each second of processor time of the process and all its threads, which others on the same machine
disturb less than the time that passed, beside which it stands. The last two alternate row by row on the same images, so that
their ratio holds on a busy machine; the mixture's share holds all that it adds: reading, checksums, order, laying out words,
packing, collating.
At the end a synthetic index of ten million rows is opened and read in the order of a mixture.
"""

from __future__ import annotations

import argparse
import json
import random
import statistics
import tempfile
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.lib.format import open_memmap
from PIL import Image
from rich.console import Console
from rich.table import Table

import vlmkit
from vlmkit.data.formats import formats
from vlmkit.data.mixture import Batches, DataSource, Mixture
from vlmkit.data.mixture.order import Order
from vlmkit.data.mixture.windows import PlannedRow, Window, Windows
from vlmkit.data.shards import Shards
from vlmkit.data.shards.index import INDEX, ROW, ROWS, SIZES, Shard, Summary, written_index
from vlmkit.data.shards.pack import pack
from vlmkit.processor import VLMProcessor

SIZES_DRAWN = ((480, 640), (640, 480), (427, 640), (500, 375), (768, 1024), (300, 300))
"""Height and width, as in a mix of photographs for questions and answers."""
WORDS = "the a dog sits on wooden table beside bright window while people walk past small shop with red sign"
LENGTH = 4096


@dataclass
class Result:
    what: str
    images: int
    seconds: float
    processor_seconds: float

    @property
    def rate(self) -> float:
        return self.images / self.processor_seconds


class Clock:
    """Adds up the time of pieces of work, and that of the processor: of all threads, or of this one (`time.thread_time`)."""

    def __init__(self, processor_time: Callable[[], float] = time.process_time) -> None:
        self.processor_time = processor_time
        self.seconds = self.processor_seconds = 0.0

    def __call__(self, work: Callable[[], Any]) -> Any:
        begun, busy = time.perf_counter(), self.processor_time()
        result = work()
        self.seconds += time.perf_counter() - begun
        self.processor_seconds += self.processor_time() - busy
        return result


def timed(what: str, images: int, work: Callable[[], Any]) -> Result:
    clock = Clock()
    clock(work)
    return Result(what, images, clock.seconds, clock.processor_seconds)


def render(folder: Path, count: int) -> None:
    """A data set in the chat format: crops of scikit-learn's two photographs, all different, with short questions and answers."""
    from sklearn.datasets import load_sample_images

    drawn = random.Random(0)
    photos = [Image.fromarray(photo) for photo in load_sample_images().images]
    words = WORDS.split()
    (folder / "images").mkdir(parents=True)
    with (folder / "data.jsonl").open("w") as file:
        for number in range(count):
            photo, (height, width) = drawn.choice(photos), drawn.choice(SIZES_DRAWN)
            side = drawn.randint(240, 420)
            left, top = drawn.randint(0, photo.width - side), drawn.randint(0, photo.height - side)
            crop = photo.resize((width, height), Image.Resampling.BILINEAR, (left, top, left + side, top + side))
            crop.save(folder / "images" / f"{number}.jpg", quality=85)
            image = {"type": "image", "path": f"images/{number}.jpg"}
            messages = []
            for turn in range(drawn.randint(1, 3)):
                question = {"type": "text", "text": " ".join(drawn.choices(words, k=drawn.randint(4, 12))) + "?"}
                messages.append({"role": "user", "content": [question] if turn else [image, question]})
                messages.append({"role": "assistant", "content": " ".join(drawn.choices(words, k=drawn.randint(1, 30)))})
            file.write(json.dumps({"messages": messages}) + "\n")


def measure_packing(folder: Path, packed: Path, count: int) -> list[Result]:
    def run(directory: Path, whole: bool) -> None:
        done = pack(formats["chat"](folder), directory, workers=0, whole=whole)
        assert done.samples == count, done.rejections.report()

    return [
        timed("packing, every image decoded", count, lambda: run(packed, True)),
        timed("packing, headers only", count, lambda: run(packed.with_name("headers"), False)),
    ]


def measure_reading(shards: Shards) -> Result:
    order = random.Random(0).sample(range(len(shards)), len(shards))

    def run() -> None:
        for number in order:
            assert shards[number].images

    return timed("raw reading in random order", len(shards), run)


def measure_batches(shards: Shards, rounds: int) -> tuple[list[Result], dict[str, float], float]:
    """Decode + resize + patches of the images of a row, and the packed row, in turns; what the mixture costs beside; the share
    of real tokens in a row.

    A round is a window, which is planned, its words laid out, when the first of its rows is taken. All that the process does
    counts as the mixture's but reading and decoding the row's images once more.
    """
    tiny = vlmkit.architecture("univa-vl-tiny")
    processor = vlmkit.build_processor(tiny.replace(policy=vlmkit.architecture("univa-vl").policy))
    mixture = Mixture([DataSource("photographs", shards)], processor, rows=1, length=LENGTH, pack=True, seed=0)
    mixture.windows = windows = WatchedWindows(mixture.windows)
    batches = mixture.batches()
    next(batches)
    for _ in windows.rows[1:]:
        next(batches)
    decoding, reading = Clock(time.thread_time), Clock(time.thread_time)
    ratios: list[dict[str, float]] = []
    passed = busy = 0.0
    images = real = room = 0
    for _ in range(rounds):
        before = [clock.processor_seconds for clock in (decoding, reading, windows.planning)]
        whole = Clock()
        whole(lambda: _in_turns(batches, windows, shards, processor, decoding, reading))
        after = [clock.processor_seconds for clock in (decoding, reading, windows.planning)]
        alone, read, planned = (now - then for now, then in zip(after, before, strict=True))
        rows = windows.rows
        mixed = whole.processor_seconds - alone - read
        ratios.append({"all": mixed / alone - 1, "planning": planned / alone})
        busy += mixed
        passed += whole.seconds
        images += sum(len(part.piece.images) for row in rows for part in row)
        real += sum(part.piece.length for row in rows for part in row)
        room += LENGTH * len(rows)
    batches.close()
    results = [
        Result("decode + resize + patches", images, decoding.seconds, decoding.processor_seconds),
        Result(f"packed batches of {LENGTH} tokens", images, passed - decoding.seconds - reading.seconds, busy),
    ]
    return results, {name: statistics.median(ratio[name] for ratio in ratios) for name in ratios[0]}, real / room


class WatchedWindows(Windows):
    """The windows of a mixture; they say how long planning took, and what rows came of it last."""

    def __init__(self, windows: Windows) -> None:
        super().__init__(windows.order, windows.sources, windows.preparer, windows.size)
        self.planning = Clock(time.thread_time)
        self.rows: list[PlannedRow] = []

    def __getitem__(self, window: int) -> Window:
        plan = super().__getitem__
        planned: Window = self.planning(lambda: plan(window))
        self.rows = planned.rows
        return planned


def _in_turns(batches: Batches, windows: WatchedWindows, shards: Shards, processor: VLMProcessor, decoding: Clock, reading: Clock) -> None:
    next(batches)
    for place, row in enumerate(windows.rows):
        if place:
            next(batches)
        encoded = reading(lambda row=row: [shards.images(part.sample)[number] for part in row for number in part.piece.images])
        decoding(lambda encoded=encoded: [len(processor.render_image(image).grids) for image in encoded])


def measure_index(folder: Path, rows: int) -> dict[str, float]:
    """Seconds to open an index, and memory that is not a file's while samples are looked up in the order of a mixture."""
    folder.mkdir()
    table = open_memmap(folder / ROWS, mode="w+", dtype=ROW, shape=(rows,))
    table["images"], table["first_image"] = 1, np.arange(rows)
    open_memmap(folder / SIZES, mode="w+", dtype="<u4", shape=(rows, 2))[:] = (480, 640)
    summary = Summary(rows, rows, ("a",), (Shard("shard-000000.tar", rows, 1 << 40),), {}, {})
    (folder / INDEX).write_bytes(written_index(summary, {ROWS: table, SIZES: np.load(folder / SIZES, mmap_mode="r")}))
    del table
    before, begun = _memory(), time.perf_counter()
    shards = Shards(folder)
    opened = time.perf_counter() - begun
    order = Order([rows], None, seed=0, epochs=None)
    begun, looked = time.process_time(), 100_000
    for place in range(looked):
        shards.image_sizes(order[place].sample)
    return {
        "rows": rows,
        "seconds to open": opened,
        "look-ups a second in shuffled order": looked / (time.process_time() - begun),
        "megabytes of memory": (_memory() - before) / 1e6,
    }


def _memory() -> int:
    (line,) = [line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("RssAnon:")]
    return int(line.split()[1]) * 1024


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--images", type=int, default=20_000)
    parser.add_argument("--rounds", type=int, default=8, help="windows of 2048 samples in which the last two alternate")
    parser.add_argument("--rows", type=int, default=10**7, help="of the synthetic index")
    parser.add_argument("--directory", type=Path, help="where to write; a temporary directory without")
    parser.add_argument("--json", type=Path, help="write the figures to this file")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    console = Console()
    with tempfile.TemporaryDirectory(dir=arguments.directory) as name:
        folder, packed = Path(name) / "photographs", Path(name) / "packed"
        render(folder, arguments.images)
        results = measure_packing(folder, packed, arguments.images)
        shards = Shards(packed)
        results.append(measure_reading(shards))
        more, cost, real = measure_batches(shards, arguments.rounds)
        results += more
        index = measure_index(Path(name) / "index", arguments.rows)
    table = Table(title="images a second, one core", caption="of processor time; beside it, of time that passed")
    for column in ("work", "images", "images/s a core", "images/s passed"):
        table.add_column(column, justify="left" if column == "work" else "right", no_wrap=True)
    for result in results:
        table.add_row(result.what, f"{result.images:,}", f"{result.rate:,.0f}", f"{result.images / result.seconds:,.0f}")
    console.print(table)
    told = f"the mixture costs {cost['all']:+.1%} over decode + resize + patches, of which planning is {cost['planning']:.1%}"
    console.print(f"{told} (asked for: at most +10 %)")
    console.print(f"real tokens in a row: {real:.2%} (asked for: at least 99 %)")
    console.print(", ".join(f"{what} {value:,.4g}" for what, value in index.items()))
    if arguments.json:
        figures = {"results": [asdict(result) for result in results], "mixture_cost": cost, "real_tokens": real, "index": index}
        arguments.json.write_text(json.dumps(figures, indent=2) + "\n")


if __name__ == "__main__":
    main()
