"""`report.html`: one page that says what was made, how good it is, how sure that is, and from what.

The page stands by itself: no script, nothing from outside. Whatever a model or a user wrote is
escaped, cut to a readable length, and shown with its control characters made visible.
"""

from __future__ import annotations

import json
import re
import shlex
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from jinja2 import Environment
from markupsafe import Markup, escape

from flyweight.card import Answer, Card, QuoteCard, Row
from flyweight.energy.sticker_svg import sticker_svg
from flyweight.folder import EYES_NAMES, GGUF_NAMES, ONNX_NAMES, WEIGHTS, disk_errors
from flyweight.make import words
from flyweight.make.axis import Axis
from flyweight.make.curve_plots import losses, order_recoveries, recovery_plot
from flyweight.make.differences import Marked, differences
from flyweight.make.energy_words import grams, quote_energy, watt_hours
from flyweight.make.frontier import frontier
from flyweight.make.rivals import order_rows, passes, rivals_sentences
from flyweight.make.show_quote import NAMES
from flyweight.make.stacks import ranges, stacks
from flyweight.templates import environment

SHOWN = 10  # answers
WIDE, NARROW = 976, 350  # pixels that a picture is laid out for: a desktop, a phone
LONGEST = {"prompt": (420, 120), "answer": (700, 200)}  # characters shown of its head and tail
# Control characters, also those that turn the reading direction, are shown as escapes.
_INVISIBLE = [*range(32), *range(127, 160), 0x200B, 0x200E, 0x200F, 0x2028, 0x2029, 0xFEFF]
_INVISIBLE += [*range(0x202A, 0x202F), *range(0x2066, 0x206A)]
_ESCAPES = {
    code: f"\\x{code:02x}" if code < 256 else f"\\u{code:04x}"
    for code in _INVISIBLE
    if chr(code) not in "\t\n"
}
_OPTION = re.compile(r"(?<!\S)--[a-z-]+")
_UNIT = re.compile(r"(?<=\d) (?=(?:%|[kMGTP]?B|bytes|[kMG]|µs|ms|s|min|h|bits/byte)(?![\w/]))")


@dataclass(frozen=True)
class Shown:
    """An answer as the page shows it; the stretches say what the other one lacks."""

    prompt: str
    wanted: str | None  # None where one of the two is it
    teacher: Marked
    student: Marked
    teacher_score: float
    student_score: float
    differs: bool


@dataclass(frozen=True)
class Strip:
    """The verdict's interval and the bar on one line, as percentages of its width."""

    low: float
    high: float
    estimate: float
    bar: float
    open_end: bool  # there is no upper limit


def write_report(card: Card, destination: Path) -> None:
    """Write the report of a card as one self-contained HTML file. Raises FolderError, NoSpace."""
    with disk_errors(destination):
        destination.write_bytes(render(card).encode("utf-8", errors="replace"))


def render(card: Card) -> str:
    """The report of a card as HTML."""
    return _environment().get_template("report.html.j2").render(**_view(card)) + "\n"


def order_answers(answers: list[Answer]) -> list[Answer]:
    """Those that differ first: what the student lost, what it won, other wordings."""

    def rank(answer: Answer) -> int:
        if answer.student.strip() == answer.teacher.strip():
            return 3
        gain = answer.student_score - answer.teacher_score
        return 0 if gain < 0 else 1 if gain > 0 else 2

    return sorted(answers, key=rank)


def judged_file(card: Card) -> str | None:
    """The file that was judged, None where the folder has none."""
    names = GGUF_NAMES
    if card.sees:
        names = EYES_NAMES
    elif card.classifies:
        names = ONNX_NAMES | {16: WEIGHTS}
    name = names.get(card.bits)
    return name if name in card.files else None


def run_commands(card: Card) -> dict[str, str]:
    """How to run the model next, from beside its folder: by title, what to type."""
    if card.sees:
        return _seeing(card)
    return _classifying(card) if card.classifies else _writing(card)


def _seeing(card: Card) -> dict[str, str]:
    folder = shlex.quote(card.name)
    command = f'flyweight chat {folder} "your question" --image picture.png'
    return {"In a terminal": command}


