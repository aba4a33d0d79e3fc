"""What the full preset needs: everything that is missing, at once, before anything is downloaded or written."""

from __future__ import annotations

import importlib.util
import os
from collections.abc import Iterator
from pathlib import Path

from stages import Recipe

from vlmkit.architecture import Architecture
from vlmkit.data.shards.places import Place

BYTES_TRAINED = 16
"""Bytes a learning parameter takes with AdamW in mixed precision: weight and gradient in bfloat16, and the weight and
two moments in float32."""


def missing(recipe: Recipe, architecture: Architecture, data: Place | None) -> list[str]:
    """In words, empty where the recipe can start."""
    return [*_devices(architecture), *_packages(), *_data(recipe, data)]


def _devices(architecture: Architecture) -> Iterator[str]:
    import torch

    processes = int(os.environ.get("WORLD_SIZE", "1"))
    parameters = architecture.parameters().total
    needed = parameters * BYTES_TRAINED / 2**30
    takes = f"{parameters / 1e9:.1f} billion parameters take {needed:,.0f} GiB of GPU memory to train, activations not counted"
    if not torch.cuda.is_available():
        yield f"a CUDA device: PyTorch finds none, and {takes}"
        return
    each = torch.cuda.get_device_properties(0).total_memory / 2**30
    if each * processes < needed:
        yield (
            f"GPU memory: {takes}, and {processes} process(es) with {each:,.0f} GiB each have {each * processes:,.0f}; "
            "start more of them with torchrun or accelerate launch"
        )


def _packages() -> Iterator[str]:
    if importlib.util.find_spec("deepspeed") is None:
        yield 'DeepSpeed, which shards the weights over GPUs: pip install "vlmkit[train]"'


def _data(recipe: Recipe, data: Place | None) -> Iterator[str]:
    from vlmkit.data.shards.index import has_index

    names = list(dict.fromkeys(source.name for stage in recipe.stages for source in stage.data))
    layout = "the shards of each data set, as 'vlmkit data pack' writes them, in a folder of its name"
    if data is None:
        yield f"the data: give its directory with --data; it holds {layout}: {', '.join(names)}"
    elif isinstance(data, Path) and not data.is_dir():
        yield f"the data: --data {data} is no directory; it holds {layout}: {', '.join(names)}"
    else:
        absent = [name for name in names if not has_index(data / name)]
        if absent:
            yield f"data sets in {data} ({layout}): {', '.join(absent)}"
