"""What is left of a learned model that is cut by a quarter or by half, before and after training?

babyllama-tok105 (0.94 M parameters, stories; not ours) and the embedded teacher (8.4 M, work
orders), each to one shape a size, hidden and MLP channels chosen in one of these ways:

- ours: by what channels carry on the task's own prompts, then mended (shrink/mend.py);
- sliced, Taylor, magnitude, random: not mended; by activations, by first-order scores, by the L2
  norm of all weights that fall with a channel, by lot (five draws);
- Torch-Pruning 1.6.1, an environment of its own (prune_peer.py): by group magnitude as in its
  example for language models, or Taylor's, each to our very shape and with heads at one ratio as in
  the example, to as many parameters. Its best setting counts, chosen on the held-out answers.

Taylor's scores are given the same rows as ours. Read is the cross-entropy of held-out answers in
nats a token, right after the cut and after equal steps of distillation on the same batches. An arm
is trained at each of `--rates`, and its best counts, as for the peer's settings: what starts near
its teacher needs a lower rate than what starts far away. Intervals: paired bootstrap over groups,
the models given.

    python3 -m venv benchmarks/.venv-prune
    benchmarks/.venv-prune/bin/pip install -r benchmarks/requirements-prune.txt
    python benchmarks/cut_quality.py demo --runs out/cut-demo.jsonl
    python benchmarks/cut_quality.py babyllama --runs out/cut-baby.jsonl

With `--runs` each reading is kept in that file, and a second command goes on from there.
"""

from __future__ import annotations

import argparse
import copy
import json
import math
import subprocess
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import torch
from rich.console import Console
from rich.table import Table
from safetensors.torch import load_file

import babyllama
from banking77 import TEACHER
from flyweight.anatomy import Shape
from flyweight.anatomy.family import Term
from flyweight.checkpoint import open_checkpoint
from flyweight.demo.orders import write_task
from flyweight.distill.losses import Distillation
from flyweight.distill.objectives import KL
from flyweight.distill.teacher import answer_rows, record_teacher
from flyweight.distill.trainer import Row, Schedule, train
from flyweight.make.data import prepare_split
from flyweight.make.effort import BATCH, LEARNING_RATE
from flyweight.make.form import form_of
from flyweight.runtime.forced import answer_bits
from flyweight.shrink.calibrate import measure_importance
from flyweight.shrink.cut import cut_model
from flyweight.shrink.importance import Importance
from flyweight.shrink.mend import mend
from flyweight.tasks.read import read_task
from flyweight.tasks.score import scorer
from llama2c import convert_known

SIZES = {  # what stays of hidden and MLP channels: about three quarters and half of the parameters
    "babyllama": {"quarter": (112, 288), "half": (96, 192)},
    "demo": {"quarter": (224, 832), "half": (192, 576)},
}
CALIBRATION = 256  # train items, as `make` takes
RESAMPLES = 2000
PEER = Path(__file__).with_name(".venv-prune") / "bin" / "python"
MENDED = " + mend"
OURS, SLICED = f"activations{MENDED}", "activations"
DRAWS = tuple(f"random {seed}" for seed in range(5))
CHOICES = (SLICED, "taylor", "magnitude", *DRAWS)
PEERS = tuple(
    f"Torch-Pruning, {kind}{heads}" for kind in ("magnitude", "taylor") for heads in ("", ", heads")
)


@dataclass(frozen=True)
class Reading:
    """What one way to cut left: nats of each held-out answer after so many steps."""

    size: str
    arm: str
    steps: int
    parameters: int
    shape: str
    nats: list[float]
    rate: float = LEARNING_RATE  # of the distillation, where there are steps

    @property
    def array(self) -> np.ndarray:
        """float [n]."""
        return np.array(self.nats)


