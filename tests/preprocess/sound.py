"""Small sound pictures of every kind that is read, and what is done to them in the tests of damaged ones."""

from __future__ import annotations

import random
import struct
import zlib
from functools import cache

import numpy as np
from PIL import Image, ImageCms

from tests.photos import encoded, picture

SIZE = 40, 56


def _grey16() -> Image.Image:
    return Image.fromarray((np.arange(SIZE[0] * SIZE[1], dtype=np.uint32).reshape(SIZE) * 29 % 65536).astype(np.uint16))


def _bilevel() -> Image.Image:
    return picture("page", SIZE).convert("L").point(lambda value: 255 * (value > 150)).convert("1")


def _with_alpha(mode: str) -> Image.Image:
    image = picture("chelsea", SIZE).convert(mode)
    image.putalpha(Image.linear_gradient("L").resize(image.size))
    return image


def runs(image: Image.Image) -> bytes:
    """A BMP with a palette in run lengths of 8 bits, which Pillow does not write."""
    plain = encoded(image.convert("L").quantize(16), "BMP")
    start = struct.unpack_from("<I", plain, 10)[0]
    width, height = image.size
    pixels = np.frombuffer(plain, np.uint8, count=(width + 3) // 4 * 4 * height, offset=start).reshape(height, -1)[:, :width]
    coded = bytearray()
    for row in pixels:
        half = width // 2
        for value in row[:half]:
            coded += bytes([1, value])
        coded += bytes([0, width - half]) + row[half:].tobytes() + bytes((width - half) % 2) + b"\0\0"
    coded[-2:] = b"\0\1"
    header = bytearray(plain[:start])
    struct.pack_into("<I", header, 30, 1)
    struct.pack_into("<I", header, 34, len(coded))
    return bytes(header) + bytes(coded)


@cache
def pictures() -> dict[str, bytes]:
    """Names and files."""
    image = picture("coffee", SIZE)
    grey, palette = image.convert("L"), image.quantize(200)
    exif = Image.Exif()
    exif[0x0112] = 6
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    frames = [Image.new("RGB", image.size, colour) for colour in ("red", "lime")]
    made = {
        "jpeg": encoded(image),
        "jpeg 444": encoded(image, subsampling=0, quality=95),
        "jpeg progressive": encoded(image, progressive=True),
        "jpeg grey": encoded(grey),
        "jpeg cmyk": encoded(image.convert("CMYK")),
        "jpeg restarts": encoded(image, restart_marker_blocks=2),
        "jpeg exif icc": encoded(image, exif=exif, icc_profile=profile),
        "png": encoded(image, "PNG"),
        "png grey": encoded(grey, "PNG"),
        "png grey 16": encoded(_grey16(), "PNG"),
        "png palette": encoded(palette, "PNG", transparency=3),
        "png bilevel": encoded(_bilevel(), "PNG"),
        "png alpha": encoded(_with_alpha("RGB"), "PNG"),
        "png grey alpha": encoded(_with_alpha("L"), "PNG"),
        "png interlaced": interlaced_png(),
        "png animated": encoded(image, "PNG", save_all=True, append_images=frames),
        "png exif icc": encoded(image, "PNG", exif=exif, icc_profile=profile),
        "gif": encoded(palette, "GIF"),
        "gif interlaced": encoded(palette, "GIF", interlace=1),
        "gif grey": encoded(grey, "GIF", interlace=0),
        "gif transparent": encoded(palette, "GIF", transparency=5),
        "gif animated": encoded(palette, "GIF", save_all=True, append_images=frames, duration=20),
        "webp": encoded(image, "WEBP"),
        "webp lossless": encoded(image, "WEBP", lossless=True),
        "webp alpha": encoded(_with_alpha("RGB"), "WEBP"),
        "webp animated": encoded(image, "WEBP", save_all=True, append_images=frames),
        "webp exif icc": encoded(image, "WEBP", exif=exif, icc_profile=profile),
        "bmp": encoded(image, "BMP"),
        "bmp palette": encoded(palette, "BMP"),
        "bmp bilevel": encoded(_bilevel(), "BMP"),
        "bmp runs": runs(image),
        "avif": encoded(image, "AVIF", speed=10),
        "avif alpha": encoded(_with_alpha("RGB"), "AVIF", speed=10),
        "jpeg 2000": encoded(image, "JPEG2000"),
        "jpeg 2000 lossy": encoded(image, "JPEG2000", irreversible=True, quality_mode="rates", quality_layers=[20, 5]),
        "jpeg 2000 stream": encoded(grey, "JPEG2000", no_jp2=True, tile_size=(32, 32)),
        "ppm": encoded(image, "PPM"),
        "pgm": encoded(grey, "PPM"),
        "pgm 16": encoded(_grey16(), "PPM"),
        "pbm": encoded(_bilevel(), "PPM"),
        "ppm written": b"P3 8 2 255\n" + b" ".join(b"%d" % (5 * value) for value in range(48)) + b"\n",
        "ppm 10 bits": b"P6 56 40 1023\n" + (np.arange(56 * 40 * 3) % 1024).astype(">u2").tobytes(),
        "tga": encoded(image, "TGA"),
        "tga runs": encoded(palette, "TGA", compression="tga_rle"),
        "tga alpha": encoded(_with_alpha("RGB"), "TGA", compression="tga_rle"),
        "ico": encoded(image.resize((48, 48)), "ICO", sizes=[(16, 16), (48, 48)]),
        "ico bmp": encoded(image.resize((48, 48)), "ICO", sizes=[(32, 32), (48, 48)], bitmap_format="bmp"),
    }
    for compression in ("raw", "tiff_lzw", "tiff_adobe_deflate", "packbits", "jpeg", "zstd", "lzma"):
        made[f"tiff {compression}"] = encoded(image, "TIFF", compression=compression, strip_size=56 * 3 * 8)
    for compression in ("group3", "group4", "tiff_ccitt"):
        made[f"tiff {compression}"] = encoded(_bilevel(), "TIFF", compression=compression, strip_size=7 * 16)
    made["tiff grey 16"] = encoded(_grey16(), "TIFF")
    made["tiff float"] = encoded(Image.fromarray(np.linspace(0, 1, 2240, dtype=np.float32).reshape(SIZE)), "TIFF")
    made["tiff cmyk"] = encoded(image.convert("CMYK"), "TIFF", compression="tiff_lzw")
    made["tiff alpha"] = encoded(_with_alpha("RGB"), "TIFF", compression="tiff_adobe_deflate")
    made["tiff exif icc"] = encoded(image, "TIFF", exif=exif, icc_profile=profile)
    made["tiff big"] = encoded(image, "TIFF", big_tiff=True)
    return made


def interlaced_png(width: int = 37, height: int = 29) -> bytes:
    """Of seven passes, which Pillow does not write."""
    pixels = np.asarray(picture("coffee", (height, width)))
    rows = bytearray()
    for left, top, across, down in ((0, 0, 8, 8), (4, 0, 8, 8), (0, 4, 4, 8), (2, 0, 4, 4), (0, 2, 2, 4), (1, 0, 2, 2), (0, 1, 1, 2)):
        for row in pixels[top::down, left::across]:
            if len(row):
                rows += b"\0" + row.tobytes()
    return chunked_png(
        ((b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 1)), (b"IDAT", zlib.compress(bytes(rows))), (b"IEND", b""))
    )


