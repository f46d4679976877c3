"""The task as the pipeline needs it: tokenised, by split, with groups and answers at hand."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from flyweight.progress import say
from flyweight.tasks import encode
from flyweight.tasks.enough import check_labels
from flyweight.tasks.items import Item, Task
from flyweight.tasks.labels import Labelled
from flyweight.tasks.score import Scorer

if TYPE_CHECKING:
    from flyweight.make.form import Form

Example = encode.Example | Labelled

SPARE_TOKENS = 8  # beyond the longest wanted answer, before an answer is cut off
FREE_TOKENS = 256  # where no answer tells how long answers are
PLAIN_TOKENS = 40  # what a latency is measured on, where nothing is answered

Writer = Callable[[list[list[int]], int], list[str]]  # prompts, most tokens -> answers


@dataclass(frozen=True)
class Views:
    """What pictures add to a job.

    Tokens that the encoder works on for an item; as much work in tokens of the whole network; and
    bytes that all pictures take on disk, cut.
    """

    tokens: int = 0
    work: float = 0.0
    bytes: int = 0


@dataclass(frozen=True)
class Split:
    """The items of one split beside their token ids; every item has an answer."""

    items: tuple[Item, ...]
    examples: tuple[Example, ...]

    def __len__(self) -> int:
        return len(self.items)

    @property
    def prompts(self) -> list[list[int]]:
        return [example.prompt for example in self.examples]

    @property
    def different_prompts(self) -> list[list[int]]:
        """The prompts, each once; the same words about two pictures are two."""
        asked = zip(self.prompts, self.items, strict=True)
        return list({(*ids, item.picture): ids for ids, item in asked}.values())

    @property
    def pairs(self) -> list[tuple[list[int], list[int]]]:
        """(prompt ids, answer ids with their end) of every item."""
        return [(example.prompt, example.answer) for example in self.examples]

    @property
    def groups(self) -> list[str]:
        return [item.group for item in self.items]

    @property
    def answers(self) -> list[str]:
        return [item.answer or "" for item in self.items]

    @property
    def lengths(self) -> np.ndarray:
        """int [n, 2]: tokens of each prompt, and of its answer with the end."""
        return np.array([(len(each.prompt), len(each.answer)) for each in self.examples])

    @property
    def by_task(self) -> dict[str, list[int]]:
        """Places of the items of each task, by its name; of a single one all, by ""."""
        places: dict[str, list[int]] = {}
        for place, item in enumerate(self.items):
            places.setdefault(item.task, []).append(place)
        return places

    @property
    def answer_bytes(self) -> np.ndarray:
        """int [n]: UTF-8 bytes of what likelihood measures."""
        texts = [item.last_text if item.answer is None else item.answer for item in self.items]
        return np.array([max(1, len(text.encode())) for text in texts])

    @property
    def byte_shares(self) -> np.ndarray:
        """float [n], mean 1: the bytes of each item over those of an average one."""
        return self.answer_bytes / self.answer_bytes.mean()


@dataclass(frozen=True)
class Data:
    """Train, dev and test, tokenised; `max_tokens` is where an answer is cut off."""

    train: Split
    dev: Split
    test: Split
    max_tokens: int

    @property
    def splits(self) -> dict[str, Split]:
        return {"train": self.train, "dev": self.dev, "test": self.test}


def prepare(splits: Mapping[str, Sequence[Item]], name: str, form: Form, scorer: Scorer) -> Data:
    """The splits of a task as a form reads them; `name` is the task's.

    Raises TaskError where an item is longer than the form's context.
    """
    made = {part: prepare_split(items, name, form, scorer) for part, items in splits.items()}
    return Data(**made, max_tokens=form.answer_limit(made.values(), scorer))


def prepare_split(items: Sequence[Item], name: str, form: Form, scorer: Scorer) -> Split:
    """One split as a form reads it; every item has its answer, unless likelihood takes plain text.

    Raises TaskError as `prepare` does.
    """
    examples: dict[int, Example] = {}
    for task, places in Split(tuple(items), ()).by_task.items():
        found = form.examples([items[place] for place in places], task or name, scorer)
        examples |= dict(zip(places, found, strict=True))
    return Split(tuple(items), tuple(examples[place] for place in range(len(items))))


def answered(task: Task, form: Form, scorer: Scorer, write: Writer) -> dict[str, tuple[Item, ...]]:
    """The splits with what `write`, the teacher, says where items have no answer; asked once.

    Long prompts leave little room in its context: they are asked apart, so as not to cut the
    answers to short ones. Raises OptionError where the score goes by label and what it says are
    none.
    """
    splits = task.splits
    missing = [item for items in splits.values() for item in items if item.answer is None]
    if not missing:
        return splits
    prompts = [form.prompt(item) for item in missing]
    texts: dict[int, str] = {}
    for room, places in by_room(prompts, form.source.context):
        texts |= zip(places, write([prompts[place] for place in places], room), strict=True)
    written = (texts[place] for place in range(len(prompts)))
    made = {
        name: tuple(
            item.with_answer(next(written)) if item.answer is None else item for item in items
        )
        for name, items in splits.items()
    }
    for part in ("dev", "test"):
        for name, places in Split(splits[part], ()).by_task.items():
            if all(splits[part][place].answer is not None for place in places):
                continue  # known when the task was read, and checked
            items, where = [made[part][place] for place in places], f"{name or task.name}: {part}"
            for warning in check_labels(items, where, scorer, chosen=form.chooses):
                say(warning)
    return made


def by_room(prompts: Sequence[Sequence[int]], context: int) -> list[tuple[int, list[int]]]:
    """The tokens that answers may have, at most FREE_TOKENS, and the places of such prompts.

    Where the context holds fewer, each answer has more than half of what its prompt leaves.
    """
    # the end of the turn is a token too
    rooms = [max(1, min(FREE_TOKENS, context - len(prompt) - 1)) for prompt in prompts]
    alike: dict[int, list[int]] = {}
    for place, room in enumerate(rooms):
        key = room if room == FREE_TOKENS else -room.bit_length()
        alike.setdefault(key, []).append(place)
    return [(min(rooms[place] for place in places), places) for places in alike.values()]
