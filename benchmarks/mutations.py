"""Does this process live, whatever a model's files hold?

Mutations of a small model's GGUF and safetensors files: bytes changed (in the header, or anywhere),
cut, lengthened, or swapped. Each is opened as a user's model is; what may come of it is a model or
an error of the tree in one line. Anything else, a crash first of all, is printed and counted.

    python benchmarks/mutations.py              # 500 in half an hour on one core
    python benchmarks/mutations.py --count 20
"""

from __future__ import annotations

import argparse
import random
import shutil
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory

import flyweight
from flyweight.checkpoint import open_checkpoint
from flyweight.errors import FlyweightError
from flyweight.progress import track
from flyweight.runtime.open_model import find_model

DEMO = Path(__file__).parents[1] / "src/flyweight/demo/teacher"
HEADER = 4096  # bytes, of which half of the mutations change some
WEIGHTS, PACKED = "model.safetensors", "model-q8_0.gguf"


def mutate(good: bytes, draw: random.Random) -> tuple[str, bytes]:
    """How it was changed, and the changed bytes."""
    kind = draw.choice(("header", "header", "anywhere", "cut", "longer", "swapped"))
    changed = bytearray(good)
    if kind == "cut":
        return kind, bytes(changed[: draw.randrange(len(changed))])
    if kind == "longer":
        return kind, bytes(changed + draw.randbytes(draw.randrange(1, 4096)))
    if kind == "swapped":
        first, second = (draw.randrange(len(changed) - 64) for _ in range(2))
        changed[first : first + 64], changed[second : second + 64] = (
            changed[second : second + 64],
            changed[first : first + 64],
        )
        return kind, bytes(changed)
    for _ in range(draw.choice((1, 4, 32))):
        place = draw.randrange(HEADER if kind == "header" else len(changed))
        changed[place] = draw.randrange(256)
    return kind, bytes(changed)


def outcome(opened: Callable[[], object]) -> str:
    """What opening a file came to."""
    try:
        opened()
    except FlyweightError as error:
        return "refused" if "\n" not in str(error) else "refused in several lines"
    except Exception as error:
        print(f"{type(error).__name__}: {error}")
        return "an error of no tree"
    return "opened"


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--count", type=int, default=500)
    parser.add_argument("--seed", type=int, default=0)
    told = parser.parse_args()
    draw = random.Random(told.seed)
    found: Counter[tuple[str, str, str]] = Counter()
    with TemporaryDirectory() as scratch:
        folder = Path(scratch) / "model"
        shutil.copytree(DEMO, folder)
        flyweight.pack(folder, bits=(8,))
        good = {name: (folder / name).read_bytes() for name in (WEIGHTS, PACKED)}
        for number in track(range(told.count), "Mutating"):
            name = (WEIGHTS, PACKED)[number % 2]
            kind, content = mutate(good[name], draw)
            (folder / name).write_bytes(content)
            if name == PACKED:
                came = outcome(lambda: find_model(folder, 8))
            else:
                came = outcome(lambda: open_checkpoint(folder).model())
            (folder / name).write_bytes(good[name])
            found[name, kind, came] += 1
    for (name, kind, came), count in sorted(found.items()):
        print(f"{name:18} {kind:9} {came:26} {count:4}")
    bad = sum(count for (*_, came), count in found.items() if came not in ("opened", "refused"))
    print(f"{told.count} mutations, this process lives; {bad} were neither opened nor refused.")


if __name__ == "__main__":
    main()
