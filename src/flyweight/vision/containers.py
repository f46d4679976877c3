"""The files that pictures come in: what is in them, and only what makes the pixels passed on.

Whatever else a file carries (text, profiles, previews, further frames, tags) is neither trusted nor
needed: it is cut out before a decoder sees it, but of a WEBP, where libwebp skips it by itself.
Sizes and the work that a file asks for are read here, from its headers.

Laid down in: PNG 3rd ed. (W3C), ITU-T T.81, TIFF 6.0, GIF89a, RFC 9649.
"""

from __future__ import annotations

import re
import struct
from typing import NamedTuple

MOST_BYTES = 50_000_000  # of a file
MOST_PIXELS = 80_000_000  # of a picture; to decode one takes up to 17 bytes each
MOST_PARTS = 65_536  # chunks, segments, blocks or values of a tag
MOST_SCANS = 64  # of a JPEG, each of which goes over the whole picture; encoders write about ten
MOST_PACKED = 1_000_000  # bytes of a BMP that is run-length coded: Pillow's decoder is Python
FORMATS = ("PNG", "JPEG", "WEBP", "GIF", "BMP", "TIFF")

_JPEG_MARKER = re.compile(rb"\xff[\x02-\xcf\xd8-\xfe]")  # not a restart, nor an escaped byte
_JPEG_SIZES = {*range(0xC0, 0xD0)} - {0xC4, 0xC8, 0xCC}  # its frame headers
_JPEG_METADATA = {*range(0xE1, 0xF0), 0xFE} - {0xEE}  # APP14 tells how colours are coded
_PNG_PIXELS = {b"IHDR", b"PLTE", b"tRNS", b"IDAT", b"IEND"}
_TIFF_PIXELS = {256, 257, 258, 259, 262, 266, 273, 277, 278, 279, 284, 292, 293, 317, 320, 322, 323,
                324, 325, 332, 338, 339, 347, 529, 530, 531, 532}  # fmt: skip
_TIFF_PACKINGS = {1, 2, 3, 4, 5, 7, 8, 32773, 32946}  # none, fax, LZW, JPEG, deflate, PackBits


class Unfit(ValueError):
    """What is wrong with a file of a picture, and what to do, as the end of a sentence."""


class Parts(NamedTuple):
    """A file of one picture, less all that does not make its pixels."""

    format: str  # one of FORMATS
    data: bytes
    turn: int = 1  # EXIF's orientation, 1 to 8
    depth: int = 8  # bits of a sample, of a PNG or of a grey TIFF
    white_is_zero: bool = False  # of a TIFF
    unsigned: bool = False  # whole numbers of a TIFF


def parts(data: bytes) -> Parts:
    """The picture in a file, known by its first bytes. Raises Unfit, or struct.error if it ends."""
    if not data:
        raise Unfit("is empty; send a picture in it")
    if len(data) > MOST_BYTES:
        raise Unfit(f"has more than the {MOST_BYTES:,} bytes that are read; make it smaller")
    if data.startswith(b"\x89PNG\r\n\x1a\n"):
        return _png(data)
    if data.startswith(b"\xff\xd8\xff"):
        return _jpeg(data)
    if data.startswith(b"RIFF") and data[8:12] == b"WEBP":
        return _webp(data)
    if data.startswith((b"GIF87a", b"GIF89a")):
        return _gif(data)
    if data.startswith((b"II*\0", b"MM\0*")):
        return _tiff(data)
    if data.startswith(b"BM"):
        return _bmp(data)
    raise Unfit(f"is no picture of a kind that is read ({', '.join(FORMATS)}); save it as PNG")


def check_size(width: int, height: int) -> None:
    """Raises Unfit for a picture without pixels, or with too many."""
    if width < 1 or height < 1:
        raise Unfit("has no pixels; send another picture")
    if width * height > MOST_PIXELS:
        raise Unfit(
            f"has {width:,} x {height:,} pixels, more than the {MOST_PIXELS:,} that are read; "
            "make it smaller"
        )


