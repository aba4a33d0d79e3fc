"""What the full preset needs: everything that is missing, at once, before anything is downloaded or written."""

from __future__ import annotations

import importlib.util
from collections.abc import Iterator
from pathlib import Path

from stages import Recipe

from vlmkit.architecture import Architecture
from vlmkit.data.shards.places import Place
from vlmkit.training.launched import place

BYTES_TRAINED = 16
"""Bytes a learning parameter takes with AdamW in mixed precision: weight and gradient in bfloat16, and the weight and
two moments in float32."""
BYTES_COMPUTING = 2
"""Of these, for the weight in bfloat16."""


ON_CPUS = 1_000_000_000
"""Parameters up to which a model may learn without a GPU; above that a step takes minutes."""


def missing(recipe: Recipe, architecture: Architecture, data: Place | None, engine: str | None) -> list[str]:
    """In words, empty where the recipe can start. engine: None is the one that is taken unless one is named."""
    return [*_devices(architecture, engine or "ddp"), *_packages(engine or "ddp"), *_data(recipe, data)]


def _devices(architecture: Architecture, engine: str) -> Iterator[str]:
    import torch

    parameters = architecture.parameters().total
    takes = f"{parameters / 1e9:.1f} billion parameters take {_gib(parameters, 1, engine):,.0f} GiB of GPU memory to train"
    if not torch.cuda.is_available():
        if parameters > ON_CPUS:
            yield f"a CUDA device: PyTorch finds none, and {takes}, activations not counted"
        return
    processes = place().world
    each = torch.cuda.get_device_properties(torch.cuda.current_device()).total_memory / 2**30
    share = _gib(parameters, processes, engine)
    if each < share:
        yield (
            f"GPU memory: {takes}, activations not counted; with engine {engine} on {processes} process(es) each needs {share:,.0f} GiB "
            f"and has {each:,.0f}; start more of them with torchrun, or choose an engine that spreads the weights: fsdp2, zero3"
        )


def _gib(parameters: int, processes: int, engine: str) -> float:
    """What one process holds: nothing is spread by single and ddp, all but the weights that compute by zero2, all by the others."""
    whole = {"fsdp2": 0, "zero3": 0, "zero2": BYTES_COMPUTING}.get(engine, BYTES_TRAINED)
    return parameters * (whole + (BYTES_TRAINED - whole) / processes) / 2**30


def _packages(engine: str) -> Iterator[str]:
    if engine in ("zero2", "zero3") and importlib.util.find_spec("deepspeed") is None:
        yield f'DeepSpeed, for engine {engine}: pip install "vlmkit[train]", or --engine fsdp2, which needs nothing'


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
