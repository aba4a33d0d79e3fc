"""Samples of a WebDataset shard: members of a tar whose names agree up to the first dot, which stand side by side.

Nothing is extracted. A shard is read once from front to back; one sample is in memory.
"""

from __future__ import annotations

import contextlib
import functools
import io
import lzma
import tarfile
from collections.abc import Callable, Iterator
from pathlib import Path, PurePosixPath
from typing import Any

from vlmkit.data.reading.rows import brief
from vlmkit.data.reading.xz import Unpacked
from vlmkit.data.sample import LONGEST_ID, Rejected

TarMembers = dict[str, bytes]
"""What follows the first dot of a member's name -> its bytes, in the order of the shard: {"jpg": ..., "json": ...}."""


MAX_HELD = 1 << 27
"""Bytes of all members of a key, which are in memory at once."""
MAX_MEMBERS = 10_000
"""Of a key; behind twice as many the shard is not read further."""
MAX_UNPACKED = 1 << 29
"""Bytes of a member of a compressed tar: to pass over it, it is unpacked."""
MAX_RATIO = 100
"""Times its own bytes that a compressed tar above MAX_UNPACKED may unpack to: words do so to ten times, zeros to a thousand."""
MAX_HEADER = 1 << 20
"""Bytes of the names and further fields that stand before a member."""


class _Header(tarfile.TarInfo):
    """tarfile reads what stands before a member whole, however long it says that it is."""

    def _proc_member(self, tar: tarfile.TarFile) -> tarfile.TarInfo:
        if self.type in _BEFORE and self.size > MAX_HEADER:
            raise tarfile.ReadError(f"a header has {self.size} bytes, expected at most {MAX_HEADER}")
        found: tarfile.TarInfo = super()._proc_member(tar)  # type: ignore[misc]
        return found


class _Tar(tarfile.TarFile):
    """tarfile gives an xz file all the memory that its header asks for."""

    @classmethod
    def xzopen(cls, name: Any, mode: Any = "r", fileobj: Any = None, preset: int | None = None, **kwargs: Any) -> Any:
        unpacked = io.BufferedReader(Unpacked(Path(name)))
        try:
            tar = cls.taropen(name, mode, unpacked, **kwargs)
        except (lzma.LZMAError, EOFError, tarfile.TarError) as error:
            unpacked.close()
            raise tarfile.ReadError(str(error)) from None
        tar._extfileobj = False  # type: ignore[attr-defined]  # so that closing the tar closes it
        return tar


_BEFORE = (tarfile.XHDTYPE, tarfile.XGLTYPE, tarfile.SOLARIS_XHDTYPE, tarfile.GNUTYPE_LONGNAME, tarfile.GNUTYPE_LONGLINK)


class _CutShort(Exception):  # noqa: N818 (a state of the file)
    """Nothing more can be read: why."""


class _GoesOn(Exception):  # noqa: N818 (a state of the file)
    """All was read, but what stands behind the end: where."""


def groups(source: str, shard: Path) -> Iterator[tuple[str, TarMembers] | Rejected]:
    """(key, members) of each sample of a shard. A member that cannot be used costs its sample; a shard that ends early costs
    the sample at its end and all that would follow, which nobody can count, and is one Rejected."""
    key: str | None = None
    members: TarMembers = {}
    problem: Rejected | None = None
    behind: Rejected | None = None
    count = held = 0
    try:
        for info, content in _members(shard):
            folder, _, name = info.name.rpartition("/")
            stem, dot, ending = name.partition(".")
            if not stem or not dot:  # macOS puts a hidden member before each
                lacks = "ending" if stem else "key"
                yield Rejected(source, info.name, f"tar member has no {lacks}", f"{shard.name}: {brief(info.name)} belongs to no sample")
                continue
            found = f"{folder}/{stem}" if folder else stem
            if len(found) > LONGEST_ID:
                yield Rejected(source, brief(found), "row has wrong fields", f"{shard.name}: a key of {len(found)} characters")
                continue
            if found != key:
                if key is not None:
                    yield problem or (key, members)
                key, members, problem = found, {}, None
                count = held = 0
            count += 1
            if count > 2 * MAX_MEMBERS:
                raise _CutShort(f"more than {count - 1} members of one key")
            if problem is None and (wrong := _wrong(info, ending.lower(), members, held)) is not None:
                problem = Rejected(source, found, wrong, f"{shard.name}: {brief(info.name)}")
                members.clear()  # what cannot be used is not held
            if problem is None:
                members[ending.lower()] = content()
                held += info.size
    except _CutShort as error:
        last = f" with sample {brief(key)}" if key is not None else ""
        yield Rejected(source, shard.name, "tar is cut short", f"{shard.name} ends{last}: {error}")
        return
    except _GoesOn as error:
        behind = Rejected(source, shard.name, "tar goes on behind its end", f"{shard.name}: {error}")
    if key is not None:
        yield problem or (key, members)
    if behind is not None:
        yield behind


