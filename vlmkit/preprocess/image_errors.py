"""What cannot be opened as a picture: the error, and what its message calls whatever was handed over."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
from PIL import Image


class ImageError(ValueError):
    """Something that cannot be opened as a picture: what it is, what was expected, the way out."""


class Flaw(Exception):  # noqa: N818 (a state of the file)
    """What is wrong with an encoded picture, to be said of it: "it ends in its header"."""


@contextmanager
def errors_of(name: str, expected: str, kind: type[ImageError] = ImageError) -> Iterator[None]:
    """Whatever a decoder raises on bad bytes (nearly anything) as an error of ours, in our own words."""
    try:
        yield
    except ImageError:
        raise
    except Flaw as flaw:
        raise kind(f"{name} cannot be read: {flaw}; expected {expected}") from None
    except Image.DecompressionBombError:
        raise kind(f"{name} is larger than Pillow's own limit of {2 * (Image.MAX_IMAGE_PIXELS or 0)} pixels; make it smaller") from None
    except MemoryError:
        raise kind(f"{name} does not fit in memory; make it smaller") from None
    except Exception as error:
        raise kind(f"{name} cannot be read ({type(error).__name__}), expected {expected}; is it truncated or of another type?") from None


def describe(source: Any) -> str:
    """What a message calls a source: short, and without addresses."""
    if isinstance(source, bytes | bytearray | memoryview):
        return f"bytes of length {memoryview(source).nbytes}"
    if isinstance(source, Image.Image):
        return f"PIL image of mode {source.mode} and size {source.height}x{source.width}"
    if is_array(source):
        kind = "tensor" if is_tensor(source) else "array"
        return f"{kind} of shape {tuple(source.shape)} and type {str(source.dtype).removeprefix('torch.')}"
    if isinstance(source, str | os.PathLike):
        text = repr(os.fspath(source))
        return text if len(text) <= 200 else f"{text[:60]}...{text[-20:]} of length {len(text) - 2}"
    if callable(getattr(source, "read", None)):
        return f"file object of type {type(source).__name__}"
    return "None" if source is None else f"a {type(source).__name__}"


def is_array(source: Any) -> bool:
    """A numpy array or a torch tensor; torch is not loaded to see that."""
    return isinstance(source, np.ndarray) or is_tensor(source)


def is_tensor(source: Any) -> bool:
    torch = sys.modules.get("torch")
    return torch is not None and isinstance(source, torch.Tensor)
