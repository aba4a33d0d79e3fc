"""HEIC where pillow-heif is installed; where it is not, the error says what is needed."""

from __future__ import annotations

import io

import numpy as np
import pytest

from tests.photos import picture
from vlmkit.preprocess import ImageError, open_image
from vlmkit.preprocess.images import decode, image_size

HEADER = b"\0\0\0\x18ftypheic\0\0\0\0mif1heic"


def test_without_pillow_heif_the_error_names_it(monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "pillow_heif", None)
    for read in (open_image, decode, image_size):
        with pytest.raises(ImageError, match=r"it is HEIC, which needs pillow-heif: pip install 'vlmkit\[heic\]'"):
            read(HEADER)


def heic(**options) -> bytes:
    heif = pytest.importorskip("pillow_heif")
    file = io.BytesIO()
    heif.from_pillow(picture("coffee", (60, 90))).save(file, quality=95, **options)
    return file.getvalue()


def test_heic_opens():
    """Measured: 4 of 255 on average, as its compression has it."""
    image = open_image(heic())
    assert np.abs(np.asarray(image).astype(int) - np.asarray(picture("coffee", (60, 90)))).mean() < 8
    assert (image_size(heic()).height, image_size(heic()).width) == (60, 90)


def test_heic_that_is_cut_is_refused_or_whole():
    data = heic()
    whole = np.asarray(open_image(data))
    for step in range(1, 30):
        try:
            assert (np.asarray(open_image(data[: len(data) * step // 30])) == whole).all()
        except ImageError:
            continue
