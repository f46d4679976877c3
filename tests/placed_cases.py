"""What only reads a network does so on the GPU, and says what it says on the CPU."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import zoo
from flyweight import checkpoint
from flyweight.anatomy.inputs import measure_inputs
from flyweight.checkpoint import Checkpoint, open_checkpoint
from flyweight.distill import trainer
from flyweight.distill.drawn import Draw
from flyweight.distill.labels import ask_labels
from flyweight.distill.losses import Distillation
from flyweight.distill.mean import mean_loss
from flyweight.distill.teacher import listen, record_teacher
from flyweight.mapped import is_mapped
from flyweight.placed import placed
from flyweight.runtime.forced import answer_bits, greedy_matches
from flyweight.shrink.calibrate import measure_importance
from flyweight.shrink.cut import cut_model
from flyweight.shrink.mend import mend
from pretend_gpu import GPU, pretend_gpu

NAMES = [
    "llama",
    "qwen2",
    "stablelm",
]  # what the pretended device computes: no soft caps, no experts
SIZES = {"layers": 3, "mlp": 64}


@pytest.fixture(autouse=True)
def exact(monkeypatch: pytest.MonkeyPatch) -> None:
    """Everything is computed in fp32."""
    monkeypatch.setattr(trainer, "fast_dtype", lambda device="cpu": torch.float32)


@pytest.fixture
def gpu(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    with pretend_gpu(monkeypatch):
        yield


@pytest.fixture(params=[False, True], ids=["held", "mapped"])
def sources(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Opens a model of the zoo, held in memory or left in its files."""
    monkeypatch.setattr(checkpoint, "MAPPED", 0 if request.param else 1e9)

    def opened(name: str) -> Checkpoint:
        zoo.build(name).to(torch.bfloat16).save_pretrained(tmp_path / name)
        return open_checkpoint(tmp_path / name)

    return opened


def rows(model: Any) -> list[dict[str, Any]]:
    """Training rows of which the second half counts."""
    weights = np.repeat([0.0, 1.0], [8, 9]).astype(np.float32)
    return [{"input_ids": each, "weights": weights} for each in zoo.ids(model).numpy()]


def read(name: str, source: Checkpoint) -> dict[str, Any]:
    """All that is found out about a model by reading it, as numbers on the CPU."""
    model = source.frozen()
    texts = zoo.ids(model).tolist()
    found: dict[str, Any] = {}
    for taylor in (False, True):
        importance = measure_importance(model, source.family, texts, taylor=taylor)
        keep = importance.keep(source.shape, source.shape.with_sizes(**SIZES))
        student = cut_model(model, source.family, keep)
        mend(student, model, source.family, keep, texts)
        found |= {f"{name} {taylor}": each for name, each in student.state_dict().items()}
    said = record_teacher(model, rows(model), 8)
    found["top"], found["tail"] = (
        torch.cat([each[key] for each in said]) for key in ("top", "tail")
    )
    drawn = [
        top
        for _, top in listen(model, rows(model), 8, draw=Draw(4, torch.Generator().manual_seed(0)))
    ]
    found["drawn"] = torch.cat([top.drawn.log_p for top in drawn if top.drawn is not None])
    found["apart"] = torch.tensor(mean_loss(Distillation(1.0), student, said, 2))
    moments = measure_inputs(model, texts).moments
    found |= {parameter: torch.cat(list(each)) for parameter, each in moments.items()}
    pairs = [(text[:8], text[8:]) for text in texts]
    found["bits"] = torch.tensor(answer_bits(model, pairs))
    found["right"] = torch.tensor(greedy_matches(model, pairs))
    assert {each.device.type for each in (*model.parameters(), *model.buffers())} == {"cpu"}
    assert is_mapped(model) == source.mapped
    return found


@pytest.mark.parametrize("name", NAMES)
def test_all_that_is_read_is_the_same(
    name: str, sources: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = sources(name)
    here = read(name, source)
    with pretend_gpu(monkeypatch):
        there = read(name, source)
    assert here.keys() == there.keys()
    for key, wanted in here.items():
        torch.testing.assert_close(there[key], wanted, rtol=1e-3, atol=2e-4, msg=key)


def test_labels_are_asked_there(sources: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    source = sources("bert")
    model = source.frozen()
    texts = [{"input_ids": each, "weights": np.ones(17), "label": 0} for each in zoo.ids(model)]
    here = ask_labels(model, texts)
    with pretend_gpu(monkeypatch):
        there = ask_labels(model, texts)
    np.testing.assert_allclose(there, here, atol=1e-5)


def test_it_computes_there_and_is_as_it_was_afterwards(sources: Any, gpu: None) -> None:
    model = sources("qwen2").frozen()
    own = dict(model.named_parameters())
    with placed(model):
        assert {each.device for each in (*model.parameters(), *model.buffers())} == {GPU}
        assert model.get_input_embeddings().weight is model.get_output_embeddings().weight
        with placed(model):  # is there
            assert model.device == GPU
        assert model.device == GPU
        with pytest.raises(RuntimeError, match="two devices"):
            model(zoo.ids(model))
    assert all(own[name] is each for name, each in model.named_parameters())


def test_without_room_it_stays_here(sources: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    model = sources("llama").frozen()
    taken = model.num_parameters() * (2 if is_mapped(model) else 4)
    for room, device in ((taken * 1.01, GPU.type), (taken * 0.9, "cpu")):
        with pretend_gpu(monkeypatch, room), placed(model):
            assert model.device.type == device
