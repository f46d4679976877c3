"""Students and teachers as folders: the same tokens, padded, cut, or not a pair at all."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

import flyweight
from flyweight.checkpoint import Checkpoint, open_checkpoint
from flyweight.distill.alignment import Alignment
from flyweight.distill.divergences import Blend
from flyweight.distill.live import LiveDistillation
from flyweight.distill.losses import Distillation
from flyweight.distill.pairing import pair_up
from flyweight.distill.trainer import collate
from flyweight.errors import TeacherError

TEXTS = ["the pump is leaking oil", "open the valve"]


@pytest.fixture(scope="module")
def teacher(tiny_llama: Path) -> Checkpoint:
    return open_checkpoint(tiny_llama)


@pytest.fixture(scope="module")
def cut(tiny_llama: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The teacher with the tokens of the texts alone."""
    folder = tmp_path_factory.mktemp("cut")
    task = folder / "task.jsonl"
    task.write_text("".join(
        json.dumps({"prompt": text + end, "answer": TEXTS[0], "split": split}) + "\n"
        for text in TEXTS for split, end in (("train", ""), ("dev", "?"), ("test", "!"))
    ))  # fmt: skip
    return flyweight.prune(str(tiny_llama), folder / "student", task=task, used_tokens=True)


def test_the_same_tokens_need_nothing(teacher: Checkpoint) -> None:
    for texts in (TEXTS, []):
        found = pair_up(teacher, teacher, texts)
        assert (found.alignment, found.to_teacher) == (None, None)


@pytest.mark.parametrize("rows", [300, 310])
def test_rows_without_a_token_are_no_difference(
    teacher: Checkpoint, make_llama: Callable[..., Path], tmp_path: Path, rows: int
) -> None:
    """The teacher has 304 rows for 300 tokens."""
    other = open_checkpoint(make_llama(tmp_path / "other", vocab_size=rows))
    found = pair_up(teacher, other, TEXTS)
    assert found.to_teacher is None
    assert isinstance(found.alignment, Alignment)
    assert (found.alignment.compared, found.alignment.cut) == (300, False)


def test_a_cut_vocabulary_is_read_in_its_own_tokens(teacher: Checkpoint, cut: Path) -> None:
    found = pair_up(teacher, open_checkpoint(cut), TEXTS)
    assert found.to_teacher is not None
    assert found.alignment is not None
    assert found.alignment.cut
    assert len(found.tokenizer) < 300
    for text in TEXTS:
        own = found.tokenizer(text)["input_ids"]
        assert found.to_teacher[own].tolist() == teacher.tokenizer()(text)["input_ids"]


@torch.no_grad()
def test_a_teacher_that_was_only_cut_has_nothing_to_learn(teacher: Checkpoint, cut: Path) -> None:
    """Recorded whole or live, in the student's ids: its tokens are as likely as they can be."""
    student = open_checkpoint(cut)
    found = pair_up(teacher, student, TEXTS)
    model, big = student.model(), teacher.model()
    assert found.to_teacher is not None
    rows = []
    for text in TEXTS:
        ids = torch.tensor(found.tokenizer(text)["input_ids"])
        said = big(found.to_teacher[ids][None]).logits[0, :-1].log_softmax(-1).topk(304, dim=-1)
        rows.append({"input_ids": ids, "weights": torch.ones(len(ids)), "top": said.values,
                     "indices": said.indices})  # fmt: skip
    batch = collate(rows)
    for beta in (0.0, 0.5, 1.0):
        recorded = Distillation(1.0, beta, found.alignment)
        live = LiveDistillation(big, Blend(1.0, beta), found.alignment, found.to_teacher)
        assert recorded(model, batch).item() == pytest.approx(0, abs=2e-5)
        assert live(model, batch).item() == pytest.approx(0, abs=2e-5)


def test_too_few_rows_are_refused(
    teacher: Checkpoint, make_llama: Callable[..., Path], tmp_path: Path
) -> None:
    other = open_checkpoint(make_llama(tmp_path / "other", vocab_size=290))
    with pytest.raises(TeacherError, match=r"other: it has 290 embeddings for 300 tokens of"):
        pair_up(teacher, other, TEXTS)


def test_a_larger_vocabulary_than_the_teachers_is_refused(
    teacher: Checkpoint, cut: Path, tiny_llama: Path, tmp_path: Path
) -> None:
    """The pair the other way round."""
    with pytest.raises(TeacherError, match=r"its tokenizer differs .* which the teacher's lacks"):
        pair_up(open_checkpoint(cut), open_checkpoint(tiny_llama), TEXTS)


def test_merges_that_went_without_their_tokens_are_a_difference(
    teacher: Checkpoint, tiny_llama: Path, tmp_path: Path
) -> None:
    folder = Path(shutil.copytree(tiny_llama, tmp_path / "other"))
    told = json.loads((folder / "tokenizer.json").read_text())
    told["model"]["merges"] = []
    (folder / "tokenizer.json").write_text(json.dumps(told))
    with pytest.raises(TeacherError, match="splits the answers otherwise") as error:
        pair_up(teacher, open_checkpoint(folder), TEXTS)
    assert "\n" not in str(error.value)
