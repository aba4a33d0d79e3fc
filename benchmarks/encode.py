"""Views of mixed sizes through one tower: vlmkit's one call beside a loop over sizes, a loop over images, and padding with a mask.

    python benchmarks/encode.py --views 16 --repeats 15 --json encode.json

Sizes are those that smart resize gives to photographs of common shapes. The tower is one and the same, an OpenCLIP
vision transformer (two blocks of ViT-S-16 by default) with random weights; the padded way runs its own blocks under a mask.
Methods are interleaved, in a new order each round, so that a busy machine slows all of them alike; the figures are
medians, and the speedup is the median of the ratios within a round.
"""

from __future__ import annotations

import argparse
import json
import platform
import random
import statistics
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

import open_clip
import torch
from einops import rearrange
from rich.console import Console
from rich.table import Table
from torch import Tensor
from torch.nn.functional import linear, scaled_dot_product_attention

from vlmkit.allocator import reuse_large_blocks
from vlmkit.encoders.open_clip import OpenClip
from vlmkit.encoders.open_clip_tower import Attention, OpenClipTower
from vlmkit.features import Grid
from vlmkit.preprocess import Size
from vlmkit.preprocess.policies.smart_resize import smart_resize

SHAPES = ((480, 640), (640, 480), (1200, 1600), (1080, 1920), (500, 375), (1000, 1000), (224, 224), (2016, 3024), (300, 1200), (1280, 720))
"""Heights and widths of photographs, screens, signs."""
BASELINE = "a loop by size"
CLOCKS = {"wall": time.perf_counter, "cpu": time.process_time}

Method = Callable[[Tensor, tuple[Grid, ...]], Tensor]


@dataclass
class Result:
    """One method over all rounds."""

    method: str
    milliseconds: float
    quartiles: tuple[float, float]
    speedup: float
    difference: float
    """Largest absolute difference from the loop's features."""


def padded(tower: OpenClipTower, pixel_values: Tensor, grids: tuple[Grid, ...]) -> Tensor:
    """Every view padded to the longest, padding hidden from attention by a mask (V, 1, 1, n)."""
    embedded = tower.embed(tower.normalise(pixel_values)).split([grid.tokens for grid in grids])
    sequences = [torch.cat([tower.prefix_tokens(), piece]) + tower.positions(grid) for piece, grid in zip(embedded, grids, strict=True)]
    tokens = tower.ln_pre(torch.nn.utils.rnn.pad_sequence(sequences, batch_first=True))
    lengths = torch.tensor([len(sequence) for sequence in sequences], device=tokens.device)
    real = torch.arange(tokens.shape[1], device=tokens.device) < lengths[:, None]
    for block in tower.resblocks:
        tokens = tokens + block.ls_1(masked(block.attn, block.ln_1(tokens), real[:, None, None]))
        tokens = tokens + block.ls_2(block.mlp(block.ln_2(tokens)))
    real[:, 0] = False  # the class token
    return tower.ln_post(tokens)[real]


def masked(attention: Attention, tokens: Tensor, mask: Tensor) -> Tensor:
    """The tower's attention (V, n, D) under a mask."""
    projected = linear(tokens, attention.in_proj_weight, attention.in_proj_bias)
    queries, keys, values = rearrange(projected, "v n (three heads d) -> three v heads n d", three=3, heads=attention.heads)
    attended = scaled_dot_product_attention(queries, keys, values, attn_mask=mask)
    return attention.out_proj(rearrange(attended, "v heads n d -> v n (heads d)"))


def methods(tower: OpenClipTower) -> dict[str, Method]:
    def loop(pixel_values: Tensor, grids: tuple[Grid, ...]) -> Tensor:
        pieces = pixel_values.split([grid.tokens for grid in grids])
        return torch.cat([tower(piece, (grid,)).tokens for piece, grid in zip(pieces, grids, strict=True)])

    def by_size(pixel_values: Tensor, grids: tuple[Grid, ...]) -> Tensor:
        pieces = pixel_values.split([grid.tokens for grid in grids])
        found = list(pieces)
        for grid in dict.fromkeys(grids):
            numbers = [number for number, other in enumerate(grids) if other == grid]
            features = tower(torch.cat([pieces[number] for number in numbers]), (grid,) * len(numbers)).tokens
            for number, tokens in zip(numbers, features.split(grid.tokens), strict=True):
                found[number] = tokens
        return torch.cat(found)

    return {
        "vlmkit, one call": lambda pixel_values, grids: tower(pixel_values, grids).tokens,
        BASELINE: by_size,
        "a loop over images": loop,
        "padded with a mask": lambda pixel_values, grids: padded(tower, pixel_values, grids),
    }


