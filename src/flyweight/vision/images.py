"""Pictures from outside, opened as what they are: files that are not trusted in anything.

Pillow decodes them, one format at a time, from what `containers` leaves of the file. Colour
profiles are not applied, as the processors of vision models do not apply them either.
"""

from __future__ import annotations

import base64
import logging
import os
import re
import stat
import struct
import threading
import warnings
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from io import BytesIO
from pathlib import Path
from urllib.parse import unquote_to_bytes

import numpy as np
from PIL import Image, TiffImagePlugin, UnidentifiedImageError, WebPImagePlugin

from flyweight.errors import ImageError
from flyweight.vision.containers import MOST_BYTES, Parts, Unfit, check_size, parts
from flyweight.vision.fetch import fetched

LEAST_SIDE = 2048  # pixels that a large JPEG keeps, when it is decoded at a half, quarter or eighth
_PLUGINS = (TiffImagePlugin, WebPImagePlugin)  # were they not here, Pillow would load all it has
_ROWS = 2**20  # values that are scaled at a time
_TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
logging.getLogger("PIL").addHandler(logging.NullHandler())  # else its errors go to stderr


def open_image(source: Path | bytes, name: str | None = None) -> Image.Image:
    """The picture in a file or in its bytes, RGB with 8 bits, turned upright, at least 1 x 1.

    Of what moves, the first frame; what is clear is laid on white; 16 bits and more are scaled.
    A JPEG with both sides twice LEAST_SIDE or more comes smaller, by 2, 4 or 8. Raises ImageError,
    with `name` as its place: not a picture of containers.FORMATS, broken, cut off, too large.
    """
    where = _one_line(name or (str(source) if isinstance(source, Path) else "the picture"))
    try:
        with _quiet():
            return _opened(parts(_read(source) if isinstance(source, Path) else source))
    except Unfit as error:
        raise ImageError(f"{where} {error}") from error
    except MemoryError as error:
        raise ImageError(f"{where} needs more memory than there is; make it smaller") from error
    except Image.DecompressionBombError as error:  # a lower limit that someone gave Pillow
        raise ImageError(f"{where} has too many pixels; make it smaller") from error
    except Exception as error:  # the decoders are programs: whatever they stumble over
        raise ImageError(f"{where} is broken or cut off ({_reason(error)}); get it anew") from error


def source_from(
    value: str, *, files: bool = False, hosts: Collection[str] = (), base: Path | None = None
) -> tuple[Path | bytes, str]:
    """Where the picture that a request names lies, or its bytes, and its name: for `open_image`.

    Raises ImageError. A data: URL always; a file only if `files`, and with `base` only inside that
    folder, wherever links lead; an http(s) URL only of `hosts`, as `fetch.fetched` says.
    """
    value = value.strip()
    if value[:5].lower() == "data:":
        return _data(value), "the picture in the data: URL"
    scheme = re.match(r"([a-z][a-z0-9+.-]*)://([^/?#]*)", value, re.IGNORECASE)
    if scheme and scheme[1].lower() in ("http", "https"):
        return fetched(value, hosts=hosts, most=MOST_BYTES), f"the picture from {scheme[2]}"
    if scheme or not files:
        raise ImageError(
            f"{_one_line(value, 60)!r} is no picture that is taken; "
            "send it as data:image/png;base64,…"
        )
    return _inside(value, base), value


def _one_line(text: str, most: int = 500) -> str:
    text = "".join(sign if sign.isprintable() else " " for sign in text[: 2 * most])
    return " ".join(text.split())[:most]


def _reason(error: Exception) -> str:
    if isinstance(error, (struct.error, IndexError)):
        return "it ends too early"
    if isinstance(error, UnidentifiedImageError):  # whose message tells where objects stand
        return "its head cannot be read"
    return _one_line(str(error), 200) or type(error).__name__


def _read(path: Path) -> bytes:
    """A file's bytes. Raises Unfit if there is none, or it is a pipe, a device, or too large."""
    try:
        with open(path, "rb", opener=_opener) as file:
            if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
                raise Unfit("is no file; name a picture")
            return file.read(MOST_BYTES + 1)
    except OSError as error:
        raise Unfit(f"cannot be read ({error.strerror}); name a picture that is there") from error


def _opener(path: str, flags: int) -> int:
    return os.open(path, flags | getattr(os, "O_NONBLOCK", 0))  # a pipe that nobody writes to


def _inside(value: str, base: Path | None) -> Path:
    try:
        if base is None:
            return Path(value)
        whole = (base / value).resolve()
        if whole.is_relative_to(base.resolve()):
            return whole
    except (OSError, ValueError, RuntimeError) as error:
        raise ImageError(f"{_one_line(value, 60)!r} is no path; name a picture") from error
    raise ImageError(f"{_one_line(value, 60)!r} is outside the folder of pictures; put it there")


