"""The chosen model beside its rivals, in plain words: who wins, by how much, on what."""

from __future__ import annotations

import math
from collections.abc import Sequence

from flyweight.card import Card, Row
from flyweight.make import words

ROLES = ("teacher", "quantised teacher", "from scratch", "candidate")  # rivals first
_VERB = {"bytes": "takes", "latency": "answers in", "memory": "needs"}
_AFTER = {"bytes": "", "latency": "", "memory": " of memory"}


def order_rows(rows: list[Row]) -> list[Row]:
    """Teachers first, then the other rivals, then candidates, each from the biggest file down."""
    return sorted(rows, key=lambda row: (ROLES.index(row.role), -row.bytes, row.name))


def passes(row: Row, bar: float) -> bool:
    """Whether a row's lower limit on dev reaches the bar, within the budgets."""
    return row.dev_low >= bar and not row.beyond


def rivals_sentence(card: Card) -> str:
    """What `rivals_sentences` says, as one text: "No rival wins on dev (500 items): ..."."""
    return " ".join(rivals_sentences(card))


def rivals_sentences(card: Card) -> list[str]:
    """One or two plain sentences: whether a rival beats the chosen model on dev, and by what.

    A rival wins that passes where the chosen model does not, or passes and is smaller in the job's
    own measure (`recipe.by`); or the same shape from scratch, if its lower limit is as high.
    Empty where the card has no chosen row, or no rival.
    """
    rows = card.rows if card.recipe.device == "this" else [_on_device(row) for row in card.rows]
    chosen = next((row for row in rows if row.chosen), None)
    rivals = [row for row in rows if row.role != "candidate"]
    if chosen is None or not rivals:
        return []
    scratch = max(
        (row for row in rivals if row.role == "from scratch"),
        key=lambda row: row.dev_low,
        default=None,
    )
    teachers = [row for row in rivals if row.role != "from scratch"]
    winner = _winner(card, chosen, teachers, scratch)
    if winner is None:
        return _none_wins(card, chosen, teachers, scratch)
    said = [f"A rival wins: {_victory(card, chosen, winner)}."]
    if scratch and winner is not scratch:
        said.append(f"{_capital(_scratch_clause(card, chosen, scratch))}.")
    elif winner is scratch and (clause := _teachers_clause(card, chosen, teachers)):
        said.append(f"{_capital(clause)}.")
    return said


def _winner(card: Card, chosen: Row, teachers: Sequence[Row], scratch: Row | None) -> Row | None:
    """The rival that wins: the smallest teacher that does, else the model from scratch."""
    bar, by = card.verdict.bar, card.recipe.by
    good = [row for row in teachers if passes(row, bar)]
    if not passes(chosen, bar):
        if scratch and passes(scratch, bar):
            good.append(scratch)
        return min(good, key=lambda row: _measure(row, by), default=_as_good(chosen, scratch))
    smaller = [row for row in good if _measure(row, by) < _measure(chosen, by)]
    return min(smaller, key=lambda row: _measure(row, by), default=_as_good(chosen, scratch))


def _on_device(row: Row) -> Row:
    """A row with what its file is foretold to take on another device."""
    told = row.forecast
    if told is None:
        return row
    figures = {
        "latency_p50": told.latency_p50,
        "latency_p95": told.latency_p95,
        "peak_memory": round(told.memory),
    }
    if row.tokens_per_second is not None:
        figures["tokens_per_second"] = told.speed
    return row.model_copy(update=figures)


def _as_good(chosen: Row, scratch: Row | None) -> Row | None:
    """The model from scratch, if its limit is as high and pairs show no gain over it."""
    if scratch is None or (scratch.chosen_over or 0.0) > 1:
        return None
    return scratch if scratch.dev_low >= chosen.dev_low else None


def _victory(card: Card, chosen: Row, winner: Row) -> str:
    """What the winner does, and what the chosen model does not."""
    bar, by, who = card.verdict.bar, card.recipe.by, _who(winner)
    at_least = f"at least {words.lower_limit(winner.dev_low, bar)}"
    own = words.lower_limit(chosen.dev_low, bar)
    theirs, ours = _apart(winner, chosen, by)
    if not passes(chosen, bar) and passes(winner, bar):
        reached = "" if winner.role == "teacher" else f" ({at_least})"
        return (
            f"the chosen model does not pass on {_dev(winner)} (at least {own}), but {who} does"
            f"{reached} and {_VERB[by]} {theirs}{_AFTER[by]}"
        )
    if winner.role == "from scratch":
        return (
            f"{who} reaches {at_least} on {_dev(winner)}, the chosen model at least {own}, so "
            "there is no measurable gain from cutting and distilling" + _gain(winner.chosen_over)
        )
    return (
        f"{who} passes on {_dev(winner)} ({at_least}) and {_VERB[by]} {theirs}{_AFTER[by]}, "
        f"the chosen model {ours}"
    )


