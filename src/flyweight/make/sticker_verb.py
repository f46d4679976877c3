"""The verb `sticker`: what a model costs an answer, metered on this computer."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from flyweight.card import Card
    from flyweight.energy.sticker import Labelled
    from flyweight.make.form import Cost, Form
    from flyweight.sticker_card import Sticker
    from flyweight.tasks.items import Item

TOLD = "Answer in one short sentence: what does part number {} do?"  # where no task is told
WRITTEN = 64  # tokens of an answer, where no task tells


def sticker(
    model: Path,
    *,
    task: Path | None = None,
    out: Path | None = None,
    country: str | None = None,
    answers: int = 1_000_000,
    n: int = 100,
) -> Path:
    """Meter what a model's answers take on this computer, and write its sticker.

    `sticker.svg`, `sticker.png` and `sticker.json` are written into the model's folder, and a model
    of `make` gets a card, a README and a report that say the same. The joules are counted where
    the computer counts (NVML, RAPL, Apple's counters), else modelled from the processor's time;
    which it is stands on the sticker. FLYWEIGHT_COMPUTER (server, desktop, laptop, phone, board)
    and FLYWEIGHT_WATTS (of a busy core: 6, or 4-9) replace what is assumed of this computer.

    Args:
        model: A packed model folder.
        task: JSONL or Parquet whose test items are asked; the model's own examples if not given.
        out: The folder to write into; the model's if not given.
        country: Whose grid the carbon is of, such as FRA (ISO 3166, three letters);
            FLYWEIGHT_COUNTRY if not given, else the carbon is a range.
        answers: How many answers share what making the model took.
        n: How many answers to meter.

    Returns:
        The folder with the sticker.

    Raises:
        FlyweightError: A model that cannot be run, an unknown country, a full disk.
    """
    from flyweight.checkpoint import open_checkpoint
    from flyweight.energy.constants import told_country
    from flyweight.errors import OptionError
    from flyweight.folder import CARD, make_place, read_card
    from flyweight.make.form import form_of
    from flyweight.make.stickers import put_sticker, sticker_of

    if answers < 1 or n < 1:
        raise OptionError("--answers and --n are at least 1.")
    folder, told = Path(model), told_country(country)
    place = Path(out) if out is not None else folder
    form = form_of(open_checkpoint(str(folder), pictures=True))
    card = read_card(folder) if (folder / CARD).exists() else None
    file, bits = _file(form, folder, card)
    items = _items(form, card, task)
    make_place(place)  # before minutes are spent
    cost = _cost(form, file, items, task, n)
    made = card.sticker.making if card is not None and card.sticker is not None else None
    label = _label(card, task, folder, file, bits, cost)
    assert cost.metered is not None
    found = sticker_of(label, cost.metered, told, made and made.kwh, answers)
    put_sticker(place, found)
    if card is not None and place.resolve() == folder.resolve():
        _tell(folder, card.model_copy(update={"sticker": found}))
    _show(found, place)
    return place


def _file(form: Form, folder: Path, card: Card | None) -> tuple[Path, int]:
    """The file that is metered, and its bits: the card's choice, else the smallest there is."""
    from flyweight.errors import FolderError

    there = {bits: folder / name for bits, name in form.files.items() if (folder / name).exists()}
    if card is not None and card.bits in there:
        return there[card.bits], card.bits
    if not there:
        way = f"Make them: flyweight pack {folder}"
        if form.source.family.pictures:
            way = "Save its weights in one file."
        raise FolderError(f"{folder} has no file to run. {way}")
    return there[min(there)], min(there)


def _cost(form: Form, file: Path, items: Sequence[Item], task: Path | None, n: int) -> Cost:
    """What `n` answers of a file took, one after another."""
    from itertools import cycle, islice

    from flyweight.make.data import prepare_split
    from flyweight.progress import bar
    from flyweight.tasks.score import scorer

    scoring = scorer("exact")
    known = [item if item.answer is not None else item.with_answer("") for item in items]
    split = prepare_split(known, task.name if task else "the examples", form, scoring)
    limit = form.answer_limit([split], scoring)
    if any(item.answer is None for item in items):
        limit = max(limit, WRITTEN)
    prompts = list(islice(cycle(split.prompts), n))
    with bar(f"Metering {file.name}", len(prompts)) as running:
        return form.answers(file, prompts, limit, running.advance, timed=n).cost


def _items(form: Form, card: Card | None, task: Path | None) -> Sequence[Item]:
    """What is asked: the task's test items, or the examples of the card, or neutral prompts."""
    from flyweight.errors import OptionError
    from flyweight.tasks.items import Item
    from flyweight.tasks.read import read_task

    if task is not None:
        found = read_task(task, pictures=form.source.family.pictures)
        return found.test or found.dev or found.train
    if form.source.family.pictures:
        raise OptionError("this model is asked about pictures: give some with --task.")
    first = [{"role": "system", "content": card.task.system}] if card and card.task.system else []
    if card is not None and card.answers:
        return [
            Item((*first, {"role": "user", "content": each.prompt}), each.wanted)
            for each in card.answers
        ]
    if not form.source.family.causal:
        raise OptionError("this model gives labels, and has no examples: give texts with --task.")
    return [Item((*first, {"role": "user", "content": TOLD.format(i)}), None) for i in range(8)]


def _label(
    card: Card | None, task: Path | None, folder: Path, file: Path, bits: int, cost: Cost
) -> Labelled:
    """The file that was metered; with a score only where the card's is of that file and task."""
    from flyweight.energy.sticker import Labelled
    from flyweight.folder import sha256_of
    from flyweight.make.stickers import labelled

    name = card.name if card is not None else folder.absolute().name
    found = Labelled(name, bits, file.stat().st_size, cost.engine, cost.threads)
    if card is None or bits != card.bits:
        return replace(found, task=task.stem if task else None)
    judged = labelled(card)
    if task is not None and sha256_of(task) != card.task.sha256:
        return replace(found, task=task.stem)
    return replace(found, task=judged.task, score=judged.score, score_name=judged.score_name)


def _tell(folder: Path, card: Card) -> None:
    """Card, README and report say what the new sticker says."""
    from flyweight.folder import MODEL_CARD, REPORT, disk_errors, write_card, write_whole
    from flyweight.make.model_card import model_card
    from flyweight.make.report import write_report

    with disk_errors(folder):
        write_card(folder, card)
        write_whole(folder / MODEL_CARD, model_card(card))
    write_report(card, folder / REPORT)


def _show(found: Sticker, place: Path) -> None:
    """The sticker in a few lines."""
    from rich.console import Console

    from flyweight.energy.sticker_text import clean
    from flyweight.energy.sticker_words import ANSWERS, GRAMS, JOULES, TIMES, said

    console = Console(highlight=False, markup=False)
    console.print(f"{clean(found.model)}, {found.bits} bits, on {found.device.processor}")
    console.print(f"  an answer takes      {said(found.joules.facility, JOULES)}")
    console.print(f"  of that the chip     {said(found.joules.chip, JOULES)}")
    console.print(f"  a phone's charge is  {said(found.answers_a_phone_charge, ANSWERS)}")
    console.print(f"  a bottle of water is {said(found.answers_a_bottle, ANSWERS)}")
    console.print(f"  CO2e of an answer    {said(found.carbon, GRAMS)}")
    console.print(f"  hosted, 500 B        {said(found.counterfactual.ratio, TIMES)} as much")
    for note in found.notes:
        console.print(f"  {note}")
    console.print(f"{place}: sticker.svg, sticker.png, sticker.json")


__all__ = ["sticker"]
