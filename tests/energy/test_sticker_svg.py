"""The sticker's wording and its picture; a browser measures whether all stays in its place."""

from __future__ import annotations

import math
import re
import struct
import zlib
from collections import Counter
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from flyweight.energy.sticker_png import sticker_png
from flyweight.energy.sticker_svg import HEIGHT, WIDTH, sticker_svg
from flyweight.energy.sticker_text import clean, line, shorten, width, wrap
from flyweight.energy.sticker_view import view
from flyweight.energy.sticker_words import (
    ANSWERS,
    BYTES,
    GRAMS,
    JOULES,
    TIMES,
    WATT_HOURS,
    amount,
    digits,
    percent,
    said,
    span,
)
from flyweight.figure import Figure, Kind, exactly
from flyweight.sticker_card import Boundaries, Counterfactual, Making, MeteredDevice, Sticker

INF = math.inf
SVG = "{http://www.w3.org/2000/svg}"
HOSTILE = (
    "<script>alert('x')</script>&amp;\"]]>\u202e\u0000\n\t\ud800 مهمة 🤖👩\u200d💻 日本語 e"
    + "\u0301" * 40
)
CHROMIUM = "/usr/bin/chromium"


def figure(value: float | None, low: float, high: float, kind: Kind = "modelled") -> Figure:
    return Figure(value=value, low=low, high=high, kind=kind, source="a source")


def sticker(**changes: Any) -> Sticker:
    """What a tiny model on a shared server is like."""
    told: dict[str, Any] = {
        "model": "orders-1m",
        "bits": 8,
        "bytes": 1_230_000,
        "task": "orders",
        "made": "2026-11-28T09:12:00+00:00",
        "constants": "2026-11-28",
        "device": MeteredDevice(
            processor="AMD EPYC 7B13",
            cores=2,
            threads=2,
            computer="server",
            computer_source="a virtual machine",
        ),
        "engine": "llama.cpp",
        "country": None,
        "answers": 200,
        "seconds": 0.034,
        "tokens_read": 118,
        "tokens_written": 34,
        "joules": Boundaries(
            chip=figure(0.15, 0.07, 0.31),
            computer=figure(0.26, 0.12, 0.95, "assumed"),
            facility=figure(0.4, 0.13, 1.9, "assumed"),
        ),
        "reading": figure(0.05, 0.023, 0.1),
        "writing": figure(0.1, 0.047, 0.21),
        "score": 0.978,
        "score_name": "exact",
        "joules_a_correct_answer": figure(0.41, 0.13, 1.9, "assumed"),
        "answers_a_phone_charge": figure(170_000, 23_000, 610_000, "assumed"),
        "answers_a_bottle": figure(1_250_000, 190_000, 12_500_000, "assumed"),
        "carbon": figure(None, 2e-6, 4.2e-4, "assumed"),
        "embodied_carbon": figure(8e-6, 3e-6, 1.6e-5, "assumed"),
        "water": figure(4e-7, 4e-8, 3e-6, "assumed"),
        "counterfactual": Counterfactual(
            name="a hosted model of 500 billion parameters",
            joules=figure(1080, 864, 14_400, "assumed"),
            ratio=figure(2700, 450, 110_000, "assumed"),
            assumptions=["the same 118 tokens read and 34 written", "all parameters work"],
        ),
        "making": Making(
            kwh=figure(0.39, 0.2, 0.9),
            carbon=figure(None, 9, 700, "assumed"),
            answers=1_000_000,
            joules_an_answer=figure(1.4, 0.72, 3.2),
        ),
        "notes": ["no counter of energy could be read here"],
    }
    return Sticker(**{**told, **changes})


def same(
    value: float, low: float = 0.25, high: float = 4, kind: Kind = "assumed"
) -> dict[str, Any]:
    """All that a sticker counts, at one number."""
    each = figure(value, value * low, value * high, kind)
    return {
        "joules": Boundaries(chip=each, computer=each, facility=each),
        "reading": each,
        "writing": each,
        "joules_a_correct_answer": each,
        "answers_a_phone_charge": each,
        "answers_a_bottle": each,
        "carbon": each,
        "embodied_carbon": each,
        "water": each,
        "counterfactual": Counterfactual(name="a model", joules=each, ratio=each, assumptions=[]),
        "making": Making(kwh=each, carbon=each, answers=10**12, joules_an_answer=each),
    }


def only_ranges() -> Sticker:
    each = figure(None, 0.0123, 1.97)
    return sticker(
        joules=Boundaries(chip=each, computer=each, facility=each),
        reading=each,
        writing=each,
        answers_a_phone_charge=figure(None, 123_000, 45_600_000),
        answers_a_bottle=figure(None, 1.2, INF),
        score=None,
        score_name=None,
        task=None,
        joules_a_correct_answer=None,
        making=None,
    )


