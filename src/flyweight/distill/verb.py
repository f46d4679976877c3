"""The verb `distill`: train a student towards a teacher on the user's data."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from flyweight.distill.losses import Objective
    from flyweight.distill.material import Material
    from flyweight.distill.objectives import Aim
    from flyweight.distill.order import Batches
    from flyweight.distill.trainer import Row
    from flyweight.tasks.items import Task

_ANSWER_MISSING = "Add one, or use `flyweight make`, where the teacher writes what is missing"


def distill(
    teacher: str,
    student: str,
    out: Path,
    *,
    data: Path | None = None,
    corpus: Sequence[str] = (),
    corpus_share: float = 0.5,
    row_length: int | None = None,
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
    """Train a student to answer as its teacher does, on your data's train items and on corpora.

    The loss is `kl` times a divergence from the teacher plus the rest as cross-entropy on the
    answers. The teacher runs once over the data, or in each step where --temperature,
    --match-hidden or --on-policy asks for it. An encoder's student learns which label its teacher
    gives each text, and how surely. Writes a Hugging Face folder.

    Args:
        teacher: A Hugging Face model folder, or a hub name.
        student: Likewise; it must have the teacher's tokenizer, or one that was cut from it.
        out: The folder to write.
        data: JSONL or Parquet with prompt or messages, and answer; corpora alone if not given.
        corpus: Texts or chats to learn from besides: a .txt, .jsonl or .parquet file, a folder of
            such, or a data set on the hub. Once for each; read as far as the training goes. A chat
            that asks what dev or test asks is refused; plain texts are not searched for items.
        corpus_share: The share of the tokens that come from corpora, each of them giving as much;
            beside --on-policy the share of the tokens of the other steps.
        row_length: Tokens of the rows in which corpora and items are packed, none seeing another;
            longer documents are cut. At most 512 if not given, or what the longest item needs.
        steps: Training steps.
        batch_size: Items in a step. With corpora: as many tokens as so many items have, but a row
            as long as the longest item at least; rows where there are no items. Where the student
            writes it is always items.
        learning_rate: The highest; it falls linearly to zero.
        loss: The divergence: forward-kl, reverse-kl or jsd; or cross-entropy, without the teacher.
        beta: Of jsd: near 0 it is like forward-kl, near 1 like reverse-kl; 0.5 if not given.
        kl: The share of the divergence in the loss, 0 to 1; 0.7 if not given.
        temperature: Teacher and student are compared with logits divided by this.
        match_hidden: The weight of another loss: how far hidden states are from the teacher's.
        on_policy: The share of the steps in which the student answers prompts of --data itself and
            the teacher judges what it wrote; the others, with corpora too, are as without it.
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
    from flyweight.distill.classify import distill_labels
    from flyweight.distill.material import read_material, recorded
    from flyweight.distill.objectives import Aim
    from flyweight.distill.trainer import Schedule, train
    from flyweight.distill.weights import TokenWeights
    from flyweight.folder import check_place, new_folder
    from flyweight.tasks.items import refuse_unanswered
    from flyweight.tasks.read import read_task

    check_training(steps, batch_size, learning_rate)
    _check_weights(prompt_weight, tool_weight)
    aim = Aim(loss, beta, kl, temperature, match_hidden, on_policy)
    _check_record(aim, cache, cache_budget, top_k, seed)
    _check_data(data, corpus, corpus_share, row_length, on_policy, tool_weight)
    big, small = open_checkpoint(teacher), open_checkpoint(student)
    check_place(out, teacher, student)
    task = read_task(data) if data else None
    schedule = Schedule(steps=steps, batch_size=batch_size, learning_rate=learning_rate, seed=seed)
    _warn_of_leaks(task, data)
    if not big.family.causal:
        _refuse_of_writers(corpus, cache, cache_budget, prompt_weight, tool_weight, top_k)
        return distill_labels(big, small, out, task, aim, schedule)
    refuse_unanswered(task.train if task else (), data, _ANSWER_MISSING)
    material = read_material(
        big, small, task, corpus, TokenWeights(prompt_weight, 1.0, tool_weight),
        steps=steps, batch_size=batch_size, share=corpus_share, row_length=row_length,
        on_policy=on_policy,
    )  # fmt: skip
    model, live = small.model(), big.frozen() if aim.live else None
    objective = _objective(aim, model, live, material)
    items, *corpora = recorded(big, material, aim, cache, cache_budget, top_k)
    rows: Sequence[Row] | Batches = items
    if material.plan:
        models = [each for each in (model, live) if each is not None]
        rows = material.plan.batches(items, corpora, models, seed)
    train(model, rows, objective, schedule, "Distilling")
    with new_folder(out) as folder:
        save_checkpoint(model, material.pairing.tokenizer, folder)
    return out