def _data(url: str) -> bytes:
    """The bytes of a data: URL (RFC 2397), whose word for their type is not taken."""
    if len(url) > 2 * MOST_BYTES:
        raise ImageError(f"the data: URL holds more than {MOST_BYTES:,} bytes; make it smaller")
    head, comma, body = url.partition(",")
    if not comma:
        raise ImageError("the data: URL has no comma; send data:image/png;base64,…")
    try:
        found = unquote_to_bytes(body)
        if not head.lower().rstrip().endswith(";base64"):
            return found
        found = found.translate(None, b" \t\r\n\f").rstrip(b"=")
        return base64.b64decode(found + b"=" * (-len(found) % 4), validate=True)
    except ValueError as error:
        raise ImageError(f"the data: URL is no base64 ({error}); encode it anew") from error


class _Quiet:
    lock, inside = threading.Lock(), 0
    caught: warnings.catch_warnings | None = None


@contextmanager
def _quiet() -> Iterator[None]:
    """Without Pillow's warnings. Filters are the process's: the first in sets, the last resets."""
    with _Quiet.lock:
        if not _Quiet.inside:
            _Quiet.caught = warnings.catch_warnings()
            _Quiet.caught.__enter__()
            warnings.filterwarnings("ignore", module=r"PIL(\.|$)")
        _Quiet.inside += 1
    try:
        yield
    finally:
        with _Quiet.lock:
            _Quiet.inside -= 1
            if not _Quiet.inside and _Quiet.caught:
                _Quiet.caught.__exit__(None, None, None)


def _opened(found: Parts) -> Image.Image:
    with Image.open(BytesIO(found.data), formats=(found.format,)) as image:
        check_size(*image.size)
        if found.format == "JPEG":
            image.draft("RGB", (LEAST_SIDE, LEAST_SIDE))
        frame = image.tile[0][1] if found.format == "GIF" else None
        image.load()
        flat = _flat(image, found)
    if frame and frame != (0, 0, *flat.size):  # a canvas that the frame does not fill
        canvas = Image.new("RGB", flat.size, "white")
        canvas.paste(flat.crop(frame), frame[:2])
        flat = canvas
    if found.turn in _TURNS:
        flat = flat.transpose(_TURNS[found.turn])
    flat.info.clear()
    return flat


def _flat(image: Image.Image, found: Parts) -> Image.Image:
    """RGB, with what is clear laid on white."""
    clear = image.info.get("transparency")
    if found.format == "PNG" and clear is not None:  # which Pillow leaves as the file counts
        if image.mode == "L" and found.depth < 8:
            image.info["transparency"] = clear * (255 // (2**found.depth - 1))
        if image.mode == "RGB" and found.depth == 16:
            image.info["transparency"] = tuple(value >> 8 for value in clear)
    if image.mode in ("I", "F") or image.mode.startswith("I;16"):
        image = _eight_bits(image, found)
    if image.mode == "La":
        image = image.convert("LA")
    if not image.has_transparency_data:
        return image.convert("RGB")
    if image.mode != "RGBA":
        image = image.convert("RGBA")
    ground = Image.new("RGB", image.size, "white")
    ground.paste(image, mask=image.getchannel("A"))
    return ground


def _eight_bits(image: Image.Image, found: Parts) -> Image.Image:
    """Grey of 12 bits, 16, 32, or in fractions, scaled to 8 by the least range that holds it all.

    For 12 and 16 bits all they can hold; else 1 (fractions), 255, 65,535, or its least to most.
    """
    values = np.asarray(image)
    if image.mode == "I" and found.unsigned:
        values = values.view(np.uint32)
    low, high = _extremes(values)
    whole = (2**found.depth - 1,)
    ranges = {"F": (1, 255, 65_535), "I": (255, 65_535)}.get(image.mode, whole)
    if found.format == "PNG":  # which older Pillows give as I
        ranges = whole
    top = next((each for each in ranges if low >= 0 and high <= each), None)
    low, high = (low, high) if top is None else (0.0, float(top))
    scaled = np.empty(values.shape, np.uint8)
    rows = max(1, _ROWS // values.shape[1])
    for at in range(0, len(values), rows):
        part = values[at : at + rows].astype(np.float64)
        part = np.nan_to_num(part, nan=low, posinf=high, neginf=low)
        part = np.clip((part - low) * (255 / ((high - low) or 1.0)), 0, 255)
        scaled[at : at + rows] = np.rint(255 - part if found.white_is_zero else part)
    grey = Image.fromarray(scaled)
    clear = image.info.get("transparency")
    if not isinstance(clear, int):
        return grey
    alpha = np.where(values == clear, np.uint8(0), np.uint8(255))
    return Image.merge("LA", (grey, Image.fromarray(alpha)))


def _extremes(values: np.ndarray) -> tuple[float, float]:
    """The least and the greatest that are finite, 0 where none is."""
    if values.dtype.kind != "f":
        return float(values.min()), float(values.max())
    finite = np.isfinite(values)
    if not finite.any():
        return 0.0, 0.0
    low = values.min(initial=np.inf, where=finite)
    return float(low), float(values.max(initial=-np.inf, where=finite))


__all__ = ["LEAST_SIDE", "open_image", "source_from"]
