"""Large blocks of memory that are used again, on a CPU under glibc.

glibc gives every block above 32 MB back to the system when it is freed, and each page of the next one is a fault and a page of zeros: a
fifth of the time of a tower over ten thousand patches.
"""

from __future__ import annotations

import ctypes

_MMAP_THRESHOLD, _TRIM_THRESHOLD = -3, -1
"""Numbers of mallopt's parameters, from malloc.h."""
_LARGEST = 2**31 - 1
"""What mallopt takes at most: an int of bytes."""


def reuse_large_blocks() -> bool:
    """Let this process keep what it frees, whatever its size. False where the C library has no such setting (macOS, musl): nothing is
    changed there."""
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (AttributeError, OSError, TypeError):
        return False
    return bool(mallopt(_MMAP_THRESHOLD, _LARGEST)) and bool(mallopt(_TRIM_THRESHOLD, _LARGEST))