def _objective(aim: Aim, model: Any, live: Any, material: Material) -> Objective:
    """What is aimed at, with a `live` teacher or None."""
    rows, pairing = material.parts[0], material.pairing
    if live is None:
        return aim.without_teacher(pairing.alignment)
    if material.plan and aim.on_policy:  # it has the share: whatever comes unpacked is written
        aim = replace(aim, on_policy=1.0)
    longest = max([1, *(len(row["input_ids"]) - row["prompt_length"] for row in rows)])
    return aim.beside(model, live, longest, pairing.alignment, pairing.to_teacher)


def _warn_of_leaks(task: Task | None, data: Path | None) -> None:
    """Say where train items are nearly test items; copies were refused when they were read."""
    from flyweight.progress import say
    from flyweight.tasks.leaks import leak_warnings
    from flyweight.tasks.read import unit_of

    if task is not None and data is not None:
        file = Path(data)
        for warning in leak_warnings(task.train, task.test, file.name, unit_of(file)):
            say(warning)


def _refuse_of_writers(
    corpus: Sequence[str], cache: Path | None, budget: str | None, prompt: float, tool: float,
    top_k: int,
) -> None:  # fmt: skip
    """OptionError for options that an encoder has no use for."""
    from flyweight.distill.teacher import TOP_K
    from flyweight.distill.weights import PROMPT_WEIGHT
    from flyweight.errors import OptionError

    given = {
        "--corpus": bool(corpus),
        "--cache": cache is not None,
        "--cache-budget": budget is not None,
        "--prompt-weight": prompt != PROMPT_WEIGHT,
        "--tool-weight": tool != 1,
        "--top-k": top_k != TOP_K,
    }
    for name, is_given in given.items():
        if is_given:
            raise OptionError(f"{name} is for models that write, and this one gives texts labels.")


def check_training(steps: int, batch_size: int, learning_rate: float) -> None:
    """OptionError for a training that cannot be."""
    from flyweight.errors import OptionError

    if steps < 1 or batch_size < 1 or not 0 < learning_rate < math.inf:
        raise OptionError("--steps, --batch-size and --learning-rate must be above 0.")


def _check_weights(prompt_weight: float, tool_weight: float) -> None:
    from flyweight.errors import OptionError

    for name, weight in (("--prompt-weight", prompt_weight), ("--tool-weight", tool_weight)):
        if not 0 <= weight < math.inf:
            raise OptionError(f"{name} is {weight}: give a number from 0 on.")


def _check_record(aim: Aim, cache: Path | None, budget: str | None, top_k: int, seed: int) -> None:
    from flyweight.errors import OptionError
    from flyweight.folder import bytes_of

    if not 0 <= seed < 2**32:
        raise OptionError(f"--seed is {seed}: give a whole number from 0 on, below 2^32.")
    if top_k < 1:
        raise OptionError(f"--top-k is {top_k}: give a whole number above 0.")
    if not aim.recorded and (cache is not None or budget is not None):
        raise OptionError("--cache, --cache-budget: nothing is recorded with these options.")
    if budget is not None:
        bytes_of(budget, "--cache-budget")


def _check_data(
    data: Path | None,
    corpus: Sequence[str],
    share: float,
    row_length: int | None,
    on_policy: float,
    tool_weight: float,
) -> None:
    from flyweight.errors import OptionError

    if data is None and not corpus:
        raise OptionError("--data or --corpus is needed: there is nothing to learn from.")
    if not 0 < share < 1:
        raise OptionError(f"--corpus-share is {share}: give a number between 0 and 1.")
    if not corpus and row_length is not None:
        raise OptionError("--row-length: only corpora are packed into rows. Give a --corpus.")
    if data is None and on_policy:
        raise OptionError(
            "--on-policy: the student answers the prompts of items, of a corpus none. "
            "Give --data too, or leave it out."
        )
    if data is None and tool_weight != 1:
        raise OptionError("--tool-weight is for the answers of --data. Leave it out.")
