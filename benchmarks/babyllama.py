"""How much smaller can a real story model be made, and still know its stories at 90 %?

babyllama-tok105 (0.94 M parameters, one token a character; not ours) learned TinyStories for 5,000
steps. `make` shrinks it on beginnings of such stories, plain text scored by likelihood: bits a byte
against the teacher's own. A hard case: it has no fat for another task to lose.

    python benchmarks/babyllama.py                         # twenty minutes on one core
    python benchmarks/babyllama.py --effort standard       # an hour
    python benchmarks/babyllama.py --train 64 --held-out 32 --steps 8      # half a minute
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from tempfile import TemporaryDirectory

from rich.console import Console

import flyweight
from flyweight.card import Card
from llama2c import STORIES, as_written, convert_known, stories

CONTEXT = 256


def known_characters() -> set[str]:
    """The characters that babyllama's tokenizer has, and the end of a line."""
    lines = (STORIES / "babyllama-tok105" / "tok105.vocab").read_text(encoding="utf-8").split("\n")
    return {line.split("\t")[0] for line in lines} | {" ", "\n"}


def beginnings() -> list[str]:
    """Each story's beginning that fits the context after the start token, to the last whole word.

    Stories with an unknown character are left out, and no beginning stands there twice.
    """
    known, found = known_characters(), {}
    for story in stories():
        text = as_written(story)
        if set(text) <= known:
            if len(text) >= CONTEXT:
                text = text[: CONTEXT - 1].rsplit(" ", 1)[0]
            found[text] = None
    return list(found)


def write_task(path: Path, train: int, held_out: int) -> Path:
    """The task file: `train` beginnings, half of `held_out` as dev, half as test."""
    texts = beginnings()
    if train + held_out > len(texts):
        raise SystemExit(f"There are {len(texts)} stories: ask for fewer.")
    splits = ["train"] * train + ["dev", "test"] * (held_out // 2)
    with path.open("w", encoding="utf-8") as file:
        for text, split in zip(texts, splits, strict=False):
            file.write(json.dumps({"text": text, "split": split}) + "\n")
    return path


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--train", type=int, default=1600, help="stories")
    parser.add_argument("--held-out", type=int, default=600, help="stories, half dev, half test")
    parser.add_argument("--bar", type=float, default=0.9)
    parser.add_argument("--effort", choices=("quick", "standard", "thorough"), default="quick")
    parser.add_argument("--steps", type=int, help="of distillation; make's own choice if not given")
    parser.add_argument("--out", type=Path, help="where to leave the model folder")
    options = parser.parse_args()
    with TemporaryDirectory() as scratch:
        folder = Path(scratch)
        teacher = convert_known("babyllama", folder / "babyllama")
        task = write_task(folder / "stories.jsonl", options.train, options.held_out)
        out = flyweight.make(
            str(teacher),
            task=task,
            out=options.out or folder / "student",
            bar=options.bar,
            score="likelihood",
            effort=options.effort,
            steps=options.steps,
        )
        card = Card.model_validate_json((out / "card.json").read_text(encoding="utf-8"))
    for name, scores in (("teacher", card.scores.teacher), ("student", card.scores.student)):
        test = scores.test
        Console(highlight=False).print(
            f"{name}: {test.mean:.3f} bits a byte on test ({test.low:.3f} to {test.high:.3f}, "
            f"n = {test.n})"
        )


if __name__ == "__main__":
    main()
