"""What a run is measured by: tokens, images and samples a second, padding, waiting for data, memory, and MFU where the peak is known.

A batch is counted while it lies on the CPU, so counting never waits for a device:

    batches = CountedBatches(batches)                           # in the place of the iterator of batches
    meters = Meters(device=device, processes=world)
    ...
    counts = batches.take()                                     # of the micro-batches of this step
    counts = Counts.from_list(reduce_sum(counts.to_list()))     # several processes: one sum of eight numbers
    record = meters.step(counts, seconds)                       # of this step, for the log
    meters.recent()                                             # of the last seconds, for the eye
"""

from __future__ import annotations

import dataclasses
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Self

import numpy as np
import psutil
import torch
from numpy.typing import NDArray
from torch import Tensor

from vlmkit.layout.laid_out import IGNORE
from vlmkit.training.peaks import peak_flops

CLOCKED = frozenset(
    {"seconds", "tokens_per_second", "images_per_second", "samples_per_second", "waiting", "memory", "flops_per_second", "mfu"}
)
"""Entries of a step's record that a clock or the machine settles: two runs of the same steps differ in these alone."""


@dataclass(frozen=True, kw_only=True)
class Counts:
    """What batches hold. Adds up, over micro-batches and over processes."""

    samples: float = 0.0
    """Conversations."""
    tokens: float = 0.0
    """Tokens that are no padding, visual ones among them."""
    places: float = 0.0
    """Places of all rows, padding included."""
    supervised: float = 0.0
    """Tokens that the loss is taken of."""
    images: float = 0.0
    """Images and films where the batch says which view is whose (`places`), views where it does not."""
    patches: float = 0.0
    """Patches of all towers' pixels."""
    flops: float = 0.0
    """Operations that the model needs for them (vlmkit.training.flops), 0 where nobody counted."""
    waited: float = 0.0
    """Seconds that the training stood still for them."""

    def __add__(self, other: Counts) -> Counts:
        return Counts.from_list([one + more for one, more in zip(self.to_list(), other.to_list(), strict=True)])

    def to_list(self) -> list[float]:
        """Eight numbers that a sum over processes may be taken of. In float32 `flops` keeps seven digits, which is enough."""
        return [float(getattr(self, name)) for name in COUNTED]

    @classmethod
    def from_list(cls, values: Sequence[float]) -> Self:
        """The other way round. Raises ValueError for another number of values."""
        if len(values) != len(COUNTED):
            raise ValueError(f"counts are {len(COUNTED)} numbers ({', '.join(COUNTED)}), got {len(values)}")
        return cls(**dict(zip(COUNTED, map(float, values), strict=True)))


COUNTED = tuple(field.name for field in dataclasses.fields(Counts))


def counts(batch: Mapping[str, Tensor]) -> Counts:
    """What a batch holds. Only what lies on the CPU is read: rows on a device count as full, and as without supervised tokens."""
    found: dict[str, float] = {"patches": sum(len(value) for name, value in batch.items() if name.startswith("pixel_values"))}
    if "input_ids" in batch:
        lengths = sample_lengths(batch)
        found |= {"samples": len(lengths), "tokens": int(lengths.sum()), "places": batch["input_ids"].numel()}
    labels = _read(batch, "labels")
    if labels is not None:
        found["supervised"] = int((labels[:, 1:] != IGNORE).sum())
    grids, places = batch.get("grids"), _read(batch, "places")
    if places is not None and len(places):
        found["images"] = len(np.unique(places[:, 0]))
    elif grids is not None:
        found["images"] = len(grids)
    if "input_ids" not in batch:
        found["samples"] = found.get("images", 0)
    return Counts(**found)


def sample_lengths(batch: Mapping[str, Tensor]) -> NDArray[np.int64]:
    """(samples,): tokens of each conversation, in the order in which they stand. Rows whose mask lies on a device count as full."""
    segments, mask = _read(batch, "segments"), _read(batch, "attention_mask")
    rows, length = batch["input_ids"].shape
    if segments is None:
        lengths = np.full(rows, length, np.int64) if mask is None else mask.sum(axis=1)
    else:
        numbers = segments.max(initial=0) + 1
        of_row = segments + numbers * np.arange(rows)[:, None]
        lengths = np.bincount(of_row[segments >= 0], minlength=1)
    return np.asarray(lengths[lengths > 0], np.int64)


