"""Does the demo's model with eyes see? Unseen gauges, meters and charts, beside no picture at all.

    python benchmarks/vision_sees.py [FOLDER] [--count 1000] [--bits 8]
    python benchmarks/vision_sees.py [FOLDER] --beside 8

Pictures of a seed that no training had. A gauge is right within 2 % of its full scale, all else if
the answer is exact. The baselines: the same model asked without a picture, and the commonest answer
to each kind of question. With `--beside`, gauges alone: the share of right readings that weights of
so many bits keep, on the same pictures.
"""

from __future__ import annotations

import argparse
import random
import re
from collections import Counter, defaultdict
from pathlib import Path

from rich.console import Console
from rich.progress import track
from rich.table import Table
from scipy.stats import binomtest

from flyweight.demo.pictures import Question, draw
from flyweight.tasks.statistics import paired_ratio
from flyweight.vision.engine import VisionEngine
from flyweight.vision.prompts import with_picture
from flyweight.vision.shipped import shipped

SEED = "unseen"
LONGEST = 40  # tokens of an answer
WITHIN = 0.02  # of full scale
console = Console(highlight=False, width=110)


def right(question: Question, said: str) -> bool:
    """Whether an answer is right."""
    if question.kind != "gauge":
        return said.strip() == question.answer
    number = re.match(r"(-?\d+(?:\.\d+)?) (.+)", said.strip())
    if number is None or number[2] != question.answer.split()[1]:
        return False
    assert question.value is not None
    assert question.full_scale is not None
    return abs(float(number[1]) - question.value) <= WITHIN * question.full_scale


def share(found: list[bool]) -> str:
    """A share with its 95 % interval (Clopper-Pearson)."""
    interval = binomtest(sum(found), len(found)).proportion_ci(0.95)
    share = sum(found) / len(found)
    return f"{share:.1%} ({interval.low:.1%} to {interval.high:.1%}), n = {len(found):,}"


def kept_beside(folder: Path, count: int, bits: int, fewer: int) -> None:
    """Gauges read right at two widths of weights, and the ratio of the two with its limits."""
    widths = (bits, fewer)
    found: dict[int, list[bool]] = {each: [] for each in widths}
    with (
        VisionEngine(folder, context=256, bits=bits) as one,
        VisionEngine(folder, context=256, bits=fewer) as other,
    ):
        for number in track(range(count), "Asking"):
            picture = draw(random.Random(f"{SEED}/beside/{number}"), "gauge")
            [question] = [each for each in picture.questions if each.kind == "gauge"]
            asked = with_picture([{"role": "user", "content": question.prompt}])
            for width, engine in zip(widths, (one, other), strict=True):
                engine.see(picture.image)
                said = engine.generate(engine.form.prompt(asked), LONGEST).text
                found[width].append(right(question, said))
    for width in widths:
        console.print(f"{width} bits: {share(found[width])}")
    scores = [[float(each) for each in found[width]] for width in widths]
    kept = paired_ratio(scores[1], scores[0], range(count))
    console.print(
        f"{fewer} bits keep {kept.estimate:.1%} ({kept.low:.1%} to {kept.high:.1%}, each one-sided "
        f"at 95 %); {kept.disagreements} of {count} differ"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("folder", type=Path, nargs="?")
    parser.add_argument("--count", type=int, default=1000)
    parser.add_argument("--bits", type=int, default=32)
    parser.add_argument("--beside", type=int, help="bits of the weights")
    given = parser.parse_args()
    if given.beside:
        kept_beside(given.folder or shipped(), given.count, given.bits, given.beside)
        return
    seen: dict[str, list[bool]] = defaultdict(list)
    blind: dict[str, list[bool]] = defaultdict(list)
    answers: dict[str, Counter[str]] = defaultdict(Counter)
    with VisionEngine(given.folder or shipped(), context=256, bits=given.bits) as engine:

        def said(prompt: list[int]) -> str:
            return engine.generate(prompt, LONGEST, reuse=True).text

        for number in track(range(given.count), "Asking"):
            picture = draw(random.Random(f"{SEED}/{number}"))
            for question in picture.questions:
                asked = [{"role": "user", "content": question.prompt}]
                kind = f"{picture.facts['kind']}: {question.kind}"
                engine.see(picture.image)
                seen[kind].append(right(question, said(engine.form.prompt(with_picture(asked)))))
                engine.see(None)
                blind[kind].append(right(question, said(engine.form.prompt(asked))))
                answers[kind][question.answer] += 1
    table = Table("question", "with the picture", "without", "commonest answer")
    for kind in sorted(seen):
        commonest = answers[kind].most_common(1)[0][1] / len(seen[kind])
        table.add_row(kind, share(seen[kind]), f"{sum(blind[kind]) / len(blind[kind]):.1%}",
                      f"{commonest:.1%}")  # fmt: skip
    charts = [kind for kind in seen if kind.split(":")[0] in ("bar", "line", "pie")]
    table.add_section()
    table.add_row("gauges within 2 % (aim 90 %)", share(seen["gauge: gauge"]),
                  f"{sum(blind['gauge: gauge']) / len(blind['gauge: gauge']):.1%}", "")  # fmt: skip
    each = [one for kind in charts for one in seen[kind]]
    none = [one for kind in charts for one in blind[kind]]
    table.add_row("charts, exact (aim 85 %)", share(each), f"{sum(none) / len(none):.1%}", "")
    console.print(table)


if __name__ == "__main__":
    main()
