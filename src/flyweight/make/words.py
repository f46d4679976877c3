"""Figures and verdicts as people read them: one wording for terminal, report and model card."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from statistics import median
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from flyweight.card import Card, QuoteCard, Recovery, Row, Score, VerdictCard
    from flyweight.make.form import Cost
    from flyweight.tasks.verdict import Verdict

_STEPS = ("bytes", "kB", "MB", "GB", "TB", "PB")
_MOST_DIGITS = 6
LIKELIHOOD = "likelihood"
SIZES = {
    "layers": "layers",
    "hidden": "hidden width",
    "mlp": "MLP width",
    "heads": "query heads",
    "encoder_layers": "encoder layers",
    "encoder_mlp": "encoder MLP width",
    "kv_groups": "KV groups",
    "head_dim": "head dimension",
    "vocabulary": "vocabulary",
}


def size(count: float) -> str:
    """Bytes in decimal units, as disks are sold: 1_960_000 is "2.0 MB"."""
    step = 0
    while step < len(_STEPS) - 1 and float(f"{count:.3g}") >= 1000:
        count, step = count / 1000, step + 1
    return f"{count:,.{0 if step == 0 or count >= 99.95 else 1}f} {_STEPS[step]}"


def quantity(count: float) -> str:
    """A count in short: 950, 12.3 k, 8.9 M, 1.2 G (parameters, tokens)."""
    for power, letter in ((9, "G"), (6, "M"), (3, "k")):
        if count >= 10**power:
            return f"{_digits(count / 10**power)} {letter}"
    return f"{count:,.0f}"


def seconds(value: float) -> str:
    """A duration in short: "80 µs", "3.4 ms", "12.5 s", "4 min 10 s", "2 h 05 min"."""
    if not math.isfinite(value):
        return "unknown"
    if value < 9.995e-4:
        return f"{_digits(value * 1e6)} µs"
    if value < 0.9995:
        return f"{_digits(value * 1e3)} ms"
    if value < 59.95:
        return f"{_digits(value)} s"
    whole = round(value)
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02d} s"
    return f"{whole // 3600:,} h {whole % 3600 // 60:02d} min"


def rate(value: float) -> str:
    """Things a second, without a unit: 2,340 or 3.1."""
    return f"{value:,.0f}" if value >= 99.5 else _digits(value)


def speed(found: Cost | Row) -> str:
    """What a model does in a second, without a unit: tokens, or of an encoder texts."""
    per_second = found.texts_per_second or found.tokens_per_second
    return "–" if per_second is None else rate(per_second)


def parity(card: Card) -> str:
    """How the file of most bits compares with its checkpoint, as the end of a sentence."""
    found = card.parity
    if found.furthest is None:
        what = "the engine" if card.sees else "the 16-bit GGUF"
        said = f"{what} answer alike on {found.equal} of {found.prompts} prompts"
        return f"{said}; near ties: {'; '.join(found.near_ties)}" if found.near_ties else said
    return (
        f"the 32-bit ONNX file choose the same label for {found.equal} of {found.prompts} texts, "
        f"their logits apart by at most {found.furthest:.1g} of a standard deviation"
    )


def forecasts(card: Card) -> str:
    """How far what was foretold of this machine lay from what was measured; empty without."""
    rows = [(row, row.forecast) for row in card.rows if row.forecast is not None]
    if not rows:
        return ""
    if card.recipe.device != "this":
        return (
            f"Latency, speed and memory that were asked for are foretold for {card.recipe.device}."
        )
    off = {
        "latency": [abs(told.latency_p95 / row.latency_p95 - 1) for row, told in rows],
        "memory": [abs(told.memory / row.peak_memory - 1) for row, told in rows],
        "size": [abs(told.bytes / row.bytes - 1) for row, told in rows],
    }
    said = ", ".join(
        f"{name} {percent(median(errors), 0)} (at most {percent(max(errors), 0)})"
        for name, errors in off.items()
    )
    return f"Foretold from this machine's blocks and measured, apart in the median: {said}."


def engines(rows: Sequence[Row]) -> str:
    """Where rows were measured: "llama.cpp", "ONNX Runtime and torch"."""
    return " and ".join(dict.fromkeys(row.engine for row in rows)) or "the runtime"


def times(ratio: float) -> str:
    """How many times: 9.3, 134, 12,000."""
    return _digits(ratio)


def percent(share: float, decimals: int = 1) -> str:
    """A share as a percentage: "97.8 %". What is not the whole never reads as 100 %."""
    while share < 1 and round(share * 100, decimals) >= 100 and decimals < _MOST_DIGITS:
        decimals += 1
    return f"{share * 100:.{decimals}f} %"


def bar_percent(bar: float) -> str:
    """A round share, as a bar is given: 0.95 is "95 %", 0.975 is "97.5 %"."""
    return f"{round(bar * 100, _MOST_DIGITS):g} %"


def lower_limit(value: float, bar: float | None = None) -> str:
    """A lower limit as a percentage, rounded down; on the same side of `bar` as it is."""
    return _limit(value, bar, math.floor)


def upper_limit(value: float, bar: float | None = None) -> str:
    """An upper limit as a percentage, rounded up; on the same side of `bar` as it is."""
    return _limit(value, bar, math.ceil) if math.isfinite(value) else "without limit"


def score(mean: float, scorer: str) -> str:
    """A score in its scorer's range: a percentage, or bits per byte for likelihood."""
    return f"{mean:.3f} bits/byte" if scorer == LIKELIHOOD else percent(mean)


