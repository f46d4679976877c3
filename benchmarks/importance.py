"""Which measure of importance cuts best, before anything is trained?

One axis at a time is cut by a quarter and by half, each time by another measure: at random (mean of
three draws), the activations' L2 (Minitron, arXiv:2407.14679; of blocks, ShortGPT's influence), the
L2 of what a part adds to the residual stream (Wanda's product of activation and weight norms,
arXiv:2306.11695), first-order Taylor on gates (shrink/taylor.py) and on all weights of a group
(LLM-Pruner, arXiv:2305.11627: squared sums of w x dL/dw, batch by batch). Read is KL(teacher ||
student) on held-out items, in nats a token; beside it its ratio to that of the activations, with a
95 % interval from a bootstrap over the items, the cut given.

    python benchmarks/importance.py demo --task out/demo-task.jsonl      # minutes on one core
    python benchmarks/importance.py babyllama
"""

from __future__ import annotations

import argparse
import math
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import torch
from rich.console import Console
from rich.table import Table
from torch import Tensor

import babyllama
from flyweight.anatomy import AXES, Shape
from flyweight.anatomy.family import Term, parse_dimensions
from flyweight.checkpoint import Checkpoint, open_checkpoint
from flyweight.distill.losses import Distillation
from flyweight.distill.teacher import answer_rows, record_teacher
from flyweight.distill.trainer import Row, collate
from flyweight.shrink.batches import Batch
from flyweight.shrink.calibrate import measure_importance
from flyweight.shrink.cut import cut_model
from flyweight.shrink.importance import Importance
from flyweight.shrink.shapes import fits
from flyweight.shrink.taylor import loss_of
from flyweight.tasks.encode import encode_items
from flyweight.tasks.read import read_task
from llama2c import convert_known

DEMO = "src/flyweight/demo/teacher"
SHARES = (0.75, 0.5)
RESAMPLES = 2000
BATCH = 16
RIVAL = "activations"
MEASURES = ("random", RIVAL, "x weights", "Taylor", "LLM-Pruner")


@torch.inference_mode()
def divergences(model: Any, rows: Sequence[Row]) -> np.ndarray:
    """float [n, 2]: nats of KL(teacher || model) over each row, and its tokens."""
    found, measure = [], Distillation(kl=1.0)
    for row in rows:
        batch = collate([row])
        tokens = int((batch["weights"][:, 1:] != 0).sum())
        found.append((float(measure(model, batch)) * tokens, tokens))
    return np.array(found)


def ratio(ours: np.ndarray, theirs: np.ndarray) -> str:
    """Ours over theirs, with a 95 % interval over the items."""
    generator = np.random.default_rng(0)
    drawn = generator.integers(0, len(ours), (RESAMPLES, len(ours)))
    of = ours[drawn, 0].sum(1) / theirs[drawn, 0].sum(1)
    low, high = np.quantile(of, [0.025, 0.975])
    return f"{ours[:, 0].sum() / theirs[:, 0].sum():.2f} ({low:.2f} to {high:.2f})"


# ---------------------------------------------------------------- measures


def along(scores: Tensor, spelling: str, wanted: Term, shape: Shape) -> Tensor:
    """Scores of a parameter's entries, summed over everything but the axes `wanted`, laid out."""
    total = torch.zeros([shape.size(axis) for axis in wanted])
    for number, dimension in enumerate(parse_dimensions(spelling)):
        entries = scores.movedim(number, 0).reshape(scores.shape[number], -1).sum(1)
        sizes = [[shape.size(axis) if axis in AXES else 1 for axis in term] for term in dimension]
        if len(dimension) == 1 and np.prod(sizes[0]) != len(entries):
            continue  # a fixed dimension
        for term, size, part in zip(
            dimension, sizes, entries.split(list(map(math.prod, sizes))), strict=True
        ):
            if set(wanted) <= set(term):
                others = [i for i, axis in enumerate(term) if axis not in wanted]
                part = part.view(size)
                total += part.sum(others) if others else part
    return total.flatten()


