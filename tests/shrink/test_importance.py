"""Importance against a forward pass written out by hand, in double precision."""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from flyweight.anatomy import Shape, family_of
from flyweight.shrink.calibrate import measure_importance
from flyweight.shrink.importance import Importance, top

Build = Callable[..., Any]

PROMPTS = [[3 + (7 * i + 5 * j * j) % 70 for j in range(2 + 3 * i % 11)] for i in range(9)]
LAYERS, GROUPS, HEADS, WIDTH = 4, 4, 2, 16  # heads: those of a group


def rms_norm(x: Tensor, module: Any) -> Tensor:
    mean = x.pow(2).mean(-1, keepdim=True) + module.variance_epsilon
    return x / mean.sqrt() * module.weight


def turn(x: Tensor, theta: float) -> Tensor:
    """RoPE on [T, H, D]: dimension i goes with i + D/2."""
    length, _, width = x.shape
    rates = theta ** (-torch.arange(0, width, 2, dtype=x.dtype) / width)
    angles = torch.arange(length, dtype=x.dtype)[:, None, None] * rates
    left, right = x.chunk(2, -1)
    return torch.cat(
        [left * angles.cos() - right * angles.sin(), right * angles.cos() + left * angles.sin()], -1
    )


def by_hand(model: Any, prompts: list[list[int]]) -> dict[str, Tensor]:
    """What every prompt activates, one by one: hidden [N, T', D], mlp, heads, blocks."""
    seen: dict[str, list] = {"hidden": [], "mlp": [], "heads": [], "influence": []}
    for prompt in prompts:
        ids = torch.tensor(prompt)
        x = model.model.embed_tokens.weight[ids]  # [T, D]
        norms, inner, outputs, influence = [], [], [], []
        for block in model.model.layers:
            before = x
            h = rms_norm(x, block.input_layernorm)
            norms.append(h)
            attention = block.self_attn
            theta = model.config.rope_parameters["rope_theta"]
            q = turn((h @ attention.q_proj.weight.T).view(len(ids), -1, WIDTH), theta)
            k = turn((h @ attention.k_proj.weight.T).view(len(ids), -1, WIDTH), theta)
            v = (h @ attention.v_proj.weight.T).view(len(ids), -1, WIDTH)
            said = []
            for head in range(GROUPS * HEADS):
                group = head // HEADS
                scores = q[:, head] @ k[:, group].T / WIDTH**0.5
                future = torch.ones_like(scores).triu(1).bool()
                said.append(scores.masked_fill(future, -torch.inf).softmax(-1) @ v[:, group])
            outputs.append(torch.stack(said, 1))  # [T, heads, D]
            x = x + torch.cat(said, -1) @ attention.o_proj.weight.T
            h = rms_norm(x, block.post_attention_layernorm)
            norms.append(h)
            gated = F.silu(h @ block.mlp.gate_proj.weight.T) * (h @ block.mlp.up_proj.weight.T)
            inner.append(gated)
            x = x + gated @ block.mlp.down_proj.weight.T
            influence.append(1 - F.cosine_similarity(before, x, dim=-1))
        norms.append(rms_norm(x, model.model.norm))
        for name, parts in [
            ("hidden", norms), ("mlp", inner), ("heads", outputs), ("influence", influence)
        ]:  # fmt: skip
            seen[name].append(torch.stack(parts, 1))
    return {name: torch.cat(parts) for name, parts in seen.items()}  # [all tokens, ...]


def root_mean_square(activations: Tensor) -> Tensor:
    return activations.pow(2).mean(0).sqrt()


@pytest.fixture(scope="module")
def model(small_model: Build) -> Any:
    return small_model(tied=False, seed=3)


@pytest.fixture(scope="module")
def found(model: Any) -> Importance:
    return measure_importance(model, family_of(model.config), PROMPTS, batch_size=4)


@torch.inference_mode()
def test_every_score_equals_the_one_by_hand(model: Any, found: Importance) -> None:
    seen = by_hand(copy.deepcopy(model).double(), PROMPTS)
    blocks = model.model.layers
    down = torch.stack([block.mlp.down_proj.weight.norm(dim=0) for block in blocks])
    out = torch.stack([block.self_attn.o_proj.weight.norm(dim=0) for block in blocks])
    values = root_mean_square(seen["heads"]).flatten(1) * out
    heads = values.view(LAYERS, GROUPS, HEADS, WIDTH).norm(dim=-1)
    for measured, wanted in [
        (found.hidden, root_mean_square(seen["hidden"]).mean(0)),
        (found.mlp, root_mean_square(seen["mlp"]) * down),
        (found.group_heads, heads),
        (found.kv_groups, heads.pow(2).sum(-1).sqrt()),
        (found.layers, seen["influence"].mean(0)),
    ]:
        torch.testing.assert_close(measured.double(), wanted, rtol=1e-4, atol=0)


@torch.inference_mode()
def test_a_channel_s_score_is_the_length_of_what_it_adds_to_the_stream(
    model: Any, found: Importance
) -> None:
    """The middle of the last block, channel by channel: what goes when only it is left."""
    seen = by_hand(copy.deepcopy(model).double(), PROMPTS)["mlp"][:, -1]  # [all tokens, M]
    weight = model.model.layers[-1].mlp.down_proj.weight.double()
    for channel in (0, 41, 95):
        added = seen[:, channel, None] * weight[:, channel]  # [all tokens, D]
        wanted = added.pow(2).sum(-1).mean().sqrt()
        torch.testing.assert_close(found.mlp[-1, channel].double(), wanted, rtol=1e-4, atol=0)


