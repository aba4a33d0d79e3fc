"""Which rows stand in which micro-batch of one process, and where the streams of windows stand behind each."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field

from vlmkit.data.mixture.state import MixtureState, MixtureStateError, Position
from vlmkit.data.mixture.stream import Stream, Taken
from vlmkit.data.mixture.windows import PlannedRow, Windows
from vlmkit.data.rejections import Rejections


@dataclass
class Task:
    """What is known of a micro-batch before it is made."""

    batch: int
    """Micro-batches that all processes have taken once this one's round is over."""
    positions: dict[int, Position]
    """Where streams stand then, as far as this process follows them."""
    rows: Sequence[PlannedRow] = ()
    rejected: Rejections = field(default_factory=Rejections)
    cut: Rejections = field(default_factory=Rejections)
    error: Exception | None = None


class Planner:
    """Rows of the micro-batches of one process, in order; what else is known of each waits in `tasks`."""

    def __init__(self, windows: Windows, rows: int, state: MixtureState, rank: int, world: int, *, ahead: bool) -> None:
        """rows: of a micro-batch. state: where to begin; streams that this process does not follow become None in it. ahead: the
        next window is planned in a thread. Without workers this process decodes, and such a thread would only take turns with it.
        """
        self.tasks: deque[Task] = deque()
        self.rank, self.world = rank, world
        self._rows = rows
        self._batch = state.batch
        self._background = ThreadPoolExecutor(1, thread_name_prefix="plan") if ahead else None
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
            self._streams[stream] = Stream(windows, position, number, self._background)
        self._number = number

    def __iter__(self) -> Iterator[list[PlannedRow]]:
        try:
            while True:
                own, left = self._round()
                positions = {number: stream.position for number, stream in self._streams.items()}
                self._batch += self.world
                rows = [] if own is None else own.rows
                if not rows and not left:
                    break
                rejected, cut = (own.rejected, own.cut) if own is not None else (Rejections(), Rejections())
                self.tasks.append(Task(self._batch, positions, rows, rejected, cut))
                yield rows
            rejected, cut = (own.rejected, own.cut) if own is not None else (Rejections(), Rejections())
            self.tasks.append(Task(self._batch - self.world, positions, (), rejected, cut))
        except Exception as error:
            # Raised where the micro-batch would have been, however far ahead of it this is.
            self.tasks.append(Task(self._batch, {}, error=error))

    def _round(self) -> tuple[Taken | None, bool]:
        """One micro-batch of every process: this one's, and whether any of those followed has rows."""
        own, left = None, False
        for place in range(self.world):
            stream = self._streams.get((self._batch + place) % self._number)
            if stream is None:
                continue
            taken = stream.take(self._rows)
            left = left or bool(taken.rows)
            if place == self.rank:
                own = taken
        return own, left

    def close(self) -> None:
        """Let go of the thread."""
        if self._background is not None:
            self._background.shutdown(cancel_futures=True)
