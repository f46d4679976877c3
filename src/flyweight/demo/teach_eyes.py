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
from itertools import groupby
from operator import itemgetter
from pathlib import Path
from shutil import which
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor, nn

from flyweight.demo.pictures import SIZE, Question, draw
from flyweight.demo.pictures.designs import SCALES
from flyweight.demo.pictures.labels import ASKED, PARTS, POINTS, Labels, labels
from flyweight.demo.pictures.sheets import LIT
from flyweight.distill.losses import Batch
from flyweight.distill.trainer import Row, Schedule, train
from flyweight.folder import new_folder
from flyweight.progress import bar
from flyweight.tasks.items import Item
from flyweight.vision import training
from flyweight.vision.add import add_vision
from flyweight.vision.encoded import Encoded
from flyweight.vision.language import language_sha256, language_tensors
from flyweight.vision.pixels import Shelf
from flyweight.vision.rows import name_of, rows_of
from flyweight.vision.vision_folder import Opened, open_vision, save_vision

TEACHER = Path(__file__).parent / "teacher"
SEED = 11
PICTURES, SHEETS = 170_000, 30_000  # mostly seen once: more often, and they are known by heart
ASKED_OF = 100_000  # of the pictures, in words
SHARES = {"gauge": 0.66, "meter": 0.08, "bar": 0.10, "line": 0.08, "pie": 0.08}  # gauges ask most
BATCH = 64
NEAR = 0.012  # of a scale: how far a part may be from the needle and still be half right
MIDDLES = (torch.arange(PARTS) + 0.5) / PARTS  # of the parts


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


class Places:
    """Cross-entropy of every label at its patch; the needle's points as patches and offsets.

    `learned` reads the encoder's states, whose width is `width`.
    """

    def __init__(self, shelf: Shelf, told: Sequence[Labels], width: int, grid: int) -> None:
        self.shelf, self.told, self.grid = shelf, told, grid
        heads = {name: nn.Linear(width, count) for name, count in ASKED.items()}
        heads["heat"], heads["offset"] = nn.Linear(width, len(POINTS)), nn.Linear(width, 8)
        self.learned = nn.ModuleDict({"norm": nn.LayerNorm(width), **heads})

    def __call__(self, model: Any, batch: Batch) -> Tensor:
        given = self.shelf.inputs(batch["picture"])
        light = 0.8 + 0.4 * torch.rand(len(batch["picture"]), 1, 1, 1, 1, 1)
        given["pixel_values"].mul_(light)
        states = model.model.vision_model(**given).last_hidden_state  # [B, 1, 1, tokens, D]
        told = [self.told[i] for i in batch["picture"].tolist()]
        asked = sorted(
            (name, row, token, answer) for row, each in enumerate(told)
            for token, name, answer in each.told
        )  # fmt: skip
        dials = [row for row, each in enumerate(told) if each.points is not None]
        tokens = states.shape[-2]
        places = [row * tokens + token for _, row, token, _ in asked]
        patches = [row * tokens + token for row in dials for token in range(1, tokens)]
        # taken out at once: to go back through an index fills the whole of `states` with zeros
        shown = states.flatten(0, 3).index_select(0, torch.tensor(places + patches))
        of_labels, of_patches = self.learned["norm"](shown.float()).split(
            [len(places), len(patches)]
        )
        fractions = torch.tensor([told[row].fraction for _, row, _, _ in asked])
        loss = self._labels(of_labels, [(name, answer) for name, _, _, answer in asked], fractions)
        if dials:
            points = torch.tensor([told[row].points for row in dials])
            loss = loss + self._points(of_patches.unflatten(0, (len(dials), -1)), points)
        return loss * batch["share"] if "share" in batch else loss

    def _labels(self, shown: Tensor, asked: Sequence[tuple[str, int]], fractions: Tensor) -> Tensor:
        """Of tokens [labels, D]: what each is asked and its answer, by what is asked."""
        loss, begin = shown.new_zeros(()), 0
        for name, of_name in groupby(asked, key=itemgetter(0)):
            right = torch.tensor([answer for _, answer in of_name])
            end = begin + len(right)
            logits = self.learned[name](shown[begin:end])
            if name == "part":
                loss = loss + 2 * F.cross_entropy(logits, _near(fractions[begin:end]))
            else:
                loss = loss + F.cross_entropy(logits, right)
            begin = end
        return loss

    def _points(self, shown: Tensor, points: Tensor) -> Tensor:
        """Of patches [G, patches, D]: where the points [G, points, x and y] are."""
        at = points * self.grid
        cells = at.floor().clamp(0, self.grid - 1)
        patches = (cells[..., 1] * self.grid + cells[..., 0]).long()  # [G, points]
        heat = self.learned["heat"](shown).transpose(1, 2)  # [G, points, patches]
        offsets = self.learned["offset"](shown).unflatten(-1, (len(POINTS), 2))
        here = torch.arange(len(points))[:, None], patches, torch.arange(len(POINTS))
        missed = (offsets[here] - (at - cells - 0.5)).abs().mean()
        return 2 * F.cross_entropy(heat.flatten(0, 1), patches.flatten()) + missed

    @torch.no_grad()
    def fractions(self, known: Encoded) -> dict[int, float]:
        """Where on its scale the needle of each gauge among these pictures stands, as it is seen.

        The mean over the tokens that are asked.
        """
        asked = [
            (number, token) for number, each in enumerate(self.told[: len(known)])
            for token, name, _ in each.told if name == "part"
        ]  # fmt: skip
        numbers, tokens = torch.tensor(asked).T
        shares = self.learned["part"](self.learned["norm"](known.tokens(numbers, tokens)))
        seen = (shares.softmax(-1) * MIDDLES).sum(-1).double()
        sums, counts = (torch.bincount(numbers, each) for each in (seen, torch.ones_like(seen)))
        return {i: float(sums[i] / counts[i]) for i in counts.nonzero().flatten().tolist()}


def _near(fractions: Tensor) -> Tensor:
    """Shares [N, PARTS] of the parts of a scale: most for the nearest to the needle."""
    return (-((MIDDLES - fractions[:, None]) ** 2) / (2 * NEAR**2)).softmax(-1)


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

    Stages are kept in `out.work`; a run that was ended goes on from there. The encoder is
    `compiled` where there is a compiler, which takes a minute; its steps are then one and a half
    times as fast.
    """
    torch.set_num_threads(2)
    work = out.with_name(f"{out.name}.work")
    blind = add_vision(str(TEACHER), work / "blind", encoder="tiny", tiles=1, seed=SEED)
    opened = open_vision(blind)
    model = opened.model
    before = language_sha256(language_tensors(model))
    questions: list[tuple[Question, ...]] = []
    told: list[Labels] = []

    def images() -> Iterator[Image.Image]:
        for pixels, asked, known in draw_all(pictures, sheets):
            questions.append(asked)
            told.append(known)
            yield Image.frombytes("RGB", (SIZE, SIZE), pixels)

    shelf = Shelf.fill(work / "pictures.u8", opened.cutter, images(), pictures + sheets)
    past = [name_of(pictures, sheets, places, SHARES, SEED, LIT)]
    if compiled and which("g++"):
        model.model.vision_model.compile()
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
    if language_sha256(language_tensors(model)) != before:
        raise RuntimeError("the language model changed")
    with new_folder(out) as folder:
        save_vision(opened, folder, before, eyes_only=True)


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