def draw_grids(views: int, patch: int, seed: int) -> tuple[Grid, ...]:
    choice = random.Random(seed)
    # 28 is smart resize's factor for patches of 14; two patches of any other size stand for it.
    sizes = (
        smart_resize(*choice.choice(SHAPES), factor=2 * patch, min_pixels=64 * 4 * patch**2, max_pixels=256 * 4 * patch**2)
        for _ in range(views)
    )
    return tuple(Size(*size).grid(patch) for size in sizes)


def measure(
    tower: OpenClipTower, grids: tuple[Grid, ...], repeats: int, clock: Callable[[], float] = time.perf_counter, seed: int = 0
) -> list[Result]:
    device = next(tower.parameters()).device
    patches = sum(grid.tokens for grid in grids)
    pixel_values = torch.randint(0, 256, (patches, 3 * tower.spec.patch**2), dtype=torch.uint8, device=device)
    candidates = methods(tower)
    features = {name: method(pixel_values, grids) for name, method in candidates.items()}
    times: dict[str, list[float]] = {name: [] for name in candidates}
    names, order = list(candidates), random.Random(seed)
    for _ in range(repeats):
        order.shuffle(names)
        for name in names:
            if device.type == "cuda":
                torch.cuda.synchronize()
            start = clock()
            candidates[name](pixel_values, grids)
            if device.type == "cuda":
                torch.cuda.synchronize()
            times[name].append(1e3 * (clock() - start))
    results = []
    for name, spent in times.items():
        low, median, high = statistics.quantiles(spent, n=4)
        speedup = statistics.median(baseline / mine for baseline, mine in zip(times[BASELINE], spent, strict=True))
        results.append(Result(name, median, (low, high), speedup, (features[name] - features[BASELINE]).abs().max().item()))
    return results


def table(results: list[Result], grids: tuple[Grid, ...]) -> Table:
    tokens = [grid.tokens for grid in grids]
    waste = 1 - sum(tokens) / (len(tokens) * max(tokens))
    page = Table(
        title=f"{len(grids)} views of {len(set(grids))} sizes, {sum(tokens)} patches ({min(tokens)} to {max(tokens)} a view)",
        caption=f"medians; speedup against {BASELINE}; padding wastes {waste:.0%}",
    )
    for column in ("method", "ms", "quartiles", "views/s", "speedup", "max difference"):
        page.add_column(column, justify="left" if column == "method" else "right", no_wrap=True)
    for result in results:
        low, high = result.quartiles
        rate = 1e3 * len(grids) / result.milliseconds
        times = (f"{result.milliseconds:.1f}", f"{low:.1f} to {high:.1f}", f"{rate:.1f}", f"{result.speedup:.2f}x")
        page.add_row(result.method, *times, f"{result.difference:.1e}")
    return page


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", default="ViT-S-16", help="one of open_clip's vision transformers")
    parser.add_argument("--layers", type=int, default=2, help="run only so many blocks; 0 for all")
    parser.add_argument("--views", type=int, default=8)
    parser.add_argument("--repeats", type=int, default=10, help="measured rounds")
    parser.add_argument("--seed", type=int, default=0, help="which sizes are drawn")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--dtype", default="float32", choices=("float32", "bfloat16", "float16"))
    parser.add_argument("--clock", default="wall", choices=list(CLOCKS), help="cpu: the process's own time, for a crowded machine")
    parser.add_argument("--json", type=Path, help="write the figures to this file")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    reuse_large_blocks()
    torch.manual_seed(0)
    spec = OpenClip.named(arguments.model, **({"layer": arguments.layers} if arguments.layers else {}))
    with torch.device(arguments.device):
        tower = spec.build().to(getattr(torch, arguments.dtype)).eval()
    assert isinstance(tower, OpenClipTower)
    grids = draw_grids(arguments.views, spec.patch, arguments.seed)
    with torch.no_grad():
        results = measure(tower, grids, arguments.repeats, CLOCKS[arguments.clock])
    console = Console()
    console.width = max(console.width, 110)
    console.print(table(results, grids))
    if arguments.json:
        versions = {"torch": torch.__version__, "open_clip": open_clip.__version__}
        setting = {name: value for name, value in vars(arguments).items() if name != "json"}
        page = {
            "python": platform.python_version(),
            "versions": versions,
            "setting": setting,
            "results": [asdict(result) for result in results],
        }
        arguments.json.write_text(json.dumps(page, indent=2) + "\n")


if __name__ == "__main__":
    main()
