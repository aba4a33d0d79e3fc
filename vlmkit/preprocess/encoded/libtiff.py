"""libtiff's errors: counted for the thread that decodes, and written nowhere.

libtiff fills in lines that it cannot read, says so to the process's standard error, and Pillow takes the picture for whole. The handler
of errors belongs to the library in this process, so that Pillow's other users no longer see them either.
"""

from __future__ import annotations

import ctypes
import functools
import threading
from typing import Any

from PIL import _imaging

_said = threading.local()


def errors() -> int:
    """Errors of this thread so far, of which the handler was told."""
    return int(getattr(_said, "count", 0))


@functools.cache
def listen() -> bool:
    """From now on errors are counted; False where the library cannot be reached, as on Windows, where it is a part of Pillow's."""
    try:
        # The dynamic linker looks for a name in what a library was linked with, too.
        library = ctypes.CDLL(_imaging.__file__)
        for name in ("TIFFSetErrorHandler", "TIFFSetWarningHandler"):
            getattr(library, name).restype = ctypes.c_void_p
        library.TIFFSetErrorHandler(_HANDLER)
        library.TIFFSetWarningHandler(None)
    except (OSError, AttributeError):
        return False
    return True


def _count(module: Any, text: Any, arguments: Any) -> None:
    _said.count = errors() + 1


_HANDLER = ctypes.CFUNCTYPE(None, ctypes.c_void_p, ctypes.c_void_p, ctypes.c_void_p)(_count)
