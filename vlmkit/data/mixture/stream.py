"""A stream: the rows of every n-th window, taken one micro-batch at a time."""

from __future__ import annotations

from concurrent.futures import Executor, Future
from dataclasses import dataclass, field

from vlmkit.data.mixture.state import Position
from vlmkit.data.mixture.windows import PlannedRow, Window, Windows
from vlmkit.data.rejections import Rejections
from vlmkit.data.sample import DataError


@dataclass
class Taken:
    """Rows of one micro-batch, what was rejected on the way to them, and where the stream stands behind them."""

    rows: list[PlannedRow]
    position: Position
    rejected: Rejections = field(default_factory=Rejections)
    cut: Rejections = field(default_factory=Rejections)


class Stream:
    """Rows of every `step`-th window, from any position on."""

    def __init__(self, windows: Windows, position: Position, step: int, background: Executor | None) -> None:
        """background: where the next window is planned while rows of one are taken; None: here, when it is needed."""
        self.windows = windows
        self.position = position
        self.step = step
        self._background = background
        self._window: Window | None = None
        self._ahead: Future[Window] | None = None

    def take(self, count: int) -> Taken:
        """The next rows, fewer only at the end. Raises DataError where so many samples were rejected one after the other
        that none may be left."""
        taken = Taken([], self.position)
        useless = 0
        while len(taken.rows) < count and not self._is_at_end():
            window = self._window = self._window or self._planned()
            if self.position.row == 0:
                taken.rejected.merge(window.rejected)
                taken.cut.merge(window.cut)
            begin, end = self.position.row, self.position.row + count - len(taken.rows)
            taken.rows += window.rows[begin:end]
            useless = 0 if window.rows else useless + self.windows.size
            if useless > max(1000, 2 * sum(self.windows.order.sizes)):
                raise DataError(f"no sample can be used, {useless} were rejected one after the other:\n{taken.rejected.report()}")
            if end < len(window.rows):
                self.position = Position(self.position.window, end)
            else:
                self.position = Position(self.position.window + self.step)
                self._window = None
        taken.position = self.position
        return taken

    def _planned(self) -> Window:
        number = self.position.window
        window = self._ahead.result() if self._ahead is not None else self.windows[number]
        following = number + self.step
        if self._background is not None:
            self._ahead = self._background.submit(self.windows.__getitem__, following) if self._exists(following) else None
        return window

    def _is_at_end(self) -> bool:
        return not self._exists(self.position.window)

    def _exists(self, window: int) -> bool:
        number = self.windows.number
        return number is None or window < number