def score_interval(found: Score, scorer: str) -> str:
    """The two-sided interval of a score, without its unit where the mean beside it has one."""
    scale, digits = (1, 3) if scorer == LIKELIHOOD else (100, 1)
    return f"{found.low * scale:.{digits}f} to {found.high * scale:.{digits}f}"


def probability(p: float) -> str:
    """A p value: 0.012, or "below 0.001"."""
    return "below 0.001" if p < 0.001 else f"{p:.3f}" if p < 0.1 else f"{p:.2f}"


def moment(iso: str) -> str:
    """An ISO 8601 moment to the minute, in UTC: "2026-05-04 09:12 UTC"."""
    try:
        found = datetime.fromisoformat(iso)
    except ValueError:
        return iso
    found = found.replace(tzinfo=found.tzinfo or UTC).astimezone(UTC)
    return f"{found:%Y-%m-%d %H:%M} UTC"


def verdict_sentence(
    verdict: Verdict | VerdictCard, model_bytes: int, scorer: str = "exact", absolute: bool = False
) -> str:
    """The verdict on test in one plain sentence: how much is kept, how sure that is, and the word.

    `model_bytes` is the size of the chosen file; `absolute` says that the bar is one of the
    score's own range. Limits are rounded away from the estimate, never across the bar.
    """
    bar = bar_percent(verdict.bar)
    held = f"{kept(verdict.estimate, scorer, absolute)} on {_items(verdict.n, 'unseen ')}"
    if verdict.binds:
        held += f" of {verdict.binds}, the task that binds"
    sure = f"one-sided {bar_percent(verdict.confidence)}"
    start = f"The {size(model_bytes)} model {held}"
    if verdict.word == "passes":
        limit = lower_limit(verdict.low, verdict.bar)
        return f"{start} (at least {limit}, {sure}), which passes the bar of {bar}."
    if verdict.word == "falls short":
        limit = upper_limit(verdict.high, verdict.bar)
        missing = max(0.0, verdict.bar - verdict.estimate) * 100
        return (
            f"{start} (at most {limit}, {sure}), which falls short of the bar of {bar} by "
            f"{missing:.{1 if missing >= 0.05 else 3}f} points."
        )
    low = lower_limit(verdict.low, verdict.bar)
    between = f"between {low} and {upper_limit(verdict.high, verdict.bar)}, each {sure}"
    if not math.isfinite(verdict.high):
        between = f"at least {low}, {sure}, with no upper limit"
    return f"{start} ({between}), which leaves open whether it reaches the bar of {bar}: " + (
        f"about {verdict.more_groups:,} more groups of items (there are {verdict.groups:,}) would "
        "likely tell."
        if verdict.more_groups
        else "it lies so near the bar that no reachable number of items would tell."
    )


def tasks(card: Card) -> str:
    """Each of several tasks in short: "orders 97.8 % (at least 96.1 %, it binds), notes ..."."""
    said = []
    for task in card.tasks:
        limit = f"at least {lower_limit(task.low, card.verdict.bar)}"
        said.append(
            f"{task.name} {percent(task.ratio)} ({limit}{', it binds' if task.binds else ''})"
        )
    return f"Task by task: {', '.join(said)}." if said else ""


def advice(verdict: Verdict | VerdictCard) -> str:
    """What may help where the bar was not reached, or not shown to be; empty where it passes."""
    if verdict.word == "passes":
        return ""
    more = "More test groups would sharpen the verdict. " if verdict.more_groups else ""
    return more + "More train items, more --steps, or a lower --bar may help the next try."


