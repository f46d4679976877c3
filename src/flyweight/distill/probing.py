"""What probes of corpora need, read once, and the probe itself: a short training, read on dev."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from flyweight.checkpoint import Checkpoint, open_checkpoint
from flyweight.distill.material import read_material, recorded
from flyweight.distill.objectives import Aim
from flyweight.distill.plan import Plan
from flyweight.distill.trainer import Row, Schedule, train
from flyweight.distill.weights import TokenWeights
from flyweight.errors import OptionError
from flyweight.runtime.forced import Pair, answer_bits
from flyweight.tasks.encode import encode_items
from flyweight.tasks.items import refuse_unanswered
from flyweight.tasks.read import read_task

MOST_DEV = 1000  # items that are read after each probe: more would cost more than the training
Mix = tuple[tuple[str, ...], float]  # corpora, and their share


@dataclass(frozen=True)
class Bench:
    """All that a probe needs: rows of the task and of each corpus, the student, the dev items."""

    student: Checkpoint
    items: Sequence[Row]
    corpora: Mapping[str, Sequence[Row]]
    plan: Plan
    schedule: Schedule
    objective: Any
    dev: Sequence[Pair]
    groups: Sequence[str]

    @classmethod
    def of(
        cls,
        teacher: str,
        student: str,
        data: Path,
        corpora: Sequence[str],
        largest: float,
        schedule: Schedule,
        aim: Aim,
        cache: Path | None,
    ) -> Bench:
        """Everything read and recorded, of each corpus as much as the `largest` share takes."""
        big, small = open_checkpoint(teacher), open_checkpoint(student)
        task = read_task(data)
        dev = task.dev[:MOST_DEV]
        if len({item.group for item in dev}) < 2:
            raise OptionError(
                f"{data}: its dev items are one group, which tells nothing of others. "
                "Give dev items of another group."
            )
        for part in (task.train, dev):
            refuse_unanswered(part, data, "Add one: the probes read the loss of answers")
        # each corpus is probed alone, and so may be all that is read besides the items
        material = read_material(
            big, small, task, corpora, TokenWeights(), apart=True,
            steps=schedule.steps, batch_size=schedule.batch_size, share=largest, row_length=None,
        )  # fmt: skip
        assert material.plan is not None
        items, *read = recorded(big, material, aim, cache)
        pairing = material.pairing
        examples = encode_items(pairing.tokenizer, dev, task.name, big.context)
        pairs = [(each.prompt, each.answer) for each in examples]
        named = dict(zip(corpora, read, strict=True))
        objective = aim.without_teacher(pairing.alignment)
        groups = [item.group for item in dev]
        return cls(small, items, named, material.plan, schedule, objective, pairs, groups)

    @property
    def dev_tokens(self) -> int:
        """The tokens of the dev answers."""
        return sum(len(answer) for _, answer in self.dev)

    @property
    def tokens(self) -> int:
        """The tokens that a probe is trained on, padding included."""
        return self.plan.steps * self.plan.batch_size * self.plan.length

    def probe(self, mix: Mix, seed: int) -> np.ndarray:
        """float [n]: the nats of each dev answer after a training on a mix."""
        names, share = mix
        plan = replace(self.plan, share=share)
        model = self.student.model()
        chosen = [self.corpora[name] for name in names]
        batches = plan.batches(self.items, chosen, [model], seed)
        schedule = replace(self.schedule, seed=seed)
        called = f"{' + '.join(Path(name).name for name in names)} {share:.0%}" if names else "Task"
        train(model, batches, self.objective, schedule, f"{called}, seed {seed}")
        return answer_bits(model, self.dev, title="") * np.log(2)


__all__ = ["Bench", "Mix"]