def chunked_png(parts: tuple[tuple[bytes, bytes], ...]) -> bytes:
    checked = (struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body)) for name, body in parts)
    return b"\x89PNG\r\n\x1a\n" + b"".join(checked)


# --- damage ---


def damaged(data: bytes, chance: random.Random) -> bytes:
    """Some bytes changed, moved, lost or repeated, or the end cut off; sums and lengths are often made to fit again."""
    changed = bytearray(data)
    for _ in range(chance.choice((1, 1, 1, 2, 3, 8))):
        at = chance.randrange(len(changed)) if chance.random() < 0.5 else chance.randrange(min(len(changed), 300))
        length = chance.choice((1, 2, 4, 16))
        kind = chance.randrange(9)
        if kind == 0:
            changed[at] ^= 1 << chance.randrange(8)
        elif kind == 1:
            changed[at] = chance.randrange(256)
        elif kind == 2:
            changed[at : at + length] = chance.choice((b"\0", b"\xff", b"\x7f", b"\x80")) * length
        elif kind == 3:
            del changed[at : at + length]
        elif kind == 4:
            changed[at:at] = changed[at : at + length] * chance.choice((1, 2, 50))
        elif kind == 5:
            other = chance.randrange(len(changed))
            changed[at : at + length] = changed[other : other + length]
        elif kind == 6:
            value = chance.choice((0, 1, 2**15, 2**16 - 1, 2**31 - 1, 2**31, 2**32 - 1, len(data), chance.randrange(2**32)))
            changed[at : at + 4] = struct.pack(chance.choice("<>") + "I", value)
        elif kind == 7:
            changed[at : at + 2] = struct.pack(chance.choice("<>") + "H", chance.choice((0, 1, 255, 256, 65535, chance.randrange(65536))))
        else:
            del changed[chance.randrange(len(changed) // 2, len(changed)) :]
        if len(changed) < 2:
            return bytes(changed)
    return mended(bytes(changed)) if chance.random() < 0.7 else bytes(changed)


def cut(data: bytes, share: float) -> bytes:
    """The first part of a file, with lengths and an end mark as if that were all."""
    return mended(data[: int(len(data) * share)])


def mended(data: bytes) -> bytes:
    """Checksums, lengths and end marks made to fit what is there."""
    if data.startswith(b"\x89PNG\r\n\x1a\n"):
        parts, at = [], 8
        while at + 8 <= len(data) and len(parts) < 1000:
            length, name = struct.unpack_from(">I", data, at)[0], data[at + 4 : at + 8]
            parts.append((name, data[at + 8 : min(len(data), at + 8 + length)]))
            at += 12 + length
        if not parts or parts[-1][0] != b"IEND":
            parts.append((b"IEND", b""))
        return chunked_png(tuple(parts))
    if data.startswith(b"\xff\xd8") and not data.endswith(b"\xff\xd9"):
        return data + b"\xff\xd9"
    if data.startswith(b"RIFF"):
        data = data[: len(data) // 2 * 2]
        fixed = bytearray(data)
        struct.pack_into("<I", fixed, 4, len(data) - 8)
        at = 12
        while at + 8 <= len(fixed):
            length = struct.unpack_from("<I", fixed, at)[0]
            if at + 8 + length > len(fixed):
                struct.pack_into("<I", fixed, at + 4, len(fixed) - at - 8)
                break
            at += 8 + length + length % 2
        return bytes(fixed)
    if data.startswith(b"GIF8"):
        return data + b"\0;"
    return data
