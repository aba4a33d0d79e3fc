"""A mixture of sources as batches: so much of each, shuffled, packed, decoded ahead, and continued exactly from any step.

    mixture = Mixture([DataSource("coco", Shards("coco"), 2.0), ...], processor, rows=1, length=4096, pack=True, seed=0)
    batches = mixture.batches(workers=8)
    for batch in batches:
        ...
        saved = batches.state()                    # small, plain JSON
    batches = mixture.batches(saved, workers=2)    # goes on behind it, to the same bits

The order is one for all processes and workers: batch n is what it is, whoever makes it. Samples that cannot be used leave a
gap that the next one does not fill, so what is skipped changes nothing else.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Executor, ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from torch.utils.data import DataLoader

from vlmkit.data.mixture.maker import Maker
from vlmkit.data.mixture.order import Order
from vlmkit.data.mixture.prepare import Overlong, Preparer
from vlmkit.data.mixture.state import MixtureState, MixtureStateError, Position
from vlmkit.data.mixture.windows import PlannedRow, Samples, Stream, Taken, Windows
from vlmkit.data.rejections import Rejections
from vlmkit.data.sample import DataError

if TYPE_CHECKING:
    from vlmkit.processor import VLMProcessor

FEW = 200
"""Samples of a source below which the share of rejected ones says little."""


@dataclass(frozen=True)
class DataSource:
    name: str
    samples: Samples
    weight: float | None = None
    """Samples of it that stand among the others', in proportion; None: as many as it has. All sources say it, or none."""


class Mixture:
    def __init__(
        self,
        sources: Sequence[DataSource],
        processor: VLMProcessor,
        *,
        rows: int,
        length: int | None = None,
        pack: bool = False,
        seed: int = 0,
        epochs: int | None = None,
        window: int | None = None,
        overlong: Overlong = "cut",
        limit: float = 0.05,
    ) -> None:
        """rows: of a micro-batch. pack: a row is `length` tokens long and holds as many samples as fit; otherwise a sample's
        conversations are rows of their own, `rows` counts samples, and rows are padded to the longest.

        length: the longest conversation in tokens; `overlong` says what becomes of longer ones. epochs: the mixture ends
        when a source has been gone through so often; without it, it never ends. window: samples that are packed together,
        2048 by default: more fill rows better and take longer to begin with. limit: share of a source from 0 to 1 that may
        be rejected.

        Raises DataError for sources that make no mixture.
        """
        _check(sources, rows, length, pack, window)
        weights = [source.weight for source in sources if source.weight is not None]
        self.sources = tuple(sources)
        self.processor = processor
        self.rows = rows
        self.limit = limit
        self.order = Order([len(source.samples) for source in sources], weights or None, seed=seed, epochs=epochs)
        self.preparer = Preparer(processor, length=length, pack=pack, overlong=overlong)
        self._named = [(source.name, source.samples) for source in sources]
        self.windows = Windows(self.order, self._named, self.preparer, window or (2048 if pack else max(64, rows)))
        self._epochs = epochs

    def maker(self, threads: int = 1) -> Maker:
        """What makes batches of rows, in this process or in another."""
        preparer = self.preparer
        return Maker(self._named, self.processor, rows=self.rows, length=preparer.length if preparer.pack else None, threads=threads)

    def description(self) -> dict[str, Any]:
        """What the order and the batches follow from, as plain JSON."""
        preparer = self.preparer
        return {
            "seed": self.order.seed,
            "rows": self.rows,
            "length": preparer.length,
            "pack": preparer.pack,
            "overlong": preparer.overlong,
            "window": self.windows.size,
            "epochs": self._epochs,
            "sources": {source.name: {"samples": len(source.samples), "weight": source.weight} for source in self.sources},
            "processor": _digest(self.processor),
        }

    def batches(
        self,
        state: Mapping[str, Any] | None = None,
        *,
        rank: int = 0,
        world: int = 1,
        streams: int | None = None,
        workers: int = 0,
        threads: int = 1,
        prefetch: int = 4,
        pin_memory: bool = False,
        on_worker: Callable[[int], None] | None = None,
    ) -> Batches:
        """Every `world`-th micro-batch from number `rank` on, or behind a state that was saved.

        streams: into how many the windows are dealt out, so that not every process has to plan all of them; by default as
        many as processes, and afterwards as the state says. workers: processes that decode ahead; with 0 this one does.
        threads: of each that decodes. None of these two changes a batch.

        Raises MixtureStateError for a state of another mixture.
        """
        if state is not None:
            position = MixtureState.from_dict(state, self.description())
        else:
            number = streams or (1 if self._epochs is not None else world)
            position = MixtureState(self.description(), 0, [Position(stream) for stream in range(number)])
        if self._epochs is not None and world > 1 and len(position.streams) > 1:
            raise DataError(
                f"a mixture that ends after {self._epochs} epoch(s) is one stream, as {world} processes have to stop together; "
                f"got streams={len(position.streams)}: leave it out, or leave out epochs and count steps"
            )
        if position.batch % world:
            raise MixtureStateError(
                f"{position.batch} micro-batches were taken, which {world} processes cannot have shared equally; continue with a number "
                f"of processes that divides it"
            )
        return Batches(self, position, rank, world, workers, threads, prefetch, pin_memory, on_worker)


