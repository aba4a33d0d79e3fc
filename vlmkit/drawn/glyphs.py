"""Letters and shapes as opacity masks, drawn once and kept.

A machine without system fonts still has the twenty text faces that matplotlib ships and the one built into Pillow.
"""

from functools import cache
from pathlib import Path

import matplotlib
import numpy as np
from PIL import Image, ImageDraw, ImageFont

FONTS = (
    "DejaVuSans.ttf", "DejaVuSans-Bold.ttf", "DejaVuSans-Oblique.ttf", "DejaVuSans-BoldOblique.ttf",
    "DejaVuSansMono.ttf", "DejaVuSansMono-Bold.ttf",
    "DejaVuSerif.ttf", "DejaVuSerif-Bold.ttf", "DejaVuSerif-Italic.ttf", "DejaVuSerif-BoldItalic.ttf",
    "STIXGeneral.ttf", "STIXGeneralBol.ttf", "STIXGeneralItalic.ttf", "STIXGeneralBolIta.ttf",
    "cmr10.ttf", "cmb10.ttf", "cmss10.ttf", "cmtt10.ttf", "cmti10.ttf", "cmmi10.ttf",
    "",  # Pillow's own
)  # fmt: skip
SHAPES = ("circle", "square", "triangle", "plus")

_EM = 96  # every letter is drawn once at this size and scaled down from there


@cache
def _font(name: str) -> ImageFont.FreeTypeFont:
    if not name:
        built_in = ImageFont.load_default(_EM)
        assert isinstance(built_in, ImageFont.FreeTypeFont)  # Pillow's wheels come with FreeType
        return built_in
    return ImageFont.truetype(Path(matplotlib.get_data_path(), "fonts", "ttf", name), _EM)


@cache
def _large(font: str, letter: str) -> Image.Image:
    """The letter at 96 pixels an em, cut to its ink from side to side, from the capitals' top to the baseline."""
    face = _font(font)
    top, bottom = face.getbbox("H")[1], face.getbbox("H")[3]
    left, _, right, low = face.getbbox(letter)
    image = Image.new("L", (int(right - left), int(max(bottom, low) - top)))
    ImageDraw.Draw(image).text((-left, -top), letter, font=face, fill=255)
    return image


@cache
def _capital_height(font: str) -> int:
    _, top, _, bottom = _font(font).getbbox("H")
    return int(bottom - top)


@cache
def letter_mask(font: str, letter: str, height: int, widest: int) -> np.ndarray:
    """Opacity (h, w) in 0..1 of a letter whose capitals are `height` pixels high; squeezed if it exceeds `widest`."""
    large = _large(font, letter)
    scale = height / _capital_height(font)
    size = (max(2, min(widest, round(large.width * scale))), max(2, round(large.height * scale)))
    return np.asarray(large.resize(size, Image.Resampling.BOX), np.float32) / 255


@cache
def shape_mask(shape: str, size: int) -> np.ndarray:
    """Opacity (size, size) in 0..1 of a shape that fills its square; four samples a side smooth the edges."""
    n = 4 * size
    y, x = (np.mgrid[0:n, 0:n].astype(np.float32) + 0.5) / n * 2 - 1
    inside = {
        "circle": x * x + y * y <= 1,
        "square": (abs(x) <= 0.9) & (abs(y) <= 0.9),
        "triangle": (abs(x) <= (y + 1) / 2),
        "plus": ((abs(x) <= 0.3) | (abs(y) <= 0.3)),
    }[shape]
    mask: np.ndarray = inside.reshape(size, 4, size, 4).mean((1, 3), dtype=np.float32)
    return mask
