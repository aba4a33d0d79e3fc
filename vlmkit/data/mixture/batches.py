"""Micro-batches of one process: rows are planned in order, made by workers or here, and counted once they are taken."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import DataLoader

from vlmkit.data.mixture.maker import Maker
from vlmkit.data.mixture.planner import Planner
from vlmkit.data.mixture.state import MixtureState
from vlmkit.data.mixture.windows import PlannedRow
from vlmkit.data.rejections import Rejections

FEW = 200
"""Samples of a source below which the share of rejected ones says little."""


class Batches(Iterator[dict[str, Tensor]]):
    """Micro-batches of one process, and the state behind the last one that was taken."""

    def __init__(
        self,
        planner: Planner,
        maker: Maker,
        state: MixtureState,
        limit: float,
        workers: int,
        prefetch: int,
        pin_memory: bool,
        on_worker: Callable[[int], None] | None,
    ) -> None:
        """state: where the planner begins. limit: share of a source from 0 to 1 that may be rejected."""
        self._planner = planner
        self._state = state
        self._limit = limit
        self._ended = False
        self._sources = [name for name, _ in maker.sources]
        self._taken: Sequence[PlannedRow] = ()
        if planner.rank:
            # What was counted before the state was saved is carried on by the first process.
            state.rejected, state.cut = Rejections(), Rejections()
        self._made: Iterator[Any]
        if workers or pin_memory:
            loader = DataLoader(
                maker,
                batch_size=None,
                sampler=planner,
                num_workers=workers,
                prefetch_factor=prefetch if workers else None,
                pin_memory=pin_memory,
                worker_init_fn=on_worker,
                # Its own generator: the one of the training is left alone.
                generator=torch.Generator(),
            )
            self._made = iter(loader)
        else:
            self._made = map(maker.__getitem__, planner)

    @property
    def rejected(self) -> Rejections:
        """Samples that this process left out so far, of those that it saw."""
        return self._state.rejected

    @property
    def cut(self) -> Rejections:
        """Samples that this process took without their last turns."""
        return self._state.cut

    @property
    def taken(self) -> list[str]:
        """The samples of the last micro-batch, each as source:id; one that stands in several rows is named once."""
        return list(dict.fromkeys(f"{self._sources[part.source]}:{part.id}" for row in self._taken for part in row))

    def __next__(self) -> dict[str, Tensor]:
        """Raises TooManyRejected above the mixture's limit."""
        if self._ended:
            raise StopIteration
        made = next(self._made, None)
        self._ended = made is None
        task = self._planner.tasks.popleft()
        if task.error is not None:
            raise task.error
        self._taken = task.rows
        self._state.batch = task.batch
        for stream, position in task.positions.items():
            self._state.streams[stream] = position
        self._state.rejected.merge(task.rejected)
        self._state.cut.merge(task.cut)
        if made is None:
            self._state.rejected.check(self._limit)
            raise StopIteration
        batch: dict[str, Tensor]
        batch, failed = made
        for rejected in failed:
            self._state.rejected.add(rejected)
        self._state.rejected.check(self._limit, at_least=FEW)
        return batch

    def state(self) -> dict[str, Any]:
        """Where this process stands, as plain JSON; those of several processes are put together by `merge_states`."""
        return self._state.to_dict()

    def close(self) -> None:
        """Let go of workers and threads."""
        self._planner.close()
        shutdown = getattr(self._made, "_shutdown_workers", None)
        if shutdown is not None:
            shutdown()
