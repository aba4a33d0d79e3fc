"""Writing shards: each is read back before it counts, and what is interrupted goes on behind the last that counts.

    with ShardWriter("packed/mine") as writer:
        for sample in samples:
            writer.write(sample)

A shard being written ends in .partial; finished ones are listed in .packing, with all that is needed to go on. The index is
written when the writer is closed, and .packing is gone.
"""

from __future__ import annotations

import contextlib
import json
import os
import tarfile
from collections import deque
from collections.abc import Callable, Mapping
from concurrent.futures import Executor, Future
from pathlib import Path
from types import TracebackType
from typing import Any, BinaryIO, Self

import numpy as np

from vlmkit.data.rejections import Rejections
from vlmkit.data.sample import DataError, Rejected, Sample
from vlmkit.data.shards.executors import Here
from vlmkit.data.shards.index import ROW, SIDE, Shard, Summary, write_index
from vlmkit.data.shards.members import PackedSample, to_members
from vlmkit.data.shards.notes import Notes
from vlmkit.data.shards.places import folder
from vlmkit.data.shards.verify import END, verify, verify_again
from vlmkit.files import commit, partial

SHARD_BYTES = 256 << 20
"""A shard ends with the sample that takes it to this size."""


class ShardWriter:
    """Adds samples to a directory that is new, or that a writer with the same `job` began and did not finish."""

    def __init__(
        self,
        directory: Path | str,
        *,
        job: Mapping[str, Any] | None = None,
        shard_bytes: int = SHARD_BYTES,
        executor: Executor | None = None,
    ) -> None:
        """job: what is written, as JSON; a directory that was begun with another is left alone. executor: where
        finished shards are read back while the next is written.

        Raises DataError where the directory holds anything else, is finished, is being written by another process, or is an
        address.
        """
        self.directory = Path(os.path.realpath(folder(directory)))
        self.job = dict(job or {}) | {"shard_bytes": shard_bytes}
        self.rejections = Rejections()
        self.bookmark: Any = None
        """Where the caller stands, as JSON, set before `add`. A writer that goes on begins with that of the last shard."""
        self.samples = self.images = self.bytes = 0
        """Of the shards that count, and of the one being written."""
        self._submit = (executor or Here()).submit
        self._sources: dict[str, int] = {}
        self._done: list[Shard] = []
        self._again: deque[Future[None]] = deque()
        """Shards of an earlier run that are read once more."""
        self._unread: deque[tuple[Future[None], Callable[[], None]]] = deque()
        self._begun = 0
        self._file: BinaryIO | None = None
        self._notes = Notes(self.directory, self.job)
        try:
            self._continue()
        except BaseException:
            self._notes.close()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        if kind is None:
            self.close()
        else:
            self.abandon(refused=isinstance(error, Exception))

    def write(self, sample: Sample, *, whole: bool = True) -> bool:
        """Add a sample; False where it cannot be used, which `rejections` counts. whole: decode its images to see that."""
        self.rejections.seen(sample.source)
        made = to_members(sample, key(self.samples + self.rejections.total()), whole=whole)
        if isinstance(made, Rejected):
            self.rejections.add(made)
            return False
        self.add(made)
        return True

    def add(self, row: PackedSample) -> None:
        """Add what `to_members` made, under keys that are unlike all before."""
        if self._file is None:
            self._begin()
        assert self._file is not None
        self._file.write(row.text)
        self._file.write(row.pictures)
        source = self._sources.setdefault(row.source, len(self._sources))
        self._rows.append(
            (
                *(self._length, len(self._sizes), self._begun - 1, source, len(row.text), len(row.pictures)),
                *(*row.checks, len(row.sizes), row.conversations, row.text_bytes),
            )
        )
        self._sizes += [(size.height, size.width) for size in row.sizes]
        self._length += row.length
        self.samples += 1
        self.images += len(row.sizes)
        self.bytes += row.length
        if self._length >= self.job["shard_bytes"]:
            self._end()

    def close(self) -> None:
        """Finish the last shard and write the index. Raises DataError where nothing was written, or differs when read back."""
        if self._notes.closed:
            return
        try:
            if self._file is not None:
                self._end()
            self._settle(all_of_them=True)
            self._check_again()
            if not self._done:
                report = f":\n{self.rejections.report()}" if self.rejections.total() else ""
                raise DataError(f"nothing to write to {str(self.directory)!r}: no sample can be used{report}")
            rejections = json.loads(self.rejections.to_json())
            summary = Summary(self.samples, self.images, tuple(self._sources), tuple(self._done), self.job, rejections)
            write_index(self.directory, self._notes.tables(len(self._done)), summary)
        except BaseException as error:
            self.abandon(refused=isinstance(error, Exception))
            raise
        self._notes.close()
        self._notes.remove()

    def abandon(self, *, refused: bool = False) -> None:
        """Leave the shards that count to a later writer. Where none was begun and the data was refused, not interrupted, there
        is nothing to go on with: the directory is left as it was found."""
        if self._file is not None:
            with contextlib.suppress(OSError):  # what did not fit on the disk does not fit now
                self._file.close()
            self._file = None
        for future in (*self._again, *(future for future, _ in self._unread)):
            future.cancel()
        self._again.clear()
        self._unread.clear()
        if refused and not self._begun:
            self._notes.take_back()
        self._notes.close()

    def _begin(self) -> None:
        self._file = open(partial(self.directory / shard_name(self._begun)), "wb", buffering=1 << 20)  # noqa: SIM115 (closed at the end of the shard)
        self._rows: list[tuple[int, ...]] = []
        self._sizes: list[tuple[int, int]] = []
        self._length = 0
        self._begun += 1

    def _end(self) -> None:
        """Close the shard and have it read back; it counts when that is done and all before it count."""
        assert self._file is not None
        number = self._begun - 1
        self._file.write(END + bytes(-(self._length + len(END)) % tarfile.RECORDSIZE))
        self._file.flush()
        os.fsync(self._file.fileno())
        length = self._file.tell()
        self._file.close()
        self._file = None
        rows, sizes = np.array(self._rows, ROW), np.array(self._sizes, SIDE).reshape(-1, 2)
        state = {"bookmark": self.bookmark, "sources": list(self._sources), "rejections": json.loads(self.rejections.to_json())}
        shard = Shard(shard_name(number), len(rows), length)
        path = self.directory / shard.name

        def count() -> None:
            commit(partial(path), path)
            self._notes.add(number, rows, sizes, state | {"shard": vars(shard)})
            self._done.append(shard)

        self._unread.append((self._submit(verify, partial(path), rows), count))
        self._settle(all_of_them=False)

    def _settle(self, *, all_of_them: bool) -> None:
        while self._unread and (all_of_them or self._unread[0][0].done() or len(self._unread) > 4):
            future, count = self._unread[0]
            future.result()
            count()
            self._unread.popleft()

    def _check_again(self) -> None:
        while self._again:
            try:
                self._again.popleft().result()
            except (DataError, OSError) as error:
                raise DataError(f"a shard changed since it was written: {error}; remove {str(self.directory)!r} and pack again") from None

    def _continue(self) -> None:
        """Take up what an earlier writer finished, and clear away what it did not."""
        for noted in self._notes.of_shards():
            self.bookmark, self.rejections, self._sources = noted.bookmark, noted.rejections, noted.sources
            self.samples += noted.shard.samples
            self.images += noted.images
            self.bytes += noted.bytes
            self._done.append(noted.shard)
            # It may have changed since: before it counts as finished it is read again, beside the work.
            self._again.append(self._submit(verify_again, self.directory / noted.shard.name, noted.rows))
        self._begun = len(self._done)
        known = {shard.name for shard in self._done}
        for stray in self.directory.glob("shard-*.tar*"):
            if stray.name not in known:
                stray.unlink()


def key(number: int) -> str:
    """The key of a sample in its shard. It has no dot: tools take what follows the first dot for the kind of a member."""
    return f"{number:09d}"


def shard_name(number: int) -> str:
    return f"shard-{number:06d}.tar"