def _too_many(what: str, most: int = MOST_PARTS) -> Unfit:
    return Unfit(f"has more than {most:,} {what}, as no picture needs; save it anew as PNG")


def _png(data: bytes) -> Parts:
    kept, exif, at = [data[:8]], b"", 8
    check_size(*struct.unpack_from(">II", data, 16))
    for _ in range(MOST_PARTS):
        if at + 8 > len(data):  # cut off: the decoder says so
            break
        length, kind = struct.unpack_from(">I4s", data, at)
        if kind in _PNG_PIXELS:
            kept.append(data[at : at + 12 + length])
        elif kind == b"eXIf":
            exif = data[at + 8 : at + 8 + length]
        if kind == b"IEND":
            break
        at += 12 + length
    else:
        raise _too_many("chunks")
    return Parts("PNG", b"".join(kept), _orientation(exif), depth=data[24])


def _jpeg(data: bytes) -> Parts:
    kept, exif, at, scans = [data[:2]], b"", 2, 0
    for _ in range(MOST_PARTS):
        found = _JPEG_MARKER.search(data, at)
        if scans:  # what is coded stands between the markers
            kept.append(data[at : found.start() if found else len(data)])
        if found is None:
            break
        code = data[found.end() - 1]
        if code == 0xD9:
            kept.append(b"\xff\xd9")
            break
        if code == 0xD8:
            at = found.end()
            continue
        at = found.end() + struct.unpack_from(">H", data, found.end())[0]
        if code in _JPEG_SIZES:
            check_size(*struct.unpack_from(">HH", data, found.end() + 3)[::-1])
        scans += code == 0xDA
        if scans > MOST_SCANS:
            raise _too_many("scans", MOST_SCANS)
        if code not in _JPEG_METADATA:
            kept.append(data[found.start() : at])
        elif code == 0xE1 and data.startswith(b"Exif\0\0", found.end() + 2):
            exif = exif or data[found.end() + 2 : at]
    else:
        raise _too_many("segments")
    return Parts("JPEG", b"".join(kept), _orientation(exif))


def _webp(data: bytes) -> Parts:
    kind = data[12:16]
    if kind == b"VP8X":  # counted from one
        check_size(*(1 + int.from_bytes(data[at : at + 3], "little") for at in (24, 27)))
    elif kind == b"VP8L" and data[20] == 0x2F:
        (bits,) = struct.unpack_from("<I", data, 21)
        check_size(1 + (bits & 0x3FFF), 1 + (bits >> 14 & 0x3FFF))
    elif kind == b"VP8 " and data[23:26] == b"\x9d\x01\x2a":
        check_size(*(side & 0x3FFF for side in struct.unpack_from("<HH", data, 26)))
    else:
        raise Unfit("is a WEBP that cannot be read; save it anew as PNG")
    at, exif = 12, b""
    for _ in range(MOST_PARTS):
        if at + 8 > len(data):
            break
        kind, length = struct.unpack_from("<4sI", data, at)
        if kind == b"EXIF":
            exif = data[at + 8 : at + 8 + length]
        at += 8 + length + length % 2
    else:
        raise _too_many("chunks")
    return Parts("WEBP", data, _orientation(exif))


def _gif(data: bytes) -> Parts:
    """Its first frame, with the canvas, the palette, and which colour is clear."""
    width, height, flags = struct.unpack_from("<HHB", data, 6)
    start = at = 13 + (3 << (flags & 7) + 1 if flags & 128 else 0)
    control, left = b"", MOST_PARTS
    while at < len(data) and data[at] != 0x2C and left:
        if data[at] != 0x21:  # no extension either: a byte too many
            at, left = at + 1, left - 1
            continue
        label, begin, at = data[at + 1], at + 2, at + 2
        while left and data[at]:  # blocks, each after its length
            at, left = at + 1 + data[at], left - 1
        at, left = at + 1, max(0, left - 1)
        if label == 0xF9 and data[begin] >= 4:  # without its delay and its disposal
            control = b"!\xf9\x04" + bytes((data[begin + 1] & 1, 0, 0, data[begin + 4], 0))
    if not left:
        raise _too_many("blocks")
    x, y, wide, high = struct.unpack_from("<4H", data, at + 1)
    check_size(max(width, x + wide), max(height, y + high))
    return Parts("GIF", data[:start] + control + data[at:])


