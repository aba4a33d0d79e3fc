"""Writing shards: each is read back before it counts, and what is interrupted goes on behind the last that counts.

    with ShardWriter("packed/mine") as writer:
        for sample in samples:
            writer.write(sample)

A shard being written ends in .partial; finished ones are listed in .packing, with all that is needed to go on. The index is
written when the writer is closed, and .packing is gone.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import shutil
import tarfile
import zlib
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Executor, Future
from pathlib import Path
from types import TracebackType
from typing import Any, BinaryIO, Self

import numpy as np

from vlmkit.data.rejections import Rejections
from vlmkit.data.sample import DataError, Rejected, Sample
from vlmkit.data.shards.index import INDEX, PACKING, ROW, ROWS, SIDE, SIZES, Shard, Summary, Table, write_index
from vlmkit.data.shards.members import BLOCK, PackedSample, member_names, to_members
from vlmkit.files import commit, partial, write_whole

SHARD_BYTES = 256 << 20
"""A shard ends with the sample that takes it to this size."""
_END = bytes(2 * BLOCK)
_JOB, _LOCK = "job.json", "lock"


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

        Raises DataError where the directory holds anything else, is finished, or is being written by another process.
        """
        self.directory = Path(os.path.realpath(directory))
        self.job = dict(job or {}) | {"shard_bytes": shard_bytes}
        self.rejections = Rejections()
        self.bookmark: Any = None
        """Where the caller stands, as JSON, set before `add`. A writer that goes on begins with that of the last shard."""
        self.samples = self.images = self.bytes = 0
        """Of the shards that count, and of the one being written."""
        self._submit = (executor or Here()).submit
        self._sources: dict[str, int] = {}
        self._done: list[Shard] = []
        self._unread: deque[tuple[Future[None], Callable[[], None]]] = deque()
        self._begun = 0
        self._file: BinaryIO | None = None
        self._made = [path for path in (self.directory / PACKING, self.directory) if not path.exists()]
        """Taken away again where nothing is written."""
        self._lock = _claim(self.directory, self.job)
        try:
            self._continue()
        except BaseException:
            self._lock.close()
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
        if self._lock.closed:
            return
        try:
            if self._file is not None:
                self._end()
            self._settle(all_of_them=True)
            if not self._done:
                report = f":\n{self.rejections.report()}" if self.rejections.total() else ""
                raise DataError(f"nothing to write to {str(self.directory)!r}: no sample can be used{report}")
            rejections = json.loads(self.rejections.to_json())
            summary = Summary(self.samples, self.images, tuple(self._sources), tuple(self._done), self.job, rejections)
            write_index(self.directory, self._parts(), summary)
        except BaseException as error:
            self.abandon(refused=isinstance(error, Exception))
            raise
        self._lock.close()
        self._remove_notes()

    def abandon(self, *, refused: bool = False) -> None:
        """Leave the shards that count to a later writer. Where none was begun and the data was refused, not interrupted, there
        is nothing to go on with: the directory is left as it was found."""
        if self._file is not None:
            with contextlib.suppress(OSError):  # what did not fit on the disk does not fit now
                self._file.close()
            self._file = None
        for future, _ in self._unread:
            future.cancel()
        self._unread.clear()
        if refused and not self._begun and self.directory / PACKING in self._made and not self._lock.closed:
            self._remove_notes()
            if self.directory in self._made:
                with contextlib.suppress(OSError):  # somebody else has put something there
                    self.directory.rmdir()
        self._lock.close()

    def _remove_notes(self) -> None:
        """In one stroke: half of it would look like a packing that has hardly begun."""
        over = self.directory / f"{PACKING}.over"
        os.replace(self.directory / PACKING, over)
        shutil.rmtree(over)

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
        self._file.write(_END + bytes(-(self._length + len(_END)) % tarfile.RECORDSIZE))
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
            for name, table in ((ROWS, rows), (SIZES, sizes)):
                with open(self._part(number, name), "wb") as file:
                    np.save(file, table)
                    file.flush()
                    os.fsync(file.fileno())
            record = state | {"shard": vars(shard)}
            write_whole(self._part(number, "json"), json.dumps(record, indent=1).encode())
            self._done.append(shard)

        self._unread.append((self._submit(verify, partial(path), rows), count))
        self._settle(all_of_them=False)

    def _settle(self, *, all_of_them: bool) -> None:
        while self._unread and (all_of_them or self._unread[0][0].done() or len(self._unread) > 4):
            future, count = self._unread[0]
            future.result()
            count()
            self._unread.popleft()

    def _continue(self) -> None:
        """Take up what an earlier writer finished, and clear away what it did not."""
        while (file := self._part(len(self._done), "json")).is_file():
            rows_file, sizes_file = (self._part(len(self._done), name) for name in (ROWS, SIZES))
            with _notes(file):
                record = json.loads(file.read_text(encoding="utf-8"))
                shard = Shard(**record["shard"])
                self.bookmark = record["bookmark"]
                self.rejections = Rejections.from_json(json.dumps(record["rejections"]))
                self._sources = {name: number for number, name in enumerate(record["sources"])}
            path = self.directory / shard.name
            if not path.is_file() or path.stat().st_size != shard.bytes:
                raise DataError(f"{path} is not as it was written ({shard.bytes} bytes); remove {str(self.directory)!r} and pack again")
            with _notes(rows_file):
                rows = np.load(rows_file, mmap_mode="r")
                self.bytes += int(rows["text"].sum() + rows["pictures"].sum())
            with _notes(sizes_file):
                self.images += len(np.load(sizes_file, mmap_mode="r"))
            self.samples += shard.samples
            self._done.append(shard)
        self._begun = len(self._done)
        known = {shard.name for shard in self._done}
        for stray in self.directory.glob("shard-*.tar*"):
            if stray.name not in known:
                stray.unlink()

    def _parts(self) -> Iterator[tuple[Table, Table]]:
        for number in range(len(self._done)):
            yield np.load(self._part(number, ROWS)), np.load(self._part(number, SIZES))

    def _part(self, number: int, what: str) -> Path:
        return self.directory / PACKING / f"{number:06d}.{what}"


