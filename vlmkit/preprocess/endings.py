"""How files of each format end their names, the usual ending first. Nothing heavy is imported to know it."""

from __future__ import annotations

BY_FORMAT = {
    "JPEG": ("jpg", "jpeg", "jfif", "jpe"),
    "PNG": ("png", "apng"),
    "WEBP": ("webp",),
    "GIF": ("gif",),
    "BMP": ("bmp",),
    "TIFF": ("tiff", "tif"),
    "AVIF": ("avif",),
    "HEIC": ("heic", "heif", "hif"),
    "JPEG 2000": ("jp2", "j2k", "jpx", "jpf", "jpc", "j2c"),
    "PPM": ("ppm", "pgm", "pbm", "pnm"),
    "ICO": ("ico",),
    "TGA": ("tga",),
}
ENDINGS = tuple(ending for endings in BY_FORMAT.values() for ending in endings)