@torch.inference_mode()
def test_block_influence_agrees_with_transformers_hidden_states(
    model: Any, found: Importance
) -> None:
    plain = copy.deepcopy(model)
    plain.model.norm = nn.Identity()  # transformers norms the last hidden state
    total, tokens = torch.zeros(LAYERS), 0
    for prompt in PROMPTS:
        states = plain(torch.tensor([prompt]), output_hidden_states=True).hidden_states
        for layer in range(LAYERS):
            total[layer] += (1 - F.cosine_similarity(states[layer], states[layer + 1], -1)).sum()
        tokens += len(prompt)
    torch.testing.assert_close(found.layers, total / tokens, rtol=1e-4, atol=0)


@pytest.mark.parametrize("batch_size", [1, 3, 100])
def test_batches_and_padding_do_not_matter(model: Any, found: Importance, batch_size: int) -> None:
    again = measure_importance(model, family_of(model.config), PROMPTS[::-1], batch_size)
    for name in ("layers", "hidden", "mlp", "group_heads"):
        torch.testing.assert_close(getattr(again, name), getattr(found, name), rtol=1e-4, atol=0)


def test_nothing_is_left_hanging_on_the_model(model: Any) -> None:
    family = family_of(model.config)
    with pytest.raises(IndexError):
        measure_importance(model, family, [[79], [10_000]])  # a token that the model lacks
    measure_importance(model, family, PROMPTS[:1])
    for module in model.modules():
        assert not module._forward_hooks
        assert not module._forward_pre_hooks


def best(scores: Tensor, count: int) -> list[int]:
    """By sorting in plain Python."""
    order = sorted(range(len(scores)), key=lambda i: -float(scores[i]))
    return sorted(order[:count])


def test_the_most_important_parts_stay() -> None:
    old = Shape(layers=5, hidden=12, mlp=9, heads=12, kv_groups=4, head_dim=4, vocabulary=7)
    new = old.with_sizes(layers=3, hidden=7, mlp=4, heads=4, kv_groups=2, head_dim=2)
    generator = torch.Generator().manual_seed(4)
    scores = Importance(
        layers=torch.rand(5, generator=generator),
        hidden=torch.rand(12, generator=generator),
        mlp=torch.rand(5, 9, generator=generator),
        values=torch.rand(5, 4, 3, 4, generator=generator),
        turning=4,
    )
    keep = scores.keep(old, new)
    assert keep.shape == new
    assert keep.layers.tolist() == best(scores.layers, 3)
    assert keep.hidden.tolist() == best(scores.hidden, 7)
    for place, layer in enumerate(best(scores.layers, 3)):
        assert keep.mlp[place].tolist() == best(scores.mlp[layer], 4)
        groups = best(scores.group_heads[layer].pow(2).sum(-1), 2)
        assert keep.kv_groups[place].tolist() == groups
        for inner, group in enumerate(groups):
            wanted = best(scores.group_heads[layer, group], 2)
            assert keep.group_heads[place, inner].tolist() == wanted
            values = scores.values[layer, group][wanted].pow(2).sum(0)
            assert keep.value_dim[place, inner].tolist() == best(values, 2)
    assert keep.head_dim.tolist() == [0, 2]  # the first of two RoPE pairs


def test_the_most_important_experts_stay_each_with_channels_of_its_own() -> None:
    old = Shape(
        layers=3, hidden=4, mlp=9, heads=2, kv_groups=2, head_dim=4, vocabulary=7, experts=5
    )
    new = old.with_sizes(layers=2, mlp=4, experts=3)
    generator = torch.Generator().manual_seed(4)
    scores = Importance(
        layers=torch.rand(3, generator=generator),
        hidden=torch.rand(4, generator=generator),
        mlp=torch.rand(3, 5, 9, generator=generator),
        values=torch.rand(3, 2, 1, 4, generator=generator),
        turning=4,
        experts=torch.rand(3, 5, generator=generator),
    )
    keep = scores.keep(old, new)
    assert keep.shape == new
    for place, layer in enumerate(best(scores.layers, 2)):
        experts = best(scores.experts[layer], 3)
        assert keep.experts[place].tolist() == experts
        for inner, expert in enumerate(experts):
            assert keep.mlp[place, inner].tolist() == best(scores.mlp[layer, expert], 4)


def test_scores_are_saved_and_loaded(model: Any, found: Importance, tmp_path: Path) -> None:
    taylor = measure_importance(model, family_of(model.config), PROMPTS, taylor=True)
    assert taylor.taylor is not None
    for scores in (found, taylor, replace(found, pinned=(0, 2))):
        scores.save(tmp_path / "scores")
        same(Importance.load(tmp_path / "scores"), scores)


def same(one: Importance | None, other: Importance | None) -> None:
    """Both hold the same bits."""
    assert (one is None) == (other is None)
    if one is None or other is None:
        return
    for field in fields(one):
        ours, theirs = getattr(one, field.name), getattr(other, field.name)
        if field.name == "taylor":
            same(ours, theirs)
        else:
            assert torch.equal(ours, theirs) if isinstance(ours, Tensor) else ours == theirs


def test_top_is_in_ascending_order() -> None:
    assert top(torch.tensor([[0.1, 9.0, 3.0, 4.0], [5.0, 1.0, 2.0, 7.0]]), 2).tolist() == [
        [1, 3],
        [0, 3],
    ]