def over_weights(model: Any, source: Checkpoint, rows: Sequence[Row]) -> dict[str, Tensor]:
    """LLM-Pruner's scores: for each batch the squared sum of w x dL/dw over a group's weights."""
    family, shape = source.family, source.shape
    wanted: dict[str, Term] = {
        "mlp": ("mlp",), "hidden": ("hidden",), "heads": ("kv_groups", "group_heads"),
        "groups": ("kv_groups",), "values": ("kv_groups", "value_dim"),
    }  # fmt: skip
    found: dict[str, Tensor] = {}
    for start in range(0, len(rows), BATCH):
        batch = collate(rows[start : start + BATCH])
        lengths = torch.tensor([len(row["input_ids"]) for row in rows[start : start + BATCH]])
        counts = torch.arange(batch["input_ids"].shape[1]) < lengths[:, None]
        model.zero_grad()
        loss_of(model, family, Batch(batch["input_ids"], counts, batch["weights"])).backward()
        sums: dict[tuple[str, int], Tensor] = {}
        for name, weight in model.named_parameters():
            place = family.spell(name)
            spelling = family.parameters[place.template]
            scores = (weight * weight.grad).detach()
            for axis, term in wanted.items():
                key = (axis, 0 if axis == "hidden" else place.layer or 0)
                sums[key] = sums.get(key, 0) + along(scores, spelling, term, shape)
        for axis in wanted:
            each = [sums[key] for key in sorted(sums) if key[0] == axis]
            found[axis] = found.get(axis, 0) + torch.stack(each).square()
    model.zero_grad()
    return found


@torch.inference_mode()
def over_readers(model: Any, source: Checkpoint, rows: Sequence[Row]) -> Tensor:
    """[D]: the residual stream's L2 as a weight reads it, times the norm of the weight's column.

    The squares of all weights are added.
    """
    family, total = source.family, torch.zeros(source.shape.hidden, dtype=torch.float64)
    readers = {model.get_output_embeddings()}  # tied or not
    for name, _ in model.named_parameters():
        dimensions = parse_dimensions(family.parameters[family.spell(name).template])
        if len(dimensions) == 2 and dimensions[1] == (("hidden",),) and name != family.embedding:
            readers.add(model.get_submodule(name.removesuffix(".weight")))

    def look(module: Any, inputs: tuple[Tensor, ...]) -> None:
        columns = module.weight.double().square().sum(0)
        total.add_(inputs[0].double().square().sum((0, 1)) * columns)

    hooks = [module.register_forward_pre_hook(look) for module in readers]
    for row in rows:  # one at a time: no padding
        model(input_ids=torch.as_tensor(row["input_ids"]).long()[None], use_cache=False)
    for hook in hooks:
        hook.remove()
    return total.sqrt().float()


def draw(shape: Shape, seed: int, like: Importance) -> Importance:
    """Scores at random."""
    generator = torch.Generator().manual_seed(seed)
    of = {
        name: torch.rand(getattr(like, name).shape, generator=generator)
        for name in ("layers", "hidden", "mlp", "values")
    }
    return replace(like, **of, heads=None, groups=None)