class Batches(Iterator[dict[str, Tensor]]):
    """Micro-batches of one process, and the state behind the last one that was taken."""

    def __init__(
        self,
        mixture: Mixture,
        state: MixtureState,
        rank: int,
        world: int,
        workers: int,
        threads: int,
        prefetch: int,
        pin_memory: bool,
        on_worker: Callable[[int], None] | None,
    ) -> None:
        self.mixture = mixture
        self.rank, self.world = rank, world
        self._state = state
        self._ended = False
        if rank:
            # What was counted before the state was saved is carried on by the first process.
            state.rejected, state.cut = Rejections(), Rejections()
        # Without workers this process decodes, and a thread that plans would only take turns with it.
        self._background = ThreadPoolExecutor(1, thread_name_prefix="plan") if workers else None
        self._planner = _Planner(mixture, state, rank, world, self._background)
        maker = mixture.maker(threads)
        self._made: Iterator[Any]
        if workers or pin_memory:
            loader = DataLoader(
                maker,
                batch_size=None,
                sampler=self._planner,
                num_workers=workers,
                prefetch_factor=prefetch if workers else None,
                pin_memory=pin_memory,
                worker_init_fn=on_worker,
                # Its own generator: the one of the training is left alone.
                generator=torch.Generator(),
            )
            self._made = iter(loader)
        else:
            self._made = map(maker.__getitem__, self._planner)

    @property
    def rejected(self) -> Rejections:
        """Samples that this process left out so far, of those that it saw."""
        return self._state.rejected

    @property
    def cut(self) -> Rejections:
        """Samples that this process took without their last turns."""
        return self._state.cut

    def __next__(self) -> dict[str, Tensor]:
        """Raises TooManyRejected above the mixture's limit."""
        if self._ended:
            raise StopIteration
        made = next(self._made, None)
        self._ended = made is None
        task = self._planner.tasks.popleft()
        if task.error is not None:
            raise task.error
        self._state.batch = task.batch
        for stream, position in task.positions.items():
            self._state.streams[stream] = position
        self._state.rejected.merge(task.rejected)
        self._state.cut.merge(task.cut)
        if made is None:
            self._state.rejected.check(self.mixture.limit)
            raise StopIteration
        batch: dict[str, Tensor]
        batch, failed = made
        for rejected in failed:
            self._state.rejected.add(rejected)
        self._state.rejected.check(self.mixture.limit, at_least=FEW)
        return batch

    def state(self) -> dict[str, Any]:
        """Where this process stands, as plain JSON; those of several processes are put together by `merge_states`."""
        return self._state.to_dict()

    def close(self) -> None:
        """Let go of workers and threads."""
        if self._background is not None:
            self._background.shutdown(cancel_futures=True)
        shutdown = getattr(self._made, "_shutdown_workers", None)
        if shutdown is not None:
            shutdown()


