"""Mending: least squares by numpy, redundant channels come back, nothing lost is left alone."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from cutting import random_keep, widen
from test_families import cut_of

from flyweight.anatomy import Shape, family_of
from flyweight.errors import OptionError
from flyweight.shrink import mend as mending
from flyweight.shrink.cut import cut_model
from flyweight.shrink.keep import Keep, keep_all
from flyweight.shrink.mend import mend, mend_all
from zoo import ZOO, build

GENERATOR = torch.Generator().manual_seed(5)
PROMPTS = [torch.randint(0, 40, (n,), generator=GENERATOR).tolist() for n in [*range(5, 25)] * 2]
DOWN = "model.layers.{}.mlp.down_proj"


def cut_mlp(model: Any, seed: int = 0, share: float = 0.5) -> Keep:
    """A random half of the MLP channels."""
    old = family_of(model.config).shape_of(model.config)
    return random_keep(seed, old, old.with_sizes(mlp=int(old.mlp * share)), old.head_dim, ())


def heard(model: Any, module: str) -> tuple[torch.Tensor, torch.Tensor]:
    """What a module is given and says [N, C], prompt by prompt: no padding, no batches."""
    said: list[tuple[torch.Tensor, torch.Tensor]] = []
    hook = model.get_submodule(module).register_forward_hook(
        lambda _, inputs, output: said.append((inputs[0][0], output[0]))
    )
    with torch.inference_mode():
        for prompt in PROMPTS:
            model(input_ids=torch.tensor([prompt]))
    hook.remove()
    given, output = zip(*said, strict=True)
    return torch.cat(given).double(), torch.cat(output).double()


def test_is_least_squares(monkeypatch: pytest.MonkeyPatch) -> None:
    """numpy's, on the outputs of the whole weight: one layer, where only MLP channels went."""
    monkeypatch.setattr(mending, "RIDGE", 1e-12)
    teacher = build("llama", num_hidden_layers=1)
    keep, family = cut_mlp(teacher), family_of(teacher.config)
    student = cut_model(teacher, family, keep)
    mend(student, teacher, family, keep, PROMPTS, 8)
    given, wanted = heard(teacher, DOWN.format(0))
    best, *_ = np.linalg.lstsq(given[:, keep.mlp[0]].numpy(), wanted.numpy(), rcond=None)
    found = student.get_submodule(DOWN.format(0)).weight.detach().numpy()
    np.testing.assert_allclose(found, best.T, atol=1e-4 * np.abs(best).max())


@pytest.mark.parametrize("cut", ["mlp", "narrow", "layers", "thin heads"])
@pytest.mark.parametrize("name", ZOO)
def test_no_weight_says_worse(name: str, cut: str) -> None:
    """Each is nearer to the teacher's than it was, and really as near as is told."""
    teacher = build(name)
    family, keep = cut_of(teacher, cut)
    student = cut_model(teacher, family, keep)
    told = mend(student, teacher, family, keep, PROMPTS, 8)
    assert told
    assert all(each.after <= each.before for each in told)
    last = told[-1]  # nothing that was mended later changes it
    assert last.after < 0.9 * last.before
    place = family.spell(f"{last.name}.weight")
    assert place.layer is not None
    old = place.template.format(layer=int(keep.layers[place.layer])).removesuffix(".weight")
    wanted = heard(teacher, old)[1][:, keep.index(place.dimensions[0], place.layer)]
    scale = mending.scales_of(family, teacher.config, keep)
    wanted *= scale.apply(torch.ones(wanted.shape[1], 1), place)[:, 0]
    said = heard(student, last.name)[1]
    measured = float((wanted - said).square().sum() / wanted.square().sum())
    assert measured == pytest.approx(last.after, rel=1e-3)


