"""The report page, taken apart by an HTML parser and compared with its card."""

from __future__ import annotations

import math
import re
from itertools import pairwise
from pathlib import Path

import pytest
from html_page import Page, plain
from sample_card import (
    HOSTILE,
    answers,
    interval,
    many_recoveries,
    odd_quotes,
    recovery,
    rivals,
    rows,
    sample_card,
    verdict,
)

from flyweight.card import Card
from flyweight.errors import FolderError
from flyweight.make import words
from flyweight.make.report import order_answers, render, run_commands, write_report
from flyweight.make.rivals import order_rows, rivals_sentence
from flyweight.make.show_quote import NAMES

DRAWN = {"x", "y", "d", "points", "transform", "width", "height", "style", "x1", "x2", "y1", "y2"}
LOADING = {"src", "href", "xlink:href", "srcset", "data", "action", "poster", "background"}

WORDS = ("passes", "falls short", "cannot tell")
PAGES = {word: sample_card(word) for word in WORDS}


def likelihood() -> Card:
    card = sample_card(answers=[], slices=[])
    return card.model_copy(
        update={"task": card.task.model_copy(update={"score": "likelihood"})}, deep=True
    )


def odd_cards() -> dict[str, Card]:
    """Cards at the edges of what a run can give."""
    huge = rows()[0].model_copy(update={"bytes": 140 * 10**9, "parameters": 70 * 10**9})
    small = rows()[1].model_copy(
        update={"bytes": 900, "latency_p50": 3e-6, "tokens_per_second": 1e6, "chosen": True}
    )
    one = recovery()[2].model_copy(update={"steps": [938], "shares": [1.02]})
    unread = recovery()[1].model_copy(update={"steps": [], "shares": [], "predicted": None})
    none_chosen = [row.model_copy(update={"chosen": False}) for row in rows()]
    return {
        "no slices": sample_card(slices=[]),
        "likelihood": likelihood(),
        "absolute": sample_card(verdict=verdict(absolute=True, bar=0.9)),
        "tiny and huge": sample_card(rows=[huge, small]),
        "nothing chosen": sample_card("falls short", rows=none_chosen),
        "alone": sample_card(rows=rows()[:1]),
        "no upper limit": sample_card("cannot tell", verdict=verdict("cannot tell", high=math.inf)),
        "opened again": sample_card(verdict=verdict(opening=3, confidence=0.9875)),
        "no losses": sample_card(losses={}),
        "bad losses": sample_card(losses={"a": [], "b": [math.nan, 1.0], "c": [0.5]}),
        "of old": sample_card(rows=rows(), recovery=[], quote=None, kept_layers=[]),
        "a rival wins": sample_card(rows=[*rows(), *rivals(scratch=0.99)]),
        "a rival as good as none": sample_card(rows=[*rows(), *rivals(scratch=0.0, four=0.2)]),
        "one point": sample_card(recovery=[one], kept_layers=[7]),
        "an unread curve": sample_card(recovery=[unread]),
        "forty curves": sample_card(recovery=many_recoveries()),
        "hostile rival": sample_card(
            rows=[*rows(), rivals()[2].model_copy(update={"name": HOSTILE, "note": HOSTILE})]
        ),
        **{name: sample_card(quote=found) for name, found in odd_quotes().items()},
        "no gguf": sample_card(files={}),
        "all the same": sample_card(rows=[rows()[0]] * 3),
        "zero": sample_card(rows=[rows()[0].model_copy(update={"dev": interval(0.0, wide=0.0)})]),
        "hostile names": sample_card(
            name=HOSTILE, device={HOSTILE: HOSTILE}, versions={HOSTILE: HOSTILE},
            losses={HOSTILE: [1.0, 0.5]}, formats=[HOSTILE],
        ),
        "surrogates": sample_card(
            answers=[answers()[0].model_copy(update={"student": "\ud800 none"})]
        ),
    }  # fmt: skip


@pytest.mark.parametrize("card", [*PAGES.values(), *odd_cards().values()])
def test_the_page_stands_by_itself_and_is_whole(card: Card) -> None:
    html = render(card)
    page = Page(html)
    assert not LOADING & {name for _, attrs in page.tags for name in attrs}
    assert not [name for _, attrs in page.tags for name in attrs if name.startswith("on")]
    assert not {"script", "img", "iframe", "object", "link", "base"} & {tag for tag, _ in page.tags}
    assert "url(" not in html
    assert "@import" not in html
    for _, attrs in page.tags:
        assert not re.search(
            r"\b(nan|inf)\b", " ".join(attrs[name] for name in attrs.keys() & DRAWN)
        )
    assert plain(card.verdict.sentence) in page.said


