"""The verb `advise`: a corpus that helps, one that harms, and what it says of them."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import flyweight
from flyweight.distill.objectives import Aim
from flyweight.distill.probing import Bench
from flyweight.distill.trainer import Schedule
from flyweight.errors import FlyweightError, OptionError

NAMES = [
    f"{a}{b}" for a in ("pu", "va", "mo", "oi", "ho", "ri") for b in ("mp", "lve", "tor", "ck")
]


def asked(name: str, number: int) -> dict[str, str]:
    """The answer follows from the name, which has to be learned for each."""
    return {"prompt": f"{number}: {name}", "answer": NAMES[(7 * NAMES.index(name) + 5) % 24]}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A task whose train items know half of the names, and two corpora."""
    folder = tmp_path_factory.mktemp("advice")
    lines: list[dict[str, Any]] = [
        asked(name, n) | {"split": "train"} for n in range(4) for name in NAMES[::2]
    ]
    lines += [asked(name, n) | {"split": "dev"} for n in (7, 8) for name in NAMES]
    lines += [asked(name, 9) | {"split": "test"} for name in NAMES[:4]]
    write(folder / "task.jsonl", lines)
    write(folder / "more.jsonl", [asked(name, n) for n in range(10, 14) for name in NAMES])
    letters = np.random.default_rng(0).integers(97, 123, (200, 30))
    (folder / "noise[v2].txt").write_text("\n\n".join("".join(map(chr, row)) for row in letters))
    return folder


def write(path: Path, lines: list[dict[str, Any]]) -> None:
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))


@pytest.fixture(scope="module")
def student(make_llama: Callable[..., Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_llama(
        tmp_path_factory.mktemp("student") / "s", num_hidden_layers=1, initializer_range=0.05
    )


def test_help_and_harm_are_told_apart(
    tiny_llama: Path, student: Path, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    more, noise = str(folder / "more.jsonl"), str(folder / "noise[v2].txt")
    found = flyweight.advise(
        str(tiny_llama), str(student), data=folder / "task.jsonl", corpus=[more, noise],
        share=[0.5], steps=45, seeds=3, batch_size=16, learning_rate=5e-3, loss="cross-entropy",
    )  # fmt: skip
    helps, harms = found["probes"]
    assert helps["verdict"] == "helps"
    assert harms["verdict"] == "harms"
    assert found["blend"] == {"corpora": [more], "share": 0.5}
    said = capsys.readouterr()
    told = " ".join(said.out.split())
    assert f"Mix: --corpus {more} --corpus-share 0.5. These harm: {noise}." in told
    assert told.count("noise[v2].txt") == 2  # in the table too: brackets are no markup
    assert "Reading noise[v2].txt" in said.err
    assert "\nnoise[v2].txt: " in said.err


def test_with_its_teacher_it_says_the_same_again(
    tiny_llama: Path, student: Path, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    outs = []
    for _ in range(2):
        flyweight.advise(
            str(tiny_llama), str(student), data=folder / "task.jsonl",
            corpus=[str(folder / "more.jsonl")], share=[0.2], steps=2, seeds=2, json=True,
        )  # fmt: skip
        outs.append(json.loads(capsys.readouterr().out))
    assert outs[0] == outs[1]
    assert outs[0]["items"] == 48
    [probe] = outs[0]["probes"]
    assert probe["low"] < probe["change"] < probe["high"]


def test_a_corpus_that_asks_what_dev_asks_is_refused(
    tiny_llama: Path, student: Path, folder: Path, tmp_path: Path
) -> None:
    """On which the probes are read; whatever a system turn says before it."""
    task = folder / "task.jsonl"
    told = [json.loads(line) for line in task.read_text().splitlines()]
    line = next(n for n, each in enumerate(told) if each["split"] == "dev")
    asks = [{"role": "system", "content": "be brief"},
            {"role": "user", "content": told[line]["prompt"].upper()}]  # fmt: skip
    write(tmp_path / "leak.jsonl", [{"messages": asks, "answer": "x"}])
    leak = [str(tmp_path / "leak.jsonl")]
    with pytest.raises(FlyweightError, match=f"leak.jsonl, line 1: .* dev asks on line {line + 1}"):
        flyweight.advise(str(tiny_llama), str(student), data=task, corpus=leak)


def test_a_dev_of_one_group_is_refused(
    tiny_llama: Path, student: Path, folder: Path, tmp_path: Path
) -> None:
    lines = [json.loads(line) for line in (folder / "task.jsonl").read_text().splitlines()]
    write(tmp_path / "task.jsonl", [each | {"group": each["split"]} for each in lines])
    with pytest.raises(OptionError, match="its dev items are one group"):
        flyweight.advise(
            str(tiny_llama), str(student), data=tmp_path / "task.jsonl", corpus=["nowhere.txt"]
        )


@pytest.mark.parametrize(("loss", "drawn"), [("forward-kl", True), ("jsd", False)])
def test_probes_learn_from_the_record_as_a_training_does(
    tiny_llama: Path, student: Path, folder: Path, loss: str, drawn: bool
) -> None:
    """From what was drawn of the tail, where the loss can."""
    corpus, schedule = str(folder / "more.jsonl"), Schedule(2)
    bench = Bench.of(
        str(tiny_llama), str(student), folder / "task.jsonl", [corpus], 0.5, schedule,
        Aim(loss), None,
    )  # fmt: skip
    assert all("top" in row for row in (*bench.items, *bench.corpora[corpus]))
    assert all(("tail" in row) != drawn for row in (*bench.items, *bench.corpora[corpus]))


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"corpus": []}, "--corpus"),
        ({"corpus": ["a.txt", "a.txt"]}, "none of them twice"),
        ({"share": [1.0]}, "--share"),
        ({"seeds": 1}, "--seeds"),
        ({"seed": -1, "data": "nowhere"}, "--seed is -1"),
        ({"seed": 2**32 - 2, "data": "nowhere"}, "--seed is 4294967294"),
        ({"steps": 0}, "--steps"),
        ({"loss": "kl"}, "--loss"),
    ],
)
def test_options_out_of_range_are_refused(
    tiny_llama: Path, student: Path, folder: Path, options: dict[str, Any], said: str
) -> None:
    given: dict[str, Any] = {"data": folder / "task.jsonl", "corpus": [str(folder / "more.jsonl")]}
    with pytest.raises(FlyweightError, match=said):
        flyweight.advise(str(tiny_llama), str(student), **given | options)