def _bmp(data: bytes) -> Parts:
    header, width, height, packing = struct.unpack_from("<Iii4xI", data, 14)
    if header >= 40:  # else OS/2's, with sides of 16 bits
        check_size(width, abs(height))  # below zero: from the top down
    if header >= 40 and packing in (1, 2) and len(data) > MOST_PACKED:
        raise Unfit("is a large BMP that is run-length coded, which takes too long; save it as PNG")
    return Parts("BMP", data)


def _tiff(data: bytes) -> Parts:
    """Its first picture, under a new directory of the tags that make pixels."""
    order, tags = _tags(data)

    def number(tag: int, otherwise: int = 0) -> int:
        kind, count, value = tags.get(tag, (4, 1, struct.pack(order + "I", otherwise)))
        if kind not in (3, 4) or count != 1:
            raise Unfit("is a TIFF with a tag that is broken; save it anew as PNG")
        return struct.unpack_from(order + " HI"[kind - 2], value)[0]

    check_size(number(256), number(257))
    if number(322) * number(323) > MOST_PIXELS:
        raise Unfit("is a TIFF with tiles that are too large; save it as PNG")
    if number(259, 1) not in _TIFF_PACKINGS:
        raise Unfit("is a TIFF that is packed in a way that is not read; save it as PNG")
    kept = sorted((tag, *rest) for tag, rest in tags.items() if tag in _TIFF_PIXELS)
    if any(count > MOST_PARTS for _, _, count, _ in kept):
        raise _too_many("values in a tag")
    directory = struct.pack(order + "H", len(kept)) + bytes(4)
    directory = (
        directory[:2]
        + b"".join(struct.pack(order + "HHI4s", *each) for each in kept)
        + directory[2:]
    )
    head = data[:4] + struct.pack(order + "I", len(data) + len(data) % 2)
    whole = head + data[8:] + bytes(len(data) % 2) + directory
    _, formats, format_ = tags.get(339, (3, 1, struct.pack(order + "HH", 1, 0)))
    unsigned = formats == 1 and struct.unpack_from(order + "H", format_)[0] == 1
    return Parts("TIFF", whole, _turn(order, tags), 8, number(262) == 0, unsigned)


Tags = dict[int, tuple[int, int, bytes]]


def _tags(data: bytes) -> tuple[str, Tags]:
    """Byte order of a TIFF; of each tag its type, count, and the bytes of its value or place."""
    order = "<" if data.startswith(b"II") else ">"
    (at,) = struct.unpack_from(order + "I", data, 4)
    (count,) = struct.unpack_from(order + "H", data, at)
    body = data[at + 2 : at + 2 + 12 * count]
    tags: Tags = {}
    for tag, kind, number, value in struct.iter_unpack(
        order + "HHI4s", body[: len(body) // 12 * 12]
    ):
        tags.setdefault(tag, (kind, number, value))
    return order, tags


def _turn(order: str, tags: Tags) -> int:
    kind, count, value = tags.get(274, (3, 1, bytes(4)))
    turn = struct.unpack_from(order + "H", value)[0] if (kind, count) == (3, 1) else 1
    return turn if 1 <= turn <= 8 else 1


def _orientation(exif: bytes) -> int:
    """How EXIF says that the picture is turned, 1 for not at all, or where it is broken."""
    try:
        return _turn(*_tags(exif.removeprefix(b"Exif\0\0")))
    except struct.error:
        return 1


__all__ = ["FORMATS", "MOST_BYTES", "MOST_PIXELS", "Parts", "Unfit", "check_size", "parts"]