def verify(shard: Path, rows: Table) -> None:
    """Read a shard back from disk, once from front to back. Raises DataError where it is not the tar that the rows say."""
    with open(shard, "rb") as file:
        if hasattr(os, "posix_fadvise"):  # or it would come from memory, whatever is on the disk
            os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
        for number, row in enumerate(rows):
            here = file.tell()
            text, pictures = file.read(row["text"]), file.read(row["pictures"])
            try:
                names = member_names(text + pictures)
            except tarfile.HeaderError:
                names = []
            same = (here, zlib.crc32(text), zlib.crc32(pictures)) == (row["offset"], row["text_check"], row["pictures_check"])
            if not same or len(names) != 1 + row["images"] or len({name.partition(".")[0] for name in names}) != 1:
                raise DataError(f"{shard}: sample {number} was read back other than it was written; is the disk sound?")
        rest = file.read()
        if len(rest) < len(_END) or rest.strip(b"\0"):
            raise DataError(f"{shard}: its end was read back other than it was written; is the disk sound?")


def key(number: int) -> str:
    """Of a sample in its shard, without a dot: tools take what follows the first one for the kind of a member."""
    return f"{number:09d}"


def shard_name(number: int) -> str:
    return f"shard-{number:06d}.tar"


def _claim(directory: Path, job: Mapping[str, Any]) -> BinaryIO:
    """The lock of a directory that is ours to write to. Raises DataError."""
    packing = directory / PACKING
    if (directory / INDEX).is_file() and not packing.exists():
        raise DataError(f"{str(directory)!r} holds packed samples already; name another directory, or remove it")
    if directory.exists() and not packing.is_dir() and any(directory.iterdir()):
        raise DataError(f"{str(directory)!r} holds something else; name a directory that is empty or not there")
    packing.mkdir(parents=True, exist_ok=True)
    lock = open(packing / _LOCK, "wb")  # noqa: SIM115 (held until the writer is closed)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        lock.close()
        raise DataError(f"{str(directory)!r} is being written by another process") from None
    file = packing / _JOB
    wanted = json.loads(json.dumps(job))
    try:
        with _notes(file):
            begun = dict(json.loads(file.read_text(encoding="utf-8"))) if file.is_file() else wanted
    except DataError:
        lock.close()
        raise
    if begun != wanted and any(packing.glob("[0-9]*.json")):
        lock.close()
        differing = [name for name in {**begun, **wanted} if begun.get(name) != wanted.get(name)]
        told = ", ".join(f"{name} was {begun.get(name)!r}, is {wanted.get(name)!r}" for name in differing)
        raise DataError(f"{str(directory)!r} was begun otherwise: {told}. Go on with the same, name another directory, or remove it")
    write_whole(file, json.dumps(wanted, indent=1).encode())
    return lock


@contextlib.contextmanager
def _notes(file: Path) -> Iterator[None]:
    """Reading what an earlier writer left in .packing. Raises DataError where something else has been at it."""
    try:
        yield
    except (OSError, EOFError, ValueError, KeyError, IndexError, TypeError, AttributeError) as error:
        directory = file.parent.parent
        raise DataError(f"{file} cannot be read ({type(error).__name__}); remove {str(directory)!r} and pack again") from None


class Here(Executor):
    """This process, at once."""

    def submit(self, function: Callable[..., Any], /, *arguments: Any, **options: Any) -> Future[Any]:
        done: Future[Any] = Future()
        try:
            done.set_result(function(*arguments, **options))
        except Exception as error:
            done.set_exception(error)
        return done