def test_a_policy_in_the_page_forbids_what_it_does_not_use() -> None:
    policies = [a for t, a in Page(render(PAGES["passes"])).tags if "http-equiv" in a]
    assert [policy["content"] for policy in policies] == [
        "default-src 'none'; style-src 'unsafe-inline'"
    ]


@pytest.mark.parametrize("word", WORDS)
def test_the_word_is_shown_in_letters_with_a_sign(word: str) -> None:
    page = Page(render(PAGES[word]))
    assert len(page.having("span", word.replace(" ", "-"))) == 1
    assert f"{word.capitalize()} The 1.4 MB model" in page.said


def test_hostile_text_is_shown_as_text() -> None:
    for card in (PAGES["passes"], odd_cards()["hostile names"]):
        html = render(card)
        assert HOSTILE not in html
        assert HOSTILE in Page(html).said
    said = Page(render(PAGES["passes"])).said
    assert '<img src=x onerror="alert(2)">' in said
    assert "\\u202eright to left\\u202c and a bell \\x07" in said


def test_every_row_is_shown_with_its_figures_teacher_first() -> None:
    card = PAGES["passes"]
    page = Page(render(card))
    assert len(page.having("tr", "measured")) == len(card.rows)
    shown = [list(map(plain, cells)) for cells in page.cells if len(cells) == 8][1:]
    for row, cells in zip(order_rows(card.rows), shown, strict=True):
        assert cells[0].startswith(row.name)
        assert ("chosen" in cells[0]) == row.chosen
        assert float(cells[1].split()[0]) == pytest.approx(row.bytes / 1e6, abs=0.051)
        assert float(cells[2].split()[0]) == pytest.approx(row.bytes / 180_979.2, abs=0.051)
        mean, low, high = re.findall(r"\d+\.\d", cells[3])
        for text, value in ((mean, row.dev.mean), (low, row.dev.low), (high, row.dev.high)):
            assert float(text) == pytest.approx(value * 100, abs=0.051)
    assert shown[0][0].startswith("teacher")


def test_rivals_stand_in_a_group_of_their_own_and_a_tick_says_who_passes() -> None:
    card = PAGES["passes"]
    shown = [list(map(plain, cells)) for cells in Page(render(card)).cells]
    names = [cells[0] for cells in shown if len(cells) in (1, 8)]
    assert names.index("Rivals") < names.index("Cut and distilled")
    between = names[names.index("Rivals") + 1 : names.index("Cut and distilled")]
    assert [re.split(r"\d\.\d M", name)[0] for name in between] == [
        "teacher", "teacher, 8 bits", "teacher, 4 bits", "from scratch, 4 bits",
    ]  # fmt: skip
    assert "the same tokens" in between[-1]
    ticked = [cells[4].endswith("✓") for cells in shown if len(cells) == 8][1:]
    assert ticked == [row.dev_low >= 0.95 for row in order_rows(card.rows)]


def test_who_wins_stands_right_under_the_verdict() -> None:
    for card in (PAGES["passes"], odd_cards()["a rival wins"]):
        said = Page(render(card)).said
        assert said.index(plain(rivals_sentence(card))) > said.index(plain(card.verdict.sentence))
        assert said.index(plain(rivals_sentence(card))) < said.index("Everything that was measured")
    lost = Page(render(odd_cards()["a rival wins"]))
    assert lost.having("p", "lost")
    assert not Page(render(PAGES["passes"])).having("p", "lost")


def test_the_quote_stands_beside_what_came() -> None:
    card = PAGES["passes"]
    page = Page(render(card))
    assert "measured on 4 past jobs on this machine" in page.said
    shown = {cells[0]: list(map(plain, cells)) for cells in page.cells if len(cells) == 5}
    assert card.quote is not None
    for stage in card.quote.stages:
        cells = shown[NAMES.get(stage.name, stage.name)]
        if stage.actual is None:
            assert cells[2:4] == ["did not run", "–"]
        else:
            assert float(cells[3]) == pytest.approx(stage.actual / stage.quoted, abs=0.006)
    assert "2 min 01 s if the smallest size passes at once" in plain(page.said)
    assert shown["Time"][1:4] == ["3 min 10 s", "3 min 32 s", "1.12"]
    assert shown["Time, had the sizes been known"][1:4] == ["3 min 24 s", "3 min 32 s", "1.04"]
    assert shown["Disk"][1:4] == ["212 MB", "198 MB", "0.94"]
    assumed = Page(render(odd_cards()["assumed"])).said
    assert "The rates are assumed" in assumed
    assert "Time by stage" not in page.said
    old = Page(render(odd_cards()["of old"])).said
    assert "Time by stage" in old
    assert "Quote against actual" not in old


