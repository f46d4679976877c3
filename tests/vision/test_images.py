from __future__ import annotations

import base64
import io
import json
import logging
import os
import random
import re
import socket
import struct
import subprocess
import sys
import threading
import time
import warnings
import zlib
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import quote

import numpy as np
import pytest
from PIL import Image, ImageFile

from flyweight.errors import FlyweightError, ImageError
from flyweight.vision import containers, fetch
from flyweight.vision.images import LEAST_SIDE, open_image, source_from

BOMB = 50_000


def saved(image: Image.Image, form: str, **options: Any) -> bytes:
    file = io.BytesIO()
    image.save(file, form, **options)
    return file.getvalue()


def scene(mode: str = "RGB", size: tuple[int, int] = (64, 48)) -> Image.Image:
    """Colours that differ in every corner."""
    wide, high = size
    y, x = np.mgrid[0:high, 0:wide]
    bands = [x * 255 // max(1, wide - 1), y * 255 // max(1, high - 1), (x * 7 + y * 3) % 256]
    image = Image.fromarray(np.stack(bands, axis=2).astype(np.uint8))
    return image if mode == "RGB" else image.convert(mode)


def image_from(value: str, **allowed: Any) -> Image.Image:
    """The picture that a request names, as the service opens it."""
    return open_image(*source_from(value, **allowed))


def pixels(image: Image.Image) -> np.ndarray:
    assert type(image) is Image.Image
    assert image.mode == "RGB"
    assert min(image.size) >= 1
    assert image.info == {}
    return np.asarray(image).astype(int)


def opens(data: bytes) -> np.ndarray:
    return pixels(open_image(data))


def chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def png(
    size: tuple[int, int], depth: int, colour: int, rows: list[bytes], *extra: tuple[bytes, bytes]
) -> bytes:
    """A PNG by hand; further chunks stand before the pixels."""
    head = struct.pack(">IIBBBBB", *size, depth, colour, 0, 0, 0)
    body = zlib.compress(b"".join(b"\0" + row for row in rows))
    parts = [(b"IHDR", head), *extra, (b"IDAT", body), (b"IEND", b"")]
    return b"\x89PNG\r\n\x1a\n" + b"".join(chunk(*each) for each in parts)


def tiff(tags: list[tuple[int, int, list[int]]], data: bytes = b"", order: str = "<") -> bytes:
    """A TIFF by hand: tags of type 3 (16 bits) or 4 (32 bits); the data stands at place 8."""
    at = 8 + len(data)
    more, entries = b"", b""
    begin = at + 2 + 12 * len(tags) + 4
    for tag, kind, values in sorted(tags):
        packed = struct.pack(f"{order}{len(values)}{' HI'[kind - 2]}", *values)
        if len(packed) > 4:
            packed, more = struct.pack(order + "I", begin + len(more)), more + packed
        entries += struct.pack(order + "HHI4s", tag, kind, len(values), packed)
    mark = b"II*\0" if order == "<" else b"MM\0*"
    directory = struct.pack(order + "H", len(tags)) + entries + bytes(4)
    return mark + struct.pack(order + "I", at) + data + directory + more


def grey_tiff(values: np.ndarray, form: int = 1, photometric: int = 1, order: str = "<") -> bytes:
    high, wide = values.shape
    data = values.astype(values.dtype.newbyteorder(order)).tobytes()
    bits = values.dtype.itemsize * 8
    tags = [(256, 4, [wide]), (257, 4, [high]), (258, 3, [bits]), (259, 3, [1]), (273, 4, [8]),
            (262, 3, [photometric]), (277, 3, [1]), (278, 4, [high]), (279, 4, [len(data)]),
            (339, 3, [form])]  # fmt: skip
    return tiff(tags, data, order)


def exif(orientation: int) -> bytes:
    return b"Exif\0\0" + tiff([(274, 3, [orientation])])


def refusal(data: bytes, name: str | None = "photo.png") -> str:
    with pytest.raises(ImageError) as caught:
        open_image(data, name)
    message = str(caught.value)
    assert len(message.splitlines()) == 1
    assert " 0x" not in message  # no place in our memory
    assert message.startswith(name or "the picture")
    return message


@pytest.mark.parametrize("form", ["PNG", "BMP", "TIFF", "GIF", "WEBP", "JPEG"])
@pytest.mark.parametrize("as_file", [True, False])
def test_each_format_is_read(form: str, as_file: bool, tmp_path: Path) -> None:
    image = scene()
    data = saved(image, form, **({"lossless": True} if form == "WEBP" else {"quality": 95}))
    (tmp_path / "named.txt").write_bytes(data)
    found = pixels(open_image(tmp_path / "named.txt" if as_file else data))
    difference = np.abs(found - np.asarray(image))
    exact = form not in ("GIF", "JPEG")
    assert difference.max() == 0 if exact else difference.mean() < 20


@pytest.mark.parametrize(
    ("data", "says"),
    [
        (b"", "is empty"),
        (b"hello, I am a picture", "no picture of a kind that is read"),
        (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n", "no picture of a kind"),
        (b"8BPS\0\1" + bytes(40), "no picture of a kind"),
        (b"<svg xmlns='http://www.w3.org/2000/svg'/>", "no picture of a kind"),
        (b"P6 2 2 255\n" + bytes(12), "no picture of a kind"),
        (b"BM", "broken or cut off"),
        (b"GIF89a", "broken or cut off"),
        (b"II*\0", "broken or cut off"),
        (b"\x89PNG\r\n\x1a\n", "broken or cut off"),
        (b"\xff\xd8\xff", "broken or cut off"),
        (b"RIFF\x04\0\0\0WEBP", "cannot be read"),
        (b"\xff\xd8" + b"\xff" * 2_000_000, "broken or cut off"),
    ],
    ids=lambda each: repr(each)[:20],
)
def test_what_is_no_picture_is_refused(data: bytes, says: str) -> None:
    assert says in refusal(data)


def test_other_plugins_of_pillow_never_run() -> None:
    code = """
import sys
from flyweight.vision.images import open_image
for data in (b"%!PS-Adobe-3.0", b"8BPS", b"RIFF0000WEBPVP8 ", b"II*\\0\\x08\\0\\0\\0"):
    try: open_image(data)
    except Exception: pass
print([name for name in sys.modules if name.startswith("PIL.") and
       any(each in name for each in ("Eps", "Psd", "Fpx", "Icns", "Jpeg2K", "Avif", "Mpo"))])
"""
    done = subprocess.run(
        [sys.executable, "-c", code], check=True, capture_output=True, text=True, timeout=60
    )
    assert done.stdout.strip() == "[]"


@pytest.mark.parametrize("form", ["PNG", "BMP", "TIFF", "GIF", "WEBP", "JPEG"])
def test_what_is_cut_off_is_refused(form: str) -> None:
    data = saved(scene(size=(200, 150)), form)
    assert "cut off" in refusal(data[: len(data) // 2])


def test_no_pixels_are_refused() -> None:
    assert "has no pixels" in refusal(png((0, 0), 8, 2, []))
    assert "has no pixels" in refusal(png((0, 9), 8, 2, []))
    assert "has no pixels" in refusal(tiff([(256, 4, [0]), (257, 4, [0])]))
    gif = b"GIF89a" + bytes(7) + b"," + bytes(9) + b"\x02\0;"
    assert "has no pixels" in refusal(gif)
    jpeg = bytearray(saved(scene(), "JPEG"))
    at = jpeg.index(b"\xff\xc0")
    jpeg[at + 5 : at + 7] = bytes(2)
    assert "has no pixels" in refusal(bytes(jpeg))
    bmp = bytearray(saved(scene(), "BMP"))
    bmp[18:26] = bytes(8)
    refusal(bytes(bmp))


def bombs() -> dict[str, bytes]:
    jpeg = bytearray(saved(scene(), "JPEG"))
    at = jpeg.index(b"\xff\xc0")
    jpeg[at + 5 : at + 9] = struct.pack(">HH", BOMB, BOMB)
    bmp = bytearray(saved(scene(), "BMP"))
    bmp[18:26] = struct.pack("<ii", BOMB, BOMB)
    gif = bytearray(saved(scene(), "GIF"))
    gif[6:10] = struct.pack("<HH", BOMB, BOMB)
    frame = bytearray(saved(scene(), "GIF"))
    at = frame.rindex(b"," + bytes(4) + struct.pack("<HH", 64, 48))
    frame[at + 5 : at + 9] = struct.pack("<HH", BOMB, BOMB)
    flat = bytearray(saved(scene(), "WEBP", lossless=True))
    flat[21:25] = struct.pack("<I", 16_382 | 16_382 << 14)
    moving = bytearray(saved(scene(), "WEBP", save_all=True, append_images=[scene("L")]))
    assert moving[12:16] == b"VP8X"
    moving[24:30] = (BOMB - 1).to_bytes(3, "little") * 2
    tags = [(256, 4, [BOMB]), (257, 4, [BOMB]), (258, 3, [8]), (262, 3, [1]), (273, 4, [8])]
    return {
        "PNG": png((BOMB, BOMB), 8, 2, [b""]),
        "PNG, just too many": png((10_000, 8_001), 1, 0, [b""]),
        "JPEG": bytes(jpeg),
        "BMP": bytes(bmp),
        "GIF": bytes(gif),
        "GIF, its frame": bytes(frame),
        "WEBP": bytes(flat),
        "WEBP, moving": bytes(moving),
        "TIFF": tiff(tags, bytes(8)),
    }


@pytest.mark.parametrize(("kind", "data"), bombs().items(), ids=list(bombs()))
@pytest.mark.parametrize("limit", ["as it is", "none", "low"])
def test_bombs_are_refused_from_their_header(
    kind: str, data: bytes, limit: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    if limit != "as it is":  # as others set it in the same process
        monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", None if limit == "none" else 1000)
    before = Image.MAX_IMAGE_PIXELS

    def never(*_: Any) -> None:
        raise AssertionError(f"{kind}: the pixels were asked for")

    monkeypatch.setattr(ImageFile.ImageFile, "load", never)
    assert "that are read" in refusal(data)
    assert before == Image.MAX_IMAGE_PIXELS


def test_a_lower_limit_of_pillow_is_a_refusal(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 100)
    assert "too many pixels" in refusal(saved(scene(), "PNG"))


def test_files_that_are_too_large_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = tmp_path / "zeros.png"
    with whole.open("wb") as file:
        file.truncate(containers.MOST_BYTES + 1)  # takes no room
    with pytest.raises(ImageError, match="more than the 50,000,000 bytes"):
        open_image(whole)
    assert "bytes" in refusal(bytes(containers.MOST_BYTES + 1))


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no pipes here")
def test_what_is_no_file_is_refused_at_once(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    for path in (tmp_path, tmp_path / "pipe", tmp_path / "absent", Path("/dev/zero")):
        with pytest.raises(ImageError, match=r"cannot be read|is no file") as caught:
            open_image(path)
        assert str(path) in str(caught.value)


def test_errors_are_one_line_even_with_odd_names() -> None:
    assert issubclass(ImageError, FlyweightError)
    with pytest.raises(ImageError) as caught:
        open_image(b"x", "a\nb\x1b[31m\r" + "c" * 5000)
    assert str(caught.value).isprintable()
    assert len(str(caught.value)) < 800


def test_no_memory_is_a_refusal(monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: Any) -> None:
        raise MemoryError

    data = saved(scene(), "PNG")
    monkeypatch.setattr(ImageFile.ImageFile, "load", full)
    assert "more memory than there is" in refusal(data)


def test_large_jpegs_are_decoded_smaller() -> None:
    image = scene().resize((2 * LEAST_SIDE + 3, 2 * LEAST_SIDE))
    found = open_image(saved(image, "JPEG", quality=90))
    assert found.size == (LEAST_SIDE + 2, LEAST_SIDE)
    assert np.abs(pixels(found) - np.asarray(image.resize(found.size))).mean() < 8
    image = scene().resize((2 * LEAST_SIDE + 3, 2 * LEAST_SIDE - 1))
    assert open_image(saved(image, "JPEG")).size == image.size


def test_cmyk() -> None:
    cmyk = np.random.default_rng(0).integers(0, 256, (6, 9, 4))
    image = Image.fromarray(cmyk.repeat(8, 0).repeat(8, 1).astype(np.uint8), "CMYK")
    exact = np.asarray(image).astype(float)
    expected = (255 - exact[..., :3]) * (255 - exact[..., 3:]) / 255
    data = saved(image, "TIFF")
    assert np.abs(opens(data) - expected).max() <= 1
    data = saved(image, "JPEG", quality=100, subsampling=0)
    assert b"Adobe" in data  # inverted, as Photoshop writes it
    assert np.abs(opens(data) - expected).mean() < 2


def test_adobes_ycck() -> None:
    y, cb, cr, k = 180.0, 90.0, 150.0, 200.0  # as they stand in the file
    image = Image.new("CMYK", (16, 16), tuple(int(255 - each) for each in (y, cb, cr, k)))
    data = bytearray(saved(image, "JPEG", quality=100, subsampling=0))
    data[data.index(b"Adobe") + 11] = 2  # YCCK
    rgb = np.array([  # T.871; libjpeg gives C as 255 - R, and Adobe's C is inverted once more
        y + 1.402 * (cr - 128), y - 0.344136 * (cb - 128) - 0.714136 * (cr - 128),
        y + 1.772 * (cb - 128),
    ])  # fmt: skip
    expected = (255 - rgb) * k / 255
    assert np.abs(opens(bytes(data))[8, 8] - expected).max() <= 2


@pytest.mark.parametrize("order", ["<", ">"])
def test_grey_of_16_bits_is_scaled(order: str) -> None:
    values = np.linspace(0, 65_535, 300).astype(np.uint16).reshape(10, 30)
    expected = np.rint(values / 257)[..., None].repeat(3, 2)
    rows = [row.astype(">u2").tobytes() for row in values]
    assert (opens(png((30, 10), 16, 0, rows)) == expected).all()
    assert (opens(grey_tiff(values, order=order)) == expected).all()
    if order == "<":  # else Pillow knows no such kind
        assert (opens(grey_tiff(values, photometric=0)) == 255 - expected).all()
    packed = saved(Image.fromarray(values), "TIFF", compression="tiff_lzw")
    assert (opens(packed) == expected).all()


def test_grey_of_12_bits_is_scaled() -> None:
    values = [0, 4095, 2048, 1024]
    bits = sum(each << 12 * (3 - place) for place, each in enumerate(values))
    tags = [(256, 4, [4]), (257, 4, [1]), (258, 3, [12]), (259, 3, [1]), (262, 3, [1]),
            (273, 4, [8]), (277, 3, [1]), (278, 4, [1]), (279, 4, [6])]  # fmt: skip
    assert opens(tiff(tags, bits.to_bytes(6, "big")))[0, :, 0].tolist() == [0, 255, 128, 64]


def test_colours_of_16_bits_are_scaled() -> None:
    values = np.random.default_rng(1).integers(0, 65_536, (7, 5, 4))
    rows = [row.astype(">u2").tobytes() for row in values[..., :3]]
    assert np.abs(opens(png((5, 7), 16, 2, rows)) - values[..., :3] / 257).max() <= 1
    rows = [row.astype(">u2").tobytes() for row in values]
    clear = values[..., 3:] / 65_535
    expected = (values[..., :3] * clear + 65_535 * (1 - clear)) / 257
    assert np.abs(opens(png((5, 7), 16, 6, rows)) - expected).max() <= 2
    rows = [row.astype(">u2").tobytes() for row in values[..., 2:]]
    expected = (values[..., 2:3] * clear + 65_535 * (1 - clear)) / 257
    assert np.abs(opens(png((5, 7), 16, 4, rows)) - expected).max() <= 2
    data = values[..., :3].astype("<u2").tobytes()
    tags = [(256, 4, [5]), (257, 4, [7]), (258, 3, [16] * 3), (262, 3, [2]), (273, 4, [8]),
            (277, 3, [3]), (278, 4, [7]), (279, 4, [len(data)])]  # fmt: skip
    assert np.abs(opens(tiff(tags, data)) - values[..., :3] / 257).max() <= 1


@pytest.mark.parametrize(
    ("low", "high", "kind", "form"),
    [
        (0.0, 1.0, "f4", 3),
        (0.0, 255.0, "f4", 3),
        (0.0, 65_535.0, "f4", 3),
        (-5.0, 1e9, "f4", 3),
        (-3e38, 3e38, "f4", 3),
        (0, 65_535, "i4", 2),
        (-100, 2**31 - 1, "i4", 2),
        (0, 2**32 - 1, "u4", 1),
        (-32_768, 32_767, "i2", 2),
    ],
)
def test_numbers_are_scaled_by_the_range_that_holds_them(
    low: float, high: float, kind: str, form: int
) -> None:
    values = np.linspace(low, high, 77).astype(kind).reshape(7, 11)
    wide = values.astype(float)
    expected = (wide - low) / (high - low) * 255
    assert np.abs(opens(grey_tiff(values, form))[..., 0] - expected).max() <= 0.51


def test_what_is_no_number_does_not_reach_the_rest() -> None:
    values = np.array([[0.0, 0.5, 1.0, np.nan, np.inf, -np.inf]], np.float32)
    assert opens(grey_tiff(values, 3))[0, :, 0].tolist() == [0, 128, 255, 0, 255, 0]
    assert (opens(grey_tiff(np.full((2, 2), np.nan, np.float32), 3)) == 0).all()
    assert (opens(grey_tiff(np.full((2, 2), -7.0, np.float32), 3)) == 0).all()
    assert opens(saved(scene("F"), "TIFF"))[..., 0].max() == np.asarray(scene("L")).max()


@pytest.mark.parametrize("mode", ["1", "L", "P", "LAB", "YCbCr"])
def test_other_modes(mode: str) -> None:
    image = scene(mode)
    form = "TIFF" if mode in ("LAB", "YCbCr") else "PNG"
    expected = np.asarray(scene() if form == "TIFF" else image.convert("RGB")).astype(int)
    difference = np.abs(opens(saved(image, form)) - expected)
    assert difference.mean() < 3 if form == "TIFF" else difference.max() == 0


@pytest.mark.parametrize("mode", ["LA", "RGBA", "PA"])
@pytest.mark.parametrize("form", ["PNG", "WEBP", "TIFF"])
def test_what_is_clear_is_laid_on_white(mode: str, form: str) -> None:
    image = scene("RGBA")
    image.putalpha(Image.fromarray(np.arange(64 * 48, dtype=np.uint8).reshape(48, 64)))
    image = image.convert("LA" if mode == "LA" else "RGBA")
    rgba = np.asarray(image.convert("RGBA")).astype(float)
    alpha = rgba[..., 3:] / 255
    expected = rgba[..., :3] * alpha + 255 * (1 - alpha)
    if mode == "PA" and form == "TIFF":
        image = image.convert("PA")
    elif mode == "PA":
        image = image.quantize(200, method=Image.Quantize.FASTOCTREE)
    options = {"lossless": True, "exact": True} if form == "WEBP" else {}
    difference = np.abs(opens(saved(image, form, **options)) - expected)
    assert difference.max() <= 1 if mode != "PA" else difference.mean() < 40


@pytest.mark.parametrize("depth", [1, 2, 4, 8, 16])
def test_one_clear_grey(depth: int) -> None:
    top = 2**depth - 1
    values = [0, top, min(2, top), 0, top, 0, 0, 0]
    row = sum(each << depth * (7 - place) for place, each in enumerate(values))
    for clear in {0, top, min(2, top)}:
        data = png((8, 1), depth, 0, [row.to_bytes(depth, "big")],
                   (b"tRNS", struct.pack(">H", clear)))  # fmt: skip
        expected = [255 if each == clear else round(each * 255 / top) for each in values]
        assert opens(data)[0, :, 0].tolist() == expected


@pytest.mark.parametrize("depth", [8, 16])
def test_one_clear_colour(depth: int) -> None:
    scale = 257 if depth == 16 else 1
    values = np.array([[10, 20, 30], [200, 100, 0]]) * scale
    row = values.astype(">u2" if depth == 16 else "u1").tobytes()
    data = png((2, 1), depth, 2, [row], (b"tRNS", struct.pack(">3H", *values[1])))
    assert opens(data)[0].tolist() == [[10, 20, 30], [255, 255, 255]]


def test_clear_colours_of_palettes() -> None:
    palette = bytes([255, 0, 0, 0, 255, 0, 0, 0, 255])
    rows = [bytes([0, 1, 2])]
    one = png((3, 1), 8, 3, rows, (b"PLTE", palette), (b"tRNS", b"\xff\0"))
    assert opens(one)[0].tolist() == [[255, 0, 0], [255, 255, 255], [0, 0, 255]]
    half = png((3, 1), 8, 3, rows, (b"PLTE", palette), (b"tRNS", bytes([128, 0, 255])))
    found = opens(half)[0].tolist()
    assert found[1:] == [[255, 255, 255], [0, 0, 255]]
    assert found[0][1] in (127, 128)


@pytest.mark.parametrize("form", ["GIF", "WEBP", "PNG", "TIFF"])
def test_of_what_moves_the_first_frame_is_taken(form: str) -> None:
    red, blue = (Image.new("RGB", (20, 10), colour) for colour in ("red", "blue"))
    options = {"lossless": True} if form == "WEBP" else {}
    data = saved(red, form, save_all=True, append_images=[blue, red], **options)
    assert (opens(data) == (255, 0, 0)).all()


def test_an_apng_with_broken_further_frames_is_its_first() -> None:
    row = bytes([9, 8, 7])
    data = png((1, 1), 8, 2, [row], (b"acTL", b"\0\0\0\x09"), (b"fcTL", bytes(3)))
    assert opens(data).tolist() == [[[9, 8, 7]]]


def test_a_gif_whose_frame_is_smaller_than_its_canvas() -> None:
    data = bytearray(saved(Image.new("RGB", (4, 3), "red"), "GIF"))
    data[6:10] = struct.pack("<HH", 10, 8)
    at = data.rindex(b"," + bytes(4) + struct.pack("<HH", 4, 3))
    data[at + 1 : at + 5] = struct.pack("<HH", 5, 2)
    found = opens(bytes(data))
    assert found.shape == (8, 10, 3)
    assert (found[2:5, 5:9] == (255, 0, 0)).all()
    found[2:5, 5:9] = 255
    assert (found == 255).all()


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("form", ["JPEG", "PNG", "WEBP", "TIFF"])
def test_pictures_are_turned_upright(form: str, orientation: int) -> None:
    corners = Image.new("RGB", (32, 16), "black")
    corners.paste("red", (0, 0, 16, 8))  # where it is stored at the top left
    options: dict[str, Any] = {"lossless": True} if form == "WEBP" else {"quality": 95}
    if form == "TIFF":
        options = {"tiffinfo": {274: orientation}}
    else:
        options["exif"] = exif(orientation)
    found = opens(saved(corners, form, **options))
    assert found.shape == ((16, 32, 3) if orientation < 5 else (32, 16, 3))
    high, wide = found.shape[:2]
    # EXIF 2.3, 4.6.4 A: where the stored first row and column are seen
    right = orientation in (2, 3, 6, 7)
    bottom = orientation in (3, 4, 7, 8)
    y, x = (high * 3 // 4 if bottom else high // 4), (wide * 3 // 4 if right else wide // 4)
    assert found[y, x, 0] > 240
    assert found[high - 1 - y, wide - 1 - x, 0] < 15


@pytest.mark.parametrize("bad", [b"", b"x", b"II*\0", exif(6)[6:12], exif(99)[6:], b"\xff" * 999])
def test_broken_metadata_is_passed_over(bad: bytes) -> None:
    image = scene()
    for form in ("JPEG", "PNG", "WEBP"):
        lossy = form == "JPEG"
        options: dict[str, Any] = {"lossless": True} if form == "WEBP" else {"quality": 98}
        data = saved(image, form, exif=b"Exif\0\0" + bad, icc_profile=bad or b"?", **options)
        assert np.abs(opens(data) - np.asarray(image)).mean() < (20 if lossy else 0.001)
    row = scene(size=(3, 1)).tobytes()
    more = [(kind, bad) for kind in (b"eXIf", b"pHYs", b"gAMA", b"tEXt", b"iTXt")]
    data = bytearray(png((3, 1), 8, 2, [row], (b"iCCP", b"x\0\0" + bad), *more))
    data[data.index(b"iCCP") + 4] ^= 1  # its checksum is wrong, too
    assert opens(bytes(data)).tobytes() == np.asarray(scene(size=(3, 1))).astype(int).tobytes()


def test_broken_metadata_of_a_tiff_is_passed_over() -> None:
    values = np.arange(6, dtype=np.uint8).reshape(2, 3)
    tags = [(256, 4, [3]), (257, 4, [2]), (258, 3, [8]), (259, 3, [1]), (262, 3, [1]),
            (273, 4, [8]), (277, 3, [1]), (278, 4, [2]), (279, 4, [6]),
            (34665, 4, [2**31]), (34853, 4, [9]), (700, 4, [1, 2, 3]), (34675, 4, [0]),
            (33432, 3, [1] * 99), (282, 4, [7]), (296, 3, [77]), (65_000, 4, [5] * 9)]  # fmt: skip
    assert (opens(tiff(tags, values.tobytes()))[..., 0] == values).all()


def test_a_picture_within_a_photo_is_passed_over() -> None:
    """As cameras write: a preview in the EXIF, and a second picture after the first (MPO)."""
    image, other = scene(), Image.new("RGB", (64, 48), "red")
    data = saved(image, "MPO", save_all=True, append_images=[other], quality=98)
    assert np.abs(opens(data) - np.asarray(image)).mean() < 20
    segment = b"Exif\0\0" + tiff([(274, 3, [1])]) + saved(other, "JPEG")
    data = saved(image, "JPEG", exif=segment, quality=98)
    assert np.abs(opens(data) - np.asarray(image)).mean() < 20


def test_text_bombs_in_a_png_are_never_unpacked() -> None:
    bomb = zlib.compress(bytes(60_000_000))
    text = [(b"zTXt", b"a%d\0\0" % number + bomb) for number in range(100)]
    more = [(b"iTXt", b"b\0\x01\0\0\0" + bomb), (b"iCCP", b"c\0\0" + bomb)]
    start = time.monotonic()
    assert opens(png((1, 1), 8, 2, [b"\1\2\3"], *text, *more)).tolist() == [[[1, 2, 3]]]
    assert time.monotonic() - start < 2


def test_work_that_no_picture_needs_is_refused() -> None:
    many = containers.MOST_PARTS + 1
    start = time.monotonic()
    empty = chunk(b"tEXt", b"")
    whole = png((1, 1), 8, 2, [b"\1\2\3"])
    assert "chunks" in refusal(whole[:33] + empty * many + whole[33:])
    jpeg = saved(scene(), "JPEG", progressive=True)
    assert "segments" in refusal(jpeg[:2] + b"\xff\xfe\0\2" * many + jpeg[2:])
    at = jpeg.rindex(b"\xff\xda")
    assert "scans" in refusal(jpeg[:-2] + jpeg[at:-2] * 100 + jpeg[-2:])
    gif = saved(scene("L"), "GIF")
    begin = 13 + 3 * 256
    comment = b"!\xfe" + b"\1x" * many + b"\0"
    assert "blocks" in refusal(gif[:begin] + comment + gif[begin:])
    webp = saved(scene(), "WEBP", save_all=True, append_images=[scene("L")])
    assert "chunks" in refusal(webp + b"JUNK\0\0\0\0" * many)
    strips = [(256, 4, [1]), (257, 4, [many]), (258, 3, [8]), (259, 3, [1]), (262, 3, [1]),
              (273, 4, [8] * many), (277, 3, [1]), (278, 4, [1]), (279, 4, [1] * many)]  # fmt: skip
    assert "values" in refusal(tiff(strips, b"x"))
    tiles = [(256, 4, [64]), (257, 4, [64]), (258, 3, [8]), (259, 3, [8]), (262, 3, [1]),
             (277, 3, [1]), (322, 4, [2**16]), (323, 4, [2**16]), (324, 4, [8]),
             (325, 4, [8])]  # fmt: skip
    assert "tiles" in refusal(tiff(tiles, b"x" * 8))
    odd = [(256, 4, [64]), (257, 4, [64]), (259, 3, [34_676]), (273, 4, [8])]
    assert "packed" in refusal(tiff(odd, b"x" * 8))
    assert "tag" in refusal(tiff([(256, 4, [64, 3]), (257, 4, [64])]))
    bmp = bytearray(saved(scene("P"), "BMP"))
    bmp[30:34] = struct.pack("<I", 1)
    assert "run-length" in refusal(bytes(bmp) + bytes(containers.MOST_PACKED))
    assert time.monotonic() - start < 10


def test_a_bmp_that_is_run_length_coded_is_read() -> None:
    palette = bytes([0, 0, 255, 0, 255, 0, 0, 0])  # red, blue, as BGR0
    packed = b"\3\0\1\1\0\0" + b"\4\1\0\1"
    head = struct.pack("<IiiHHIIiiII", 40, 4, 2, 1, 8, 1, len(packed), 0, 0, 2, 0)
    at = 14 + 40 + 8
    data = b"BM" + struct.pack("<IHHI", at + len(packed), 0, 0, at) + head + palette + packed
    blue, red = [0, 0, 255], [255, 0, 0]
    assert opens(data).tolist() == [[blue] * 4, [red] * 3 + [blue]]


@pytest.mark.parametrize("size", [(1, 1), (1, 60_000), (60_000, 1)])
def test_narrow_pictures(size: tuple[int, int]) -> None:
    for form in ("PNG", "JPEG", "BMP", "GIF", "TIFF"):
        assert open_image(saved(Image.new("RGB", size, "red"), form)).size == size


def test_nothing_is_said_but_by_errors(capfd: pytest.CaptureFixture[str]) -> None:
    half = png((3, 1), 8, 3, [b"\0\1\2"], (b"PLTE", bytes(range(9))), (b"tRNS", b"\x10\x20"))
    tags = [(256, 4, [64]), (257, 4, [64]), (258, 3, [8]), (262, 3, [1]), (277, 3, [9999])]
    odd = saved(scene(), "TIFF", compression="tiff_lzw")
    bomb = png((9000, 9999), 8, 2, [b""])
    root = logging.getLogger()
    handlers, root.handlers = root.handlers, []  # as in a program that sets nothing up
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            open_image(half)
            for data in (tiff(tags), odd[:200] + odd[260:], bomb, b"GIF89a" + bytes(99)):
                refusal(data)
    finally:
        root.handlers = handlers
    assert capfd.readouterr() == ("", "")


def test_filters_of_warnings_are_as_before_with_many_threads() -> None:
    data, before = saved(scene(), "PNG"), list(warnings.filters)
    failed = []

    def work() -> None:
        try:
            for _ in range(30):
                open_image(data)
        except BaseException as error:
            failed.append(error)

    threads = [threading.Thread(target=work) for _ in range(8)]
    for each in threads:
        each.start()
    for each in threads:
        each.join()
    assert not failed
    assert list(warnings.filters) == before


def data_url(data: bytes, kind: str = "image/png") -> str:
    return f"data:{kind};base64,{base64.b64encode(data).decode()}"


def test_data_urls() -> None:
    data = saved(scene(), "PNG")
    expected = np.asarray(scene())
    plain = data_url(data)
    head, body = plain.split(",")
    lines = "\r\n ".join(body[at : at + 76] for at in range(0, len(body), 76))
    for value in (
        plain,
        plain.replace("image/png", "text/html;charset=x"),
        plain.replace("data:image/png;base64", "DATA:;BASE64"),
        f"  {head},{lines}\n",
        f"{head},{body.rstrip('=')}",
        f"{head},{quote(body)}",
        "data:image/png," + quote(data),
    ):
        assert (pixels(image_from(value)) == expected).all()


@pytest.mark.parametrize(
    ("value", "says"),
    [
        ("data:image/png;base64", "comma"),
        ("data:image/png;base64,", "empty"),
        ("data:image/png;base64,£££", "base64"),
        ("data:image/png;base64,a", "base64"),
        ("data:image/png;base64,AAAA", "no picture"),
        ("data:image/svg+xml,<svg/>", "no picture"),
        ("iVBORw0KGgo" * 1000, "is taken"),
        ("", "is taken"),
        ("photo.png", "is taken"),
        ("/etc/passwd", "is taken"),
        ("file:///etc/passwd", "is taken"),
        ("ftp://example.com/a.png", "is taken"),
        ("javascript:alert(1)", "is taken"),
    ],
    ids=lambda each: each[:30],
)
def test_what_requests_may_not_say(value: str, says: str) -> None:
    with pytest.raises(ImageError, match=says) as caught:
        image_from(value)
    assert len(str(caught.value)) < 300


def test_data_urls_that_are_too_long_are_not_decoded() -> None:
    with pytest.raises(ImageError, match="holds more than"):
        image_from("data:image/png;base64," + "A" * (2 * containers.MOST_BYTES))


def test_files_only_where_they_may_be(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    base, outside = tmp_path / "base", tmp_path / "outside"
    for folder in (base / "within", outside):
        folder.mkdir(parents=True)
        (folder / "a.png").write_bytes(saved(scene(), "PNG"))
    (base / "out").symlink_to(outside)
    (base / "a.png").symlink_to(outside / "a.png")
    (base / "in.png").symlink_to(base / "within" / "a.png")
    for value in ("within/a.png", "in.png", str(base / "within/a.png"), "within/../in.png"):
        assert image_from(value, files=True, base=base).size == (64, 48)
        with pytest.raises(ImageError, match="is taken"):
            image_from(value, base=base)
    for value in ("out/a.png", "a.png", "../outside/a.png", str(outside / "a.png"), "../absent"):
        with pytest.raises(ImageError, match="outside the folder"):
            image_from(value, files=True, base=base)
    for value in ("absent.png", "within", "x\0y", "a" * 9000):
        with pytest.raises(ImageError):
            image_from(value, files=True, base=base)
        with pytest.raises(ImageError):
            image_from(value, files=True)
    with pytest.raises(ImageError, match="is taken"):
        image_from(f"file://{base}/in.png", files=True)
    monkeypatch.chdir(tmp_path)
    assert image_from("outside/a.png", files=True).size == (64, 48)


PICTURE = saved(scene(), "PNG")


class Answers(BaseHTTPRequestHandler):
    """A server of what a request's path names."""

    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        """http.server's call."""
        self.server.seen.append((self.path, self.headers["Host"]))  # pyright: ignore
        path = self.path.partition("?")[0]
        if path == "/picture":
            self.send(200, PICTURE)
        elif path == "/chunks":
            self.send(200, None, {"Transfer-Encoding": "chunked"})
            for at in range(0, len(PICTURE), 999):
                part = PICTURE[at : at + 999]
                self.wfile.write(b"%x\r\n%b\r\n" % (len(part), part))
            self.wfile.write(b"0\r\n\r\n")
        elif path == "/redirect":
            self.send(302, b"", {"Location": "/picture"})
        elif path == "/packed":
            self.send(200, zlib.compress(PICTURE), {"Content-Encoding": "deflate"})
        elif path == "/huge":
            self.send(200, None, {"Content-Length": "99999999999"})
        elif path == "/endless":
            self.send(200, None, {"Connection": "close"})
            self.pour(b"x" * 2**16, 0)
        elif path == "/slow":
            self.send(200, None, {"Content-Length": "1000"})
            self.pour(b"x", 0.05)
        elif path == "/slow-last":
            self.send(200, None, {"Connection": "close"})
            self.pour(b"x", 0.05)
        elif path == "/slow-head":
            self.pour(b"H", 0.05)
        elif path == "/short":
            self.send(200, None, {"Content-Length": str(len(PICTURE))})
            self.wfile.write(PICTURE[:-9])
            self.close_connection = True
        else:
            self.send(404, b"none")

    def send(self, status: int, body: bytes | None, headers: dict[str, str] | None = None) -> None:
        self.send_response(status)
        if body is not None:
            headers = {"Content-Length": str(len(body)), **(headers or {})}
        for name, value in (headers or {}).items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body or b"")

    def pour(self, piece: bytes, pause: float) -> None:
        try:
            for _ in range(5000):
                self.wfile.write(piece)
                time.sleep(pause)
        except OSError:
            self.close_connection = True

    def log_message(self, *_: Any) -> None:
        """Says nothing."""


class Server(ThreadingHTTPServer):
    """One that keeps what it was asked."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Answers)
        self.seen: list[tuple[str, str]] = []

    @property
    def place(self) -> str:
        return f"127.0.0.1:{self.server_address[1]}"


@pytest.fixture
def server() -> Iterator[Server]:
    with Server() as found:
        threading.Thread(target=found.serve_forever, kwargs={"poll_interval": 0.05}).start()
        yield found
        found.shutdown()


def fetched(server: Server, path: str, **options: Any) -> bytes:
    options = {"most": 10**6, "reachable": lambda address: address == "127.0.0.1", **options}
    return fetch.fetched(f"http://{server.place}{path}", hosts=[server.place], **options)


def test_pictures_are_fetched(server: Server) -> None:
    assert fetched(server, "/picture?a=1&b=/x#part") == PICTURE
    assert fetched(server, "/chunks") == PICTURE
    assert server.seen == [("/picture?a=1&b=/x", server.place), ("/chunks", server.place)]


@pytest.mark.parametrize(
    ("path", "says"),
    [
        ("/redirect", "redirects"),
        ("/absent", "status 404"),
        ("/packed", "packed"),
        ("/huge", "more than the 1,000,000 bytes"),
        ("/endless", "more than the 1,000,000 bytes"),
        ("/short", "broke off"),
        ("/slow", "more than 1 seconds"),
        ("/slow-last", "more than 1 seconds"),
        ("/slow-head", "more than 1 seconds"),
    ],
)
def test_answers_that_are_refused(server: Server, path: str, says: str) -> None:
    start = time.monotonic()
    with pytest.raises(ImageError, match=says) as caught:
        fetched(server, path, seconds=1)
    assert time.monotonic() - start < 3
    assert len(str(caught.value).splitlines()) == 1
    assert [path for path, _ in server.seen] == [path]  # nothing else was asked for


def test_addresses_that_are_not_public_are_never_asked(server: Server) -> None:
    port = server.server_address[1]
    for host in ("127.0.0.1", "localhost", "127.1", "0x7f000001", "2130706433", "0.0.0.0"):
        with pytest.raises(ImageError, match=r"not public|no such host"):
            image_from(f"http://{host}:{port}/picture", hosts=[f"{host}:{port}"])
    assert server.seen == []


@pytest.mark.parametrize(
    "address",
    ["127.0.0.1", "10.1.2.3", "172.16.0.1", "192.168.1.1", "169.254.169.254", "100.64.0.1",
     "0.0.0.0", "224.0.0.1", "240.0.0.1", "255.255.255.255", "192.0.2.1", "198.18.0.1", "::", "::1",
     "fe80::1", "fe80::1%2", "fc00::1", "fd00:ec2::254", "fec0::1", "ff02::1", "2001:db8::1",
     "::ffff:127.0.0.1", "::ffff:10.0.0.1", "::127.0.0.1", "64:ff9b::7f00:1", "64:ff9b:1::1",
     "2002:7f00:1::", "2001:0:4136:e378:8000:63bf:3fff:fdd2"],
)  # fmt: skip
def test_what_is_not_public(address: str, monkeypatch: pytest.MonkeyPatch) -> None:
    assert not fetch.is_public(address)
    kind = socket.AF_INET6 if ":" in address else socket.AF_INET
    good = (socket.AF_INET, socket.SOCK_STREAM, 6, "", ("93.184.215.14", 80))
    bad = (kind, socket.SOCK_STREAM, 6, "", (address, 80))
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: [good, bad])
    with pytest.raises(ImageError, match="not public"):
        image_from("http://pictures.test/a.png", hosts=["pictures.test"])


@pytest.mark.parametrize(
    "address", ["93.184.215.14", "8.8.8.8", "2606:4700::1111", "::ffff:8.8.8.8", "64:ff9b::808:808"]
)
def test_what_is_public(address: str) -> None:
    assert fetch.is_public(address)


def test_the_name_is_looked_up_once(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    """What was checked is what is asked, though the name leads elsewhere a moment later."""
    asked = []

    def once(host: str, port: int, **_: Any) -> list[tuple[Any, ...]]:
        asked.append(host)
        assert len(asked) == 1
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", server.server_address)]

    monkeypatch.setattr(socket, "getaddrinfo", once)
    found = fetch.fetched(
        "http://Pictures.test./picture",
        hosts=["pictures.test"],
        most=10**6,
        reachable=lambda _: True,
    )
    assert found == PICTURE
    assert server.seen == [("/picture", "pictures.test")]


@pytest.mark.parametrize(
    "url",
    [
        "http://evil.test/a.png",
        "http://evil.test/pictures.test",
        "http://pictures.test.evil.test/",
        "http://pictures.test@evil.test/",
        "http://evil.test#@pictures.test/",
        "http://evil.test?@pictures.test",
        "http://pictures.test:pw@pictures.test/",
        "http://pictures.test:8080/a.png",
        "https://pictures.test:80/a.png",
        "http://pictures.test:99999/a.png",
        "http://pictures.test\\@evil.test/",
        "http://pictures.test/a b",
        "http://pictures.test/a\r\nX: y",
        "http://pictures.test/ä.png",
        "http://рictures.test/",
        "http://[::1/",
        "http://",
        "http:///a.png",
        "HTTP://EVIL.TEST/",
    ],
)
def test_urls_that_are_refused(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def never(*_: Any, **__: Any) -> None:
        raise AssertionError("it was looked up")

    monkeypatch.setattr(socket, "getaddrinfo", never)
    with pytest.raises(ImageError) as caught:
        image_from(url, hosts=["pictures.test"])
    assert len(str(caught.value).splitlines()) == 1
    with pytest.raises(ImageError):
        image_from("http://pictures.test/a.png")


def test_hosts_that_are_not_there(monkeypatch: pytest.MonkeyPatch) -> None:
    for host in ("no-such-host.invalid", "a" * 70 + ".test"):
        with pytest.raises(ImageError, match="no such host"):
            image_from(f"https://{host}/", hosts=[host])
    with socket.socket() as taken:  # nobody listens at it
        taken.bind(("127.0.0.1", 0))
        place = f"127.0.0.1:{taken.getsockname()[1]}"
        with pytest.raises(ImageError, match="no picture came"):
            fetch.fetched(f"http://{place}/", hosts=[place], most=9, reachable=lambda _: True)


def test_certificates_are_checked(
    server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import ssl

    key, certificate = tmp_path / "key.pem", tmp_path / "certificate.pem"
    command = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2"]
    command += ["-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost"]
    try:
        subprocess.run(
            [*command, "-keyout", key, "-out", certificate], check=True, capture_output=True
        )
    except (OSError, subprocess.CalledProcessError):
        pytest.skip("no openssl here")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)
    server.socket = context.wrap_socket(server.socket, server_side=True)
    place = f"localhost:{server.server_address[1]}"

    def ask() -> bytes:
        return fetch.fetched(
            f"https://{place}/picture",
            hosts=[place],
            most=10**6,
            reachable=lambda _: True,
            seconds=5,
        )

    with pytest.raises(ImageError, match=r"(?i)certificate"):
        ask()
    monkeypatch.setenv("SSL_CERT_FILE", str(certificate))
    assert ask() == PICTURE


SEEDS = {
    "png": saved(scene("P"), "PNG", transparency=bytes(range(99)), exif=exif(3)),
    "png16": png((64, 48), 16, 6, [random.Random(5).randbytes(512) for _ in range(48)]),
    "jpeg": saved(scene(), "JPEG", exif=exif(6), icc_profile=b"?" * 99),
    "progressive": saved(scene("CMYK"), "JPEG", progressive=True),
    "gif": saved(scene("P"), "GIF", save_all=True, append_images=[scene("L")], comment=b"c" * 300),
    "webp": saved(scene("RGBA"), "WEBP", lossless=True, exif=exif(8)),
    "lossy": saved(scene(), "WEBP", save_all=True, append_images=[scene("L")]),
    "bmp": saved(scene("P"), "BMP"),
    "tiff": saved(scene(), "TIFF", compression="tiff_lzw", exif=exif(5)[6:]),
    "raw": saved(scene("F"), "TIFF"),
    "deflate": saved(scene("RGBA"), "TIFF", compression="tiff_adobe_deflate"),
    "within": saved(scene(), "TIFF", compression="jpeg"),
    "fax": saved(scene("1"), "TIFF", compression="group4"),
}


def mutated(seed: bytes, other: bytes, chance: random.Random) -> bytes:
    """A file with bits flipped, numbers in its head changed, parts cut, doubled, or exchanged."""
    data = bytearray(seed)
    for _ in range(chance.choice([1, 1, 2, 5])):
        if not data:
            break
        at = chance.randrange(len(data))
        kind = chance.randrange(6)
        if kind == 0:
            for _ in range(chance.choice([1, 8, 64])):
                data[chance.randrange(len(data))] ^= 1 << chance.randrange(8)
        elif kind == 1:
            del data[max(1, at) :]
        elif kind == 2:
            begin = chance.randrange(len(other))
            data[at:at] = other[begin : begin + chance.randrange(1, 200)]
        elif kind == 3:
            del data[at : at + chance.randrange(1, 40)]
        elif kind == 4:
            data[at:at] = data[at : at + 100] * chance.choice([1, 50])
        else:
            place = chance.randrange(min(120, len(data)))
            number = chance.choice([0, 1, 255, 256, 32_767, 65_535, 2**31 - 1, 2**32 - 1])
            size = chance.choice([1, 2, 4])
            order = chance.choice(["big", "little"])
            data[place : place + size] = (number % 256**size).to_bytes(size, order)  # pyright: ignore
    return bytes(data)


SMALL_BOMBS = {  # formats that make a large picture a small file
    "PNG": {}, "GIF": {}, "WEBP": {"lossless": True}, "TIFF": {"compression": "tiff_adobe_deflate"},
}  # fmt: skip
FUZZ = """
import json, resource, sys, warnings
from collections import Counter
from pathlib import Path
from flyweight.errors import ImageError
from flyweight.vision import containers
from flyweight.vision.images import open_image
containers.MOST_PIXELS = 1_000_000  # so that what is let in is small beside a bomb
warnings.simplefilter("error")
status = Path("/proc/self/status").read_text().splitlines()
here = {line.split(":")[0]: line.split()[1] for line in status if len(line.split()) > 1}
before = int(here["VmSize"]) * 1024
resource.setrlimit(resource.RLIMIT_AS, (before + 1_500_000_000,) * 2)
made, outcomes = Path(sys.argv[1]).read_bytes(), Counter()
at = 0
while at < len(made):
    size = int.from_bytes(made[at:at + 4], "big")
    data, at = made[at + 4:at + 4 + size], at + 4 + size
    sys.stdout.flush()
    try:
        image = open_image(data, "fuzzed")
    except ImageError as error:
        assert len(str(error).splitlines()) == 1, error
        outcomes["needs memory" if "memory" in str(error) else "refused"] += 1
    else:
        assert image.mode == "RGB" and min(image.size) >= 1
        image.tobytes()
        outcomes["opened"] += 1
# of this program: ru_maxrss is also that of the process that started it, before it became this one
status = Path("/proc/self/status").read_text().splitlines()
peak = next(int(line.split()[1]) for line in status if line.startswith("VmHWM"))
print(json.dumps({**outcomes, "peak": peak - int(here["VmRSS"])}))
"""


@pytest.mark.skipif(sys.platform != "linux", reason="memory is bounded and read as Linux does")
def test_files_that_were_mutated_open_or_are_refused(tmp_path: Path) -> None:
    number = int(os.environ.get("FLYWEIGHT_FUZZ", "500"))
    chance = random.Random(int(os.environ.get("FLYWEIGHT_FUZZ_SEED", "20")))
    seeds = list(SEEDS.values())
    made = [mutated(seeds[n % len(seeds)], chance.choice(seeds), chance) for n in range(number)]
    flat = Image.new("RGB", (6000, 6000))
    made += [saved(flat, form, **options) for form, options in SMALL_BOMBS.items()]
    file = tmp_path / "made"
    file.write_bytes(b"".join(len(each).to_bytes(4, "big") + each for each in made))
    done = subprocess.run(
        [sys.executable, "-X", "faulthandler", "-c", FUZZ, str(file)],
        check=False, capture_output=True, text=True, timeout=max(50, number // 10),
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    told = done.stderr.splitlines()  # libtiff's C prints its own errors, which Pillow lets through
    assert [line for line in told if not re.match(r"[\w.]+: ", line)] == []
    found = json.loads(done.stdout)
    assert found["opened"] + found["refused"] == len(made)  # and none "needs memory"
    assert found["opened"] > number // 10
    assert found["refused"] > number // 10
    assert found["peak"] < 60_000  # KB, of which the largest file is a few