class Setup:
    """A teacher, what is known of its task, and how arms are cut and read."""

    def __init__(self, case: str, folder: Path, train_items: int, held_out: int) -> None:
        self.folder = folder
        name, task_file, score = _open(case, folder, train_items, held_out)
        source, task, how = open_checkpoint(str(name)), read_task(task_file), scorer(score)
        self.family, self.shape, self.teacher = source.family, source.shape, source.model().float()
        taught, self.dev = (
            prepare_split(items, task.name, form_of(source), how)
            for items in (task.train[:train_items], task.dev[:held_out])
        )
        self.rows = answer_rows(taught.examples)
        self.counts = np.array([len(answer) for _, answer in self.dev.pairs], dtype=float)
        self.calibration = self.rows[:CALIBRATION]
        self._importance: Importance | None = None
        self._recorded: list[Row] = []

    @property
    def importance(self) -> Importance:
        if self._importance is None:
            self._importance = measure_importance(
                self.teacher, self.family, self.calibration, taylor=True
            )
            self.teacher.requires_grad_(False)
        return self._importance

    @property
    def recorded(self) -> list[Row]:
        """The train rows with what the teacher says."""
        if not self._recorded:
            self._recorded = record_teacher(self.teacher, self.rows)
        return self._recorded

    def count(self, shape: Shape) -> int:
        return self.family.count(shape, self.teacher.config)

    def read(self, model: Any) -> list[float]:
        """Nats of each held-out answer."""
        return (answer_bits(model, self.dev.pairs, title="") * math.log(2)).tolist()

    def cut(self, arm: str, wanted: Shape, peer: Path) -> tuple[Any, Shape]:
        """The student of an arm, before its first step."""
        if arm in PEERS:
            return self._peer(arm, wanted, peer)
        scores = chosen(arm.removesuffix(MENDED), self)
        keep = scores.keep(self.shape, wanted)
        student = cut_model(self.teacher, self.family, keep)
        if arm.endswith(MENDED):
            mend(student, self.teacher, self.family, keep, self.calibration)
        return student, wanted

    def _peer(self, arm: str, wanted: Shape, peer: Path) -> tuple[Any, Shape]:
        _, kind, *heads = arm.split(", ")
        teacher, out = self.folder / "teacher", self.folder / "peer.safetensors"
        if not teacher.exists():
            self.teacher.save_pretrained(teacher)
        rows = [{name: row[name].tolist() for name in ("input_ids", "weights")} for row in
                self.calibration]  # fmt: skip
        told = {"folder": str(teacher), "out": str(out), "importance": kind, "rows": rows}
        if heads:
            told |= dict.fromkeys(("hidden", "mlp", "heads"), one_ratio(self, wanted))
        else:
            told |= {"heads": 0.0, "hidden": gone(wanted.hidden, self.shape.hidden),
                     "mlp": gone(wanted.mlp, self.shape.mlp)}  # fmt: skip
        ran = subprocess.run(
            [peer, Path(__file__).with_name("prune_peer.py")],
            input=json.dumps(told) + "\n",
            capture_output=True,
            text=True,
            check=False,
        )
        if ran.returncode:
            raise SystemExit(ran.stderr)
        shape = self.shape.with_sizes(**json.loads(ran.stdout.splitlines()[-1]))
        return _load(self, shape, out), shape


def _open(case: str, folder: Path, train_items: int, held_out: int) -> tuple[Path, Path, str]:
    """The teacher's folder, the task file and the score of a case."""
    task = folder / f"{case}.jsonl"
    if case == "babyllama":
        babyllama.write_task(task, train_items, 2 * held_out)
        return convert_known("babyllama", folder / case), task, "likelihood"
    write_task(task)
    return TEACHER, task, "exact"


def _load(setup: Setup, shape: Shape, weights: Path) -> Any:
    """A Llama with the peer's weights; its norms keep their epsilon."""
    old = setup.teacher.config
    config = type(old).from_dict(old.to_dict())
    config.hidden_size, config.intermediate_size = shape.hidden, shape.mlp
    config.num_attention_heads, config.num_key_value_heads = shape.heads, shape.kv_groups
    config.head_dim = shape.head_dim
    model = type(setup.teacher)(config).float()
    found = model.load_state_dict(load_file(weights), strict=False)
    assert not found.unexpected_keys
    assert set(found.missing_keys) <= {setup.family.head}
    model.tie_weights()
    return model.eval()


# How an arm chooses


def chosen(choice: str, setup: Setup) -> Importance:
    """The scores of a way to choose."""
    known = setup.importance
    if choice == "taylor":
        assert known.taylor is not None
        return known.taylor
    if choice == "magnitude":
        return magnitude(setup)
    if choice in DRAWS:
        generator = torch.Generator().manual_seed(DRAWS.index(choice))
        hidden, mlp = (torch.rand(each.shape, generator=generator) for each in
                       (known.hidden, known.mlp))  # fmt: skip
        return replace(known, hidden=hidden, mlp=mlp)
    return known


