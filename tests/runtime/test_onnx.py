"""Encoders as ONNX files: transformers' logits, proven before a file gets its name."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers

import zoo
from flyweight.checkpoint import open_checkpoint
from flyweight.errors import (
    EngineError,
    FolderError,
    MissingExtra,
    OptionError,
    ParityError,
    TeacherError,
)
from flyweight.folder import ONNX_NAMES
from flyweight.make.pack_verb import pack
from flyweight.runtime.classify import OnnxClassifier, TorchClassifier
from flyweight.runtime.measure_classifier import measure_classifier
from flyweight.runtime.onnx_file import check_logits, write_onnx
from flyweight.runtime.open_model import find_model
from tiny import tiny_tokenizer

TEXTS = [[0, 4, *range(20 + i, 23 + i + i % 9), 5] for i in range(40)]


@pytest.fixture(scope="module", params=["bert", "modernbert"])
def packed(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny random encoder with its files; a wide head, so that labels are decided."""
    folder = tmp_path_factory.mktemp(request.param)
    model = zoo.build(request.param, vocab_size=304)
    with torch.no_grad():
        for name, weight in model.named_parameters():
            if "classifier" in name:
                weight.mul_(10)
    model.save_pretrained(folder)
    tiny_tokenizer().save_pretrained(folder)
    return pack(folder)


def wanted(folder: Path) -> np.ndarray:
    """Transformers' logits of each text alone."""
    from transformers import AutoModelForSequenceClassification

    model: Any = AutoModelForSequenceClassification.from_pretrained(folder, dtype="float32").eval()
    with torch.inference_mode():
        return np.concatenate([model(torch.tensor([text])).logits.numpy() for text in TEXTS])


def test_who_wants_it_to_write_is_told_how_it_is_used(packed: Path) -> None:
    with pytest.raises(FolderError, match="classifies") as told:
        find_model(packed)
    assert f"flyweight eval {packed} --task" in str(told.value)
    _, call = str(told.value).rstrip(".").split("transformers.")
    [said] = eval(f"transformers.{call}", {"transformers": transformers})("the pump")
    assert said["label"].startswith("LABEL_")


def test_logits_are_those_of_transformers(packed: Path) -> None:
    want = wanted(packed)
    with OnnxClassifier(packed / ONNX_NAMES[32]) as engine:
        alone = np.stack([engine.logits(text) for text in TEXTS])
        together = engine.batch(TEXTS)
    assert np.abs(alone - want).max() < 1e-4 * want.std()
    assert np.abs(together - want).max() < 1e-4 * want.std(), "padding is not seen"
    with TorchClassifier(packed) as torch_engine:
        assert np.abs(torch_engine.batch(TEXTS) - want).max() < 1e-4 * want.std()


def test_eight_bits_are_a_quarter_and_near(packed: Path) -> None:
    whole, small = (packed / ONNX_NAMES[bits] for bits in (32, 8))
    with OnnxClassifier(whole) as engine, OnnxClassifier(small) as rounded:
        want, found = engine.batch(TEXTS), rounded.batch(TEXTS)
    apart = np.abs(found - want).max() / want.std()
    assert 0 < apart < 0.3
    weights = sum(weight.numel() for weight in open_checkpoint(packed).model().parameters())
    assert whole.stat().st_size > 4 * weights
    assert whole.stat().st_size - small.stat().st_size > 2.5 * weights


def test_measured_in_a_child_by_either_engine(packed: Path) -> None:
    want = wanted(packed).argmax(1).tolist()
    seen: list[int] = []
    for model in (packed / ONNX_NAMES[32], packed):
        found = measure_classifier(model, TEXTS, timed=25, on_answer=lambda: seen.append(1))
        assert found.labels == want
        assert found.timed == 25
        assert 0 < found.latency_p50 <= found.latency_p95
        assert found.texts_per_second > 0
        assert found.peak_memory_bytes > found.baseline_bytes > 2**20
    assert len(seen) == 2 * len(TEXTS)


def test_labels_of_eight_bits_do_not_hang_on_the_neighbours(packed: Path) -> None:
    small = packed / ONNX_NAMES[8]
    some, all_of_them = (measure_classifier(small, TEXTS, timed=n).labels for n in (5, len(TEXTS)))
    with OnnxClassifier(small) as engine:
        assert some == all_of_them == [int(engine.logits(text).argmax()) for text in TEXTS]


def test_a_folder_without_a_tokenizer_is_refused(packed: Path, tmp_path: Path) -> None:
    bare = Path(shutil.copytree(packed, tmp_path / "bare"))
    for file in bare.glob("tokenizer*"):
        file.unlink()
    with pytest.raises(TeacherError, match="no tokenizer in the folder"):
        pack(bare)


def test_a_file_of_other_weights_is_refused(packed: Path, tmp_path: Path) -> None:
    other = Path(shutil.copytree(packed, tmp_path / "other"))
    model = open_checkpoint(packed).model()
    with torch.no_grad():
        weight = next(model.parameters())  # of the embedding
        weight.add_(torch.randn_like(weight), alpha=0.1)
    model.save_pretrained(other)
    with pytest.raises(ParityError, match="of their spread; the export is not faithful"):
        check_logits(other, packed / ONNX_NAMES[32], TEXTS)


def test_what_is_no_model_is_an_error_here(packed: Path, tmp_path: Path) -> None:
    broken = tmp_path / "broken.onnx"
    broken.write_bytes((packed / ONNX_NAMES[32]).read_bytes()[:5000])
    with pytest.raises(EngineError, match=r"broken\.onnx: ONNX Runtime does not load it"):
        measure_classifier(broken, TEXTS)
    with pytest.raises(EngineError, match=r"broken\.onnx: ONNX Runtime does not load it"):
        OnnxClassifier(broken)
    (tmp_path / "empty").mkdir()
    with pytest.raises(TeacherError, match=r"no config\.json"):  # from the child, as it is
        measure_classifier(tmp_path / "empty", TEXTS)
    with pytest.raises(OptionError, match="choose from 32, 8"):
        pack(packed, bits=[16])


def test_an_absent_extra_says_what_to_install(
    packed: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    what = r" is not installed.*flyweight\[onnx\]"
    monkeypatch.setitem(sys.modules, "onnxscript", None)
    with pytest.raises(MissingExtra, match="onnxscript" + what):
        write_onnx(packed, tmp_path / "new.onnx")
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    with pytest.raises(MissingExtra, match="onnxruntime" + what):
        OnnxClassifier(packed / ONNX_NAMES[32])
    assert not list(tmp_path.iterdir())