def test_every_recovery_is_told_in_words_and_the_losses_stand_in_where_there_is_none() -> None:
    for card in (PAGES["passes"], odd_cards()["forty curves"], odd_cards()["an unread curve"]):
        said = Page(render(card)).said
        assert all(plain(words.fate(each)) in said for each in card.recovery)
        assert "How the students learned" not in said
    old = Page(render(odd_cards()["of old"])).said
    assert "How the students learned" in old
    assert "How the cut shapes recovered" not in old


def test_every_slice_is_shown_and_said_not_to_change_the_word() -> None:
    page = Page(render(PAGES["passes"]))
    for part in PAGES["passes"].slices:
        assert any(cells[0] == part.name for cells in page.cells)
    assert "A slice never changes the verdict" in page.said
    marked = [cells[0] for cells in page.cells if cells and "▼" in cells[-1]]
    assert marked == ["rare asset"]
    assert "Slice by slice" not in Page(render(sample_card(slices=[]))).said


def test_ten_answers_are_shown_those_that_differ_first() -> None:
    card = PAGES["passes"]
    page = Page(render(card))
    assert len(page.having("article", "answer")) == 10
    ordered = order_answers(card.answers)
    differ = [answer.student != answer.teacher for answer in ordered]
    assert differ == sorted(differ, reverse=True)
    lost = [answer.student_score < answer.teacher_score for answer in ordered]
    assert lost == sorted(lost, reverse=True)
    html = render(card)
    assert "<mark>medium</mark>" in html
    assert "says nothing" in page.said
    assert "characters left out" in page.said


def test_how_to_run_it_names_files_that_are_there() -> None:
    commands = list(run_commands(PAGES["passes"]).values())
    assert commands[0] == "flyweight chat demo"
    compile(commands[1], "snippet", "exec")
    assert commands[2] == "llama-server --model demo/model-q4_0.gguf"
    said = Page(render(PAGES["passes"])).said
    assert all(plain(command) in said for command in commands)
    quoted = run_commands(sample_card(name="my model; rm -r x"))
    assert next(iter(quoted.values())) == "flyweight chat 'my model; rm -r x'"


def test_how_often_test_was_opened_is_said() -> None:
    assert "opened once" in Page(render(PAGES["passes"])).said
    said = Page(render(odd_cards()["opened again"])).said
    assert "opened 3 times, this one included" in said
    assert "one-sided at 98.75 %" in said


def test_headings_pictures_and_tables_can_be_read_aloud() -> None:
    page = Page(render(PAGES["passes"]))
    levels = [int(tag[1]) for tag, _ in page.tags if re.fullmatch(r"h[1-6]", tag)]
    assert levels[0] == 1
    assert levels.count(1) == 1
    assert all(after - before <= 1 for before, after in pairwise(levels))
    for tag, attrs in page.tags:
        if tag == "svg":
            assert attrs.get("aria-hidden") == "true" or attrs.get("aria-label")
        if tag == "th":
            assert attrs["scope"] in ("row", "col", "rowgroup")
    assert dict(page.tags)["html"] == {"lang": "en"}


def test_colours_have_the_contrast_that_wcag_asks_for() -> None:
    style = render(PAGES["passes"]).split("<style>")[1]
    schemes = re.findall(r":root \{(.*?)\}", style, re.DOTALL)
    assert len(schemes) == 2  # light and dark
    for scheme in schemes:
        colour = dict(re.findall(r"--([\w-]+): (#\w{6})", scheme))
        pairs = [
            (ink, ground) for ink in ("ink", "soft", "accent") for ground in ("paper", "raised")
        ]
        pairs += [(name, f"{name}-soft") for name in ("good", "bad", "open", "accent")]
        pairs += [("ink", "mark"), ("soft", "accent-soft"), ("good", "paper"), ("bad", "paper")]
        for ink, ground in pairs:
            assert contrast(colour[ink], colour[ground]) >= 4.5, (ink, ground)


def contrast(a: str, b: str) -> float:
    """WCAG 2.2's contrast ratio of two sRGB colours."""

    def luminance(colour: str) -> float:
        channels = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
        linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in channels]
        return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]

    low, high = sorted((luminance(a), luminance(b)))
    return (high + 0.05) / (low + 0.05)


def test_it_is_written_as_a_file_or_not_at_all(tmp_path: Path) -> None:
    place = tmp_path / "report.html"
    write_report(odd_cards()["surrogates"], place)
    assert "? none" in Page(place.read_text(encoding="utf-8")).said
    with pytest.raises(FolderError, match=r"report\.html"):
        write_report(PAGES["passes"], place / "report.html")
