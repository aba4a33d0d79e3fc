"""Object stores through fsspec: whole objects and ranges, tried again where a store fails in passing.

Nothing is opened before it is needed, and never by one process for another: a connection or an event loop that a forked
worker inherits answers nobody. fsspec keeps what is open for each process its own, and makes its locks anew in one that was forked;
here are neither threads nor locks.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import os
import secrets
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

from vlmkit.data.sample import DataError

ATTEMPTS = 5
PAUSE = 0.5
"""Seconds before the second attempt; twice as long before each one after it."""
CACHE = "VLMKIT_CACHE"
"""In the environment: the folder that keeps tables of shards which lie elsewhere; ~/.cache/vlmkit without it."""

_FOR_GOOD = (PermissionError, IsADirectoryError, NotADirectoryError, NotImplementedError, ValueError, TypeError)
_OF_REMOTE = ("s3fs", "gcsfs", "aiohttp")
"""What `vlmkit[remote]` installs."""

T = TypeVar("T")


class StoreError(DataError, OSError):
    """A store that failed again and again. No fault of a sample: as an OSError it stops a run, which can go on later."""


def read(url: str, offset: int = 0, length: int | None = None) -> bytes:
    """An object, or so many bytes of it. Raises DataError where it is not there or ends early, StoreError."""
    if length is None:
        whole: bytes = _tried(url, lambda store, path: store.cat_file(path))
        return whole
    if not length:
        return b""
    data: bytes = _tried(url, lambda store, path: store.cat_file(path, start=offset, end=offset + length))
    if len(data) < length:
        raise DataError(f"{url} ends at byte {offset + len(data)}, {length - len(data)} bytes early; was it copied to its end?")
    if len(data) > length:
        raise DataError(
            f"{url}: asked for {length} bytes, the store sent {len(data)}: it reads no ranges; "
            f"copy the shards, or read them through fsspec's 'simplecache::{url.rpartition('/')[0]}'"
        )
    return data


def kind(url: str) -> str | None:
    """'file' or 'directory'; None where nothing is there. Raises DataError, StoreError."""
    with contextlib.suppress(_AbsentError):
        return str(_tried(url, lambda store, path: store.info(path)["type"]))
    return None


def local_copy(url: str, about: str) -> Path:
    """The object as a file that all processes of this host share, copied when the first of them asks for it.

    about: what else it belongs to, so that an older object of the same address is not taken for it. Raises DataError, StoreError.
    """
    state = _tried(url, lambda store, path: f"{store.ukey(path)} {store.info(path).get('size')}")
    name = hashlib.blake2b(f"{url}\n{state}\n{about}".encode(), digest_size=16).hexdigest()
    file = _cache() / f"{name}-{url.rpartition('/')[2]}"
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        with open(file.with_suffix(".lock"), "wb") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            if not file.is_file():
                # A name of its own: on some network disks a lock holds back nobody.
                part = file.with_suffix(f".{secrets.token_hex(4)}")
                try:
                    _tried(url, lambda store, path: store.get_file(path, str(part)))
                    os.replace(part, file)
                finally:
                    part.unlink(missing_ok=True)
    except StoreError:
        raise
    except OSError as error:
        raise DataError(
            f"{url} cannot be copied to {str(file.parent)!r}: {error.strerror or error}; name another folder by {CACHE}"
        ) from None
    return file


class _AbsentError(DataError):
    pass


def _tried(url: str, work: Callable[[Any, str], T]) -> T:
    attempt = 0
    while True:
        try:
            return work(*_store(url))
        except DataError:
            raise
        except FileNotFoundError:
            raise _AbsentError(f"{url} is not there") from None
        except Exception as error:  # many stores' errors are no OSError
            attempt += 1
            if attempt == ATTEMPTS or isinstance(error, _FOR_GOOD):
                raise StoreError(
                    f"{url} cannot be read ({type(error).__name__}: {str(error)[:300]}), tried {attempt} time(s); "
                    "see that the store can be reached and lets you in"
                ) from None
        # Hosts that were turned away together do not come back together.
        time.sleep(PAUSE * 2 ** (attempt - 1) * (0.5 + secrets.randbelow(1000) / 1000))


def _store(url: str) -> tuple[Any, str]:
    """fsspec's file system of an address, and the path in it. Raises DataError where there is none."""
    from fsspec.core import url_to_fs

    try:
        store, path = url_to_fs(url)
        return store, path
    except ImportError as error:
        name = str(getattr(error.__cause__, "name", None) or error.name or "").partition(".")[0]
        package = "vlmkit[remote]" if name in _OF_REMOTE else name
        way_out = f'needs the package {name}: pip install "{package}"' if name else f"cannot be read: {error}"
        raise DataError(f"{url} {way_out}") from None
    except ValueError as error:
        raise DataError(f"{url} is no address that fsspec reads: {error}") from None


def _cache() -> Path:
    if named := os.environ.get(CACHE):
        return Path(named) / "tables"
    return Path(os.environ.get("XDG_CACHE_HOME") or Path("~/.cache").expanduser()) / "vlmkit" / "tables"