ODD = {
    "usual": sticker(),
    "only ranges": only_ranges(),
    "hostile": sticker(
        model=HOSTILE,
        task=HOSTILE,
        score_name=HOSTILE,
        engine=HOSTILE,
        country=HOSTILE,
        constants=HOSTILE,
        notes=[HOSTILE] * 20,
        device=sticker().device.model_copy(update={"processor": HOSTILE, "computer": HOSTILE}),
        counterfactual=sticker().counterfactual.model_copy(
            update={"name": HOSTILE, "assumptions": [HOSTILE] * 20}
        ),
    ),
    "long": sticker(
        model="M" * 200,
        task="W" * 200,
        notes=["w" * 500],
        device=sticker().device.model_copy(update={"processor": "@" * 300}),
    ),
    "nameless": sticker(model="", task="\u202e\n", notes=[], engine=""),
    "nothing": sticker(**same(0)),
    "measured": sticker(**same(457, 0.9, 1.1, "measured"), country="FRA"),
    "a billion": sticker(**same(1.04e9)),
    **{f"1e{power}": sticker(**same(9.96 * 10.0**power)) for power in (-9, -7, -3, 0, 2, 5, 6)},
    "endless": sticker(
        **{
            **same(3e-5, 0, 1e4),
            "answers_a_phone_charge": figure(INF, 1e6, INF),
            "answers_a_bottle": figure(None, INF, INF),
        }
    ),
}
EACH = pytest.mark.parametrize("name", ODD)


def drawn(tree: ElementTree.Element) -> list[str]:
    return ["".join(each.itertext()) for each in tree.iter(f"{SVG}text")]


def a_word(text: str) -> list[str]:
    return re.findall(r"[^\s,;:.()]+(?:[.,:;][^\s,;:.()]+)*", text.casefold())


# ---- the words


@given(st.floats(1e-9, 1e14))
def test_two_digits_keep_within_five_percent(value: float) -> None:
    assert float(digits(value).replace(",", "")) == pytest.approx(value, rel=0.05)


@given(st.floats(1e-8, 1e12))
def test_a_unit_keeps_the_amount(value: float) -> None:
    number, unit = JOULES.written(value)
    factor = {"µJ": 1e-6, "mJ": 1e-3, "J": 1, "kJ": 1e3}[unit]
    assert float(number.replace(",", "")) * factor == pytest.approx(value, rel=0.05)
    if 1e-6 <= value <= 9e5:
        assert 0.1 <= float(number.replace(",", "")) < 1000


@settings(max_examples=300)
@given(st.floats(1e-6, 1e6), st.floats(1, 1e5), st.floats(1e-6, 1e6))
def test_a_range_can_be_read_back(low: float, wider: float, beside: float) -> None:
    read = {"µJ": 1e-6, "mJ": 1e-3, "J": 1.0, "kJ": 1e3}
    parts = span(low, low * wider, JOULES.near(beside)).split(" to ")
    unit = read[parts[-1].split()[1]]
    ends = [
        float(number.replace(",", "")) * (read[own[0]] if own else unit)
        for number, *own in (part.split() for part in parts)
    ]
    assert ends[0] == pytest.approx(low, rel=0.05)
    assert ends[-1] == pytest.approx(low * wider, rel=0.05)


def test_amounts_as_people_read_them() -> None:
    assert [amount(value, JOULES) for value in (0.4, 1.94, 0.02, 3.3e-5, 999.6, 45_100, 0)] == [
        "0.4 J", "1.9 J", "20 mJ", "33 µJ", "1 kJ", "45 kJ", "0 J",
    ]  # fmt: skip
    assert [amount(value, ANSWERS) for value in (380, 1, 0.21, 74_123, 1.2e6, 3.4e13)] == [
        "380 answers", "1 answer", "0.21 answers", "74,000 answers", "1.2 million answers",
        "34 trillion answers",
    ]  # fmt: skip
    assert amount(1_960_000, BYTES) == "1.96 MB"
    assert amount(INF, ANSWERS) == "no limit"
    assert amount(390, WATT_HOURS.near(1000)) == "0.39 kWh"