def _classifying(card: Card) -> dict[str, str]:
    folder = json.dumps(card.name, ensure_ascii=False)
    commands = {}
    name = judged_file(card)
    if name and name in ONNX_NAMES.values():
        commands["In Python, with ONNX Runtime"] = f"""\
import onnxruntime
from transformers import AutoConfig, AutoTokenizer

folder = {folder}
tokenizer = AutoTokenizer.from_pretrained(folder)
labels = AutoConfig.from_pretrained(folder).id2label
session = onnxruntime.InferenceSession(folder + "/{name}")
given = tokenizer("your text", return_tensors="np")
inputs = {{name: given[name] for name in ("input_ids", "attention_mask")}}
[logits] = session.run(["logits"], inputs)
print(labels[int(logits[0].argmax())])"""
    commands["In Python, with plain transformers"] = f"""\
from transformers import pipeline

print(pipeline("text-classification", model={folder})("your text"))"""
    return commands


def _writing(card: Card) -> dict[str, str]:
    folder = card.name
    commands = {"In a terminal": f"flyweight chat {shlex.quote(folder)}"}
    commands["In Python, with plain transformers"] = f"""\
from transformers import AutoModelForCausalLM, AutoTokenizer

folder = {json.dumps(folder, ensure_ascii=False)}
tokenizer = AutoTokenizer.from_pretrained(folder)
model = AutoModelForCausalLM.from_pretrained(folder)
messages = [{{"role": "user", "content": "your prompt"}}]
inputs = tokenizer.apply_chat_template(
    messages, add_generation_prompt=True, return_dict=True, return_tensors="pt"
)
said = model.generate(**inputs, max_new_tokens=200)[0, inputs["input_ids"].shape[1] :]
print(tokenizer.decode(said, skip_special_tokens=True))"""
    name = judged_file(card)
    if name:
        path = shlex.quote(f"{folder}/{name}")
        commands["With any llama.cpp program"] = f"llama-server --model {path}"
    return commands


def _view(card: Card) -> dict[str, Any]:
    rows = order_rows(card.rows)
    answers = order_answers(card.answers)[:SHOWN]
    recovery = order_recoveries(card)
    return {
        "card": card,
        "advice": words.advice(card.verdict),
        "rivals": rivals_sentences(card),
        "rows": rows,
        "groups": _groups(rows),
        "teacher": next((row for row in rows if row.role == "teacher"), None),
        "chosen": next((row for row in rows if row.chosen), None),
        "scorer": card.task.score,
        "likelihood": card.task.score == words.LIKELIHOOD,
        "strip": _strip(card),
        "kept": ranges([layer + 1 for layer in card.kept_layers]),
        "recovery": list(enumerate(recovery, 1)),
        "unfinished": any(each.fate != "finished" for each in recovery),
        "answers": [_shown(answer) for answer in answers],
        "commands": run_commands(card),
        "file": judged_file(card),
        "engines": words.engines(rows),
        "forecasts": words.forecasts(card),
        "unit": "texts" if card.classifies else "tokens",
        "energy": card.quote and quote_energy(card.quote),
        "sticker": card.sticker and Markup(sticker_svg(card.sticker)),
        **_pictures(card, rows),
        **_quote(card),
    }


def _pictures(card: Card, rows: list[Row]) -> dict[str, Any]:
    """Every picture twice, laid out for a desktop and for a phone."""
    half = WIDE // 2 - 8
    return {
        "frontiers": [
            ("wide", frontier(card, rows, half, 400, "bytes")),
            ("wide", frontier(card, rows, half, 400, "latency")),
            ("narrow", frontier(card, rows, NARROW, 350, "bytes")),
            ("narrow", frontier(card, rows, NARROW, 350, "latency")),
        ],
        "recoveries": [
            ("wide", recovery_plot(card, WIDE, 400)),
            ("narrow", recovery_plot(card, NARROW, 360)),
        ],
        "losses": [("wide", losses(card, WIDE, 250)), ("narrow", losses(card, NARROW, 220))],
        "stacks": [("wide", stacks(card, 704)), ("narrow", stacks(card, NARROW))],
    }


