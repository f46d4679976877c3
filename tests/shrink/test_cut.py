"""Cutting against a known answer: a small model hidden in a big one is found again."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from transformers import AutoModelForCausalLM, MistralConfig, MistralForCausalLM

from flyweight.anatomy import Shape, family_of
from flyweight.errors import UnsupportedFamily
from flyweight.shrink.cut import cut_model
from flyweight.shrink.keep import Keep, keep_all

Build = Callable[..., Any]

OLD = Shape(layers=4, hidden=60, mlp=96, heads=12, kv_groups=4, head_dim=16, vocabulary=80)
NEW = Shape(layers=3, hidden=42, mlp=56, heads=6, kv_groups=3, head_dim=16, vocabulary=80)
IDS = torch.randint(0, 80, (3, 17), generator=torch.Generator().manual_seed(0))


def random_keep(seed: int, new: Shape = NEW, old: Shape = OLD) -> Keep:
    """Random places along every axis, different ones in every layer and group."""
    generator = np.random.default_rng(seed)

    def places(of: int, count: int, *shape: int) -> torch.Tensor:
        rows = [sorted(generator.choice(of, count, replace=False)) for _ in range(math.prod(shape))]
        return torch.tensor(np.array(rows)).view(*shape, count)

    return Keep(
        layers=places(old.layers, new.layers),
        hidden=places(old.hidden, new.hidden),
        mlp=places(old.mlp, new.mlp, new.layers),
        kv_groups=places(old.kv_groups, new.kv_groups, new.layers),
        group_heads=places(old.group_heads, new.group_heads, new.layers, new.kv_groups),
        old=old,
    )


def put(
    big: torch.Tensor, small: torch.Tensor, rows: list[int], columns: list[int], silence: str
) -> None:
    """Write `small` into `big` at these rows and columns; the others of `silence` become 0."""
    target, source = big.numpy(), small.numpy()
    if "rows" in silence:
        target[[row for row in range(len(target)) if row not in rows]] = 0
    if "columns" in silence:
        target[:, [column for column in range(target.shape[1]) if column not in columns]] = 0
    for r, row in enumerate(rows):
        for c, column in enumerate(columns):
            target[row, column] = source[r, c]


@torch.no_grad()
def widen(small: Any, big: Any, keep: Keep) -> Any:
    """`big` with `small` written into it, computing exactly what `small` computes.

    What reads a channel that is always zero, or is read by nobody, keeps its random weights: a cut
    that picks one of those is seen at once.
    """
    into, of = big.state_dict(), small.state_dict()
    hidden, vocabulary = keep.hidden.tolist(), list(range(len(of["model.embed_tokens.weight"])))
    widths = math.sqrt(len(into["model.norm.weight"]) / len(hidden))

    def norm(name: str, new_name: str) -> None:
        for new, old in enumerate(hidden):
            into[f"{name}.weight"][old] = of[f"{new_name}.weight"][new] / widths

    tied = big.config.tie_word_embeddings
    for name in ["model.embed_tokens.weight"] + ([] if tied else ["lm_head.weight"]):
        put(into[name], of[name], vocabulary, hidden, "columns" if "embed" in name else "")
    norm("model.norm", "model.norm")
    for layer in range(big.config.num_hidden_layers):
        if layer not in keep.layers.tolist():
            into[f"model.layers.{layer}.self_attn.o_proj.weight"].zero_()
            into[f"model.layers.{layer}.mlp.down_proj.weight"].zero_()
    for new, old in enumerate(keep.layers.tolist()):
        here, there = f"model.layers.{old}.", f"model.layers.{new}."
        keys, queries = [], []
        for place, group in enumerate(keep.kv_groups[new].tolist()):
            keys += [group * 16 + i for i in range(16)]
            for head in keep.group_heads[new, place].tolist():
                queries += [(group * 3 + head) * 16 + i for i in range(16)]
        mlp = keep.mlp[new].tolist()
        for name, rows, columns, silence in [
            ("self_attn.q_proj", queries, hidden, ""),
            ("self_attn.k_proj", keys, hidden, ""),
            ("self_attn.v_proj", keys, hidden, ""),
            ("self_attn.o_proj", hidden, queries, "rows and columns"),
            ("mlp.gate_proj", mlp, hidden, ""),
            ("mlp.up_proj", mlp, hidden, ""),
            ("mlp.down_proj", hidden, mlp, "rows and columns"),
        ]:
            weight = f"{name}.weight"
            put(into[here + weight], of[there + weight], rows, columns, silence)
        norm(f"{here}input_layernorm", f"{there}input_layernorm")
        norm(f"{here}post_attention_layernorm", f"{there}post_attention_layernorm")
    return big


def of_shape(small_model: Build, shape: Shape, tied: bool, seed: int, epsilon: float) -> Any:
    return small_model(
        tied,
        seed,
        hidden_size=shape.hidden,
        intermediate_size=shape.mlp,
        num_hidden_layers=shape.layers,
        num_attention_heads=shape.heads,
        num_key_value_heads=shape.kv_groups,
        rms_norm_eps=epsilon,
    )


@torch.inference_mode()
def logits(model: Any) -> torch.Tensor:
    return model(IDS).logits


@pytest.mark.parametrize("tied", [True, False])
@pytest.mark.parametrize("seed", [1, 2])
def test_a_small_model_hidden_in_a_big_one_is_cut_out_again(
    small_model: Build, tied: bool, seed: int
) -> None:
    keep = random_keep(seed)
    # so large that a wrong epsilon shows: the mean square of an embedding is 0.04
    epsilon = 1e-2
    small = of_shape(small_model, NEW, tied, seed, epsilon * 60 / 42)
    big = widen(small, of_shape(small_model, OLD, tied, seed + 10, epsilon), keep)
    scale = logits(small).abs().max().item()
    torch.testing.assert_close(logits(big), logits(small), rtol=0, atol=1e-5 * scale)

    untouched = copy.deepcopy(big.state_dict())
    found = cut_model(big, family_of(big.config), keep)
    assert found.config.rms_norm_eps == pytest.approx(small.config.rms_norm_eps, rel=1e-12)
    assert found.state_dict().keys() == small.state_dict().keys()
    for name, tensor in small.state_dict().items():
        ulp = 2**-23 if "norm" in name else 0
        torch.testing.assert_close(found.state_dict()[name], tensor, rtol=2 * ulp, atol=0)
    torch.testing.assert_close(logits(found), logits(small), rtol=0, atol=1e-5 * scale)
    for name, tensor in big.state_dict().items():
        assert torch.equal(tensor, untouched[name])


@pytest.mark.parametrize(
    "sizes",
    [
        {"mlp": 40},
        {"kv_groups": 2, "heads": 6},
        {"heads": 4},
        {"mlp": 33, "kv_groups": 1, "heads": 1},
        {"layers": 2},
    ],
    ids=["mlp", "groups", "heads", "all of them", "layers"],
)
def test_slicing_equals_masking(small_model: Build, sizes: dict[str, int]) -> None:
    """With the hidden channels whole, what goes might as well have been multiplied by zero."""
    big = of_shape(small_model, OLD, True, 5, 1e-6)
    keep = random_keep(6, OLD.with_sizes(**sizes))
    masked = copy.deepcopy(big)
    with torch.no_grad():
        for old, layer in enumerate(masked.model.layers):
            heads, mlp = torch.zeros(12, 16), torch.zeros(96)
            if old in keep.layers.tolist():
                new = keep.layers.tolist().index(old)
                mlp[keep.mlp[new]] = 1
                for place, group in enumerate(keep.kv_groups[new].tolist()):
                    heads[group * 3 + keep.group_heads[new, place]] = 1
            layer.self_attn.o_proj.weight *= heads.flatten()
            layer.mlp.down_proj.weight *= mlp
    sliced = cut_model(big, family_of(big.config), keep)
    scale = logits(masked).abs().max().item()
    torch.testing.assert_close(logits(sliced), logits(masked), rtol=0, atol=1e-5 * scale)
    assert not torch.allclose(logits(big), logits(masked), rtol=0, atol=1e-2 * scale)


def test_cutting_nothing_changes_nothing(small_model: Build) -> None:
    model = of_shape(small_model, OLD, False, 7, 1e-5)
    same = cut_model(model, family_of(model.config), keep_all(OLD))
    assert keep_all(OLD).shape == OLD
    assert same.config.to_dict() == model.config.to_dict()
    assert torch.equal(logits(same), logits(model))
    same.model.norm.weight.data.zero_()
    assert model.model.norm.weight.abs().min() > 0, "the cut shares memory with the original"


@pytest.mark.parametrize("tied", [True, False])
def test_the_cut_model_loads_in_plain_transformers(
    small_model: Build, tied: bool, tmp_path: Path
) -> None:
    big = of_shape(small_model, OLD, tied, 8, 1e-5)
    cut = cut_model(big, family_of(big.config), random_keep(9))
    cut.save_pretrained(tmp_path)
    loaded = AutoModelForCausalLM.from_pretrained(tmp_path)
    assert type(loaded).__module__.startswith("transformers.")
    assert torch.equal(logits(loaded.eval()), logits(cut))
    assert family_of(loaded.config).shape_of(loaded.config) == NEW


def test_mistral_is_cut_likewise() -> None:
    config = MistralConfig(
        vocab_size=80, hidden_size=60, intermediate_size=96, num_hidden_layers=4, head_dim=16,
        num_attention_heads=12, num_key_value_heads=4, initializer_range=0.2,
    )  # fmt: skip
    torch.manual_seed(0)
    big = MistralForCausalLM(config).eval()
    keep = random_keep(3, OLD.with_sizes(mlp=48))
    cut = cut_model(big, family_of(config), keep)
    with torch.no_grad():
        for layer, mlp in zip(big.model.layers, keep.mlp, strict=True):
            layer.mlp.down_proj.weight *= torch.zeros(96).index_fill(0, mlp, 1)
    torch.testing.assert_close(logits(cut), logits(big), rtol=1e-4, atol=1e-4)


def test_parameters_that_the_family_does_not_declare_are_refused(small_model: Build) -> None:
    odd = small_model()
    odd.model.layers[0].mlp.extra = torch.nn.Linear(2, 2, bias=False)
    family = family_of(odd.config)
    with pytest.raises(UnsupportedFamily, match=r"'model\.layers\.0\.mlp\.extra\.weight'"):
        cut_model(odd, family, keep_all(family.shape_of(odd.config)))


def test_sixteen_bits_stay_sixteen_bits(small_model: Build) -> None:
    big = of_shape(small_model, OLD, True, 5, 1e-6).bfloat16()
    assert cut_model(big, family_of(big.config), random_keep(1)).dtype == torch.bfloat16