def measures(model: Any, source: Checkpoint, rows: Sequence[Row]) -> dict[str, list[Importance]]:
    """Each measure's scores; several draws at random."""
    shape = source.shape
    found = measure_importance(model, source.family, rows, BATCH, taylor=True)
    assert found.taylor is not None
    blocks = [f"model.layers.{i}" for i in range(shape.layers)]
    down, out = (
        torch.stack([model.get_parameter(f"{block}.{name}.weight").norm(dim=0) for block in blocks])
        for name in ("mlp.down_proj", "self_attn.o_proj")
    )
    plain = replace(found, mlp=found.mlp / down, values=found.values / out.view(found.values.shape))
    weights = over_weights(model, source, rows)
    heads = (shape.layers, shape.kv_groups, shape.group_heads)
    pruner = replace(
        found,
        layers=torch.full((shape.layers,), torch.nan),
        hidden=weights["hidden"][0],
        mlp=weights["mlp"],
        heads=weights["heads"].view(heads),
        groups=weights["groups"],
        values=weights["values"].sqrt().view(*heads[:2], 1, -1).expand_as(found.values),
    )
    read = replace(found, hidden=over_readers(model, source, rows))
    scores = (
        [draw(shape, seed, found) for seed in range(3)],
        [plain],
        [read],
        [found.taylor],
        [pruner],
    )
    return dict(zip(MEASURES, scores, strict=True))


# ---------------------------------------------------------------- cuts


def cuts(shape: Shape) -> Iterator[tuple[str, Shape]]:
    """One axis at a time."""
    for share in SHARES:
        for axis in ("mlp", "hidden", "layers"):
            new = shape.with_sizes(**{axis: round(shape.size(axis) * share)})
            if fits(new):
                yield f"{axis}, {share:.0%} stays", new
    yield "dimensions of a head, 50% stays", shape.with_sizes(head_dim=shape.head_dim // 2)
    yield "heads of a group, 50% stays", shape.with_sizes(heads=shape.heads // 2)
    groups = shape.with_sizes(heads=shape.heads // 2, kv_groups=shape.kv_groups // 2)
    yield "KV groups, 50% stays", groups


def show(name: str, source: Checkpoint, calibration: list[Row], held_out: list[Row]) -> None:
    """The table of one teacher."""
    model, shape, console = source.model(), source.shape, Console(width=150)
    rows = record_teacher(model, held_out)
    scored = measures(model, source, calibration)
    table = Table(title=f"{name}: {shape}; nats a token over {len(rows)} held-out items")
    for heading in ("cut", *MEASURES):
        table.add_column(heading)
    for label, new in cuts(shape):
        read: dict[str, np.ndarray] = {}
        for measure, found in scored.items():
            each = [
                divergences(cut_model(model, source.family, one.keep(shape, new)), rows)
                for one in found
                if not ("layers" in label and one.layers.isnan().any())
            ]
            if each:
                read[measure] = np.mean(each, axis=0)
        cells = []
        for measure in MEASURES:
            if measure not in read:
                cells.append("")
                continue
            nats, tokens = read[measure].sum(0)
            beside = "" if measure == RIVAL else f" x{ratio(read[measure], read[RIVAL])}"
            cells.append(f"{nats / tokens:.4f}{beside}")
        console.print(label, *cells, sep=" | ")
        table.add_row(label, *cells)
    console.print(table)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("teacher", choices=("demo", "babyllama"))
    parser.add_argument("--task", type=Path, help="of the demo: out/demo-task.jsonl")
    parser.add_argument("--calibrate", type=int, default=128, help="items of train")
    parser.add_argument("--held-out", type=int, default=100, help="items of dev")
    options = parser.parse_args()
    with TemporaryDirectory() as scratch:
        folder, of_demo = Path(scratch), options.teacher == "demo"
        if of_demo:
            source, file = open_checkpoint(DEMO), options.task
        else:
            source = open_checkpoint(convert_known("babyllama", folder / "babyllama"))
            wanted = (options.calibrate, 2 * options.held_out)
            file = babyllama.write_task(folder / "stories.jsonl", *wanted)
        task, tokenizer = read_task(file), source.tokenizer()
        parts = [
            encode_items(tokenizer, items, task.name, source.context, plain=not of_demo)
            for items in (task.train[: options.calibrate], task.dev[: options.held_out])
        ]
        show(options.teacher, source, answer_rows(parts[0]), answer_rows(parts[1], 0.0))


if __name__ == "__main__":
    main()
