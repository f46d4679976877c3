"""Beyond `quick` what a cut leaves is mended before it is trained, once, as a stage of its own."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from flyweight.make.budget import Budgets
from flyweight.make.job import Job
from flyweight.make.options import check_options
from flyweight.make.run import prepare_job
from flyweight.make.store import open_store
from flyweight.make.students import Contender
from flyweight.make.trials import cut, distillation
from flyweight.shrink.cut import cut_model


@pytest.fixture
def task(tmp_path: Path) -> Path:
    path = tmp_path / "task.jsonl"
    lines = [{"prompt": f"pump {i} is leaking", "answer": f"pump {i}"} for i in range(300)]
    path.write_text("\n".join(map(json.dumps, lines)) + "\n", encoding="utf-8")
    return path


@pytest.mark.parametrize("effort", ["quick", "standard", "thorough"])
def test_a_cut_is_mended_beyond_quick(
    tiny_llama: Path, task: Path, tmp_path: Path, effort: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FLYWEIGHT_STATE", str(tmp_path / "state"))
    options = check_options(
        str(tiny_llama),
        task,
        tmp_path / "out",
        0.8,
        None,
        "exact",
        "bytes",
        effort,
        Budgets(),
        8,
        0,
    )
    plan = prepare_job(options, "this")
    assert ("mend" in {stage.name for stage in plan.quote.stages}) == (effort != "quick")
    with open_store(options.out) as store:
        job = Job(
            replace(options, threads=1), plan.teacher, plan.task, plan.scorer, plan.sizes, store
        )
        contender = Contender(job.ranked(0.6)[0], 8)
        shape = contender.ranked.shape
        keep = job.importance.keep(job.teacher.shape, shape)
        sliced = cut_model(job.model, job.teacher.family, keep)
        started, again = cut(job, contender), cut(job, contender)
        stages = [path.name for path in store.root.glob("mend-*")]
        far, near = (job.apart(each) for each in (sliced, started))
        assert distillation(job, contender).inputs.get("mended") == (
            None if effort == "quick" else 1
        )
    for one, other in zip(started.parameters(), again.parameters(), strict=True):
        assert torch.equal(one, other)
    if effort == "quick":
        assert not stages
        assert near == far
    else:
        assert len(stages) == 1
        assert near < far
