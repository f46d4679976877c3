"""The verb `advise`: which corpora help a student with a task, found out by short trainings."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from flyweight.distill.advice import Advice


def advise(
    teacher: str,
    student: str,
    *,
    data: Path,
    corpus: Sequence[str],
    share: Sequence[float] = (0.2, 0.5),
    steps: int = 100,
    seeds: int = 3,
    batch_size: int = 32,
    learning_rate: float = 2e-3,
    loss: str = "forward-kl",
    cache: Path | None = None,
    seed: int = 0,
    json: bool = False,
) -> dict[str, Any]:
    """Say which corpora help a student with a task, which harm, and what to mix.

    The student is distilled briefly on the task alone and on the task with each corpus, at equal
    tokens, and its loss on the dev items read each time. Where several corpora help, their blend is
    tried too. Nothing is written but what the teacher says.

    Args:
        teacher: A Hugging Face model folder, or a hub name.
        student: Likewise; it must have the teacher's tokenizer, or one that was cut from it.
        data: JSONL or Parquet with prompt or messages, and answer.
        corpus: A corpus as `distill` takes it; none that asks what dev or test asks. Once for each.
        share: The share of the tokens that come from the corpus. Once for each that is to be tried.
        steps: Training steps of each probe.
        seeds: How often each probe is trained, 2 at least: the interval holds their spread.
        batch_size: A step has as many tokens as so many items have on average, but a row as long as
            the longest item at least.
        learning_rate: The highest; it falls linearly to zero.
        loss: As for `distill`.
        cache: Where what the teacher says is kept; the user's cache folder if not given.
        seed: Makes the run repeatable on the same machine.
        json: Print JSON instead of a table.

    Returns:
        The loss of the task alone, what each probe changes with its interval, and the blend.

    Raises:
        FlyweightError: Bad input, or a tokenizer that differs from the teacher's.
    """
    from json import dumps

    from flyweight.distill.advice import advice
    from flyweight.distill.objectives import Aim
    from flyweight.distill.probing import Bench
    from flyweight.distill.trainer import Schedule
    from flyweight.distill.verb import check_training

    _check_options(corpus, share, seeds, seed)
    check_training(steps, batch_size, learning_rate)
    schedule = Schedule(steps=steps, batch_size=batch_size, learning_rate=learning_rate, seed=seed)
    bench = Bench.of(teacher, student, data, corpus, max(share), schedule, Aim(loss), cache)
    found = advice(bench, share, [seed + n for n in range(seeds)])
    if json:
        print(dumps(found.facts(), indent=2))
    else:
        _show(found)
    return found.facts()


def _check_options(corpus: Sequence[str], shares: Sequence[float], seeds: int, seed: int) -> None:
    from flyweight.errors import OptionError

    if not corpus or len(set(corpus)) < len(corpus):
        raise OptionError("--corpus: give at least one, and none of them twice.")
    if not shares or not all(0 < each < 1 for each in shares):
        raise OptionError(f"--share is {list(shares)}: give numbers between 0 and 1.")
    if seeds < 2:
        raise OptionError(f"--seeds is {seeds}: give 2 at least, one alone shows no spread.")
    if not 0 <= seed <= 2**32 - seeds:
        raise OptionError(
            f"--seed is {seed}: give a whole number from 0 on, the last of --seeds below 2^32."
        )


def _show(found: Advice) -> None:
    """The table, and what to do."""
    from rich.console import Console
    from rich.table import Table

    table = Table(title=f"Dev loss beside the task alone ({found.alone:.4f} nats a token)")
    for name in ("corpus", "share", "dev loss", "change", "interval", "verdict"):
        justify = "left" if name in ("corpus", "verdict") else "right"
        table.add_column(name, justify=justify, overflow="fold")
    for each in found.probes:
        table.add_row(
            "\n".join(Path(name).name for name in each.corpora),
            f"{each.share:.0%}",
            f"{each.loss:.4f}",
            f"{each.change:+.1%}",
            f"{each.low:+.1%} to {each.high:+.1%}",
            each.word,
        )
    console = Console(highlight=False, markup=False, emoji=False)  # names of corpora are no markup
    console.print(table)
    console.print(
        f"{found.items:,} dev items in {found.groups:,} groups, {found.seeds} seeds, "
        f"{found.tokens:,} tokens a probe; the intervals hold together in 95 % of cases."
    )
    console.print(found.recommendation, soft_wrap=True)
