"""Opening images: whatever a person may hand over becomes one correct RGB picture, or an ImageError that says why not.

`open_image` is what people call and returns a PIL image; `decode` is the same picture as an array, faster for JPEG.
"""

from __future__ import annotations

import base64
import binascii
import io
import os
import re
import stat
import sys
import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import ExifTags, Image

from vlmkit.preprocess import jpeg
from vlmkit.preprocess.colour import narrow16, to_rgb
from vlmkit.preprocess.geometry import Size

Pixels = NDArray[np.uint8]

FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF")
"""What is read; other decoders of Pillow are never reached."""
MAX_PIXELS = 160_000_000
"""Bound on height x width, checked against the header before anything is decoded: a 150-megapixel photograph opens.

At its peak, measured at 100 megapixels, decoding takes 3 bytes a pixel for a JPEG, 6 for a progressive or a turned one, 10
for most others and 21 for a WebP: 0.5 to 3.4 GB at the bound.
"""
MAX_BYTES = 1 << 30
"""Bound on the size of a file."""
_BANDS = (1, 3, 4)


class ImageError(ValueError):
    """Something that cannot be opened as a picture: what it is, what was expected, the way out."""


def open_image(source: Any, *, max_pixels: int = MAX_PIXELS) -> Image.Image:
    """The picture as a PIL image of mode RGB, upright, in sRGB, composited on white.

    source is one of
    - a path (str or PathLike) of a JPEG, PNG, WEBP, GIF, BMP or TIFF; a `data:` URI; other URLs are not fetched;
    - the bytes of such a file (bytes, bytearray, memoryview), or a binary file object, read from its start;
    - a PIL image, its current frame; an RGB one that is already upright sRGB comes back as it is, not copied;
    - a numpy array (H, W), (H, W, 1), (H, W, 3) or (H, W, 4): uint8, uint16, bool, or floating from 0 to 1;
    - a torch tensor of the same types, (H, W), channels first or channels last, where its shape says which.

    An animation gives its first frame. EXIF rotation is applied. A valid ICC profile is converted to sRGB, a broken one
    ignored. 16-bit samples are divided by 257; for 32-bit and floating modes see `colour.to_rgb`. Raises ImageError for
    everything else: truncated or corrupt files, more than `max_pixels` pixels, directories, devices, unknown formats.
    """
    if isinstance(source, Image.Image):
        with _errors_of(describe(source), "a PIL image that can be loaded"), quiet():
            _check_size(source, describe(source), max_pixels)
            return to_rgb(source)
    if _is_array(source):
        return Image.fromarray(_from_array(source, max_pixels))
    return _open_bytes(_read(source), describe(source), max_pixels)


def decode(source: Any, *, max_pixels: int = MAX_PIXELS) -> Pixels:
    """The picture of `open_image` as an array (H, W, 3) of uint8, by the fast path where the file is an ordinary JPEG."""
    if _is_array(source):
        return _from_array(source, max_pixels)
    if not isinstance(source, Image.Image):
        data = _read(source)
        fast = jpeg.decode(data, max_pixels)
        if fast is not None:
            return fast
        return np.array(_open_bytes(data, describe(source), max_pixels))
    return np.array(open_image(source, max_pixels=max_pixels))


def image_size(source: Any) -> Size:
    """Height and width of the picture of `open_image`, upright, from its header alone where that suffices. Raises ImageError."""
    if _is_array(source) or isinstance(source, Image.Image):
        width, height = open_image(source).size
        return Size(height, width)
    data = _read(source)
    header = jpeg.read_header(data)
    if header is not None and 0 < header.height * header.width <= MAX_PIXELS:
        return Size(header.width, header.height) if header.orientation > 4 else Size(header.height, header.width)
    try:
        with quiet(), Image.open(io.BytesIO(data), formats=[name for name in FORMATS if name != "TIFF"]) as image:
            turned = image.getexif().get(ExifTags.Base.Orientation, 1) in (5, 6, 7, 8)
            size = Size(image.width, image.height) if turned else Size(image.height, image.width)
            if size.pixels <= MAX_PIXELS:
                return size
    except Exception:
        # Whatever the matter is, opening the whole picture finds it again and has the words for it.
        pass
    width, height = _open_bytes(data, describe(source), MAX_PIXELS).size
    return Size(height, width)


def _open_bytes(data: bytes, name: str, max_pixels: int) -> Image.Image:
    if not data:
        raise ImageError(f"{name} is empty, expected a picture ({', '.join(FORMATS)})")
    if data.startswith(b"\xff\xd8") and jpeg.count_scans(data) > jpeg.MAX_SCANS:
        raise ImageError(f"{name} is a JPEG of more than {jpeg.MAX_SCANS} scans, expected about 10; save it again as a baseline JPEG")
    with _errors_of(name, f"a complete picture ({', '.join(FORMATS)})"), quiet(), Image.open(io.BytesIO(data), formats=FORMATS) as image:
        _check_size(image, name, max_pixels)
        return to_rgb(image)


