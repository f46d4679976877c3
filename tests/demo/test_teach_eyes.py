"""How the demo's eyes are taught: labels where things are, and a run that can be taken up."""

from __future__ import annotations

import random
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from flyweight.checkpoint import open_checkpoint
from flyweight.demo.pictures import KINDS, draw
from flyweight.demo.pictures.labels import ASKED, labels
from flyweight.demo.teach_eyes import LESSONS, PLACES, TEACHER, teach
from flyweight.vision.add import add_vision
from flyweight.vision.language import language_sha256, language_tensors, text_tensors
from flyweight.vision.mllama import load

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


def test_eyes_are_taught_from_their_seed_and_fit_the_teacher(tmp_path: Path) -> None:
    places = replace(PLACES, steps=2, batch_size=8)
    lessons = [replace(each, schedule=replace(each.schedule, steps=2, batch_size=8))
               for each in LESSONS]  # fmt: skip
    for name in ("one", "other"):
        teach(tmp_path / name, 24, 8, places, lessons, compiled=False)
    one, other = (load_file(tmp_path / name / "eyes.safetensors") for name in ("one", "other"))
    assert all(torch.equal(one[name], other[name]) for name in one)
    teacher = open_checkpoint(TEACHER)
    joined = load(add_vision(str(TEACHER), tmp_path / "all", encoder=str(tmp_path / "one")))
    assert language_sha256(language_tensors(joined)) == language_sha256(
        text_tensors(teacher.model())
    )
    gates = [p for name, p in joined.named_parameters() if name.endswith("attn_gate")]
    assert all(float(gate.detach().abs()) > 0 for gate in gates)