def _wrong(info: tarfile.TarInfo, ending: str, members: TarMembers, held: int) -> str | None:
    if not info.isreg():
        return "tar member is no file"
    if info.issparse():
        return "tar member is sparse"
    if held + info.size > MAX_HELD:
        return "tar member is too large" if info.size > MAX_HELD else "sample is too large"
    if info.name.startswith("/") or ".." in PurePosixPath(info.name).parts:
        return "tar member leaves its folder"
    if len(ending) > LONGEST_ID:
        return "row has wrong fields"
    if len(members) == MAX_MEMBERS:
        return "sample is too large"
    return "key occurs twice" if ending in members else None


def _members(shard: Path) -> Iterator[tuple[tarfile.TarInfo, Callable[[], bytes]]]:
    """Members but folders, and what reads their bytes before the next is asked for. Raises _CutShort where the tar does not
    end as a tar ends: tarfile itself takes any bad header behind the first for the end. Raises _GoesOn where another follows."""
    try:
        packed_bytes = shard.stat().st_size
        with _Tar.open(shard, "r:*", tarinfo=_Header) as tar:
            is_packed = not isinstance(getattr(tar.fileobj, "raw", None), io.FileIO)
            place = -1
            while (info := tar.next()) is not None:
                if info.size < 0 or tar.offset <= place:  # a header made so that reading it never ends
                    raise _CutShort("a header gives a negative size")
                if is_packed and info.size > MAX_UNPACKED:
                    raise _CutShort(f"{brief(info.name)} has {info.size} bytes, of a compressed tar expected at most {MAX_UNPACKED}")
                place = tar.offset
                if is_packed and place > max(MAX_UNPACKED, MAX_RATIO * packed_bytes):
                    raise _CutShort(f"{packed_bytes} bytes unpack to more than {max(MAX_UNPACKED, MAX_RATIO * packed_bytes)}")
                tar.members.clear()  # type: ignore[attr-defined]  # or it keeps every header it has seen
                if not info.isdir():
                    yield info, functools.partial(_content, tar, info)
            assert tar.fileobj is not None
            tar.fileobj.seek(tar.offset)
            if tar.fileobj.read(tarfile.BLOCKSIZE) != tarfile.NUL * tarfile.BLOCKSIZE:
                raise _CutShort(f"no end of archive at byte {tar.offset}")
            _check_rest(tar.fileobj)
    except (_CutShort, _GoesOn):
        raise
    except Exception as error:  # on bad bytes tarfile and what decompresses raise nearly anything
        raise _CutShort(f"{type(error).__name__}: {error}") from None


def _check_rest(file: Any) -> None:
    """Read what is behind the end, where a compressed file has its checksum. Raises _GoesOn where another tar begins there, as
    `cat` makes them; anything else is what some tools leave there."""
    beginning = b""
    while block := file.read(tarfile.BLOCKSIZE):
        beginning = beginning or (block if block.strip(tarfile.NUL) else b"")
    with contextlib.suppress(tarfile.HeaderError):
        tarfile.TarInfo.frombuf(beginning, tarfile.ENCODING, "surrogateescape")
        raise _GoesOn("another tar begins behind its end, which is not read; put tars side by side, not into one")


def _content(tar: tarfile.TarFile, info: tarfile.TarInfo) -> bytes:
    try:
        file = tar.extractfile(info)
        data = file.read() if file is not None else b""
    except Exception as error:  # see `_members`
        raise _CutShort(f"{type(error).__name__}: {error}") from None
    if len(data) != info.size:
        raise _CutShort(f"{brief(info.name)} has {len(data)} of {info.size} bytes")
    return data