def _check_size(image: Image.Image, name: str, max_pixels: int) -> None:
    width, height = image.size
    if height < 1 or width < 1:
        raise ImageError(f"{name} is {height}x{width} pixels, expected at least one")
    if height * width > max_pixels:
        raise ImageError(
            f"{name} is {height}x{width} = {height * width} pixels, expected at most {max_pixels}; "
            "make it smaller, or pass a larger max_pixels if you trust it"
        )


@contextmanager
def _errors_of(name: str, expected: str) -> Iterator[None]:
    """Whatever a decoder raises on bad bytes (nearly anything) as an ImageError in our own words."""
    try:
        yield
    except ImageError:
        raise
    except Image.DecompressionBombError:
        raise ImageError(
            f"{name} is larger than Pillow's own limit of {2 * (Image.MAX_IMAGE_PIXELS or 0)} pixels; make it smaller"
        ) from None
    except MemoryError:
        raise ImageError(f"{name} does not fit in memory; make it smaller") from None
    except Exception as error:
        raise ImageError(
            f"{name} cannot be read ({type(error).__name__}), expected {expected}; is it truncated or of another type?"
        ) from None


def _read(source: Any) -> bytes:
    """The bytes behind a path, data URI, buffer or file object."""
    if isinstance(source, bytes):
        return source
    if isinstance(source, bytearray | memoryview):
        return bytes(source)
    if isinstance(source, str):
        if source[:5].lower() == "data:":
            return _read_data_uri(source)
        if re.match(r"[A-Za-z][A-Za-z0-9+.-]+://", source):
            raise ImageError(f"{describe(source)} is a URL, and URLs are not fetched; download it and pass its path or bytes")
    if isinstance(source, str | os.PathLike):
        return _read_file(source)
    if callable(getattr(source, "read", None)):
        return _read_object(source)
    raise ImageError(f"{describe(source)} is no picture, expected a path, bytes, a PIL image, a numpy array or a torch tensor")


def _read_data_uri(uri: str) -> bytes:
    head, comma, body = uri.partition(",")
    if not comma or not head.lower().endswith(";base64"):
        raise ImageError(f"{describe(uri)} is a data URI without base64, expected data:image/...;base64,...")
    try:
        return base64.b64decode(body, validate=True)
    except (binascii.Error, ValueError):
        raise ImageError(f"{describe(uri)} is not valid base64, expected data:image/...;base64,...") from None


def _read_file(path: str | os.PathLike[Any]) -> bytes:
    name = describe(path)
    try:
        status = Path(os.fsdecode(path)).stat()
        if not stat.S_ISREG(status.st_mode):
            kind = "a directory" if stat.S_ISDIR(status.st_mode) else "a device, pipe or socket"
            raise ImageError(f"{name} is {kind}, expected the path of a picture file")
        if status.st_size > MAX_BYTES:
            raise ImageError(f"{name} has {status.st_size} bytes, expected at most {MAX_BYTES}; is it a picture?")
        with open(path, "rb") as file:
            return file.read(status.st_size)
    except FileNotFoundError:
        raise ImageError(f"{name} does not exist, expected the path of a picture file") from None
    except ImageError:
        raise
    except (OSError, ValueError, TypeError) as error:
        reason = getattr(error, "strerror", None) or "not a valid path"
        raise ImageError(f"{name} cannot be opened ({reason}), expected the path of a picture file") from None


def _read_object(file: Any) -> bytes:
    try:
        if getattr(file, "seekable", bool)():
            file.seek(0)
        pieces, length = [], 0
        while piece := file.read(1 << 20):
            if not isinstance(piece, bytes | bytearray | memoryview):
                raise ImageError(f"{describe(file)} gives {type(piece).__name__}, expected bytes; open it in mode 'rb'")
            pieces.append(bytes(piece))
            length += len(piece)
            if length > MAX_BYTES:
                raise ImageError(f"{describe(file)} has more than {MAX_BYTES} bytes; is it a picture?")
        return b"".join(pieces)
    except ImageError:
        raise
    except Exception as error:
        raise ImageError(f"{describe(file)} cannot be read ({type(error).__name__}), expected a binary file opened for reading") from None


def _is_array(source: Any) -> bool:
    return isinstance(source, np.ndarray) or _is_tensor(source)


def _is_tensor(source: Any) -> bool:
    torch = sys.modules.get("torch")
    return torch is not None and isinstance(source, torch.Tensor)