def test_ranges_as_people_read_them() -> None:
    assert span(0.4, 1.9, JOULES) == "0.4 to 1.9 J"
    assert span(0.04, 1.9, JOULES) == "0.04 to 1.9 J"
    assert span(0.004, 1.9, JOULES) == "4 mJ to 1.9 J"
    assert span(0, 1.9, JOULES) == "0 to 1.9 J"
    assert span(1, 1900, JOULES.near(1)) == "1 J to 1.9 kJ"
    assert span(1.91, 1.92, JOULES) == "1.9 J"
    assert span(900, 4000, TIMES) == "900 to 4,000 times"
    assert span(24_000, 1.2e6, ANSWERS) == "24,000 to 1.2 million answers"
    assert span(1.2e6, 1.9e7, ANSWERS) == "1.2 to 19 million answers"
    assert span(24_000, INF, ANSWERS) == "24,000 answers or more"
    assert span(INF, INF, ANSWERS) == "no limit"
    assert span(2e-6, 4.2e-4, GRAMS) == "2 to 420 µg"


def test_a_figure_without_a_value_is_its_range() -> None:
    assert said(figure(None, 0.4, 1.9), JOULES).text == "0.4 to 1.9 J"
    assert said(figure(None, 0.4, 1.9), JOULES).span == ""
    assert str(said(figure(0.9, 0.4, 1.9), JOULES)) == "0.9 J (0.4 to 1.9 J, modelled)"
    assert str(said(exactly(0.9), JOULES)) == "0.9 J (measured)"
    assert str(said(figure(380, 90, 4000), ANSWERS)) == "380 answers (90 to 4,000, modelled)"


def test_neighbours_share_a_unit() -> None:
    near = JOULES.near(0.4)
    assert [amount(value, near) for value in (0.05, 0.002, 900, 3000)] == [
        "0.05 J", "2 mJ", "900 J", "3 kJ",
    ]  # fmt: skip


def test_what_is_not_the_whole_is_not_a_hundred_percent() -> None:
    assert [percent(share) for share in (0.978, 0.99999, 1.0, 0.9, 0)] == [
        "97.8 %", "99.9 %", "100 %", "90 %", "0 %",
    ]  # fmt: skip


# ---- text in its place


def test_text_is_cleaned_to_one_line_that_xml_can_hold() -> None:
    assert clean("a\n\tb\x00c  d") == "a b c d"
    assert clean("\u202eevil\u202c\u200f") == "evil"
    assert clean("\ud800\uffff") == "\ufffd\ufffd"
    assert clean("e" + "\u0301" * 50) == "é\u0301\u0301"
    assert clean("👩\u200d💻") == "👩\u200d💻"


@given(st.text(max_size=80))
def test_any_text_can_be_drawn(text: str) -> None:
    found = line(text, 10, 10, 100)
    ElementTree.fromstring(f"<svg>{found}</svg>".encode())
    assert len(wrap([text, text], 100, 9, 3)) <= 3


@given(st.text(max_size=80), st.floats(20, 400), st.booleans())
def test_what_is_shortened_fits(text: str, room: float, bold: bool) -> None:
    text = clean(text)
    short = shorten(text, room, 11, bold)
    assert width(short, 11, bold) <= room + 1e-6
    assert short == text or (short.endswith("…") and text.startswith(short[:-1]))


def test_a_sign_is_not_cut_in_two() -> None:
    family = "👩\u200d👩\u200d👧"
    cut = {shorten(f"a{family} b", room, 10) for room in range(15, 80)}
    assert cut <= {"…", "a…", f"a{family}…", f"a{family} b"}


def test_widths_are_those_of_the_font() -> None:
    """The tables against the font's own (`hmtx`), read with as little as can be."""
    for weight, bold in (("Regular", False), ("Bold", True)):
        advance = advances(fonts() / f"Arimo-{weight}.ttf")
        for letter in map(chr, range(0x20, 0x7F)):
            assert width(letter, 1, bold) == pytest.approx(advance[letter], abs=1e-3), letter


def fonts() -> Path:
    import flyweight.energy

    return Path(flyweight.energy.__file__ or "").parent / "fonts"


