"""What does a step from an 8B teacher to a 1B student cost on a GPU, beside a plain loop and TRL's?

    python benchmarks/gpu_step.py --out steps.jsonl             # Llama-3.1-8B to Llama-3.2-1B
    python benchmarks/gpu_step.py --split --arms ours           # and where ours spends its time
    python benchmarks/gpu_step.py --shape tiny --seconds 2      # the same code, on a CPU

The weights are drawn at random on the device itself. The teacher is in bf16, the student's weights
are in fp32 with its products in bf16; forward KL on every token; AdamW, fused; gradients clipped.
`ours` is distill/trainer.py with a live teacher; `plain` a loop as everybody writes it, with full
logits; `trl` is GKDTrainer at lmbda 0 and beta 0, without the gradient checkpointing that it would
do by itself. Each run is a process of its own, the arms in turn; models, rows, their order and the
learning rates are the same, so that the first losses must agree within the rounding of bf16: they
are printed. A step's time is from its start to that of the next, the first few left out; memory is
the most that was allocated after those. Each process first measures what a large bf16 product
reaches; the share of it is taken of the operations that a step cannot do without: the teacher's
pass, three times the student's, their heads, and attention's causal half.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import statistics
import subprocess
import sys
import threading
import time
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, TextIO

HERE = Path(__file__).parent
ARM = HERE / "gpu_step_arm.py"
PEERS = HERE / ".venv-kd/bin/python"
ARMS = ("ours", "plain", "trl")


@dataclass(frozen=True)
class Sizes:
    """Of a Llama."""

    layers: int
    hidden: int
    mlp: int
    heads: int
    groups: int
    head_dim: int
    tied: bool

    def forward(self, tokens: int, length: int, judged: int, vocabulary: int) -> float:
        """Operations of a pass over `tokens` in rows of `length`, logits of `judged` of them."""
        width = self.heads * self.head_dim
        attention = self.hidden * (2 * width + 2 * self.groups * self.head_dim)
        weights = self.layers * (attention + 3 * self.hidden * self.mlp)
        scores = self.layers * 2 * width * length / 2  # of the square only what is causal
        return 2.0 * (tokens * (weights + scores) + judged * self.hidden * vocabulary)


@dataclass(frozen=True)
class Case:
    """Teacher, student, and how many rows of how many tokens make a step."""

    vocabulary: int
    teacher: Sizes
    student: Sizes
    product: int  # the size of the square product whose speed is the measure
    layouts: tuple[str, ...]

    def needed(self, rows: int, length: int) -> float:
        """Operations that a step cannot do without."""
        given = rows * length, length, rows * (length - 1), self.vocabulary
        return self.teacher.forward(*given) + 3 * self.student.forward(*given)


CASES = {
    "llama": Case(
        128_256,
        Sizes(32, 4096, 14_336, 32, 8, 128, tied=False),
        Sizes(16, 2048, 8192, 32, 8, 64, tied=True),
        8192,
        ("4x2048", "32x256"),
    ),
    "tiny": Case(
        512,
        Sizes(3, 64, 192, 4, 2, 16, tied=False),
        Sizes(2, 48, 128, 4, 2, 12, tied=True),
        1024,
        ("2x256", "16x32"),
    ),
}


def listen(arm: str, layout: str, options: argparse.Namespace, scratch: str, out: TextIO | None):
    """What a child says, line by line as it comes, and what became of it if it says no more."""
    python = str(options.peers) if arm == "trl" and options.peers.exists() else sys.executable
    command = [python, str(ARM), arm, "--layout", layout, "--shape", options.shape]
    command += ["--seconds", str(options.seconds), "--steps", str(options.steps)]
    command += ["--device", options.device] if options.device else []
    command += ["--split"] if options.split else []
    paths = [str(HERE.parent / "src"), *filter(None, [os.environ.get("PYTHONPATH")])]
    paths += [str(options.trl)] if arm == "trl" and options.trl else []
    environment = os.environ | {
        "PYTHONPATH": os.pathsep.join(paths), "TMPDIR": scratch, "HF_HUB_OFFLINE": "1",
    }  # fmt: skip
    with (
        (Path(scratch) / "said").open("w+", encoding="utf-8") as said,
        subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=said, text=True, env=environment
        ) as running,
    ):
        ends = threading.Timer(options.seconds + options.patience, running.kill)
        ends.start()
        ended = False
        for line in running.stdout or ():
            if line.startswith("{"):
                told = json.loads(line)
                ended |= told["kind"] in {"result", "failed"}
                record(told, arm, layout, out)
                yield told
        ends.cancel()
        if running.wait() or not ended:
            said.seek(0)
            last = (said.read().strip().splitlines() or ["it said nothing"])[-1]
            told = {"kind": "failed", "why": f"ended with {running.returncode}: {last[:200]}"}
            record(told, arm, layout, out)
            yield told


def record(told: dict[str, Any], arm: str, layout: str, out: TextIO | None) -> None:
    if out is not None:
        out.write(json.dumps({"arm": arm, "layout": layout} | told) + "\n")
        out.flush()


def show(arm: str, layout: str, told: dict[str, Any], case: Case, peak: float) -> None:
    """A result's line of the table, and where the time went."""
    rows, length = map(int, layout.split("x"))
    took = statistics.median(told["steps"])
    speed = case.needed(rows, length) / took
    memory = f"{told['bytes'] / 2**30:.1f}" if told["bytes"] else "not measured"
    low, high = 1e3 * min(told["steps"]), 1e3 * max(told["steps"])
    print(
        f"| {layout} | {arm} | {rows * length / took:,.0f} "
        f"| {1e3 * took:,.1f} ({low:,.1f} to {high:,.1f}, n = {len(told['steps'])}) "
        f"| {memory} | {speed / 1e12:,.1f} | {speed / peak:.1%} |",
        flush=True,
    )
    if "split" in told:
        held = told["split"]["held"]
        parts = ", ".join(
            f"{name} {ms:,.1f} ms"
            + (f" (from {held[name] / 2**30:.1f} GiB)" if told["bytes"] else "")
            for name, ms in told["split"]["ms"].items()
        )
        print(f"  {arm} {layout}: {parts}", flush=True)


