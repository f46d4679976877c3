"""How fast does a model with eyes look and answer, beside plain transformers on the same folder?

    python benchmarks/vision_speed.py [FOLDER]

Without a folder, the model with eyes that comes along. Encoder, prompt and tokens a second in fp32
and with 8 bits, the two sides in turn; the answers compared; peak memory, each in its own process.
What plain transformers gets wrong (docs/concepts/vision.md) is mended in a second column, so that
answers can be compared at all.
"""

from __future__ import annotations

import argparse
import json
import random
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from rich.console import Console
from rich.table import Table
from scipy.stats import quantile_test

from flyweight.demo.pictures import draw
from flyweight.vision.engine import VisionEngine
from flyweight.vision.mllama import Mllama
from flyweight.vision.prompts import with_picture
from flyweight.vision.shipped import shipped

QUESTION = [{"role": "user", "content": "what does the picture show"}]
PARTS = ("encoder ms", "prompt ms", "tokens/s", "second question ms")
console = Console(highlight=False, width=120)


class Plain:
    """Plain transformers: its processor, its model and its `generate`."""

    def __init__(self, folder: Path, kind: Any = None) -> None:
        from transformers import AutoModelForImageTextToText, AutoProcessor

        self.processor = AutoProcessor.from_pretrained(folder)
        loader = kind or AutoModelForImageTextToText
        self.model = loader.from_pretrained(folder, dtype="float32").eval()

    @torch.inference_mode()
    def run(self, image: Any, tokens: int) -> dict[str, float]:
        """Milliseconds and tokens a second of an answer that goes on to the limit."""
        said = with_picture(QUESTION)
        text = self.processor.apply_chat_template(said, add_generation_prompt=True)
        start = time.perf_counter()
        batch = self.processor(images=[image], text=[text], return_tensors="pt")
        eyes = self.model.model.vision_model
        names = ("pixel_values", "aspect_ratio_ids", "aspect_ratio_mask")
        eyes(**{name: batch[name] for name in names})
        looked = time.perf_counter()
        clock = Clock()
        self.model.generate(
            **batch, max_new_tokens=tokens, min_new_tokens=tokens, do_sample=False,
            logits_processor=[clock],
        )  # fmt: skip
        first, last = clock.times[0], clock.times[-1]
        encoder = looked - start
        return {
            "encoder ms": encoder * 1e3,
            "prompt ms": (first - looked - encoder) * 1e3,  # it looks once more
            "tokens/s": (tokens - 1) / (last - first),
            "second question ms": (first - looked) * 1e3,
        }

    @torch.inference_mode()
    def answer(self, image: Any, tokens: int) -> list[int]:
        """The greedy answer, to its end."""
        text = self.processor.apply_chat_template(
            with_picture(QUESTION), add_generation_prompt=True
        )
        batch = self.processor(images=[image], text=[text], return_tensors="pt")
        out = self.model.generate(**batch, max_new_tokens=tokens, do_sample=False)
        return out[0, batch["input_ids"].shape[1] :].tolist()


class Clock:
    """When each step's logits were there; a processor of logits that changes nothing."""

    def __init__(self) -> None:
        self.times: list[float] = []

    def __call__(self, ids: Any, scores: Any) -> Any:
        self.times.append(time.perf_counter())
        return scores


class Ours:
    """The engine, made to write on as `min_new_tokens` makes transformers."""

    def __init__(self, folder: Path, bits: int) -> None:
        self.engine = VisionEngine(folder, bits=bits)
        self.ends = self.engine._ends

    def answer(self, image: Any, tokens: int) -> list[int]:
        """As Plain's."""
        self.engine.see(image)
        found = self.engine.generate(self.engine.form.prompt(with_picture(QUESTION)), tokens)
        return [*found.ids, *([] if found.stop_id is None else [found.stop_id])]

    def run(self, image: Any, tokens: int) -> dict[str, float]:
        """As Plain's."""
        self.engine._ends = frozenset()
        try:
            return self._run(image, tokens)
        finally:
            self.engine._ends = self.ends

    def _run(self, image: Any, tokens: int) -> dict[str, float]:
        engine = self.engine
        engine._looked.clear()
        engine._seen = None
        start = time.perf_counter()
        engine.see(image)  # it is cut now, and looked at with the first question
        cut = time.perf_counter() - start
        prompt = engine.form.prompt(with_picture(QUESTION))
        found = engine.generate(prompt, tokens)
        engine.see(image)
        again = time.perf_counter()
        second = engine.generate(prompt, 1)
        return {
            "encoder ms": (cut + engine.encoder_seconds) * 1e3,
            "prompt ms": found.prompt_seconds * 1e3,
            "tokens/s": (tokens - 1) / found.seconds,
            "second question ms": (time.perf_counter() - again) * 1e3 * (second.written > 0),
        }