def _groups(rows: list[Row]) -> list[tuple[str, list[Row]]]:
    """The rows of the table under their headings; those without rows are left out."""
    rivals = [row for row in rows if row.role != "candidate"]
    students = [row for row in rows if row.role == "candidate"]
    parts = [("Rivals", rivals), ("Cut and distilled", students)]
    return [(title, members) for title, members in parts if members]


def _quote(card: Card) -> dict[str, Any]:
    """The totals of the quote: what it is, quoted, actual, and how to say it."""
    quote = card.quote
    if quote is None:
        return {}
    stages = [value for each in quote.stages for value in (each.quoted, each.actual or 0.0)]
    went = quote.seconds_as_it_went
    trained = [("Time, had the sizes been known", went, quote.actual_seconds, words.seconds)]
    return {
        "longest": max(stages, default=0.0) or 1.0,
        "totals": [
            ("Time", quote.seconds, quote.actual_seconds, words.seconds),
            *(trained if went is not None else []),
            ("Tokens", quote.tokens, quote.actual_tokens, words.quantity),
            ("Memory", quote.memory, quote.actual_memory, words.size),
            ("Disk", quote.disk, quote.actual_disk, words.size),
            *_energy(quote),
        ],
    }


def _energy(quote: QuoteCard) -> list[tuple[str, float, float | None, Any]]:
    """Rows of energy and carbon, where one number of them is known."""
    rows = [
        ("Energy", quote.energy, quote.actual_energy, watt_hours),
        ("CO2e", quote.carbon, quote.actual_carbon, grams),
    ]
    return [
        (name, before.value, after and after.value, say)
        for name, before, after, say in rows
        if before is not None and before.value is not None
    ]


def _ratio(actual: float, quoted: float) -> str:
    """How many times the quote, "1.1"; a dash where nothing was quoted."""
    return f"{actual / quoted:.2f}" if quoted else "–"


def _strip(card: Card) -> Strip:
    found = card.verdict
    high = found.high if found.high < float("inf") else max(found.estimate, found.bar) * 1.02
    first, last = min(found.low, found.bar), max(high, found.bar)
    room = (last - first) * 0.18 or 0.01
    axis = Axis(first - room, last + room, 0, 100)
    places = (axis.place(each) for each in (found.low, high, found.estimate, found.bar))
    return Strip(*places, open_end=high != found.high)


def _shown(answer: Answer) -> Shown:
    teacher, student = _visible(answer.teacher), _visible(answer.student)
    left, right = differences(teacher, student)
    known = {answer.teacher.strip(), answer.student.strip()}
    return Shown(
        prompt=_visible(answer.prompt, "prompt"),
        wanted=None if answer.wanted.strip() in known else _visible(answer.wanted),
        teacher=left,
        student=right,
        teacher_score=answer.teacher_score,
        student_score=answer.student_score,
        differs=answer.student.strip() != answer.teacher.strip(),
    )


def _visible(text: str, kind: str = "answer") -> str:
    """A text at a readable length, without surrogates, its control characters as escapes."""
    head, tail = LONGEST[kind]
    text = text.replace("\r\n", "\n").encode("utf-8", "replace").decode()
    left_out = len(text) - head - tail
    if left_out > tail:
        text = f"{text[:head]} … [{left_out:,} characters left out] … {text[-tail:]}"
    return text.translate(_ESCAPES)


def _breakable(text: str) -> Markup:
    """Escaped text that may also be wrapped after a comma, as compact JSON needs."""
    return Markup(",<wbr>").join(text.split(","))


def _kept_together(text: str) -> Markup:
    """Escaped text in which no number is parted from its unit, no option from its dashes."""
    escaped = str(escape(_UNIT.sub("\u00a0", text)))
    return Markup(_OPTION.sub(r'<span class="whole">\g<0></span>', escaped))


@cache
def _environment() -> Environment:
    found = environment("flyweight.make")
    found.filters |= {"together": _kept_together, "breakable": _breakable}
    for name in ("size", "quantity", "seconds", "rate", "times", "percent", "bar_percent"):
        function = getattr(words, name)
        found.filters[name] = lambda value, *rest, say=function: _kept_together(say(value, *rest))
    found.globals |= {"words": words, "passes": passes, "ratio": _ratio, "stages": NAMES}
    return found