def advances(file: Path) -> dict[str, float]:
    """How far ASCII letters advance, in em, in a TrueType font with a map of format 4."""
    data = file.read_bytes()
    [count] = struct.unpack_from(">H", data, 4)
    tables = {
        data[at : at + 4].decode(): struct.unpack_from(">I", data, at + 8)[0]
        for at in range(12, 12 + 16 * count, 16)
    }
    [em] = struct.unpack_from(">H", data, tables["head"] + 18)
    [long] = struct.unpack_from(">H", data, tables["hhea"] + 34)
    [maps] = struct.unpack_from(">H", data, tables["cmap"] + 2)
    offsets = [
        struct.unpack_from(">I", data, tables["cmap"] + 8 + 8 * i)[0] + tables["cmap"]
        for i in range(maps)
    ]
    at = next(each for each in offsets if struct.unpack_from(">H", data, each)[0] == 4)
    segments = struct.unpack_from(">H", data, at + 6)[0] // 2
    found = {}
    for letter in range(0x20, 0x7F):
        for i in range(segments):
            end = struct.unpack_from(">H", data, at + 14 + 2 * i)[0]
            start = struct.unpack_from(">H", data, at + 16 + 2 * (segments + i))[0]
            if start <= letter <= end:
                delta = struct.unpack_from(">h", data, at + 16 + 2 * (2 * segments + i))[0]
                place = at + 16 + 2 * (3 * segments + i)
                [offset] = struct.unpack_from(">H", data, place)
                glyph = (
                    struct.unpack_from(">H", data, place + offset + 2 * (letter - start))[0]
                    if offset
                    else letter
                )
                glyph = (glyph + delta) % 65536
                place = tables["hmtx"] + 4 * min(glyph, long - 1)
                found[chr(letter)] = struct.unpack_from(">H", data, place)[0] / em
                break
    return found


# ---- the picture


def test_it_shows_all_that_the_sticker_knows() -> None:
    told = " ".join(drawn(ElementTree.fromstring(sticker_svg(sticker()))))
    for words in (
        "orders-1m", "1.23 MB in 8 bits", "orders", "97.8 % exact", "0.4", "J", "per answer",
        "0.13 to 1.9 J", "MODELLED", "At the chip", "0.15 J", "Whole computer", "0.26 J",
        "With the building", "Reading 118 tokens", "0.05 J", "Writing 34 tokens", "0.1 J",
        "Per correct answer", "0.41 J", "170,000 answers", "23,000 to 610,000",
        "1.2 million answers", "190,000 to 12 million", "CO₂e per answer", "2 to 420 µg",
        "no country told: a range", "A hosted model of 500 billion parameters takes",
        "450 to 110,000 times as much", "The same 118 tokens read and 34 written.", "0.39 kWh",
        "9 to 700 g of CO₂e, assumed", "1.4 J more an answer", "over 1 million answers",
        "AMD EPYC 7B13", "server, 2 cores, llama.cpp, 200 answers of 34 ms",
        "Constants of 2026-11-28.", "No counter of energy could be read here.",
    ):  # fmt: skip
        assert words in told
    assert "What making the model took is not known." not in told


@EACH
def test_it_is_xml_that_loads_and_runs_nothing(name: str) -> None:
    text = sticker_svg(ODD[name])
    tree = ElementTree.fromstring(text.encode())
    assert tree.get("role") == "img"
    assert {each.tag for each in tree.iter()} == {
        f"{SVG}{tag}" for tag in ("svg", "title", "desc", "rect", "path", "text")
    }
    attributes = {key for each in tree.iter() for key in each.attrib}
    assert not {key for key in attributes if "href" in key or key.startswith("on")}
    assert "url(" not in text.replace(HOSTILE, "")
    assert "nan" not in re.sub(r">[^<]*<", "><", text)


@EACH
def test_the_description_says_all_that_is_drawn(name: str) -> None:
    tree = ElementTree.fromstring(sticker_svg(ODD[name]).encode())
    title, description = tree[0], tree[1]
    assert tree.get("aria-labelledby") == f"{title.get('id')} {description.get('id')}"
    heard = Counter(a_word(description.text or ""))
    for text in drawn(tree):
        words = a_word(text)
        if text.endswith("…"):  # the last word may be a part of one
            words = words[:-1]
        assert not [word for word in words if word not in heard], text


def test_stickers_on_one_page_keep_their_ids_apart() -> None:
    ids = [
        set(re.findall(r' id="([^"]+)"', sticker_svg(sticker(model=name)))) for name in ("a", "b")
    ]
    assert len(ids[0]) == 2
    assert not ids[0] & ids[1]


@pytest.mark.parametrize("kind", ["measured", "modelled", "assumed"])
def test_the_word_is_big_and_drawn_in_its_own_way(kind: Kind) -> None:
    text = sticker_svg(sticker(**same(1, kind=kind)))
    [word] = [
        each
        for each in ElementTree.fromstring(text).iter(f"{SVG}text")
        if each.text == kind.upper()
    ]
    assert float(word.get("font-size", "0")) >= 18
    assert (word.get("fill") == "#ffffff") == (kind == "measured")
    assert ("stroke-dasharray" in text) == (kind == "assumed")


def test_where_no_value_is_likelier_no_bar_is_drawn() -> None:
    def rectangles(found: Sticker) -> int:
        return sticker_svg(found).count("<rect")

    assert rectangles(sticker()) - rectangles(only_ranges()) == 3


