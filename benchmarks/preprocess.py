"""JPEG bytes to patches on one core: vlmkit beside transformers' two Qwen2-VL image processors, in one run.

    python benchmarks/preprocess.py --repeats 30 --json preprocess.json

Every method starts from the same bytes and ends with the patches of the same target size. transformers is fed as its
users feed it, with PIL.Image.open(...).convert("RGB"), and returns normalised float patches (each twice, for two frames).
vlmkit is timed with the same result and with uint8 patches, which is what its encoders take. Methods are interleaved,
in a new order each round, so that a busy machine slows all of them alike; the figures are medians. Beside the time that
passed stands the time that the processor spent, which others on the same machine disturb less.
"""

from __future__ import annotations

import argparse
import io
import json
import platform
import random
import statistics
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import PIL
import torch
import transformers
from PIL import Image
from rich.console import Console
from rich.table import Table

from vlmkit.preprocess import ImagePlan, Size, policies, render
from vlmkit.preprocess.images import decode

SIZES = {(480, 640): 1.6, (1200, 1600): 2.0, (2016, 3024): 2.5}
"""Height and width, and how many times faster than the baseline the project asks to be."""
BASELINE = "transformers, torchvision"
MIN_PIXELS, MAX_PIXELS = 64 * 28 * 28, 256 * 28 * 28
MEAN, STD = (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)

Method = Callable[[bytes], torch.Tensor]


@dataclass
class Result:
    """One method at one size."""

    size: Size
    method: str
    milliseconds: float
    quartiles: tuple[float, float]
    speedup: float
    processor_milliseconds: float
    processor_speedup: float


def photograph(size: Size, orientation: int = 1, tiled: bool = False) -> bytes:
    """scikit-learn's photograph of a Chinese temple at this size, as a JPEG of quality 90.

    With `tiled` it is repeated rather than enlarged, so that a large picture is as rich in detail as a small one, and
    decoding, the part that nobody can avoid, is slower.
    """
    from sklearn.datasets import load_sample_image

    exif = Image.Exif()
    exif[0x0112] = orientation
    photo = load_sample_image("china.jpg")
    if tiled:
        photo = np.tile(photo, (-(-size.height // photo.shape[0]), -(-size.width // photo.shape[1]), 1))[: size.height, : size.width]
    picture = Image.fromarray(photo).resize((size.width, size.height), Image.Resampling.LANCZOS)
    file = io.BytesIO()
    picture.save(file, "JPEG", quality=90, exif=exif)
    return file.getvalue()


def methods() -> dict[str, Method]:
    from transformers import Qwen2VLImageProcessor
    from transformers.models.qwen2_vl.image_processing_pil_qwen2_vl import Qwen2VLImageProcessorPil

    policy = policies["smart_resize"]()

    def plan(pixels: object) -> ImagePlan:
        return policy.plan(Size(*pixels.shape[:2]))

    def uint8(data: bytes) -> torch.Tensor:
        pixels = decode(data)
        return render(pixels, plan(pixels), patch=14)[0]

    def normalised(data: bytes) -> torch.Tensor:
        pixels = decode(data)
        return render(pixels, plan(pixels), patch=14, mean=MEAN, std=STD)[0]

    def of(processor: Callable[..., dict[str, torch.Tensor]]) -> Method:
        return lambda data: processor(Image.open(io.BytesIO(data)).convert("RGB"), return_tensors="pt")["pixel_values"]

    bounds = {"min_pixels": MIN_PIXELS, "max_pixels": MAX_PIXELS}
    return {
        "vlmkit, uint8 patches": uint8,
        "vlmkit, normalised float32 patches": normalised,
        BASELINE: of(Qwen2VLImageProcessor(**bounds)),
        "transformers, PIL": of(Qwen2VLImageProcessorPil(**bounds)),
        "decoding alone (vlmkit)": lambda data: torch.from_numpy(decode(data)),
    }


def measure(size: Size, data: bytes, repeats: int, seed: int = 0) -> list[Result]:
    candidates = methods()
    times: dict[str, list[float]] = {name: [] for name in candidates}
    spent: dict[str, list[float]] = {name: [] for name in candidates}
    names, order = list(candidates), random.Random(seed)
    for warm_up in (True,) * 2 + (False,) * repeats:
        order.shuffle(names)
        for name in names:
            start, start_spent = time.perf_counter(), time.process_time()
            candidates[name](data)
            if not warm_up:
                times[name].append(1e3 * (time.perf_counter() - start))
                spent[name].append(1e3 * (time.process_time() - start_spent))
    baseline, baseline_spent = statistics.median(times[BASELINE]), statistics.median(spent[BASELINE])
    results = []
    for name in candidates:
        low, median, high = statistics.quantiles(times[name], n=4)
        busy = statistics.median(spent[name])
        results.append(Result(size, name, median, (low, high), baseline / median, busy, baseline_spent / busy))
    return results


def table(results: list[Result]) -> Table:
    page = Table(
        title="JPEG bytes to patches, one core",
        caption=f"medians; images/s of processor time; speedup against {BASELINE}; bar: what the project asks for",
    )
    for column in ("image", "method", "ms", "speedup", "CPU ms", "CPU speedup", "images/s", "bar"):
        page.add_column(column, justify="left" if column == "method" else "right", no_wrap=True)
    for result in results:
        bar = SIZES.get((result.size.height, result.size.width)) if result.method.startswith("vlmkit") else None
        verdict = "" if bar is None else f"[{'green' if result.speedup >= bar else 'red'}]{bar:.1f}x[/]"
        page.add_row(
            f"{result.size.width}x{result.size.height}",
            result.method,
            f"{result.milliseconds:.2f}",
            f"{result.speedup:.2f}x",
            f"{result.processor_milliseconds:.2f}",
            f"{result.processor_speedup:.2f}x",
            f"{1e3 / result.processor_milliseconds:.0f}",
            verdict,
            end_section=result.method.startswith("decoding"),
        )
    return page


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--repeats", type=int, default=25, help="measured rounds a size")
    parser.add_argument("--orientation", type=int, default=1, help="EXIF orientation of the photographs, 1 to 8")
    parser.add_argument("--tiled", action="store_true", help="repeat the photograph instead of enlarging it")
    parser.add_argument("--json", type=Path, help="write the figures to this file")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    results = []
    for size in (Size(*sides) for sides in SIZES):
        results += measure(size, photograph(size, arguments.orientation, arguments.tiled), arguments.repeats)
    console = Console()
    console.width = max(console.width, 110)
    console.print(table(results))
    if arguments.json:
        versions = {module.__name__: module.__version__ for module in (torch, transformers, PIL)}
        rows = [asdict(result) for result in results]
        arguments.json.write_text(json.dumps({"python": platform.python_version(), "versions": versions, "results": rows}, indent=2) + "\n")


if __name__ == "__main__":
    main()
