"""A big teacher stays in its files at 16 bits, and says to the bit what it says at 32."""

from __future__ import annotations

import copy
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from transformers import AutoModelForCausalLM

import zoo
from flyweight import checkpoint
from flyweight.anatomy.inputs import measure_inputs
from flyweight.checkpoint import Checkpoint, open_checkpoint, save_checkpoint
from flyweight.distill.divergences import Blend
from flyweight.distill.live import LiveDistillation
from flyweight.distill.teacher import record_teacher
from flyweight.distill.trainer import Schedule, train
from flyweight.errors import TeacherError
from flyweight.mapped import Mapped, is_mapped, map_weights, plain
from flyweight.shrink.calibrate import measure_importance
from flyweight.shrink.cut import cut_model
from flyweight.shrink.mend import mend
from flyweight.shrink.sums import model_sha256

SIZES = {"layers": 3, "mlp": 64}


@pytest.fixture
def mapped(monkeypatch: pytest.MonkeyPatch) -> None:
    """However small a model is, it stays in its files."""
    monkeypatch.setattr(checkpoint, "MAPPED", 0)


def stored(name: str, folder: Path, **changes: Any) -> Checkpoint:
    """A model of the zoo as a folder of bf16."""
    zoo.build(name, **changes).to(torch.bfloat16).save_pretrained(folder)
    return open_checkpoint(folder)


def rows(model: Any) -> list[dict[str, Any]]:
    """Training rows of which the second half counts."""
    weights = np.repeat([0.0, 1.0], [8, 9]).astype(np.float32)
    return [{"input_ids": each, "weights": weights} for each in zoo.ids(model).numpy()]


@pytest.mark.parametrize("name", zoo.ZOO)
def test_it_says_what_it_says_at_32_bits(name: str, tmp_path: Path, mapped: None) -> None:
    odd = {"hidden_size": 72} if "gemma" in name else {}  # the root of which bf16 has not
    source = stored(name, tmp_path, **odd)
    whole, found = source.model(), source.frozen()
    assert is_mapped(found)
    assert not is_mapped(whole)
    assert torch.equal(zoo.logits(found), zoo.logits(whole))
    with torch.no_grad():
        assert torch.equal(found(zoo.ids(found)).logits, whole(zoo.ids(whole)).logits)
        with torch.autocast("cpu", torch.bfloat16):
            assert torch.equal(found(zoo.ids(found)).logits, whole(zoo.ids(whole)).logits)


@pytest.mark.parametrize("name", ["llama", "qwen2", "gemma2", "mixtral"])
def test_what_is_made_of_it_is_the_same(name: str, tmp_path: Path, mapped: None) -> None:
    source = stored(name, tmp_path)
    pair = source.model(), source.frozen()
    texts, shape = zoo.ids(pair[0]).tolist(), source.shape.with_sizes(**SIZES)
    for taylor in (False, True):
        of_whole, of_found = (
            measure_importance(each, source.family, texts, taylor=taylor) for each in pair
        )
        keep = of_found.keep(source.shape, shape)
        wanted = of_whole.keep(source.shape, shape)
        assert torch.equal(keep.layers, wanted.layers)
        students = [cut_model(each, source.family, keep) for each in pair]
        assert not is_mapped(students[1])
        assert_equal(*students)
    for teacher, student in zip(pair, students, strict=True):
        mend(student, teacher, source.family, keep, texts)
    assert_equal(*students)
    said = [record_teacher(each, rows(each), 8) for each in pair]
    for one, other in zip(*said, strict=True):
        assert all(torch.equal(one[key], other[key]) for key in ("top", "indices", "tail"))
    moments = [measure_inputs(each, texts).moments for each in pair]
    for parameter, each in moments[0].items():
        assert all(map(torch.equal, each, moments[1][parameter]))


def test_a_student_learns_the_same_from_it(tmp_path: Path, mapped: None) -> None:
    source = stored("llama", tmp_path)
    students = [zoo.build("llama", seed=1) for _ in range(2)]
    for teacher, student in zip((source.model(), source.frozen()), students, strict=True):
        aim = LiveDistillation(teacher, Blend())
        train(student, rows(student), aim, Schedule(3, 2), "Distilling")
        assert is_mapped(teacher) == (student is students[1])  # as it was before
    assert_equal(*students)


