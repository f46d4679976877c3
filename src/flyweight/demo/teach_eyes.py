"""Make the demo's eyes: `python -m flyweight.demo.teach_eyes OUT`, under an hour on two cores.

The demo's teacher is given a small encoder, and three things are learned, all from pictures drawn
by code. First where things are in a picture and what they mean, by the encoder alone, from what
the drawing code knows; then to say in words what the encoder sees, by the adapter alone, of
pictures that it has seen once; then above all to read gauges, which is hardest to say. The
language model stays as it is. What is written are the eyes alone.
"""

from __future__ import annotations

import argparse
import random
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, replace
from inspect import getsource
from pathlib import Path
from shutil import which

import numpy as np
import torch
from PIL import Image

from flyweight.demo.pictures import SIZE, Question, draw
from flyweight.demo.pictures.designs import SCALES
from flyweight.demo.pictures.labels import Labels, labels
from flyweight.demo.pictures.sheets import LIT
from flyweight.demo.places import Places
from flyweight.distill.trainer import Row, Schedule, train
from flyweight.folder import new_folder, sha256_of
from flyweight.progress import bar
from flyweight.tasks.items import Item
from flyweight.vision import training
from flyweight.vision.add import add_vision
from flyweight.vision.encoded import Encoded
from flyweight.vision.language import language_sha256, language_tensors
from flyweight.vision.pixels import Shelf
from flyweight.vision.rows import name_of, rows_of
from flyweight.vision.vision_folder import Opened, open_vision, save_vision

HERE = Path(__file__).parent
TEACHER = HERE / "teacher"
SEED = 11
PICTURES, SHEETS = 170_000, 30_000  # mostly seen once: more often, and they are known by heart
ASKED_OF = 100_000  # of the pictures, in words
SHARES = {"gauge": 0.66, "meter": 0.08, "bar": 0.10, "line": 0.08, "pie": 0.08}  # gauges ask most
BATCH = 64


@dataclass(frozen=True)
class Lesson:
    """A stage in words: its schedule, and whether it asks one thing of a picture or everything."""

    title: str
    schedule: Schedule
    one: bool = False


PLACES = Schedule(4900, BATCH, 1e-3, seed=SEED, weight_decay=0.05, muon=True)
LESSONS = (
    Lesson("Teaching to answer", Schedule(600, BATCH, 1e-3, seed=SEED + 1, muon=True)),
    Lesson("Teaching to read", Schedule(1450, 2 * BATCH, 1e-3, seed=SEED + 2, muon=True), one=True),
)
READINGS = 0.95  # how often the one thing that is asked of a gauge is what it reads
OTHERS = 0.5  # of the other pictures that are asked about with gauges


Drawn = tuple[bytes, tuple[Question, ...], Labels]


