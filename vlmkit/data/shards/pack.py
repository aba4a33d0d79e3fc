"""Packing: what a reader yields into shards, by several processes, from where an earlier run stopped.

This process reads and writes, in the reader's order; the others open images, which is the work. So the shards are the same
to the byte whatever the number of processes and however often packing was stopped, and shards that count are never begun
again. Whatever may happen to a process (Ctrl-C, kill -9), the same call goes on.
"""

from __future__ import annotations

import hashlib
import os
import pickle
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import Future
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path
from typing import Any, NamedTuple

from vlmkit.data.sample import DataError, Rejected, Sample
from vlmkit.data.shards.executors import image_processes, is_stopped
from vlmkit.data.shards.members import PackedSample, to_members
from vlmkit.data.shards.writer import SHARD_BYTES, ShardWriter, key

LIMIT = 0.05
"""Share of a source that may be rejected."""
FEW = 1000
"""Samples of a source before whose number no run is stopped for their sake; all of them count at the end."""
_BLOCK_SAMPLES, _BLOCK_BYTES = 32, 4 << 20
_AHEAD = 3
_NO_PICKLE = (RecursionError, pickle.PicklingError, TypeError, AttributeError)

Items = Iterable[Sample | Rejected]


class _Item(NamedTuple):
    number: int
    """In the order in which the reader yields."""
    digest: str
    """Of the names of all items up to this one."""
    item: Sample | Rejected


class _Made(NamedTuple):
    number: int
    digest: str
    source: str
    made: PackedSample | Rejected


def pack(
    items: Items,
    directory: Path | str,
    *,
    job: Mapping[str, Any] | None = None,
    workers: int | None = None,
    whole: bool = True,
    limit: float = LIMIT,
    shard_bytes: int = SHARD_BYTES,
    watch: Callable[[ShardWriter], None] | None = None,
) -> ShardWriter:
    """Write all that a reader yields to shards; the writer, closed, which tells what was written and rejected.

    job: what the items are, as JSON: a directory that was begun with another is left alone. workers: processes beside this
    one, by default as many as there are cores; with 0 this one does all. whole: decode every image, see `to_members`. limit:
    share of a source, from 0 to 1, that may be rejected. watch: called with the writer now and then.

    Raises TooManyRejected above the limit, and DataError for what the reader or ShardWriter cannot use, for items that are not
    those of the run that is continued, and for a process that was killed.
    """
    processes = cores() if workers is None else workers
    with (
        image_processes(processes) as executor,
        ShardWriter(directory, job=dict(job or {}) | {"whole": whole}, shard_bytes=shard_bytes, executor=executor) as writer,
    ):
        waiting: deque[tuple[list[_Item], Future[list[_Made]]]] = deque()

        def write_next() -> None:
            block, future = waiting.popleft()
            try:
                done = future.result()
            except _NO_PICKLE:  # what cannot be sent is made here, so that nothing depends on the number of workers
                done = _make(block, whole)
            for number, digest, source, made in done:
                writer.rejections.seen(source)
                writer.bookmark = {"items": number + 1, "digest": digest}
                if isinstance(made, Rejected):
                    writer.rejections.add(made)
                else:
                    writer.add(made)
            writer.rejections.check(limit, at_least=FEW)
            if watch is not None:
                watch(writer)

        try:
            for block in _blocks(_remaining(items, writer)):
                waiting.append((block, executor.submit(_make, block, whole)))
                while len(waiting) > _AHEAD * processes:
                    write_next()
            while waiting:
                write_next()
            writer.rejections.check(limit)
            writer.close()
        except BrokenProcessPool:
            raise DataError(
                f"a process that opened images was killed, for want of memory perhaps, behind sample {writer.samples:,}; "
                "the same command goes on from there, with fewer workers it takes less memory"
            ) from None
    return writer


def cores() -> int:
    """Those that this process may use; all there are where the system does not say (macOS)."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _remaining(items: Items, writer: ShardWriter) -> Iterator[_Item]:
    """The items behind the writer's bookmark. Raises DataError where those before are not those that it wrote."""
    done = writer.bookmark or {"items": 0, "digest": ""}
    digest, count = "", 0
    for count, item in enumerate(items, start=1):
        kind = "-" if isinstance(item, Rejected) else "+"
        name = f"{digest} {kind} {item.source} {item.id}".encode("utf-8", "surrogatepass")
        digest = hashlib.blake2b(name, digest_size=8).hexdigest()
        if count > done["items"]:
            yield _Item(count - 1, digest, item)
        elif count == done["items"] and digest != done["digest"]:
            break
    if count < done["items"] or (count == done["items"] and digest != done["digest"]):
        raise DataError(
            f"the data is not what it was when {str(writer.directory)!r} was begun: the first {done['items']:,} samples differ; "
            "remove the directory, or name another"
        )


def _blocks(items: Iterable[_Item]) -> Iterator[list[_Item]]:
    """Enough for a process to be worth sending, not so much that memory notices."""
    block: list[_Item] = []
    size = 0
    for item in items:
        block.append(item)
        size += _bytes(item.item)
        if len(block) == _BLOCK_SAMPLES or size >= _BLOCK_BYTES:
            yield block
            block, size = [], 0
    if block:
        yield block


def _bytes(item: Sample | Rejected) -> int:
    return sum(map(_image_bytes, item.images)) if isinstance(item, Sample) else 0


def _image_bytes(image: Path | bytes) -> int:
    if isinstance(image, bytes):
        return len(image)
    try:
        return image.stat().st_size
    except (OSError, ValueError):  # whoever opens it has the words for it
        return 0


def _make(block: list[_Item], whole: bool) -> list[_Made]:
    """In a process of its own."""
    made = []
    for number, digest, item in block:
        if is_stopped():
            break
        result = item if isinstance(item, Rejected) else to_members(item, key(number), whole=whole)
        made.append(_Made(number, digest, item.source, result))
    return made