def shape(sizes: dict[str, int]) -> str:
    """A shape in short: "4 layers x 224, MLP 384, 6 heads in 2 groups", as far as it is known."""
    layers = f"{sizes.get('layers', 0):,} layer{'' if sizes.get('layers') == 1 else 's'}"
    said = [layers + (f" x {sizes['hidden']:,}" if "hidden" in sizes else "")]
    if "mlp" in sizes:
        said.append(f"MLP {sizes['mlp']:,}")
    if "heads" in sizes and "kv_groups" in sizes:
        groups = sizes["kv_groups"]
        said.append(f"{sizes['heads']} heads in {groups} group{'' if groups == 1 else 's'}")
    return ", ".join(said)


def fate(recovery: Recovery) -> str:
    """How a distillation ended: "dropped after 117 of 938 steps: would reach about 91 %"."""
    done = recovery.steps[-1] if recovery.steps else 0
    if recovery.fate == "finished":
        reached = f" at {percent(recovery.shares[-1])}" if recovery.shares else ""
        return f"finished{reached} after {done:,} step{'' if done == 1 else 's'}"
    said = f"{recovery.fate} after {done:,} of {recovery.full_steps:,} steps"
    likely, low, high = recovery.predicted, recovery.predicted_low, recovery.predicted_high
    if likely is None or not math.isfinite(likely):
        return said
    said += f": would reach about {percent(likely, 0)}"
    if low is not None and high is not None and math.isfinite(low + high):
        said += f" (likely {percent(low, 0).removesuffix(' %')} to {percent(high, 0)})"
    return said


def quote_line(quote: QuoteCard) -> str:
    """The quote beside what came: "quoted 3 min 10 s, took 3 min 32 s".

    With what was quoted for the sizes that came to be trained, once that is known.
    """
    said = f"quoted {seconds(quote.seconds)}"
    if quote.seconds_as_it_went is not None and math.isfinite(quote.seconds_as_it_went):
        said += f" ({seconds(quote.seconds_as_it_went)} for the sizes that were trained)"
    return said if quote.actual_seconds is None else f"{said}, took {seconds(quote.actual_seconds)}"


def quote_range(quote: QuoteCard) -> str:
    """What the time hangs on: "1 min 40 s if the smallest size passes, 5 min 10 s if none does".

    Empty where the quote said nothing.
    """
    if not math.isfinite(quote.seconds_longest):
        return ""
    return (
        f"{seconds(quote.seconds_shortest)} if the smallest size passes at once, "
        f"{seconds(quote.seconds_longest)} if every size is tried"
    )


def quote_rates(quote: QuoteCard) -> str:
    """Where the rates of a quote come from."""
    if quote.source == "assumed":
        return "assumed: no past job on this machine was there to measure them on"
    if quote.jobs < 1:
        return "measured on this machine"
    return f"measured on {quote.jobs:,} past job{'' if quote.jobs == 1 else 's'} on this machine"


def kept(estimate: float, scorer: str, absolute: bool) -> str:
    """How much of the score is left, as a verb phrase: "keeps 97.8 % of the teacher's score"."""
    if absolute:
        return f"scores {percent(estimate)}"
    if scorer == LIKELIHOOD:
        return f"reaches {percent(estimate)} of the teacher's compression (bits per byte)"
    return f"keeps {percent(estimate)} of the teacher's score"


def _items(n: int, kind: str = "") -> str:
    return f"{n:,} {kind}item{'' if n == 1 else 's'}"


def _digits(value: float) -> str:
    """Whole from a hundred up, one decimal from one up, two digits below."""
    if value >= 99.95:
        return f"{value:,.0f}"
    return f"{value:.1f}" if value >= 0.995 or value == 0 else f"{value:.2g}"


def _limit(value: float, bar: float | None, outward: Callable[[float], int]) -> str:
    decimals = 1
    while True:
        scale = 10**decimals
        # 1e-9: what was 97.8 before the multiplication stays 97.8 after it.
        slack = 1e-9 if outward is math.floor else -1e-9
        shown = outward(value * 100 * scale + slack) / scale
        same_side = bar is None or (shown >= round(bar * 100, 9)) == (value >= bar)
        if same_side or decimals == _MOST_DIGITS:
            return f"{shown:.{decimals}f} %"
        decimals += 1
