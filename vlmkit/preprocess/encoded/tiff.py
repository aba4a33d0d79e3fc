"""TIFF 6.0 and BigTIFF: the first directory is read here; the decoder is handed one with the entries that make the picture.

Every strip or tile has to be listed and lie in the file. What libtiff fills in where one ends early it reports (`libtiff.py`), save for two
kinds of compression, which are looked at by themselves (`tiff_gaps.py`).
"""

from __future__ import annotations

import functools

from PIL import Image

from vlmkit.preprocess.bounds import LAYERED, NUMBERS, PLAIN, WIDE
from vlmkit.preprocess.encoded import libtiff, tiff_directory, tiff_gaps
from vlmkit.preprocess.encoded.surveys import Survey
from vlmkit.preprocess.encoded.tiff_directory import (
    BITS,
    COMPRESSION,
    EXTRA,
    GROUP4,
    HEIGHT,
    JPEG,
    OLD_JPEG,
    PHOTOMETRIC,
    RAW,
    SAMPLES,
    WIDTH,
    Directory,
)
from vlmkit.preprocess.encoded.tiff_pieces import pieces_of
from vlmkit.preprocess.encoded.whole import loaded, opened
from vlmkit.preprocess.image_errors import Flaw

_CMYK = 5


def accepts(data: bytes) -> bool:
    return data[:4] in (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")


def survey(data: bytes) -> Survey:
    directory = tiff_directory.read(data)
    width, height, samples = directory.one(WIDTH, 0), directory.one(HEIGHT, 0), directory.one(SAMPLES, 1)
    compression, bits = directory.one(COMPRESSION, RAW), max(directory.numbers(BITS, 64), default=1)
    layered = directory.one(PHOTOMETRIC, 0) == _CMYK or EXTRA in directory.entries
    weight = max(LAYERED if layered or samples > 3 else PLAIN, NUMBERS if bits > 16 else WIDE if bits > 8 else 0)
    if compression in (GROUP4, JPEG, OLD_JPEG):
        weight = max(weight, NUMBERS)  # decoded more than once
    lean = tiff_directory.lean(directory)
    return Survey(
        format="TIFF",
        height=height,
        width=width,
        weight=weight,
        header=functools.partial(opened, "TIFF", lean),
        load=functools.partial(_loaded, directory, lean, (width, height), samples, bits),
    )


def _loaded(directory: Directory, lean: bytes, size: tuple[int, int], samples: int, bits: int) -> Image.Image:
    pieces = pieces_of(directory, *size, samples, bits)
    listening, before = libtiff.listen(), libtiff.errors()
    tiff_gaps.check(directory, pieces)
    image = loaded("TIFF", lean, size)
    if listening and libtiff.errors() > before:
        raise Flaw("a strip or tile of it is broken")
    return image
