"""What do weights of 4 and 5 bits lose when they are rounded for the task, and when plainly?

The same matrices in the same GGUF types (Q4_0 or Q5_0; embedding and output Q8_0), rounded in one
of these ways; the peer is ggml's own rounding:

- plain: as `gguf.quants.quantize` (ggml's reference) does;
- scales: each block's scale looked for, all columns alike;
- columns: as before, an error counts as much as the mean square that its column meets on train
  items (llama.cpp's importance matrix, without its factor for large weights);
- made up: what a column loses is made up for in those after it, by the products of what columns
  meet (GPTQ): what `make` and `pack --data` write;

On held-out items, in torch with the rounded weights: KL from the fp32 model in nats a token of the
answer, and the task's score. Intervals: 95 %, bootstrap over groups; of KL as a share of plain's,
paired. `1b` times a Llama-3.2-1B's matrices with random weights, layer by layer.

    python benchmarks/quantise.py demo --student out/demo
    python benchmarks/quantise.py babyllama
    python benchmarks/quantise.py banking77 --teacher T --student S --task banking77.jsonl
    python benchmarks/quantise.py 1b
"""

from __future__ import annotations

import argparse
import copy
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import torch
from gguf import GGMLQuantizationType
from gguf.quants import dequantize
from gguf.quants import quantize as plain
from rich.console import Console
from rich.table import Table

import babyllama
from banking77 import TEACHER
from flyweight.anatomy.inputs import WINDOW, Inputs, measure_inputs
from flyweight.checkpoint import open_checkpoint
from flyweight.demo.orders import write_task
from flyweight.make.data import Split, prepare_split
from flyweight.make.form import form_of
from flyweight.make.workload import CALIBRATION
from flyweight.runtime.forced import answer_logits
from flyweight.runtime.quantise import quantise
from flyweight.tasks.read import read_task
from flyweight.tasks.score import scorer
from llama2c import convert_known

Q4, Q5, Q8 = (GGMLQuantizationType[name] for name in ("Q4_0", "Q5_0", "Q8_0"))
KINDS = {5: Q5, 4: Q4}
ARMS = ("plain", "scales", "columns", "made up")
RESAMPLES = 2000
ONE_B = {"layers": 16, "hidden": 2048, "mlp": 8192, "kv": 512, "vocabulary": 128256}
TEXTS, LONG = 256, 64  # what a 1B shape's inputs are timed on, in tokens


@dataclass(frozen=True)
class Said:
    """What a model says of each item's answer: log-probabilities [A, V], score, nats [n]."""

    logs: dict[int, torch.Tensor]
    right: np.ndarray
    nats: np.ndarray


def stored(weight: np.ndarray, kind: GGMLQuantizationType, arm: str, moments: Any) -> np.ndarray:
    """The bytes of a matrix, rounded in one of the ways."""
    if arm == "plain":
        return plain(weight, kind)
    if moments is None or arm == "scales":
        return quantise(weight, kind)
    if arm == "columns":
        return quantise(weight, kind, squares=np.concatenate([m.diagonal() for m in moments]))
    return quantise(weight, kind, moments=moments)


def rounded(model: Any, bits: int, arm: str, inputs: Inputs) -> Any:
    """A copy of a model with the weights of such a file."""
    found = copy.deepcopy(model)
    for name, weight in found.named_parameters():
        if weight.dim() == 2 and weight.shape[1] % 32 == 0:
            kind = Q8 if "embed" in name or "lm_head" in name else KINDS[bits]
            moments = inputs.moments.get(name)
            given = None if moments is None else [each.numpy() for each in moments]
            made = dequantize(stored(weight.detach().numpy(), kind, arm, given), kind)
            weight.data = torch.from_numpy(made.copy())
    return found


@torch.inference_mode()
def listen(model: Any, split: Split) -> Said:
    """What a model says of the answers of a split."""
    logs, right, nats = {}, np.zeros(len(split)), np.zeros(len(split))
    for place, logits, ids in answer_logits(model, split.pairs, 64, ""):
        logs[place] = logits.log_softmax(-1)
        right[place] = bool((logits.argmax(-1) == ids).all())
        nats[place] = -float(logs[place].gather(1, ids[:, None]).sum())
    return Said(logs, right, nats)


def interval(
    values: Callable[[np.ndarray], float], groups: Sequence[str]
) -> tuple[float, float, float]:
    """A figure of items [n] with its 95 % interval, resampled by group."""
    names, code = np.unique(groups, return_inverse=True)
    members = [np.flatnonzero(code == number) for number in range(len(names))]
    draw = np.random.default_rng(0)
    found = [
        values(np.concatenate([members[i] for i in draw.integers(0, len(names), len(names))]))
        for _ in range(RESAMPLES)
    ]
    low, high = np.quantile(found, [0.025, 0.975])
    return values(np.arange(len(groups))), float(low), float(high)