def draw_one(number: int, kind: str | None = None) -> Drawn:
    """A picture's pixels, its questions and labels, from its number alone; None: by SHARES."""
    rng = random.Random(f"{SEED}/pictures/{number}")
    picture = draw(rng, kind or rng.choices(list(SHARES), list(SHARES.values()))[0])
    return picture.image.tobytes(), picture.questions, labels(picture.facts, SIZE // 16)


def draw_all(pictures: int, sheets: int) -> Iterator[Drawn]:
    """So many pictures, then sheets, drawn by as many processes as torch has threads."""
    kinds = [None] * pictures + ["sheet"] * sheets
    with (
        ProcessPoolExecutor(torch.get_num_threads()) as pool,
        bar("Drawing pictures", len(kinds)) as running,
    ):
        for drawn in pool.map(draw_one, range(len(kinds)), kinds, chunksize=100):
            yield drawn
            running.advance()


def items_of(questions: Sequence[tuple[Question, ...]]) -> list[Item]:
    """The questions as items of their pictures."""
    return [
        Item(({"role": "user", "content": each.prompt},), each.answer, image=str(number))
        for number, asked in enumerate(questions)
        for each in asked
    ]


def as_seen(
    questions: Sequence[tuple[Question, ...]],
    told: Sequence[Labels],
    fractions: Mapping[int, float],
) -> list[tuple[Question, ...]]:
    """The questions, gauges answered by where the encoder sees their needles.

    What it does not see no adapter can learn to say: taught the true readings, one learns the
    encoder's errors as well, and says a likely reading where it could have said the middle one.
    """
    answered = list(questions)
    for number, fraction in fractions.items():
        scale = SCALES[next(answer for _, name, answer in told[number].told if name == "scale")]
        read = f"{scale.write(scale.at(fraction))} {scale.unit}"
        answered[number] = tuple(
            replace(each, answer=read) if each.kind == "gauge" else each
            for each in questions[number]
        )
    return answered


def one_each(questions: Sequence[tuple[Question, ...]]) -> list[tuple[Question, ...]]:
    """A question of every gauge, most often what it reads, and of some of the other pictures."""
    rng = random.Random(SEED)
    chosen: list[tuple[Question, ...]] = []
    for asked in questions:
        readings = [each for each in asked if each.kind == "gauge"]
        if not readings and rng.random() >= OTHERS:
            chosen.append(())
        else:
            chosen.append(
                (rng.choice(readings if rng.random() < READINGS and readings else asked),)
            )
    return chosen


def teach(
    out: Path,
    pictures: int = PICTURES,
    sheets: int = SHEETS,
    places: Schedule = PLACES,
    lessons: Sequence[Lesson] = LESSONS,
    compiled: bool = True,
) -> None:
    """Teach the eyes from their seed, stage by stage, and save them alone to `out`.

    Stages are kept in `out.work` until all is well; a run that was ended goes on from there, unless
    what draws the pictures has changed. FolderError where another process is at it. The encoder is
    `compiled` where there is a compiler, which takes a minute; its steps are then one and a half
    times as fast.
    """
    torch.set_num_threads(2)
    with training.work_beside(out) as work:
        blind = add_vision(str(TEACHER), work / "blind", encoder="tiny", tiles=1, seed=SEED)
        opened = open_vision(blind)
        before = language_sha256(language_tensors(opened.model))
        if compiled and which("g++"):
            opened.model.model.vision_model.compile()
        _teach(opened, work, pictures, sheets, places, lessons)
        if language_sha256(language_tensors(opened.model)) != before:
            raise RuntimeError("the language model changed")
        with new_folder(out) as folder:
            save_vision(opened, folder, before, eyes_only=True)


def _teach(
    opened: Opened,
    work: Path,
    pictures: int,
    sheets: int,
    places: Schedule,
    lessons: Sequence[Lesson],
) -> None:
    """All stages, of which those that `work` holds are taken from there."""
    model = opened.model
    questions: list[tuple[Question, ...]] = []
    told: list[Labels] = []

    def images() -> Iterator[Image.Image]:
        for pixels, asked, known in draw_all(pictures, sheets):
            questions.append(asked)
            told.append(known)
            yield Image.frombytes("RGB", (SIZE, SIZE), pixels)

    shelf = Shelf.fill(work / "pictures.u8", opened.cutter, images(), pictures + sheets)
    past = [name_of(pictures, sheets, places, SHARES, SEED, LIT, decided_by())]
    taught = teach_places(opened, shelf, told, places, work / past[0])
    asked_of = min(pictures, ASKED_OF)
    known = Encoded.fill(work / f"{name_of(past[0], asked_of)}.bf16", model, shelf, asked_of)
    names = [str(number) for number in range(asked_of)]
    of_pictures = as_seen(questions[:asked_of], told, taught.fractions(known))
    for lesson in lessons:
        items = items_of(one_each(of_pictures) if lesson.one else of_pictures)
        rows = rows_of(items, names, opened, work)
        past.append(name_of(past, lesson, READINGS, OTHERS))
        training.teach(model, known, rows, lesson.schedule, lesson.title, work / past[-1])


def decided_by() -> list[str]:
    """The hashes of what decides a stage besides its numbers: what draws, what is asked, who."""
    files = [HERE / "places.py", *(HERE / "pictures").glob("*.py"), *TEACHER.iterdir()]
    told = [sha256_of(file) for file in sorted(files)]
    return [*told, *map(getsource, (draw_one, items_of, as_seen, one_each))]


def teach_places(
    opened: Opened, shelf: Shelf, told: Sequence[Labels], schedule: Schedule, keep: Path
) -> Places:
    """Teach the encoder where things are; what read its states meanwhile is returned."""
    config = opened.model.config.vision_config
    opened.model.requires_grad_(False)
    opened.model.model.vision_model.requires_grad_(True)
    rows: list[Row] = [
        {"input_ids": np.zeros(1, np.int32), "weights": np.ones(1, np.float32), "picture": number}
        for number in range(len(told))
    ]
    grid = config.image_size // config.patch_size
    objective = Places(shelf, told, config.vision_output_dim, grid)
    train(opened.model, rows, objective, schedule, "Teaching where things are", keep=keep)
    return objective


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("out", type=Path)
    teach(parser.parse_args().out)