@dataclass
class _Task:
    """What is known of a micro-batch before it is made."""

    batch: int
    """Micro-batches that all processes have taken once this one's round is over."""
    positions: dict[int, Position]
    """Where streams stand then, as far as this process follows them."""
    rejected: Rejections = field(default_factory=Rejections)
    cut: Rejections = field(default_factory=Rejections)
    error: Exception | None = None


class _Planner:
    """Rows of the micro-batches of one process, in order; what else is known of each waits in `tasks`."""

    def __init__(self, mixture: Mixture, state: MixtureState, rank: int, world: int, background: Executor | None) -> None:
        self.tasks: deque[_Task] = deque()
        self._mixture = mixture
        self._batch = state.batch
        self._rank, self._world = rank, world
        number = len(state.streams)
        # Micro-batch n comes from stream n modulo their number. Streams that no micro-batch of this process comes from are
        # not followed; of those that it shares with others, their rows are passed over.
        reached = math.gcd(number, world)
        self._streams: dict[int, Stream] = {}
        for stream, position in enumerate(state.streams):
            if stream % reached != rank % reached:
                state.streams[stream] = None
                continue
            if position is None:
                raise MixtureStateError(f"the state says nothing of stream {stream}; put those of all processes together with merge_states")
            self._streams[stream] = Stream(mixture.windows, position, number, background)
        self._number = number

    def __iter__(self) -> Iterator[list[PlannedRow]]:
        try:
            while True:
                own, left = self._round()
                positions = {number: stream.position for number, stream in self._streams.items()}
                self._batch += self._world
                rows = [] if own is None else own.rows
                if not rows and not left:
                    break
                rejected, cut = (own.rejected, own.cut) if own is not None else (Rejections(), Rejections())
                self.tasks.append(_Task(self._batch, positions, rejected, cut))
                yield rows
            rejected, cut = (own.rejected, own.cut) if own is not None else (Rejections(), Rejections())
            self.tasks.append(_Task(self._batch - self._world, positions, rejected, cut))
        except Exception as error:
            # Raised where the micro-batch would have been, however far ahead of it this is.
            self.tasks.append(_Task(self._batch, {}, error=error))

    def _round(self) -> tuple[Taken | None, bool]:
        """One micro-batch of every process: this one's, and whether any of those followed has rows."""
        own, left = None, False
        for place in range(self._world):
            stream = self._streams.get((self._batch + place) % self._number)
            if stream is None:
                continue
            taken = stream.take(self._mixture.rows)
            left = left or bool(taken.rows)
            if place == self._rank:
                own = taken
        return own, left


def _check(sources: Sequence[DataSource], rows: int, length: int | None, pack: bool, window: int | None) -> None:
    names = [source.name for source in sources]
    if not sources or len(set(names)) < len(names):
        raise DataError(f"a mixture has one or more sources, each with a name of its own; got {names}")
    if empty := [source.name for source in sources if not len(source.samples)]:
        raise DataError(f"source {empty[0]!r} has no samples; leave it out")
    if wrong := [source for source in sources if source.weight is not None and not 0 < source.weight < math.inf]:
        raise DataError(f"source {wrong[0].name!r}: a weight is a number above 0, got {wrong[0].weight}; leave the source out instead")
    if len({source.weight is None for source in sources}) > 1:
        raise DataError(f"either all sources have a weight, or none; got { ({source.name: source.weight for source in sources}) }")
    if rows < 1 or (length is not None and length < 2) or (window is not None and window < 1):
        raise DataError(f"expected rows of 1 or more, a length of 2 or more and a window of 1 or more, got {rows}, {length} and {window}")
    if pack and length is None:
        raise DataError("packed rows are all of one length; give length=")


def _digest(processor: VLMProcessor) -> str:
    """A short name of everything that token counts and pixels follow from."""
    spec = processor.spec.to_dict()
    parts = {name: spec[name] for name in ("policy", "encoder", "connector", "layout", "fusion")}
    text = json.dumps(parts, sort_keys=True) + processor.tokenizer.backend_tokenizer.to_str()
    return hashlib.sha256(text.encode()).hexdigest()[:16]