def test_it_is_saved_as_it_was_stored(tmp_path: Path, mapped: None, tiny_llama: Path) -> None:
    tokenizer = open_checkpoint(tiny_llama).tokenizer()
    source = stored("qwen2", tmp_path / "from")
    teacher = source.frozen()
    save_checkpoint(teacher, tokenizer, tmp_path / "to")
    before, after = (load_file(tmp_path / name / "model.safetensors") for name in ("from", "to"))
    assert before.keys() == after.keys()
    assert all(torch.equal(before[name], after[name]) for name in before)
    told = AutoModelForCausalLM.from_pretrained(tmp_path / "to").config
    assert told.dtype == torch.bfloat16
    assert is_mapped(teacher)
    assert torch.equal(zoo.logits(teacher), zoo.logits(source.model()))


@pytest.mark.parametrize(
    ("name", "stays"),
    [("model.norm.weight", False), ("model.layers.0.self_attn.rotary_emb.inv_freq", True)],
)
def test_weights_of_another_type_hold_it_all(
    name: str, stays: bool, tmp_path: Path, mapped: None, capsys: pytest.CaptureFixture[str]
) -> None:
    source = stored("llama", tmp_path)
    assert source.mapped
    before = zoo.logits(source.model())
    file = tmp_path / "model.safetensors"
    tensors = load_file(file)
    tensors[name] = tensors.get(name, torch.ones(8)).float()  # the same numbers, if any
    save_file(tensors, file, {"format": "pt"})
    save_file({"a": torch.ones(2)}, tmp_path / "adapter_model.safetensors")  # loaded by nobody
    assert source.mapped == stays
    assert torch.equal(zoo.logits(source.frozen()), before)
    assert ("held in 32 bits" in capsys.readouterr().err) != stays


@pytest.mark.parametrize("index", [None, "{", '{"weight_map": {"a": "model-00001.safetensors"}}'])
def test_shards_that_are_not_there_are_told(
    index: str | None, tmp_path: Path, mapped: None
) -> None:
    source = stored("llama", tmp_path)
    (tmp_path / "model.safetensors").rename(tmp_path / "weights.safetensors")
    if index is not None:
        (tmp_path / "model.safetensors.index.json").write_text(index)
    with pytest.raises(TeacherError):
        source.frozen()


def test_opening_leaves_the_config_as_it_was_read(tmp_path: Path, mapped: None) -> None:
    source = stored("gemma2", tmp_path)
    before = source.config.to_dict()
    source.check_declared()
    source.frozen()
    assert source.config.to_dict() == before


def test_sums_over_it_are_those_of_the_held_one(tmp_path: Path, mapped: None) -> None:
    source = stored("llama", tmp_path)
    assert model_sha256(source.frozen()) == model_sha256(source.model())


def test_a_small_one_is_held(tmp_path: Path) -> None:
    source = stored("llama", tmp_path)
    assert not source.mapped
    assert not is_mapped(source.frozen())


