"""Every family cut along every axis: against zeros in transformers' own model, known answers."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from cutting import mask, random_keep, widen

from flyweight.anatomy import Family, Shape, family_of
from flyweight.shrink.cut import cut_model
from flyweight.shrink.keep import Keep
from zoo import ZOO, build, logits

TOKENS = torch.randint(0, 40, (3, 17), generator=torch.Generator().manual_seed(1))

# what each axis is cut to, in decoders and in encoders (whose hidden is heads x head_dim)
CUTS: dict[str, tuple[dict[str, int], dict[str, int] | None]] = {
    "layers": ({"layers": 2}, {"layers": 2}),
    "hidden": ({"hidden": 40}, None),
    "mlp": ({"mlp": 56}, {"mlp": 56}),
    "kv_groups": ({"kv_groups": 3, "heads": 6, "hidden": 48}, None),
    "heads": ({"heads": 4}, None),
    "head_dim": ({"head_dim": 8}, None),
    "experts": ({"experts": 3}, None),
    "vocabulary": ({"vocabulary": 50}, {"vocabulary": 50}),
    "narrow": (
        {"hidden": 48, "heads": 6, "kv_groups": 3},
        {"hidden": 48, "heads": 6, "kv_groups": 6},
    ),
    "thin heads": ({"head_dim": 4, "mlp": 36}, {"hidden": 32, "head_dim": 4}),
    "all": (
        {"layers": 3, "hidden": 48, "mlp": 56, "heads": 3, "kv_groups": 3, "head_dim": 8,
         "vocabulary": 50},
        {"layers": 3, "hidden": 24, "mlp": 56, "heads": 6, "kv_groups": 6, "head_dim": 4,
         "vocabulary": 50},
    ),
}  # fmt: skip


def family_named(name: str) -> Family:
    """The family of a model of the zoo."""
    return family_of(build(name).config)


def sizes_of(family: Family, cut: str) -> dict[str, int] | None:
    """What a cut of one kind leaves; None where the family has no such axis."""
    sizes = CUTS[cut][1 if family.hidden_is_heads else 0]
    if sizes is None or ("experts" in sizes and "experts" not in family.cuttable):
        return None
    return sizes


def cut_of(model: Any, cut: str) -> tuple[Family, Keep]:
    """A random cut of one kind."""
    family = family_of(model.config)
    old, sizes = family.shape_of(model.config), sizes_of(family, cut)
    assert sizes is not None
    new = old.with_sizes(**sizes)
    return family, random_keep(3, old, new, family.turning(model.config), family.pinned)


CASES = [(name, cut) for name in ZOO for cut in CUTS if sizes_of(family_named(name), cut)]


def agree(found: torch.Tensor, wanted: torch.Tensor) -> None:
    """Within 1e-5 of the largest logit."""
    scale = wanted.abs().max().item()
    torch.testing.assert_close(found, wanted, rtol=0, atol=1e-5 * scale)


class KeptNorm(torch.nn.Module):
    """A LayerNorm that takes mean and deviation of the kept channels alone; the others are 0."""

    def __init__(self, norm: Any, kept: torch.Tensor) -> None:
        super().__init__()
        self.norm, self.kept = norm, kept

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        part = x[..., self.kept]
        part = part - part.mean(-1, keepdim=True)
        part = part / (part.square().mean(-1, keepdim=True) + self.norm.eps).sqrt()
        out = torch.zeros_like(x)
        out[..., self.kept] = part
        biased = self.norm.bias is not None
        return out * self.norm.weight + (self.norm.bias if biased else 0)


def over_kept_channels(model: Any, family: Family, keep: Keep) -> None:
    """Let norms that subtract the mean see the kept channels only."""
    for template, norm in family.norms.items():
        if not norm.centred:
            continue
        for name in {template.format(layer=layer) for layer in range(len(keep.layers))}:
            module = model.get_submodule(name)
            if isinstance(module, torch.nn.LayerNorm):
                parent, _, attribute = name.rpartition(".")
                setattr(model.get_submodule(parent), attribute, KeptNorm(module, keep.hidden))


@contextmanager
def unreachable_experts(model: Any, keep: Keep, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Give experts that do not stay a router logit of minus infinity."""
    linear = torch.nn.functional.linear
    routers = {}
    if keep.experts is not None:
        for layer, block in enumerate(model.model.layers):
            routers[block.mlp.gate.weight.data_ptr()] = keep.experts[layer]

    def masked(x: torch.Tensor, weight: torch.Tensor, bias: Any = None) -> torch.Tensor:
        out = linear(x, weight, bias)
        if weight.data_ptr() in routers:
            hidden = torch.full_like(out, -torch.inf)
            kept = routers[weight.data_ptr()]
            hidden[..., kept] = out[..., kept]
            return hidden
        return out

    with monkeypatch.context() as patch:
        patch.setattr(torch.nn.functional, "linear", masked)
        yield