def _from_array(source: Any, max_pixels: int) -> Pixels:
    """A picture (H, W, 3) of uint8 from an array or tensor; one that is that already is not copied."""
    name = describe(source)
    array = _channels_last(source, name) if _is_tensor(source) else np.asarray(source)
    if array.ndim not in (2, 3) or (array.ndim == 3 and array.shape[2] not in _BANDS):
        hint = "; move the channels last with array.transpose(1, 2, 0)" if array.ndim == 3 and array.shape[0] in _BANDS else ""
        hint = "; pass one picture at a time" if array.ndim == 4 else hint
        raise ImageError(f"{name} is no picture, expected (H, W), (H, W, 1), (H, W, 3) or (H, W, 4){hint}")
    if array.size == 0:
        raise ImageError(f"{name} is empty, expected at least one pixel")
    if array.shape[0] * array.shape[1] > max_pixels:
        raise ImageError(f"{name} has more than {max_pixels} pixels; make it smaller, or pass a larger max_pixels")
    pixels = _to_uint8(array, name)
    if pixels.ndim == 2:
        pixels = pixels[:, :, None]
    if pixels.shape[2] == 1:
        pixels = np.repeat(pixels, 3, axis=2)
    if pixels.shape[2] == 4:
        pixels = np.array(to_rgb(Image.fromarray(np.ascontiguousarray(pixels))))
    return np.ascontiguousarray(pixels)


def _channels_last(tensor: Any, name: str) -> NDArray[Any]:
    if tensor.ndim == 3:
        first, last = tensor.shape[0] in _BANDS, tensor.shape[2] in _BANDS
        if first and last:
            raise ImageError(f"{name} may be channels first or last; pass a numpy array, which is taken as (H, W, channels)")
        if first:
            tensor = tensor.permute(1, 2, 0)
    try:
        tensor = tensor.detach().cpu()
        array: NDArray[Any] = (tensor.float() if tensor.is_floating_point() else tensor).numpy()
    except (TypeError, RuntimeError, NotImplementedError):
        raise ImageError(
            f"{name} has no values that can be read, expected a dense tensor of uint8, uint16, bool or floating type"
        ) from None
    return array


def _to_uint8(array: NDArray[Any], name: str) -> Pixels:
    if array.dtype == np.uint8:
        plain: Pixels = array
        return plain
    if array.dtype == np.bool_:
        return np.where(array, np.uint8(255), np.uint8(0))
    if array.dtype.newbyteorder("=") == np.uint16:
        return narrow16(array)
    if np.issubdtype(array.dtype, np.floating):
        low, high = float(array.min()), float(array.max())
        # A resampled picture may overshoot by a rounding error; anything more is another range.
        if not (low >= -1e-3 and high <= 1 + 1e-3):
            raise ImageError(f"{name} holds {low:g} to {high:g}, expected 0 to 1 for floating values; divide by 255, or convert to uint8")
        scaled: Pixels = np.rint(np.clip(array, 0, 1) * 255).astype(np.uint8)
        return scaled
    raise ImageError(f"{name} has an unexpected type, expected uint8, uint16, bool or floating from 0 to 1; use array.astype('uint8')")


def describe(source: Any) -> str:
    """What a message calls a source: short, and without addresses."""
    if isinstance(source, bytes | bytearray | memoryview):
        return f"bytes of length {memoryview(source).nbytes}"
    if isinstance(source, Image.Image):
        return f"PIL image of mode {source.mode} and size {source.height}x{source.width}"
    if _is_array(source):
        kind = "tensor" if _is_tensor(source) else "array"
        return f"{kind} of shape {tuple(source.shape)} and type {str(source.dtype).removeprefix('torch.')}"
    if isinstance(source, str | os.PathLike):
        text = repr(os.fspath(source))
        return text if len(text) <= 200 else f"{text[:60]}...{text[-20:]} of length {len(text) - 2}"
    if callable(getattr(source, "read", None)):
        return f"file object of type {type(source).__name__}"
    return "None" if source is None else f"a {type(source).__name__}"


_quiet_lock = threading.Lock()
_quiet_users = 0
_quiet_filters = warnings.catch_warnings()


@contextmanager
def quiet() -> Iterator[None]:
    """Silence Pillow's warnings, and nobody else's, while at least one thread is in here.

    The list of filters belongs to the process: were every thread to save and restore it for itself, one that leaves late
    would put back the other's.
    """
    global _quiet_users, _quiet_filters
    with _quiet_lock:
        if _quiet_users == 0:
            _quiet_filters = warnings.catch_warnings()
            _quiet_filters.__enter__()
            warnings.filterwarnings("ignore", module=r"PIL\.")
        _quiet_users += 1
    try:
        yield
    finally:
        with _quiet_lock:
            _quiet_users -= 1
            if _quiet_users == 0:
                _quiet_filters.__exit__(None, None, None)
