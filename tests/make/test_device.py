"""Devices: what blocks foretell, profiles, budgets, and the search within them."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

import flyweight
from flyweight.anatomy import family_of
from flyweight.checkpoint import open_checkpoint
from flyweight.errors import OptionError
from flyweight.folder import read_card
from flyweight.make import device, networks
from flyweight.make.blocks import Blocks, Load, Run, fit, load_of
from flyweight.make.budget import Budgets, Figures, read_budgets
from flyweight.make.device import CLASSIFIES, WRITES, Device, find_device, profile_of, write_device

# seconds: an answer, a token written, a layer, a head, a weight read, a weight for what is written
TRUE = (2e-3, 1e-5, 8e-6, 5e-7, 3e-11, 1.2e-10)


@pytest.fixture(autouse=True)
def folders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FLYWEIGHT_STATE", str(tmp_path / "state"))
    monkeypatch.setenv("FLYWEIGHT_CACHE", str(tmp_path / "cache"))


def took(load: Load, read: float, written: float) -> float:
    answer, token, layer, head, weight, decoded = TRUE
    passes = 1 + written
    return (
        answer
        + token * written
        + (layer + head * load.heads) * load.layers * passes
        + weight * load.weights * read
        + decoded * (load.weights + load.head) * written
    )


def drawn(generator: np.random.Generator) -> Load:
    layers, heads = int(generator.integers(1, 13)), int(generator.integers(1, 13))
    weights = float(layers * 10 ** generator.uniform(4, 6.3))
    head = float(10 ** generator.uniform(4.5, 6))
    return Load(int(weights + head), layers, weights, head, heads, heads * 32, heads * 32)


def some_blocks() -> Blocks:
    generator = np.random.default_rng(0)
    runs = []
    for _ in range(12):
        load = drawn(generator)
        for read, written in ((24.0, 48.0), (160.0, 8.0)):
            seconds = took(load, read, written)
            memory = 45e6 + load.parameters
            runs.append(Run(load, load.parameters, read, written, seconds, 1.1 * seconds, memory))
    return fit(runs)


def test_what_was_not_measured_is_foretold() -> None:
    generator, blocks = np.random.default_rng(1), some_blocks()
    read, written = np.array([20.0, 60.0, 90.0]), np.array([10.0, 14.0, 30.0])
    for _ in range(20):
        load = drawn(generator)
        found = blocks.figures(load, load.parameters, read, written)
        wanted = [took(load, *lengths) for lengths in zip(read, written, strict=True)]
        assert found.latency_p50 == pytest.approx(wanted[1], rel=0.02)
        assert found.latency_p95 == pytest.approx(1.1 * np.quantile(wanted, 0.95), rel=0.02)
        assert found.memory == pytest.approx(45e6 + load.parameters, rel=0.02)
        token = took(load, 0, 1) - took(load, 0, 0)
        assert found.speed == pytest.approx(1 / token, rel=0.05)
    assert blocks.error < 0.02


def test_one_network_that_was_held_up_says_little() -> None:
    generator = np.random.default_rng(2)
    loads = [drawn(generator) for _ in range(12)]
    runs = [
        Run(load, 1.0, read, written, took(load, read, written), 1.0, 1.0)
        for load in loads
        for read, written in ((24.0, 48.0), (160.0, 8.0))
    ]
    runs[5] = replace(runs[5], latency_p50=4 * runs[5].latency_p50)
    found = fit(runs)
    for load in loads:
        told = found.latency(load, np.array([50.0]), np.array([20.0]))[0]
        assert told == pytest.approx(took(load, 50, 20), rel=0.05)


def test_a_load_counts_the_weights_that_a_token_meets(tiny_llama: Path) -> None:
    source = open_checkpoint(tiny_llama)
    load = load_of(family_of(source.config), source.shape, source.config)
    table = source.shape.vocabulary * source.shape.hidden
    assert load.weights == source.parameters - 2 * table
    assert (load.head, load.layers, load.heads) == (table, 2, 4)


def test_a_machine_is_measured_once_and_again_when_its_engine_changes(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(networks, "WRITERS", networks.WRITERS[:3])
    monkeypatch.setattr(networks, "ROUNDS", 1)
    monkeypatch.setattr(networks, "TIMED", 3)
    found = find_device("this", causal=True)
    for bits, (blocks, *_) in found.blocks[WRITES].items():
        assert bits in (16, 8, 5, 4)
        assert sum(blocks.seconds) > 0
        assert blocks.memory[0] > 1e6
        assert blocks.jitter >= 1
    monkeypatch.setattr(networks, "measure_networks", None)
    assert find_device("this", causal=True) == found
    copy = tmp_path / "elsewhere.json"
    copy.write_text(profile_of(found.name).read_text())
    assert find_device(str(copy), causal=True) == found
    with pytest.raises(OptionError, match="knows nothing of networks that classify"):
        find_device(str(copy), causal=False)
    told = json.loads(copy.read_text())
    told["engines"]["xllamacpp"] = "0.1"
    profile_of(found.name).write_text(json.dumps(told))
    assert not device.this_device().knows(WRITES)


def test_networks_that_classify_are_measured_in_both_engines(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(networks, "WRITERS", networks.WRITERS[:1])
    monkeypatch.setattr(networks, "CLASSIFIERS", networks.CLASSIFIERS[:1])
    monkeypatch.setattr(networks, "ROUNDS", 1)
    monkeypatch.setattr(networks, "TIMED", 2)
    told = flyweight.device()
    assert told["blocks"][CLASSIFIES].keys() == {32, 16, 8}
    shown = capsys.readouterr().out
    assert "classify" in shown
    assert "write" in shown
    found = find_device("this", causal=False)
    load = Load(10_000, 1, 5_000.0, 0.0, 4, 96, 192)
    figures = found.forecast(load, 8, 1e5, np.array([8.0, 24.0]), np.zeros(2))
    assert 0 < figures.latency_p50 <= figures.latency_p95
    assert figures.speed == pytest.approx(1 / figures.latency_p50)


@pytest.mark.parametrize("text", ["", "[]", '{"format": 1}', '{"format": 99}'])
def test_a_broken_profile_is_named(tmp_path: Path, text: str) -> None:
    path = tmp_path / "plant.json"
    path.write_text(text)
    with pytest.raises(OptionError, match=r"plant\.json: not a device profile") as error:
        find_device(str(path), causal=True)
    assert "\n" not in str(error.value)
    with pytest.raises(OptionError, match=r"--device gone\.json: no such file"):
        find_device("gone.json", causal=True)


def test_budgets_are_read_and_held() -> None:
    found = read_budgets("2MB", "1.5M", "64MiB", "20ms", 100)
    assert found == Budgets(1.5e6, 2e6, 64 * 2**20, 0.02, 100)
    good = Figures(1e6, 1e6, 6e7, 0.5, 0.02, 100)
    assert found.exceeded(good) == ""
    for name, value in (("parameters", 2e6), ("bytes", 3e6), ("memory", 7e7),
                        ("latency_p95", 0.03), ("speed", 90)):  # fmt: skip
        assert found.exceeded(replace(good, **{name: value}))
        assert not Budgets().exceeded(replace(good, **{name: value}))


@pytest.mark.parametrize(
    ("option", "value"),
    [
        ("max_parameters", "many"), ("max_parameters", "0"), ("max_memory", "-1MB"),
        ("max_latency", "20 minutes"), ("max_latency", "fast"),
    ],
)  # fmt: skip
def test_a_budget_that_is_none_is_refused(option: str, value: str) -> None:
    given = dict.fromkeys(("max_parameters", "max_memory", "max_latency"))
    with pytest.raises(OptionError, match=f"--{option.replace('_', '-')} is {value!r}"):
        read_budgets(None, **given | {option: value}, min_speed=None)  # type: ignore[arg-type]


@pytest.fixture
def task(tmp_path: Path) -> Path:
    path = tmp_path / "task.jsonl"
    lines = [{"prompt": f"pump {n}", "answer": "oil" if n % 2 else "hot"} for n in range(160)]
    path.write_text("\n".join(map(json.dumps, lines)) + "\n")
    return path


def test_another_devices_latency_decides(
    tiny_llama: Path, task: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On a device where layers cost all, the fastest has one, whatever this machine measures."""
    (tmp_path / "lenient.py").write_text("def score(said, wanted):\n    return 1.0\n")
    monkeypatch.chdir(tmp_path)  # the teacher is untrained: each answer counts
    profile = tmp_path / "plant.json"
    layers_alone = Blocks([0.0, 0.0, 1e-3, *[0.0] * 5], [4e7, 1.0, 0.0], 1.0, 0.0)
    blocks = {WRITES: {bits: [layers_alone] for bits in (16, 8, 5, 4)}}
    write_device(Device("plant", "a plant's computer", 1, blocks=blocks), profile)
    job = {"task": task, "effort": "quick", "steps": 4, "bar": 0.5, "device": str(profile)}
    job["score"] = "lenient:score"
    out = flyweight.make(str(tiny_llama), out=tmp_path / "out", by="latency", **job)
    free = read_card(out)
    assert free.recipe.device == "a plant's computer"
    told = {row.name: row.forecast for row in free.rows if row.role == "candidate"}
    chosen = free.student.forecast
    assert chosen is not None
    assert chosen.latency_p50 == min(each.latency_p50 for each in told.values() if each)
    passes = chosen.latency_p50 / 1e-3 / free.shape["layers"]  # the prompt's, and a token's each
    assert passes == pytest.approx(round(passes))
    assert free.shape["layers"] == 1
    with pytest.raises(OptionError, match="nothing was made within the budgets"):
        flyweight.make(str(tiny_llama), out=out, max_latency=f"{chosen.latency_p95 / 2}s", **job)
    assert read_card(out) == free
