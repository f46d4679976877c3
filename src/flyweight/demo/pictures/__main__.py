"""Write pictures and questions: `python -m flyweight.demo.pictures OUT --count 200 --seed 1`."""

from __future__ import annotations

import argparse
import json
from itertools import islice
from pathlib import Path

from flyweight.demo.pictures import SIZE, pictures


def write(folder: Path, amount: int, seed: int, size: int = SIZE, split: str | None = None) -> Path:
    """Write `amount` pictures to folder/images and a line a question to folder/images.jsonl.

    Returns the path of the JSONL, whose images are named relative to it. All lines of a picture
    are one group.
    """
    (folder / "images").mkdir(parents=True, exist_ok=True)
    lines = []
    for number, drawn in enumerate(islice(pictures(seed, size), amount), 1):
        name = f"images/{number:06}.png"
        drawn.image.save(folder / name)
        for each in drawn.questions:
            line = {
                "image": name,
                "prompt": each.prompt,
                "answer": each.answer,
                "slice": each.kind,
                "group": f"{seed}/{number}",
            }
            lines.append(json.dumps(line | ({"split": split} if split else {})))
    path = folder / "images.jsonl"
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(prog="python -m flyweight.demo.pictures", description=__doc__)
    parser.add_argument("folder", type=Path, help="where to write")
    parser.add_argument("--count", type=int, default=200, help="how many pictures")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--size", type=int, default=SIZE, help="width and height in pixels")
    parser.add_argument("--split", choices=("train", "dev", "test"), help="written to every line")
    wanted = parser.parse_args()
    print(write(wanted.folder, wanted.count, wanted.seed, wanted.size, wanted.split))


if __name__ == "__main__":
    main()