def compare(console: Console, folder: Path, task: Path, score: str, held_out: int) -> None:
    """Every way beside the plain one, on one model and its task."""
    source = open_checkpoint(folder)
    form, model, read, scoring = form_of(source), source.model(), read_task(task), scorer(score)
    train = prepare_split(read.train[:CALIBRATION], task.name, form, scoring)
    split = prepare_split([*read.dev, *read.test][:held_out], task.name, form, scoring)
    started = time.perf_counter()
    inputs = measure_inputs(model, [each.ids.tolist() for each in train.examples])
    seconds = time.perf_counter() - started
    exact = listen(model, split)
    tokens = np.array([len(answer) for _, answer in split.pairs])
    console.print(
        f"{folder}: {source.parameters:,} parameters; {len(train)} train items, {inputs.tokens:,} "
        f"tokens read in {seconds:.1f} s; {len(split)} held-out items, {len(set(split.groups))} "
        f"groups. fp32: {score} {exact.right.mean():.1%}, {exact.nats.sum() / tokens.sum():.4f} "
        "nats a token"
    )
    table = Table("bits", "rounded", "KL a token", "of plain's", "score", "nats a token", "s")
    for bits in KINDS:
        base = np.zeros(0)
        for arm in ARMS:
            started = time.perf_counter()
            weights = rounded(model, bits, arm, inputs)
            took = time.perf_counter() - started
            said = listen(weights, split)
            far = np.array([
                float((exact.logs[i].exp() * (exact.logs[i] - said.logs[i])).sum())
                for i in range(len(split))
            ])  # fmt: skip
            base = base if len(base) else far
            table.add_row(*_row(bits, arm, far, base, said, exact, tokens, split.groups, took))
    console.print(table)


def _row(
    bits: int, arm: str, far: np.ndarray, base: np.ndarray, said: Said, exact: Said,
    tokens: np.ndarray, groups: Sequence[str], took: float,
) -> list[str]:  # fmt: skip
    kl, share, score, nats = (
        interval(figure, groups)
        for figure in (
            lambda i: far[i].sum() / tokens[i].sum(),
            lambda i: far[i].sum() / base[i].sum(),
            lambda i: said.right[i].mean() - exact.right[i].mean(),
            lambda i: (said.nats[i].sum() - exact.nats[i].sum()) / tokens[i].sum(),
        )
    )
    return [
        str(bits),
        arm,
        f"{kl[0]:.2e} ({kl[1]:.1e} to {kl[2]:.1e})",
        "" if arm == "plain" else f"{share[0]:.2f} ({share[1]:.2f} to {share[2]:.2f})",
        f"{said.right.mean():.1%} ({score[1]:+.1%} to {score[2]:+.1%})",
        f"{nats[0]:+.4f} ({nats[1]:+.4f} to {nats[2]:+.4f})",
        f"{took:.1f}",
    ]


def time_one_b(console: Console) -> None:
    """Seconds that a 1B shape's matrices take at 4 bits, and reading what feeds them."""
    draw, hidden, mlp, kv = np.random.default_rng(0), ONE_B["hidden"], ONE_B["mlp"], ONE_B["kv"]
    layer = [(hidden, hidden)] * 2 + [(kv, hidden)] * 2 + [(mlp, hidden)] * 2 + [(hidden, mlp)]
    inputs = draw.standard_normal((4 * WINDOW, WINDOW), dtype=np.float32)
    window = (inputs.T @ inputs / len(inputs)).astype(np.float32)
    took = {arm: np.zeros(2) for arm in (ARMS[0], ARMS[-1])}
    with TemporaryDirectory() as scratch, (Path(scratch) / "weights").open("wb") as file:
        for number in range(ONE_B["layers"] + 1):
            table = number == ONE_B["layers"]  # the embedding
            for shape in [(ONE_B["vocabulary"], hidden)] if table else layer:
                weight = draw.standard_normal(shape, dtype=np.float32)
                moments = None if table else [window] * (shape[1] // WINDOW)
                for arm, clocks in took.items():
                    started = _clocks()
                    file.write(stored(weight, Q8 if table else Q4, arm, moments))
                    file.seek(0)
                    clocks += _clocks() - started
    what = [(f"1.24 G random weights to 4 bits, {arm}", clocks) for arm, clocks in took.items()]
    what.append((f"reading {TEXTS} texts of {LONG} tokens", 4 * ONE_B["layers"] * _reading()))
    for name, (wall, busy) in what:
        console.print(f"A Llama-3.2-1B, {name}: {wall:.0f} s, {busy:.0f} s of a core")


def _clocks() -> np.ndarray:
    """Seconds on the wall and of this process, whatever else the machine does."""
    return np.array([time.perf_counter(), time.process_time()])


def _reading() -> np.ndarray:
    """The clocks for `measure_inputs` on one layer of a 1B shape and a quarter of the texts."""
    from transformers import LlamaConfig, LlamaForCausalLM

    config = LlamaConfig(
        vocab_size=32, hidden_size=2048, intermediate_size=8192, num_hidden_layers=1,
        num_attention_heads=32, num_key_value_heads=8,
    )  # fmt: skip
    model = LlamaForCausalLM(config).eval()
    started = _clocks()
    measure_inputs(model, [[1] * LONG] * (TEXTS // 4))
    return _clocks() - started


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("what", choices=("demo", "babyllama", "banking77", "1b"))
    parser.add_argument("--teacher", type=Path)
    parser.add_argument("--student", type=Path)
    parser.add_argument("--task", type=Path)
    parser.add_argument("--held-out", type=int, default=1000)
    options = parser.parse_args()
    console = Console(width=150, highlight=False)
    if options.what == "1b":
        time_one_b(console)
        return
    with TemporaryDirectory() as scratch:
        folder, score = Path(scratch), "exact"
        task = options.task or folder / "task.jsonl"
        if options.what == "demo":
            teacher = TEACHER
            write_task(task)
        elif options.what == "babyllama":
            teacher, score = convert_known("babyllama", folder / "babyllama"), "likelihood"
            babyllama.write_task(task, 1600, 600)
        else:
            teacher = options.teacher
        for model in (teacher, options.student):
            if model is not None:
                compare(console, model, task, score, options.held_out)


if __name__ == "__main__":
    main()
