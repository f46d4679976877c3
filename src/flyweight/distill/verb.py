"""The verb `distill`: train a student towards a teacher on the user's data."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from flyweight.checkpoint import Checkpoint
    from flyweight.distill.pairing import Pairing
    from flyweight.tasks.encode import Example
    from flyweight.tasks.items import Item

_ANSWER_MISSING = "Add one, or use `flyweight make`, where the teacher writes what is missing"


def distill(
    teacher: str,
    student: str,
    out: Path,
    *,
    data: Path,
    steps: int = 500,
    batch_size: int = 32,
    learning_rate: float = 2e-3,
    loss: str = "forward-kl",
    beta: float | None = None,
    kl: float | None = None,
    temperature: float = 1.0,
    match_hidden: float = 0.0,
    on_policy: float = 0.0,
    prompt_weight: float = 0.2,
    tool_weight: float = 1.0,
    cache: Path | None = None,
    cache_budget: str | None = None,
    top_k: int = 64,
    seed: int = 0,
) -> Path:
    """Train a student to answer as its teacher does, on the train items of your data.

    The loss is `kl` times a divergence from the teacher plus the rest as cross-entropy on the
    answers. The teacher runs once over the data, or in each step where --temperature,
    --match-hidden or --on-policy asks for it. Writes a Hugging Face folder.

    Args:
        teacher: A Hugging Face model folder, or a hub name.
        student: Likewise; it must have the teacher's tokenizer, or one that was cut from it.
        out: The folder to write.
        data: JSONL or Parquet with prompt or messages, and answer.
        steps: Training steps.
        batch_size: Items in a step.
        learning_rate: The highest; it falls linearly to zero.
        loss: The divergence: forward-kl, reverse-kl or jsd; or cross-entropy, without the teacher.
        beta: Of jsd: near 0 it is like forward-kl, near 1 like reverse-kl; 0.5 if not given.
        kl: The share of the divergence in the loss, 0 to 1; 0.7 if not given.
        temperature: Teacher and student are compared with logits divided by this.
        match_hidden: The weight of another loss: how far hidden states are from the teacher's.
        on_policy: The share of the steps in which the student writes the answers itself.
        prompt_weight: How much a token of a prompt counts, one of an answer counting 1.
        tool_weight: How much a token of a tool call within an answer counts.
        cache: Where what the teacher says is kept, to be used again with the same teacher and data;
            the user's cache folder if not given.
        cache_budget: The most that it may take on disk, such as 2GB; no limit if not given.
        top_k: How many tokens are kept of what the teacher says at each place.
        seed: Makes the run repeatable on the same machine.

    Raises:
        FlyweightError: Bad input, or a tokenizer that differs from the teacher's.
    """
    from flyweight.checkpoint import open_checkpoint, save_checkpoint
    from flyweight.distill.objectives import Aim
    from flyweight.distill.pairing import pair_up
    from flyweight.distill.trainer import Schedule, train
    from flyweight.distill.weights import TokenWeights, weighted_rows
    from flyweight.errors import OptionError
    from flyweight.folder import check_place, new_folder
    from flyweight.tasks.encode import encode_items
    from flyweight.tasks.items import refuse_unanswered
    from flyweight.tasks.read import read_task

    _check_options(steps, batch_size, learning_rate, prompt_weight, tool_weight)
    aim = Aim(loss, beta, kl, temperature, match_hidden, on_policy)
    big, small = open_checkpoint(teacher), open_checkpoint(student)
    check_place(out)
    task = read_task(data)
    refuse_unanswered(task.train, data, _ANSWER_MISSING)
    pairing = pair_up(big, small, [item.answer or "" for item in task.train])
    examples = encode_items(pairing.tokenizer, task.train, task.name, big.context)
    calls = [] if tool_weight == 1 else _calls(pairing.tokenizer, task.train, examples, data)
    rows = weighted_rows(examples, TokenWeights(prompt_weight, 1.0, tool_weight), calls)
    model = small.model()
    if aim.live:
        longest = max(len(example.answer) for example in examples)
        objective = aim.beside(model, big.model(), longest, pairing.alignment, pairing.to_teacher)
    else:
        objective = aim.without_teacher(pairing.alignment)
    if aim.recorded:
        rows = _recorded(big, rows, pairing, (cache, cache_budget, top_k))
    elif cache is not None or cache_budget is not None:
        raise OptionError("--cache and --cache-budget: nothing is recorded with these options.")
    schedule = Schedule(steps=steps, batch_size=batch_size, learning_rate=learning_rate, seed=seed)
    train(model, rows, objective, schedule, "Distilling")
    with new_folder(out) as folder:
        save_checkpoint(model, pairing.tokenizer, folder)
    return out


def _check_options(
    steps: int, batch_size: int, learning_rate: float, prompt_weight: float, tool_weight: float
) -> None:
    from flyweight.errors import OptionError

    if steps < 1 or batch_size < 1 or not 0 < learning_rate < math.inf:
        raise OptionError("--steps, --batch-size and --learning-rate must be above 0.")
    for name, weight in (("--prompt-weight", prompt_weight), ("--tool-weight", tool_weight)):
        if not 0 <= weight < math.inf:
            raise OptionError(f"{name} is {weight}: give a number from 0 on.")


def _calls(
    tokenizer: Any, items: Sequence[Item], examples: Sequence[Example], data: Path
) -> list[list[tuple[int, int]]]:
    """The tool calls of each row; OptionError where there is none to weigh."""
    from flyweight.distill.weights import CALLS, find_calls
    from flyweight.errors import OptionError

    found = [
        find_calls(tokenizer, item.answer or "", example.prompt_length)
        for item, example in zip(items, examples, strict=True)
    ]
    if not any(found):
        marks = ", ".join(begin for begin, _ in CALLS)
        raise OptionError(
            f"--tool-weight: no train answer of {data} calls a tool (by {marks}). Leave it out."
        )
    return found


def _recorded(
    big: Checkpoint,
    rows: list[dict[str, Any]],
    pairing: Pairing,
    keep: tuple[Path | None, str | None, int],
) -> list[dict[str, Any]]:
    """The rows with what the teacher says about them, which reads them in its own ids.

    `keep`: where it is kept, in how many bytes at most, and how many tokens at each place.
    """
    from flyweight.distill.cache import cache_folder, record
    from flyweight.distill.wish import Wish
    from flyweight.folder import bytes_of, sha256_of
    from flyweight.progress import say

    cache, budget, top_k = keep
    most = None if budget is None else bytes_of(budget, "--cache-budget")
    heard = rows
    if pairing.to_teacher is not None:
        ids = pairing.to_teacher.numpy()
        heard = [row | {"input_ids": ids[row["input_ids"]]} for row in rows]
    source = {
        "teacher": big.sha256(),
        "tokenizer": big.tokenizer_sha256(),
        "config": sha256_of(big.path / "config.json"),
    }
    wish = Wish(heard, source, big.shape.vocabulary, top_k)
    found = record((cache or cache_folder()) / wish.name, wish, big.model, budget=most)
    if not found.written:
        say(f"The teacher is not run: what it says is known from before ({found.place}).")
    else:
        say(f"What the teacher says is kept for the next time in {found.place}.")
    say(str(found))
    said = found.rows()
    for row, own in zip(said, rows, strict=True):
        row["input_ids"] = own["input_ids"]
    return said