CHILD = """
import sys
from pathlib import Path
import torch
from flyweight import checkpoint
from flyweight.checkpoint import open_checkpoint

def private():
    lines = Path("/proc/self/status").read_text().splitlines()
    return sum(int(line.split()[1]) for line in lines if line.startswith("RssAnon")) * 1024

checkpoint.MAPPED = 0
source = open_checkpoint(sys.argv[1])
source.check_declared()
before = private()
model = source.frozen()
with torch.inference_mode():
    model(torch.arange(8)[None])
print(private() - before, source.bytes)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="how much is private is read from /proc")
@pytest.mark.parametrize(
    ("name", "share"),
    [("llama", 1 / 3), ("mixtral", 1.5)],  # experts are held in 16 bits, a layer's widened
)
def test_the_memory_it_takes_is_far_below_that_of_32_bits(
    name: str, share: float, tmp_path: Path
) -> None:
    sizes = {"hidden_size": 512, "intermediate_size": 2048 if name == "llama" else 512}
    stored(name, tmp_path, num_hidden_layers=16, **sizes)
    command = [sys.executable, "-c", CHILD, str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    taken, stored_bytes = map(int, done.stdout.split())
    assert stored_bytes > 80e6
    assert taken < share * stored_bytes  # at 32 bits it would be twice of them


OPERATIONS: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "linear": lambda w, x: F.linear(x, w),
    "linear with its own bias": lambda w, x: F.linear(x, w, w[:, 0]),
    "linear with a mapped bias": lambda w, x: F.linear(x, plain(w) * 1, w[:, 0]),
    "scaled": lambda w, x: torch.addmm(torch.ones(16), x[0], w.T, beta=0.5, alpha=2),
    "product": lambda w, x: x @ w.T,
    "batched": lambda w, x: torch.bmm(x, w.T.expand(3, -1, -1)),
    "einsum": lambda w, x: torch.einsum("oi,bti->bto", w, x),
    "embedding": lambda w, x: F.embedding(torch.tensor([[1, 5]]), w),
    "rows": lambda w, x: w[[2, 1]],
    "selected": lambda w, x: w.index_select(1, torch.tensor([3, 2])),
    "a part": lambda w, x: w[3:9, ::2],
    "one row": lambda w, x: w[4],
    "reshaped": lambda w, x: w.reshape(4, 4, 32).sum(1),
    "elementwise": lambda w, x: (w * 2 + 1).square(),
    "norm": lambda w, x: w.norm(dim=0),
    "double": lambda w, x: w.double(),
    "half": lambda w, x: w.to(torch.bfloat16),
    "copy": lambda w, x: copy.deepcopy(w) + 0,
}


@pytest.mark.parametrize("context", [torch.no_grad, torch.inference_mode, torch.enable_grad])
@pytest.mark.parametrize("name", OPERATIONS)
def test_every_operation_sees_the_widened_numbers(name: str, context: Any) -> None:
    half = torch.randn(16, 32).bfloat16()
    with context():
        x = torch.randn(3, 5, 32)
        said, wanted = (OPERATIONS[name](each, x) for each in (Mapped(half), half.float()))
        assert said.dtype == wanted.dtype
        assert torch.equal(plain(said), wanted)


@pytest.mark.parametrize("context", [torch.no_grad, torch.inference_mode])
def test_what_changes_nothing_widens_nothing(context: Any) -> None:
    weight = Mapped(torch.randn(16, 32).bfloat16())
    with context():
        for said in (
            weight.detach(),
            weight.to(torch.float32),
            weight.float(),
            weight.T,
            weight[2],
        ):
            assert isinstance(said, Mapped)
            assert (
                said.stored.untyped_storage().data_ptr()
                == weight.stored.untyped_storage().data_ptr()
            )


def test_gradients_reach_what_it_multiplies() -> None:
    half = torch.randn(16, 32).bfloat16()
    found = []
    for weight in (Mapped(half), half.float()):
        x = torch.randn(5, 32, generator=torch.Generator().manual_seed(0)).requires_grad_()
        F.linear(x, weight).square().sum().backward()
        found.append(x.grad)
    assert torch.equal(*found)


def test_products_in_a_row_do_not_disturb_each_other() -> None:
    """Their weights are widened in one place."""
    halves = [torch.randn(size, 8).bfloat16() for size in (4, 16, 2)]
    x = torch.randn(3, 8)
    with torch.inference_mode():
        first = [F.linear(x, Mapped(half)) for half in halves]
    with torch.no_grad():
        second = [F.linear(x, Mapped(half)) for half in halves]
    for half, *both in zip(halves, first, second, strict=True):
        assert all(torch.equal(each, F.linear(x, half.float())) for each in both)


WRITES: dict[str, Callable[[Tensor, Tensor], Any]] = {
    "add": lambda w, x: w.add_(x),
    "copy": lambda w, x: w.copy_(x),
    "out": lambda w, x: torch.mul(x, 3, out=w),
    "as optimisers do": lambda w, x: torch._foreach_add_([w], 1.0),
    "strided": lambda w, x: w.as_strided((2,), (1,)),
}


@pytest.mark.parametrize("write", WRITES)
def test_it_cannot_be_written(write: str) -> None:
    layer = nn.Linear(8, 4, bias=False).to(torch.bfloat16)
    before = layer.weight.detach().clone()
    map_weights(layer, lambda: nn.Linear(8, 4))
    with torch.no_grad(), pytest.raises(TypeError, match="not written"):
        WRITES[write](layer.weight, torch.full((4, 8), 2.0))
    assert torch.equal(plain(layer.weight), before.float())


def test_it_is_moved_as_it_is_stored(tmp_path: Path, mapped: None) -> None:
    found = stored("qwen2", tmp_path).frozen().to("meta")
    matrices = [weight for weight in found.parameters() if weight.dim() > 1]
    assert all(isinstance(weight, Mapped) for weight in matrices)
    assert {weight.device.type for weight in found.parameters()} == {"meta"}
    assert found.get_input_embeddings().weight is found.get_output_embeddings().weight


def assert_equal(one: nn.Module, other: nn.Module) -> None:
    """Two models have the same weights."""
    wanted, found = one.state_dict(), other.state_dict()
    assert wanted.keys() == found.keys()
    assert all(torch.equal(wanted[name], found[name]) for name in wanted)