@pytest.mark.parametrize(("name", "cut"), CASES)
def test_slicing_equals_masking(name: str, cut: str, monkeypatch: pytest.MonkeyPatch) -> None:
    big = build(name)
    family, keep = cut_of(big, cut)
    sliced = cut_model(big, family, keep)
    assert family.shape_of(sliced.config) == keep.shape
    masked = mask(copy.deepcopy(big), family, keep)
    over_kept_channels(masked, family, keep)
    tokens, new_tokens = TOKENS, TOKENS
    if keep.vocabulary is not None:
        tokens = keep.vocabulary[TOKENS]
    with unreachable_experts(masked, keep, monkeypatch):
        wanted = logits(masked, tokens)
    found = logits(sliced, new_tokens)
    if keep.vocabulary is not None and family.causal:
        wanted = wanted[..., keep.vocabulary]
    agree(found, wanted)


def hides_nothing(family: Family) -> bool:
    """Zeros show in a norm that subtracts the mean, a dead expert in its router."""
    return "experts" in family.cuttable or any(norm.centred for norm in family.norms.values())


WIDENED = {
    "all": [name for name in ZOO if not hides_nothing(family_named(name))],
    "mlp": list(ZOO),
    "head_dim": [name for name, cut in CASES if cut == "head_dim"],
    "layers": [name for name in ZOO if name != "bert"],  # its norms follow what is added
}


@pytest.mark.parametrize(
    ("name", "cut"), [(name, cut) for cut, names in WIDENED.items() for name in names]
)
def test_what_was_widened_with_zeros_is_cut_back_to_the_original(name: str, cut: str) -> None:
    family, keep = cut_of(build(name), cut)
    big = build(name, seed=11)
    small_config = family.config_for(big.config, keep.shape, keep.layers.tolist())
    small = build_like(name, small_config)
    widen(small, big, family, keep)
    tokens = keep.vocabulary[TOKENS] if keep.vocabulary is not None else TOKENS
    wide = logits(big, tokens)
    if keep.vocabulary is not None and family.causal:
        wide = wide[..., keep.vocabulary]
    agree(wide, logits(small, TOKENS))
    found = cut_model(big, family, keep)
    assert found.config.to_dict() == small.config.to_dict()
    for label, tensor in small.state_dict().items():
        torch.testing.assert_close(found.state_dict()[label], tensor, rtol=3e-7, atol=1.5e-7)


def build_like(name: str, config: Any) -> Any:
    """A random model of this config, its weights drawn as the zoo draws them."""
    values = config.to_dict()
    model = build(name, seed=5)
    small = type(model)(type(model.config).from_dict(values)).float().eval()
    with torch.no_grad():
        for label, parameter in small.named_parameters():
            source = model.state_dict()[label]
            parameter.copy_(source[tuple(slice(0, size) for size in parameter.shape)])
    return small


@pytest.mark.parametrize("name", list(ZOO))
def test_a_cut_model_is_loaded_by_plain_transformers(name: str, tmp_path: Path) -> None:
    big = build(name)
    family, keep = cut_of(big, "all")
    cut = cut_model(big, family, keep)
    cut.save_pretrained(tmp_path)
    loaded = getattr(transformers, family.model).from_pretrained(tmp_path).eval()
    assert type(loaded) is type(big)
    assert family.shape_of(loaded.config) == keep.shape
    assert torch.equal(logits(loaded, TOKENS), logits(cut, TOKENS))


def test_an_untied_model_becomes_a_tied_one() -> None:
    """From a Llama 3.1 8B in small to a Llama 3.2 1B in small: half the head_dim, tied."""
    big = build("llama 3 rope")
    family = family_of(big.config)
    old = family.shape_of(big.config)
    new = Shape(layers=2, hidden=32, mlp=64, heads=8, kv_groups=4, head_dim=8, vocabulary=80)
    keep = random_keep(1, old, new, old.head_dim, ())
    tied = cut_model(big, family, Keep(**{**vars(keep), "vocabulary": None, "tied": True}))
    assert tied.config.tie_word_embeddings
    assert tied.lm_head.weight is tied.model.embed_tokens.weight
    assert family.shape_of(tied.config) == new
    assert family.count(new, tied.config) == tied.num_parameters()
    untied = cut_model(big, family, Keep(**{**vars(keep), "vocabulary": None}))
    untied.lm_head.weight = untied.model.embed_tokens.weight
    agree(logits(tied, TOKENS), logits(untied, TOKENS))
