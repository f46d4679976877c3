"""Do eyes that learned gauges learn what people say of pictures? NLVR, and the commonest answer.

    python benchmarks/vision_nlvr.py [FOLDER] [--steps 400]

989 pictures of boxes with shapes, each with a sentence that is true or false of it (Suhr et
al. 2017). Eyes are trained on 70 % of the picture groups and asked about 20 %, with the picture and
with another one's. Intervals are over groups.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import tarfile
from collections import defaultdict
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
from rich.console import Console
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from flyweight.folder import sha256_of
from flyweight.tasks.read import read_task
from flyweight.vision.engine import VisionEngine
from flyweight.vision.images import open_image
from flyweight.vision.prompts import with_picture
from flyweight.vision.shipped import shipped
from flyweight.vision.train import train_vision

SHARED = Path(os.environ.get("FLYWEIGHT_SHARED", "../shared"))
NLVR = SHARED / "data/images/nlvr"
console = Console(highlight=False, width=110)


def write_data(folder: Path) -> Path:
    """The task file, with its pictures beside it."""
    with tarfile.open(NLVR / "dev_images_perm0.tar") as tar:
        tar.extractall(folder, filter="data")
    lines, pictures = [], []
    for line in (NLVR / "dev.json").read_text().splitlines():
        each = json.loads(line)
        name = f"images/{each['directory']}/dev-{each['identifier']}-0.png"
        lines.append({"image": name, "prompt": each["sentence"], "answer": each["label"]})
        pictures.append((each["identifier"].split("-")[0], sha256_of(folder / name)))
    for line, group in zip(lines, groups_of(pictures), strict=True):
        line["group"] = group
    file = folder / "nlvr.jsonl"
    file.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return file


def groups_of(pictures: list[tuple[str, str]]) -> list[str]:
    """The group of each: some pictures stand in two sets of the data, which are then one group."""
    ids = dict.fromkeys(part for pair in pictures for part in pair)
    numbers = {part: number for number, part in enumerate(ids)}
    one, other = np.array([[numbers[part] for part in pair] for pair in pictures]).T
    graph = coo_array((np.ones(len(one)), (one, other)), shape=(len(ids), len(ids)))
    _, parts = connected_components(graph, directed=False)
    return [f"group {parts[each]}" for each in one]


def interval(found: dict[str, list[float]]) -> str:
    """A mean with its 95 % interval, resampling groups."""
    sums = np.array([[sum(values), len(values)] for values in found.values()])
    drawn = np.random.default_rng(0).integers(0, len(sums), (10_000, len(sums)))
    each = sums[drawn].sum(1)
    low, high = np.quantile(each[:, 0] / each[:, 1], [0.025, 0.975])
    return f"{sums[:, 0].sum() / sums[:, 1].sum():.1%} ({low:.1%} to {high:.1%})"


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("folder", type=Path, nargs="?")
    parser.add_argument("--steps", type=int, default=400)
    given = parser.parse_args()
    with TemporaryDirectory() as place:
        data = write_data(Path(place))
        out = train_vision(
            given.folder or shipped(), Path(place) / "eyes", data=data, steps=given.steps,
            learning_rate=5e-4,
        )  # fmt: skip
        task = read_task(data, pictures=True)
        trues = sum(item.answer == "true" for item in task.train)
        commonest = "true" if 2 * trues >= len(task.train) else "false"
        rng = random.Random(0)
        right: dict[str, dict[str, list[float]]] = {
            name: defaultdict(list)
            for name in ("with the picture", "with another picture", "commonest answer", "gain")
        }
        with VisionEngine(out, context=512) as engine:
            for item in task.test:
                asked = engine.form.prompt(with_picture(item.messages))
                said = []
                for name in (str(item.image), str(rng.choice(task.test).image)):
                    engine.see(open_image(data.parent / name))
                    said.append(engine.generate(asked, 8).text == item.answer)
                common = item.answer == commonest
                told = (float(said[0]), float(said[1]), float(common), float(said[0]) - common)
                for name, value in zip(right, told, strict=True):
                    right[name][item.group].append(value)
    console.print(f"{len(task.test)} held-out sentences in {len(right['gain'])} groups")
    for name, found in right.items():
        console.print(f"{name:<24}{interval(found)}")


if __name__ == "__main__":
    main()