def _none_wins(card: Card, chosen: Row, teachers: Sequence[Row], scratch: Row | None) -> list[str]:
    head = "No rival wins"
    if not passes(chosen, card.verdict.bar):
        head = "Neither the chosen model nor a rival passes"
    clause = _teachers_clause(card, chosen, teachers)
    alone = scratch is None and all(row.role == "teacher" for row in teachers)
    only = ", where only the teacher was measured" if alone else ""
    said = [f"{head} on {_dev(chosen)}{only}{': ' if clause else ''}{clause}."]
    if scratch:
        said.append(f"{_capital(_scratch_clause(card, chosen, scratch))}.")
    return said


def _teachers_clause(card: Card, chosen: Row, teachers: Sequence[Row]) -> str:
    """The chosen model's size beside the smallest quantised teacher's and the teacher's."""
    by, bar = card.recipe.by, card.verdict.bar
    quantised = [row for row in teachers if row.role == "quantised teacher"]
    good = [row for row in quantised if passes(row, bar)]
    own = _said(_measure(chosen, by), by)
    parts = []
    if good:
        best = min(good, key=lambda row: _measure(row, by))
        more = f"{best.bits} bits {best.note}".strip() + f", {_times(best, chosen, by)}"
        size = _said(_measure(best, by), by)
        parts.append(f"the smallest quantised teacher that passes {size} ({more})")
    parts += [
        f"the teacher untouched {_said(_measure(row, by), by)} ({_times(row, chosen, by)})"
        for row in teachers
        if row.role == "teacher"
    ][:1]
    clause = f"the chosen model {_VERB[by]} {own}{_AFTER[by]}, {' and '.join(parts)}"
    if quantised and not good:
        best = max(quantised, key=lambda row: row.dev_low)
        limit = words.lower_limit(best.dev_low, bar)
        clause += f"; no quantised teacher passes (the best, at {best.bits} bits: at least {limit})"
    return clause if parts else ""


def _scratch_clause(card: Card, chosen: Row, scratch: Row) -> str:
    bar = card.verdict.bar
    kept = words.kept(scratch.dev_ratio, card.task.score, card.verdict.absolute)
    limit = f"at least {words.lower_limit(scratch.dev_low, bar)}"
    said = f"{_who(scratch)} {kept} on dev ({limit}) and does not pass"
    if passes(scratch, bar):
        own = words.lower_limit(chosen.dev_low, bar)
        said = f"{_who(scratch)} passes too ({limit}; the chosen model at least {own})"
    return said + _gain(scratch.chosen_over)


def _gain(over: float | None) -> str:
    """Whether the chosen model is better than the one from scratch, from its lower limit."""
    if over is None:
        return ""
    digits = 3 if over < 1.1 else 2
    at_least = f"at least {math.floor(over * 10**digits) / 10**digits:.{digits}f} times as good"
    how = "(95 %, in pairs on dev, where it was chosen)"
    gain = "" if over > 1 else "no measurable gain over it: "
    return f"; {gain}the chosen model is {at_least} {how}"


def _who(row: Row) -> str:
    if row.role == "teacher":
        return "the teacher untouched"
    if row.role == "quantised teacher":
        return f"the teacher at {row.bits} bits {row.note}".strip()
    how = f" ({row.note})" if row.note else ""
    return f"a model of the same shape and bits, trained from scratch{how},"


def _dev(row: Row) -> str:
    return f"dev ({row.dev.n:,} items)"


def _measure(row: Row, by: str) -> float:
    """What "smallest" compares: bytes, seconds an answer (p50), or peak memory in bytes."""
    return {"latency": row.latency_p50, "memory": row.peak_memory}.get(by, row.bytes)


def _said(value: float, by: str) -> str:
    return words.seconds(value) if by == "latency" else words.size(value)


def _apart(a: Row, b: Row, by: str) -> tuple[str, str]:
    """Both sizes in words, exactly where they would read the same."""
    first, second = _measure(a, by), _measure(b, by)
    said = _said(first, by), _said(second, by)
    if said[0] != said[1]:
        return said
    if by == "latency":
        return f"{first * 1e3:.6g} ms", f"{second * 1e3:.6g} ms"
    return f"{first:,.0f} bytes", f"{second:,.0f} bytes"


def _times(row: Row, chosen: Row, by: str) -> str:
    ratio = _measure(row, by) / max(_measure(chosen, by), 1e-9)
    return f"{words.times(ratio)} times as {'long' if by == 'latency' else 'much'}"


def _capital(text: str) -> str:
    return text[:1].upper() + text[1:]
