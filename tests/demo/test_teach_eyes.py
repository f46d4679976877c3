"""How the demo's eyes are taught: labels where things are, and a run that can be taken up."""

from __future__ import annotations

import random
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from flyweight.checkpoint import open_checkpoint
from flyweight.demo import teach_eyes
from flyweight.demo.pictures import KINDS, draw
from flyweight.demo.pictures.labels import ASKED, labels
from flyweight.demo.teach_eyes import LESSONS, PLACES, TEACHER, teach
from flyweight.errors import FolderError
from flyweight.vision.add import add_vision
from flyweight.vision.language import language_sha256, language_tensors, text_tensors
from flyweight.vision.mllama import load
from flyweight.vision.training import work_beside

GRID = 10


@pytest.mark.parametrize("kind", [*KINDS, "sheet"])
@pytest.mark.parametrize("seed", range(5))
def test_labels_stand_where_things_are(kind: str, seed: int) -> None:
    facts = draw(random.Random(f"{kind}/{seed}"), kind).facts
    found = labels(facts, GRID)
    places = list(facts["points"].values())
    if kind == "gauge":  # the needle is seen all along
        hub, tip = (np.array(facts["points"][name]) for name in ("hub", "tip"))
        places += [hub + along * (tip - hub) for along in np.linspace(0, 1, 100)]
    shown = {1 + int(y * GRID) * GRID + int(x * GRID) for x, y in places}
    for token, name, answer in found.told:
        assert 0 <= answer < ASKED[name]
        assert token == 0 or kind == "meter" or token in shown
    asked = [name for _, name, _ in found.told]
    if kind == "gauge":
        assert found.points is not None
        assert found.fraction == pytest.approx(facts["fraction"])
    elif kind == "meter":
        assert asked.count("character") == len(facts["characters"])
    elif kind == "sheet":
        assert asked.count("word") + asked.count("character") == len(facts["points"])
    else:
        assert asked.count("value") == len(facts["values"]) * (1 if kind == "pie" else 2)


def teach_a_little(out: Path, pictures: int = 24) -> None:
    places = replace(PLACES, steps=2, batch_size=8)
    lessons = [replace(each, schedule=replace(each.schedule, steps=2, batch_size=8))
               for each in LESSONS]  # fmt: skip
    teach(out, pictures, 8, places, lessons, compiled=False)


def test_one_process_teaches_and_nothing_is_taken_up_that_was_drawn_otherwise(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out, stages = tmp_path / "eyes", []

    def kept(*told: Any, keep: Path | None = None, **_: object) -> None:
        stages.append((keep or told[-1]).name)

    def stop(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(teach_eyes, "train", kept)
    monkeypatch.setattr(teach_eyes.training, "teach", kept)
    monkeypatch.setattr(teach_eyes, "save_vision", stop)
    with work_beside(out), pytest.raises(FolderError, match="another process"):
        teach_a_little(out)
    for code in ("one", "other"):
        monkeypatch.setattr(teach_eyes, "decided_by", lambda code=code: code)
        with pytest.raises(KeyboardInterrupt):
            teach_a_little(out, 2)
    assert len(stages) == len(set(stages)) == 6
    assert len(list((tmp_path / "eyes.work").glob("*.bf16"))) == 2


def test_what_decides_a_stage_is_told_by_what_draws(monkeypatch: pytest.MonkeyPatch) -> None:
    before = teach_eyes.decided_by()
    gauges = teach_eyes.HERE / "pictures" / "gauges.py"
    own = teach_eyes.sha256_of
    monkeypatch.setattr(teach_eyes, "sha256_of", lambda file: "" if file == gauges else own(file))
    assert teach_eyes.decided_by() != before


def test_eyes_are_taught_from_their_seed_and_fit_the_teacher(tmp_path: Path) -> None:
    for name in ("one", "other"):
        teach_a_little(tmp_path / name)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["one", "other"]
    one, other = (load_file(tmp_path / name / "eyes.safetensors") for name in ("one", "other"))
    assert all(torch.equal(one[name], other[name]) for name in one)
    teacher = open_checkpoint(TEACHER)
    joined = load(add_vision(str(TEACHER), tmp_path / "all", encoder=str(tmp_path / "one")))
    assert language_sha256(language_tensors(joined)) == language_sha256(
        text_tensors(teacher.model())
    )
    gates = [p for name, p in joined.named_parameters() if name.endswith("attn_gate")]
    assert all(float(gate.detach().abs()) > 0 for gate in gates)
