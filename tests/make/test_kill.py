"""A job that is killed at any moment ends, run again, as if nothing had happened."""

from __future__ import annotations

import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from flyweight.make.progress_report import read_status

sys.path.insert(0, str(Path(__file__).parent))  # also for the processes that are started
import killing

SEEDS = (1, 2, 3, 4)


@pytest.fixture(scope="module")
def job(
    make_llama: Callable[..., Path], tmp_path_factory: pytest.TempPathFactory
) -> dict[str, Any]:
    """A tiny job with every stage of a big one."""
    from safetensors.torch import load_file, save_file

    root = tmp_path_factory.mktemp("kill")
    folder = make_llama(root / "llama", max_position_embeddings=1024, num_hidden_layers=4)
    weights = load_file(folder / "model.safetensors")
    weights["lm_head.weight"][1] *= 4  # its answers end soon
    weights = {name: each.float() * 1.001 for name, each in weights.items()}  # no bf16 holds them
    save_file(weights, folder / "model.safetensors", {"format": "pt"})
    task = killing.write_task(root / "task.jsonl")
    return {"teacher": str(folder), "task": task, "effort": "quick", "steps": 40}


@pytest.fixture(scope="module")
def reference(
    job: dict[str, Any], tmp_path_factory: pytest.TempPathFactory
) -> tuple[dict[str, Any], int]:
    """What an uninterrupted run hands over, and how much it writes into its journal."""
    place = tmp_path_factory.mktemp("reference")
    assert killing.run(job, place)
    return killing.fingerprint(place / "out"), len(killing.stage_events(place / "out"))


@pytest.mark.parametrize("seed", SEEDS)
def test_killed_at_random_and_run_again_it_is_the_same_job(
    seed: int, job: dict[str, Any], reference: tuple[dict[str, Any], int], tmp_path: Path
) -> None:
    wanted, lines = reference
    assert killing.kill_once(job, tmp_path, lines, seed), "it was done too soon"
    assert killing.run(job, tmp_path)
    assert killing.fingerprint(tmp_path / "out") == wanted
    assert killing.stages_done_twice(tmp_path / "out") == []


def test_killed_while_it_hands_over_it_leaves_nothing_but_the_same_model(
    job: dict[str, Any], reference: tuple[dict[str, Any], int], tmp_path: Path
) -> None:
    assert not killing.run(job, tmp_path, dying=True)
    assert any(path.is_dir() for path in tmp_path.glob(".out.*"))
    assert not (tmp_path / "out").exists()
    assert killing.run(job, tmp_path)
    assert not list(tmp_path.glob(".out.*"))
    assert killing.fingerprint(tmp_path / "out") == reference[0]
    assert killing.stages_done_twice(tmp_path / "out") == []


def test_ctrl_c_says_that_nothing_is_lost_and_the_same_command_goes_on(
    job: dict[str, Any], reference: tuple[dict[str, Any], int], tmp_path: Path
) -> None:
    wanted, lines = reference
    moment = killing.half_way(tmp_path, lines // 2)
    stopped = killing.run(job, tmp_path, moment, signal_number=signal.SIGINT)
    assert not stopped
    assert "the same command goes on" in " ".join((tmp_path / "log").read_text().split())
    assert read_status(tmp_path / "out")["state"] == "stopped"
    assert killing.run(job, tmp_path)
    assert killing.fingerprint(tmp_path / "out") == wanted
    assert read_status(tmp_path / "out")["state"] == "finished"
