"""Importance in every family. Known answer: what was widened with zeros is cut back to itself."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace
from typing import Any

import pytest
import torch
from cutting import random_keep, widen
from test_families import WIDENED, agree, build_like, cut_of, sizes_of, unreachable_experts

from flyweight.anatomy import family_of
from flyweight.shrink.calibrate import measure_importance
from flyweight.shrink.cut import cut_model
from flyweight.shrink.importance import Importance
from flyweight.shrink.keep import Keep
from zoo import ZOO, build, logits

PROMPTS = [[(7 * i + 5 * j * j) % 40 for j in range(3 + 4 * i % 13)] for i in range(7)]
TOKENS = torch.tensor(PROMPTS[3])[None]
MIXTURES = ["mixtral", "qwen3_moe"]
CASES = [(name, cut) for cut, names in WIDENED.items() for name in names]


def same_choice(found: Keep, wanted: Keep) -> None:
    """Both keep the same, `None` standing for everything."""
    for place in range(len(wanted.layers)):
        for axis in ("hidden", "mlp", "kv_groups", "group_heads", "value_dim", "experts"):
            ours, theirs = getattr(found, axis), getattr(wanted, axis)
            if theirs is not None and ours is not None and axis != "hidden":
                ours, theirs = ours[place], theirs[place]
            assert theirs is None or ours.tolist() == theirs.tolist(), axis
    assert found.layers.tolist() == wanted.layers.tolist()


@pytest.mark.parametrize(("name", "cut"), [*CASES, *[(name, "all") for name in MIXTURES]])
def test_zeros_go_first(name: str, cut: str, monkeypatch: pytest.MonkeyPatch) -> None:
    family, wanted = cut_of(build(name), cut)
    if name in MIXTURES and cut == "all":
        new = wanted.shape.with_sizes(experts=3)
        wanted = random_keep(3, wanted.old, new, wanted.old.head_dim, ())
    big = build(name, seed=11)
    small = build_like(name, family.config_for(big.config, wanted.shape, wanted.layers.tolist()))
    widen(small, big, family, wanted)
    rows = PROMPTS
    if wanted.vocabulary is not None:
        rows = [wanted.vocabulary[prompt].tolist() for prompt in PROMPTS]
    hidden: AbstractContextManager[Any] = nullcontext()
    if name in MIXTURES and cut == "all":  # a dead expert does not hide from its router
        experts = torch.arange(3).repeat(wanted.old.layers, 1)  # any, in blocks that go
        experts[wanted.layers] = wanted.experts
        hidden = unreachable_experts(big, replace(wanted, experts=experts), monkeypatch)
    with hidden:
        found = measure_importance(big, family, rows, batch_size=3, taylor=True)
    assert found.taylor is not None
    for scores in (found, found.taylor):
        keep = scores.keep(wanted.old, wanted.shape)
        same_choice(keep, wanted)
        keep = replace(keep, vocabulary=wanted.vocabulary)
        agree(logits(cut_model(big, family, keep), TOKENS), logits(small, TOKENS))


@pytest.mark.parametrize("name", list(ZOO))
def test_every_axis_of_every_family_can_be_cut(name: str) -> None:
    model = build(name)
    family = family_of(model.config)
    old = family.shape_of(model.config)
    sizes = dict(sizes_of(family, "all") or {})
    sizes.pop("vocabulary", None)
    new = old.with_sizes(**sizes, experts=3 if old.experts else None)
    found = measure_importance(model, family, PROMPTS, taylor=True)
    assert found.taylor is not None
    for scores in (found, found.taylor):
        for each in (scores.hidden, scores.mlp, scores.values):
            assert each.isfinite().all()
            assert (each > 0).all(), "random weights leave nothing out"
        student = cut_model(model, family, scores.keep(old, new))
        assert family.shape_of(student.config) == new
        assert logits(student, TOKENS).isfinite().all()


def by_loops(model: Any) -> tuple[torch.Tensor, torch.Tensor]:
    """[L, E, M] and [L, E] as `measure_importance` gives them, token by token in fp64."""
    layers, experts = model.config.num_hidden_layers, 6
    channels = torch.zeros(layers, experts, 96, dtype=torch.float64)
    added = torch.zeros(layers, experts, dtype=torch.float64)
    tokens, layer_of = 0, {}

    def look(module: Any, inputs: tuple[torch.Tensor, ...]) -> None:
        x, index, shares = (each.detach() for each in inputs)
        layer = layer_of[module]
        for token in range(len(x)):
            for expert, share in zip(index[token].tolist(), shares[token].tolist(), strict=True):
                weight = module.gate_up_proj[expert].detach().double() @ x[token].double()
                gate, up = weight[:96], weight[96:]
                inner = share * gate / (1 + (-gate).exp()) * up
                columns = module.down_proj[expert].detach().double()
                channels[layer, expert] += inner**2 * columns.pow(2).sum(0)
                added[layer, expert] += (columns @ inner).pow(2).sum().sqrt()

    for layer, block in enumerate(model.model.layers):
        layer_of[block.mlp.experts] = layer
        block.mlp.experts.register_forward_pre_hook(look)
    for prompt in PROMPTS:
        model(torch.tensor([prompt]))
        tokens += len(prompt)
    return (channels / tokens).sqrt(), added / tokens


@pytest.mark.parametrize("name", MIXTURES)
def test_experts_and_their_channels_score_as_loops_say(name: str) -> None:
    model = build(name)
    found = measure_importance(model, family_of(model.config), PROMPTS, batch_size=4)
    channels, added = by_loops(model)
    assert found.experts is not None
    torch.testing.assert_close(found.mlp.double(), channels, rtol=1e-4, atol=1e-9)
    torch.testing.assert_close(found.experts.double(), added, rtol=1e-4, atol=1e-9)


@pytest.mark.parametrize("name", MIXTURES)
def test_an_expert_that_nobody_asks_or_that_says_nothing_goes_first(name: str) -> None:
    model = build(name)
    with torch.no_grad():
        model.model.layers[1].mlp.experts.down_proj[4] = 0
    found: Importance = measure_importance(model, family_of(model.config), PROMPTS, taylor=True)
    for scores in (found, found.taylor):
        assert scores is not None
        assert scores.experts is not None
        assert scores.experts[1, 4] == 0
        assert (scores.mlp[1, 4] == 0).all()
        assert (scores.experts[0] > 0).any()