def _read(batch: Mapping[str, Tensor], name: str) -> NDArray[np.int64] | None:
    value = batch.get(name)
    return None if value is None or value.device.type != "cpu" else value.numpy()


class CountedBatches(Iterator[dict[str, Tensor]]):
    """Batches, counted as they are taken, with the time that their taker waited for them."""

    def __init__(self, batches: Iterator[dict[str, Tensor]], flops: Callable[[Mapping[str, Tensor]], float] | None = None) -> None:
        """flops: what the model needs for a batch (vlmkit.training.flops.ModelFlops)."""
        self._batches, self._flops = batches, flops
        self._since = Counts()

    def __next__(self) -> dict[str, Tensor]:
        begun = time.perf_counter()
        batch = next(self._batches)
        waited = time.perf_counter() - begun
        flops = self._flops(batch) if self._flops is not None else 0.0
        self._since += dataclasses.replace(counts(batch), flops=flops, waited=waited)
        return batch

    def take(self) -> Counts:
        """What was counted since the last call."""
        taken, self._since = self._since, Counts()
        return taken


class Meters:
    """Turns the counts of steps into rates."""

    def __init__(self, *, device: torch.device | str = "cpu", processes: int = 1, peak: float | None = None, window: float = 20.0) -> None:
        """processes: how many the counts are summed over. peak: operations a second of one device, by default what is known of
        `device` in bfloat16 (vlmkit.training.peaks). window: seconds that `recent` looks back."""
        self.device, self.processes, self.window = torch.device(device), processes, window
        self.peak = peak
        if peak is None and self.device.type == "cuda":
            self.peak = peak_flops(torch.cuda.get_device_name(self.device))
        self._steps: deque[tuple[Counts, float]] = deque()

    def step(self, counts: Counts, seconds: float) -> dict[str, float]:
        """The record of a step over all processes: the counts of its batches, and how long it took from the end of the one before.

            tokens, supervised      numbers of this step
            *_per_second            rates; images and samples alike
            padding                 share of places where nothing stands
            waiting                 share of the time in which processes stood still for data
            memory                  bytes of this process: resident, or the most that the device's allocator ever held
            flops_per_second, mfu   where operations are counted, and where the device's peak is known as well

        Numbers that a batch says nothing of are left out.
        """
        self._steps.append((counts, seconds))
        while len(self._steps) > 1 and sum(took for _, took in self._steps) - self._steps[0][1] >= self.window:
            self._steps.popleft()
        whole = {"tokens": int(counts.tokens), "supervised": int(counts.supervised)} if counts.places else {}
        return whole | self._rates(counts, seconds)

    def recent(self) -> dict[str, float]:
        """The rates of the steps of the last `window` seconds together, of at least one."""
        total = sum((counts for counts, _ in self._steps), Counts())
        return self._rates(total, sum(seconds for _, seconds in self._steps))

    def _rates(self, counts: Counts, seconds: float) -> dict[str, float]:
        seconds = max(seconds, 1e-9)
        rates: dict[str, float] = {"samples_per_second": counts.samples / seconds}
        if counts.places:
            rates |= {"tokens_per_second": counts.tokens / seconds, "padding": 1 - counts.tokens / counts.places}
        if counts.images:
            rates["images_per_second"] = counts.images / seconds
        rates |= {"waiting": min(1.0, counts.waited / (self.processes * seconds)), "memory": float(memory(self.device))}
        if counts.flops:
            rates["flops_per_second"] = counts.flops / seconds
            if self.peak is not None:
                rates["mfu"] = counts.flops / seconds / (self.processes * self.peak)
        return rates


def memory(device: torch.device) -> int:
    """Bytes: of a CUDA device the most that torch held at once since it began, elsewhere what of this process is resident now, without
    the workers that prepare data."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    return int(psutil.Process().memory_info().rss)
