"""A mixture of sources as batches: each by its weight, shuffled, packed, decoded ahead, and continued exactly from any step.

    mixture = Mixture([DataSource("coco", Shards("coco"), 2.0), ...], processor, rows=1, length=4096, pack=True, seed=0)
    batches = mixture.batches(workers=8)
    for batch in batches:
        ...
        saved = batches.state()                    # small, plain JSON
    batches = mixture.batches(saved, workers=2)    # goes on behind it, to the same bits

All processes and workers share one order: batch n is the same, whoever makes it. Samples that cannot be used leave a
gap that the next one does not fill, so what is skipped changes nothing else.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from vlmkit.data.mixture.batches import Batches
from vlmkit.data.mixture.maker import Maker
from vlmkit.data.mixture.order import Order
from vlmkit.data.mixture.planner import Planner
from vlmkit.data.mixture.prepare import Overlong, Preparer, Weighing
from vlmkit.data.mixture.samples import Samples
from vlmkit.data.mixture.state import MixtureState, MixtureStateError, Position
from vlmkit.data.mixture.windows import Windows
from vlmkit.data.sample import DataError

if TYPE_CHECKING:
    from vlmkit.processor import VLMProcessor


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
        weighing: Weighing = "alike",
    ) -> None:
        """rows: of a micro-batch. pack: a row is `length` tokens long and holds as many samples as fit; otherwise a sample's
        conversations are rows of their own, `rows` counts samples, and rows are padded to the longest.

        length: the longest conversation in tokens; `overlong` says what becomes of longer ones. epochs: the mixture ends
        when a source has been gone through so often; without it, it never ends. window: samples that are packed together,
        2048 by default: more fill rows better and take longer to begin with. limit: share of a source from 0 to 1 that may
        be rejected. weighing: what tokens of samples with several conversations count in the loss.

        Raises DataError for sources that make no mixture.
        """
        _check(sources, rows, length, pack, window)
        weights = [source.weight for source in sources if source.weight is not None]
        self.sources = tuple(sources)
        self.processor = processor
        self.rows = rows
        self.limit = limit
        self.order = Order([len(source.samples) for source in sources], weights or None, seed=seed, epochs=epochs)
        self.preparer = Preparer(processor, length=length, pack=pack, overlong=overlong, weighing=weighing)
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
        # States of before there was a choice do not have it.
        chosen = {} if preparer.weighing == "alike" else {"weighing": preparer.weighing}
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
        } | chosen

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

        streams: how many the windows are dealt out into, so that a process need not plan all of them; by default as many as
        there are processes, and afterwards as many as the state says. workers: processes that decode ahead; with 0 this one does.
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
        planned = Planner(self.windows, self.rows, position, rank, world, ahead=workers > 0)
        return Batches(planned, self.maker(threads), position, self.limit, workers, prefetch, pin_memory, on_worker)


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
    parts = {name: value for name, value in processor.spec.to_dict().items() if name not in ("name", "language_model")}
    text = json.dumps(parts, sort_keys=True) + processor.tokenizer.backend_tokenizer.to_str()
    return hashlib.sha256(text.encode()).hexdigest()[:16]