class Products:
    """torch's products of one token with every matrix that it needs, and nothing else.

    Each token reads each of them once; a picture's keys and values are there already.
    """

    def __init__(self, folder: Path) -> None:
        model = Mllama.from_pretrained(folder, dtype="float32")
        parts = model.model.language_model.layers.named_parameters()
        once = (".cross_attn.k_proj.weight", ".cross_attn.v_proj.weight")  # a picture
        needed = (part for name, part in parts if not name.endswith(once))
        self.matrices = [part.detach() for part in needed if part.ndim == 2]
        self.matrices.append(model.lm_head.weight.detach())
        self.rows = [torch.randn(1, matrix.shape[1]) for matrix in self.matrices]

    @torch.inference_mode()
    def rate(self, tokens: int) -> float:
        """Tokens a second."""
        start = time.perf_counter()
        for _ in range(tokens):
            for matrix, row in zip(self.matrices, self.rows, strict=True):
                F.linear(row, matrix)
        return tokens / (time.perf_counter() - start)


def middle(values: list[float]) -> str:
    """A median with its 95 % interval."""
    found = quantile_test(values, p=0.5).confidence_interval(0.95)
    return f"{statistics.median(values):,.1f} ({found.low:,.1f} to {found.high:,.1f})"


def memory(kind: str, folder: Path) -> float:
    """Peak MB of a process that loads one side and answers once."""
    code = f"import vision_speed as v; print(v.alone({kind!r}, {str(folder)!r}))"
    run = [sys.executable, "-c", code]
    here = str(Path(__file__).parent)
    done = subprocess.run(run, capture_output=True, text=True, check=True, cwd=here)
    return float(done.stdout.split()[-1])


SIDES: dict[str, Callable[[Path], Plain | Ours]] = {
    "transformers": Plain,
    "transformers, corrected": lambda folder: Plain(folder, Mllama),
    "Flyweight": lambda folder: Ours(folder, 32),
    "Flyweight, 8 bits": lambda folder: Ours(folder, 8),
}


def alone(kind: str, folder: str) -> float:
    """Peak MB of this process after one answer."""
    SIDES[kind](Path(folder)).run(draw(random.Random(0)).image, 16)
    # ru_maxrss would be that of the process that started this one
    status = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in status if line.startswith("VmHWM")) / 1e3


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("folder", type=Path, nargs="?")
    parser.add_argument("--rounds", type=int, default=41)
    parser.add_argument("--tokens", type=int, default=64)
    given = parser.parse_args()
    folder = given.folder or shipped()
    sides = {name: build(folder) for name, build in SIDES.items()}
    pictures = [draw(random.Random(f"speed/{n}")).image for n in range(given.rounds)]
    found: dict[str, dict[str, list[float]]] = {n: {p: [] for p in PARTS} for n in sides}
    answers: dict[str, list[list[int]]] = {name: [] for name in sides}
    alone, limits = Products(folder), list[float]()
    for number, picture in enumerate([pictures[0], *pictures]):  # the first is warm-up
        rate = alone.rate(given.tokens)
        if number:
            limits.append(rate)
        order = list(sides) if number % 2 else list(sides)[::-1]
        for name in order:
            told = sides[name].run(picture, given.tokens)
            if number:
                answers[name].append(sides[name].answer(picture, given.tokens))
                for part in PARTS:
                    found[name][part].append(told[part])
    table = Table(title=f"{folder.name}, {given.tokens} tokens, n = {given.rounds}, medians (95 %)")
    table.add_column("")
    for name in sides:
        table.add_column(name)
    for part in PARTS:
        table.add_row(part, *(middle(found[name][part]) for name in sides))
    table.add_row("peak MB", *(f"{memory(name, folder):,.0f}" for name in sides))
    wanted = answers["transformers, corrected"]
    same = [sum(a == b for a, b in zip(answers[n], wanted, strict=True)) for n in sides]
    table.add_row("answers as corrected", *(f"{count} of {given.rounds}" for count in same))
    console.print(table)
    ratios = [
        ours / theirs
        for ours, theirs in zip(
            found["Flyweight"]["tokens/s"], found["transformers"]["tokens/s"], strict=True
        )
    ]
    console.print(f"Flyweight's tokens/s over transformers': {middle(ratios)} (aim 2)")
    plain = statistics.median(found["transformers"]["tokens/s"])
    console.print(
        f"Its matrices alone, each read once a token: {middle(limits)} tokens/s, at most "
        f"{statistics.median(limits) / plain:.2f} times transformers' in fp32"
    )
    console.print(json.dumps({"torch": torch.__version__, "threads": torch.get_num_threads()}))


if __name__ == "__main__":
    main()