def run(arm: str, layout: str, options: argparse.Namespace, scratch: str, out: TextIO | None):
    """One child, shown as it goes."""
    case, peak = CASES[options.shape], math.nan
    for told in listen(arm, layout, options, scratch, out):
        if told["kind"] == "device":
            peak = told["peak"]
            product = f"{told['product']}^3 in bf16 at {peak / 1e12:,.1f} TFLOP/s"
            print(f"  {arm} {layout}: {told['name']}, {told['versions']}, {product}", flush=True)
        elif told["kind"] == "first":
            first = " ".join(f"{loss:.5f}" for loss in told["losses"])
            print(f"  {arm} {layout}: first losses {first}", flush=True)
        elif told["kind"] == "failed":
            print(f"| {layout} | {arm} | {told['why']} |", flush=True)
        else:
            show(arm, layout, told, case, peak)


def main() -> None:
    """Measure, and print the table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--shape", choices=CASES, default="llama")
    parser.add_argument("--layouts", nargs="+", help="rows x tokens of a step, such as 4x2048")
    parser.add_argument("--arms", nargs="+", choices=ARMS, default=list(ARMS))
    parser.add_argument("--seconds", type=float, default=12, help="of timed steps, an arm")
    parser.add_argument("--steps", type=int, default=100, help="that are timed at the most")
    parser.add_argument("--patience", type=float, default=75, help="seconds for all else of an arm")
    parser.add_argument("--all", type=float, default=290, help="seconds after which no arm starts")
    parser.add_argument("--split", action="store_true", help="where ours spends its time")
    parser.add_argument("--device", choices=("cuda", "cpu"))
    parser.add_argument("--peers", type=Path, default=PEERS, help="the interpreter with TRL")
    parser.add_argument("--trl", type=Path, help="a folder of packages that only `trl` is to see")
    parser.add_argument("--out", type=Path, help="a file for the JSON lines")
    options = parser.parse_args()
    started = time.monotonic()
    print(
        "| rows x tokens | arm | tokens/s | ms a step (range) | GiB | TFLOP/s | of the product's |"
    )
    print("|---|---|---|---|---|---|---|", flush=True)
    with TemporaryDirectory() as scratch:
        out = options.out.open("a", encoding="utf-8") if options.out else None
        for layout in options.layouts or CASES[options.shape].layouts:
            for arm in options.arms:
                if time.monotonic() - started > options.all:
                    print(f"| {layout} | {arm} | left out: {options.all:.0f} s are over |")
                    continue
                run(arm, layout, options, scratch, out)


if __name__ == "__main__":
    main()