def test_what_is_drawn_in_colour_differs_in_grey() -> None:
    """Neighbours differ in brightness, and text stands out from what is behind it."""
    fills = set(re.findall(r'<(?:rect|path)[^>]* fill="(#\w{6})"', sticker_svg(sticker())))
    greys = [brightness(found) for found in fills]
    assert all(b - a > 0.02 for a, b in pairwise(sorted(greys)))
    for ink, paper in (("#444444", "#e7eeed"), ("#ffffff", "#0b4f4a"), ("#111111", "#4d948c")):
        dark, light = sorted((brightness(ink), brightness(paper)))
        assert (light + 0.05) / (dark + 0.05) > 4.5


def brightness(colour: str) -> float:
    parts = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in parts]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def test_view_and_picture_come_of_any_kind_of_numbers() -> None:
    for found in ODD.values():
        assert view(found).description


# ---- as a browser draws it


@pytest.fixture(scope="module")
def page() -> Iterator[Any]:
    sync_api = pytest.importorskip("playwright.sync_api", reason="needs `pip install playwright`")
    if not Path(CHROMIUM).exists():
        pytest.skip("needs Debian's chromium: apt-get install chromium")
    with sync_api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=CHROMIUM, args=["--no-sandbox", "--disable-gpu"]
        )
        yield browser.new_page()
        browser.close()


BOXES = """
([family, known]) => {
  const svg = document.querySelector("svg");
  if (family) svg.setAttribute("font-family", family);
  return [...svg.querySelectorAll("text")].map((each) => {
    const box = each.getBBox();
    return [each.textContent, box.x, box.y, box.width, box.height];
  }).filter((each) => !known || !/[^\\u0020-\\u024f…₂]/.test(each[0]));
}
"""


@EACH
@pytest.mark.parametrize("family", ["", "DejaVu Sans"])
def test_every_text_stays_inside_and_apart(page: Any, name: str, family: str) -> None:
    """In a font as wide as ours, and in one that is a sixth wider."""
    page.set_content(sticker_svg(ODD[name]))
    found = page.evaluate(BOXES, [family, bool(family)])
    for text, x, y, wide, high in found:
        assert x >= 12, text
        assert x + wide <= WIDTH - 12, text
        assert y >= 5, text
        assert y + high <= HEIGHT - 4, text
    lines = Counter()
    for one in found:
        for other in found:
            if one is not other and overlap(one, other):
                lines[one[0], other[0]] += 1
    assert not lines


def overlap(one: list[Any], other: list[Any]) -> bool:
    """Whether two texts of about one line stand over each other, by more than a hair."""
    (_, x, y, wide, high), (_, x2, y2, wide2, high2) = one, other
    same_line = abs((y + high / 2) - (y2 + high2 / 2)) < 0.3 * min(high, high2)
    return same_line and min(x + wide, x2 + wide2) - max(x, x2) > 1


# ---- as a PNG


def pixels(png: bytes) -> tuple[int, int, bytes]:
    """Width, height and the unpacked rows, still filtered."""
    assert png.startswith(b"\x89PNG\r\n\x1a\n")
    at, rows, wide, high = 8, b"", 0, 0
    while at < len(png):
        length, kind = struct.unpack_from(">I4s", png, at)
        body = png[at + 8 : at + 8 + length]
        assert zlib.crc32(kind + body) == struct.unpack_from(">I", png, at + 8 + length)[0]
        if kind == b"IHDR":
            wide, high = struct.unpack_from(">II", body)
        if kind == b"IDAT":
            rows += body
        at += 12 + length
    return wide, high, zlib.decompress(rows)


def test_the_png_is_the_drawing() -> None:
    wide, high, rows = pixels(sticker_png(sticker()))
    assert (wide, high) == (2 * WIDTH, 2 * HEIGHT)
    assert len(set(rows)) > 50
    assert sticker_png(sticker()) == sticker_png(sticker())
    assert pixels(sticker_png(sticker(), 1))[:2] == (WIDTH, HEIGHT)


def test_the_png_has_its_text_on_a_machine_without_fonts() -> None:
    """The font comes along: the headline alone changes thousands of pixels."""
    one, other = (pixels(sticker_png(sticker(**same(value))))[2] for value in (111, 888))
    assert sum(a != b for a, b in zip(one, other, strict=True)) > 1000


@EACH
def test_any_sticker_becomes_a_png(name: str) -> None:
    assert pixels(sticker_png(ODD[name], 1))[:2] == (WIDTH, HEIGHT)