def test_redundant_channels_come_back_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where every channel that goes doubles one that stays, the student is the teacher."""
    monkeypatch.setattr(mending, "RIDGE", 1e-9)
    teacher = build("llama")
    family, shape = family_of(teacher.config), family_of(teacher.config).shape_of(teacher.config)
    half = shape.mlp // 2
    with torch.no_grad():
        for layer in teacher.model.layers:
            for weight in (layer.mlp.gate_proj.weight, layer.mlp.up_proj.weight):
                weight[half:] = weight[:half]
    keep = random_keep(0, shape, shape.with_sizes(mlp=half), shape.head_dim, ())
    keep.mlp[:] = torch.arange(half)
    student = cut_model(teacher, family, keep)
    ids = torch.tensor([PROMPTS[-1]])
    with torch.inference_mode():
        wanted, sliced = teacher(ids).logits, student(ids).logits
        mend(student, teacher, family, keep, PROMPTS, 8)
        found = student(ids).logits
    assert (sliced - wanted).abs().max() > 0.1 * wanted.abs().max()
    torch.testing.assert_close(found, wanted, rtol=0, atol=1e-3 * wanted.abs().max().item())


def test_nothing_lost_nothing_changed() -> None:
    teacher = build("llama")
    family = family_of(teacher.config)
    keep = keep_all(family.shape_of(teacher.config))
    student = cut_model(teacher, family, keep)
    told = mend(student, teacher, family, keep, PROMPTS)
    assert {each.before for each in told} == {0.0}
    for name, weight in teacher.state_dict().items():
        assert torch.equal(student.state_dict()[name], weight), name


@pytest.mark.parametrize("name", ["llama biased", "gemma2", "qwen3_moe"])
def test_zero_channels_leave_the_rest_alone(name: str) -> None:
    """Channels that carried nothing went: the cut was exact, and mending adds only rounding."""
    small = build(name)
    family, keep = cut_of(small, "narrow")
    small = cut_model(small, family, keep)
    teacher = widen(small, build(name), family, keep)
    student = cut_model(teacher, family, keep)
    mend(student, teacher, family, keep, PROMPTS)
    for key, weight in small.state_dict().items():
        torch.testing.assert_close(student.state_dict()[key], weight, rtol=1e-3, atol=1e-4)


def test_batches_and_padding_change_nothing() -> None:
    teacher = build("qwen3")
    family, keep = cut_of(teacher, "narrow")
    found = []
    for size in (1, 7):
        found.append(cut_model(teacher, family, keep))
        mend(found[-1], teacher, family, keep, PROMPTS[:12], size)
    one, seven = (model.state_dict() for model in found)
    for name, weight in one.items():
        scale = weight.abs().max().item()
        torch.testing.assert_close(seven[name], weight, rtol=0, atol=1e-3 * scale)


def test_reads_so_many_tokens_and_no_more() -> None:
    def endless():
        yield from PROMPTS[:6]
        raise AssertionError("read on")

    teacher = build("llama", num_hidden_layers=1)
    keep, family = cut_mlp(teacher), family_of(teacher.config)
    told = [
        mend(cut_model(teacher, family, keep), teacher, family, keep, prompts, tokens=30)
        for prompts in (endless(), PROMPTS)
    ]
    assert told[0] == told[1]


def test_a_cut_vocabulary_is_spoken() -> None:
    teacher = build("llama")
    family, old = family_of(teacher.config), family_of(teacher.config).shape_of(teacher.config)
    new: Shape = old.with_sizes(mlp=56, vocabulary=60)
    keep = random_keep(2, old, new, old.head_dim, ())
    assert keep.vocabulary is not None
    known = keep.vocabulary.tolist()
    prompts = [[known[i] for i in prompt] for prompt in PROMPTS]
    student = cut_model(teacher, family, keep)
    told = mend(student, teacher, family, keep, prompts)
    assert max(each.after for each in told) < 0.9
    gone = next(i for i in range(old.vocabulary) if i not in known)
    with pytest.raises(OptionError, match=f"token {gone}, which was cut"):
        mend(student, teacher, family, keep, [[known[0], gone]])


def test_half_precision_stays_half_precision() -> None:
    teacher = build("llama").bfloat16()
    keep, family = cut_mlp(teacher), family_of(teacher.config)
    student = cut_model(teacher, family, keep)
    told = mend(student, teacher, family, keep, PROMPTS)
    assert all(weight.dtype == torch.bfloat16 for weight in student.parameters())
    assert all(each.after <= each.before for each in told)


def test_students_mended_together_are_those_mended_alone() -> None:
    """Each takes its own blocks and channels from one run of the teacher."""
    teacher = build("llama", num_hidden_layers=4)
    family = family_of(teacher.config)
    keeps = [cut_of(teacher, cut)[1] for cut in ("mlp", "layers", "narrow")]
    alone, together = (
        [cut_model(teacher, family, keep) for keep in keeps] for _ in ("alone", "together")
    )
    told = mend_all(list(zip(together, keeps, strict=True)), teacher, family, PROMPTS, 8)
    for one, other, keep, mended in zip(alone, together, keeps, told, strict=True):
        assert mend(one, teacher, family, keep, PROMPTS, 8) == mended
        for name, weight in one.state_dict().items():
            assert torch.equal(other.state_dict()[name], weight), name