def magnitude(setup: Setup) -> Importance:
    """The L2 norm over all weights that fall with a hidden or an MLP channel."""
    shape, family = setup.shape, setup.family
    found = {"hidden": torch.zeros(1, shape.hidden), "mlp": torch.zeros(shape.layers, shape.mlp)}
    for name, weight in setup.teacher.named_parameters():
        place = family.spell(name)
        for number, dimension in enumerate(place.dimensions):
            terms: set[Term] = set(dimension)
            for axis, squares in found.items():
                if terms == {(axis,)}:
                    others = [other for other in range(weight.dim()) if other != number]
                    square = weight.detach().square()
                    along = square.sum(others) if others else square
                    row = place.layer if axis == "mlp" else 0
                    squares[row] += along.view(len(dimension), -1).sum(0)
    return replace(setup.importance, hidden=found["hidden"][0].sqrt(), mlp=found["mlp"].sqrt())


def gone(stays: int, of: int) -> float:
    """The ratio that leaves exactly so many after Torch-Pruning's rounding down."""
    return 1 - (stays + 1e-6) / of


def one_ratio(setup: Setup, wanted: Shape) -> float:
    """The ratio of hidden and MLP channels and heads that comes nearest to the parameters wanted.

    Torch-Pruning rounds channels down to multiples of 4 and the heads that go up.
    """

    def count(ratio: float) -> int:
        old = setup.shape
        hidden, mlp = (int(of * (1 - ratio)) // 4 * 4 for of in (old.hidden, old.mlp))
        heads = old.heads - math.ceil(ratio * old.heads)
        return setup.count(replace(old, hidden=hidden, mlp=mlp, heads=heads, kv_groups=heads))

    ratios = [step / 1000 for step in range(20, 800)]
    return min(ratios, key=lambda ratio: abs(count(ratio) / setup.count(wanted) - 1))


# What is kept, and the report


class Readings(list[Reading]):
    """The readings so far, kept in a file when there is one."""

    def __init__(self, path: Path | None) -> None:
        super().__init__()
        self.path = path
        if path is not None and path.exists():
            lines = path.read_text(encoding="utf-8").splitlines()
            self.extend(Reading(**json.loads(line)) for line in lines)

    def at(self, size: str, arm: str, steps: int, rate: float | None = None) -> Reading | None:
        """That reading, if it was made: at this rate, or at the arm's best."""
        asked = (size, arm, steps)
        made = [one for one in self if (one.size, one.arm, one.steps) == asked]
        made = [one for one in made if rate in (None, one.rate)]
        return min(made, key=lambda one: sum(one.nats), default=None)

    def add(self, reading: Reading) -> None:
        self.append(reading)
        if self.path is not None:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            with self.path.open("a", encoding="utf-8") as file:
                file.write(json.dumps(asdict(reading)) + "\n")


def measure(
    setup: Setup, readings: Readings, size: str, arm: str, wanted: Shape, steps: int,
    rates: Sequence[float], peer: Path,
) -> None:  # fmt: skip
    """Cut and read an arm, and train it and read it again, whatever is not known yet."""
    missing = [rate for rate in rates if steps and not readings.at(size, arm, steps, rate)]
    if readings.at(size, arm, 0) and not missing:
        return
    cut, shape = setup.cut(arm, wanted, peer)
    facts = (setup.count(shape), str(shape))
    if readings.at(size, arm, 0) is None:
        readings.add(Reading(size, arm, 0, *facts, setup.read(cut)))
    for rate in missing:
        student = copy.deepcopy(cut)
        student.requires_grad_(True)
        schedule = Schedule(steps=steps, batch_size=BATCH, learning_rate=rate)
        train(student, setup.recorded, Distillation(KL), schedule, f"{size}, {arm}, {rate:g}")
        readings.add(Reading(size, arm, steps, *facts, setup.read(student), rate))


@dataclass(frozen=True)
class Held:
    """The held-out answers: their tokens, and the draws of a bootstrap over their groups."""

    counts: np.ndarray  # [n]
    drawn: list[np.ndarray]  # places

    @classmethod
    def of(cls, counts: np.ndarray, groups: Sequence[str]) -> Held:
        names, generator = np.array(groups), np.random.default_rng(0)
        members = [np.flatnonzero(names == name) for name in dict.fromkeys(groups)]
        drawn = [
            np.concatenate([members[i] for i in generator.integers(0, len(members), len(members))])
            for _ in range(RESAMPLES)
        ]
        return cls(counts, drawn)

    def mean(self, nats: np.ndarray) -> float:
        """Nats a token."""
        return float(nats.sum() / self.counts.sum())

    def interval(self, nats: np.ndarray) -> tuple[float, float]:
        """Of the mean, 95 %."""
        means = [nats[places].sum() / self.counts[places].sum() for places in self.drawn]
        low, high = np.quantile(means, (0.025, 0.975))
        return float(low), float(high)


def report(size: str, readings: Readings, held: Held, steps: Sequence[int], whole: float) -> None:
    """The table of one size: each arm's nats a token, and how far above ours."""
    table = Table(title=f"cut by a {size}: nats a token; in brackets what it has above ours, 95 %")
    for heading in ("arm", "parameters", *("cut" if not n else f"{n} steps" for n in steps)):
        table.add_column(heading, justify="left" if heading == "arm" else "right")
    arms = list(dict.fromkeys(one.arm for one in readings if one.size == size))
    groups: list[tuple[str, list[str]]] = [(arm, [arm]) for arm in arms]
    if set(DRAWS) <= set(arms):
        groups.append(("random, mean of 5", list(DRAWS)))
    for name, members in groups:
        found = {n: [readings.at(size, arm, n) for arm in members] for n in steps}
        first = readings.at(size, members[0], 0)
        assert first is not None
        cells = [_cell(found[n], readings.at(size, OURS, n), held) for n in steps]
        table.add_row(name, f"{first.parameters:,} ({first.parameters / whole:.1%})", *cells)
    Console(highlight=False, width=130).print(table)


def _cell(found: Sequence[Reading | None], ours: Reading | None, held: Held) -> str:
    known = [each.array for each in found if each is not None]
    if len(known) < len(found):
        return ""
    nats = np.mean(known, axis=0)
    rates = {f"{each.rate:g}" for each in found if each is not None and each.steps}
    said = f"{held.mean(nats):.4f}" + (f" at {' and '.join(sorted(rates))}" if rates else "")
    if ours is None or found[0] is ours:
        return said
    low, high = held.interval(nats - ours.array)
    return f"{said} [{held.mean(nats - ours.array):+.4f}: {low:+.4f} to {high:+.4f}]"


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("case", choices=tuple(SIZES))
    parser.add_argument("--sizes", nargs="+", default=["quarter", "half"])
    parser.add_argument("--arms", nargs="+", help="only these; default: all")
    parser.add_argument("--steps", type=int, default=200, help="of distillation")
    parser.add_argument("--rates", type=float, nargs="+", default=[5e-4, LEARNING_RATE])
    parser.add_argument("--no-training", nargs="*", default=(), help="arms that are only cut")
    parser.add_argument("--train", type=int, default=1600, help="train items, at most")
    parser.add_argument("--held-out", type=int, default=300, help="items")
    parser.add_argument("--peer", type=Path, default=PEER, help="a Python with torch-pruning")
    parser.add_argument("--runs", type=Path, help="where readings are kept, to go on from there")
    told = parser.parse_args()
    arms = told.arms or [OURS, *CHOICES, *PEERS]
    readings = Readings(told.runs)
    with TemporaryDirectory() as scratch:
        setup = Setup(told.case, Path(scratch), told.train, told.held_out)
        for size in told.sizes:
            hidden, mlp = SIZES[told.case][size]
            wanted = setup.shape.with_sizes(hidden=hidden, mlp=mlp)
            for arm in arms:
                steps = 0 if arm in told.no_training else told.steps
                measure(setup, readings, size, arm, wanted, steps, told.rates, told.peer)
    held = Held.of(setup.counts, setup.dev.groups)
    teacher = held.mean(np.array(setup.read(setup.teacher)))
    Console(highlight=False).print(
        f"{told.case}: {len(held.counts)} held-out answers in {len(set(setup.dev.groups))} groups, "
        f"{int(held.counts.sum()):,} tokens; the teacher {teacher:.4f} nats a token"
    )
    for size in told.sizes:
        report(size, readings, held, sorted({0, told.steps}), setup.count(setup.shape))


if __name__ == "__main__":
    main()
