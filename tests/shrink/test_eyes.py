"""Models with eyes cut along every axis: against zeros in transformers' own model."""

from __future__ import annotations

import copy
from dataclasses import replace
from typing import Any

import pytest
import torch
from cutting import random_keep, silence

from flyweight.anatomy import Family, family_of
from flyweight.shrink.batches import Batch, Fed
from flyweight.shrink.calibrate import measure_importance
from flyweight.shrink.check import check_shape
from flyweight.shrink.cut import cut_model
from flyweight.shrink.keep import Keep
from flyweight.shrink.mend import mend
from flyweight.shrink.shapes import grid
from seeing import pictures_for, tiny_mllama

TOKENS = torch.randint(3, 40, (4, 11), generator=torch.Generator().manual_seed(1))
ALWAYS = (0, 4)  # language layers that stay: the first, and one that looks
CUTS = {
    "layers": {"layers": 3},
    "hidden": {"hidden": 32, "heads": 2},
    "mlp": {"mlp": 56},
    "groups": {"kv_groups": 1, "heads": 2, "hidden": 32},
    "head_dim": {"head_dim": 8, "hidden": 32},
    "vocabulary": {"vocabulary": 50},
    "encoder layers": {"encoder_layers": 3},
    "encoder mlp": {"encoder_mlp": 40},
    "all": {
        "layers": 4, "hidden": 16, "mlp": 40, "heads": 2, "kv_groups": 1, "head_dim": 8,
        "vocabulary": 50, "encoder_layers": 2, "encoder_mlp": 24,
    },
}  # fmt: skip


def cut_of(model: Any, cut: str) -> tuple[Family, Keep]:
    """A random cut of one kind."""
    family = family_of(model.config)
    old = family.shape_of(model.config)
    new = old.with_sizes(**CUTS[cut])
    check_shape(family, model.config, new)
    return family, random_keep(3, old, new, old.head_dim, ALWAYS)


@torch.inference_mode()
def logits(model: Any, tokens: torch.Tensor, pictures: bool = True) -> torch.Tensor:
    given = pictures_for(model, tokens) if pictures else {}
    return model(tokens, use_cache=False, **given).logits


CASES = [(cut, True, (-4, -2)) for cut in CUTS]
# Meta's count of taps, which official checkpoints have
CASES += [(cut, False, taps) for cut in ("encoder layers", "all") for taps in ((2, 4), (1, 5))]


@pytest.mark.parametrize("pictures", [True, False], ids=["picture", "text"])
@pytest.mark.parametrize(("cut", "plain", "taps"), CASES)
def test_slicing_equals_zeros(cut: str, pictures: bool, plain: bool, taps: tuple[int, ...]) -> None:
    big = tiny_mllama(taps=taps, plain=plain)
    family, keep = cut_of(big, cut)
    sliced = cut_model(big, family, keep)
    assert type(sliced) is type(big)
    assert family.shape_of(sliced.config) == keep.shape
    assert family.count(keep.shape, sliced.config) == sliced.num_parameters()
    assert keep.vocabulary is not None
    old = keep.vocabulary[TOKENS]
    wanted = logits(silence(copy.deepcopy(big), family, keep), old, pictures)
    found = logits(sliced, TOKENS, pictures)
    scale = wanted.abs().max().item()
    torch.testing.assert_close(found, wanted[..., keep.vocabulary], rtol=0, atol=1e-5 * scale)
    changed = (logits(big, old, pictures)[..., keep.vocabulary] - found).abs().max().item()
    of_eyes = cut.startswith("encoder")
    assert (changed > 1e-3 * scale) == (cut != "vocabulary" and (pictures or not of_eyes))


def test_the_picture_s_token_stays_beyond_a_smaller_vocabulary() -> None:
    big = tiny_mllama()
    family, keep = cut_of(big, "vocabulary")
    sliced = cut_model(big, family, keep)
    old, new = (each.get_input_embeddings().weight for each in (big, sliced))
    assert torch.equal(new[50:], old[80:])


def feed(model: Any, batch: Batch) -> Fed:
    """Rows of token ids beside the same pictures for every batch."""
    given = pictures_for(model, batch.ids)
    used = given["aspect_ratio_mask"][:, 0].bool()
    real = torch.arange(8) < 5  # tokens of a tile, filled up to eight
    patches = (used[:, :, None] & real).flatten(1)
    others = dict.fromkeys(("encoder_layers", "encoder_mlp", "global_mlp"), patches)
    others["seen"] = used[:, :, None].expand(-1, -1, 5).flatten(0, 1)
    return Fed({"input_ids": batch.ids, "use_cache": False, **given}, batch.counts, others)


@pytest.mark.parametrize("cut", [cut for cut in CUTS if cut != "head_dim"])
def test_zeros_go_first(cut: str) -> None:
    big = tiny_mllama()
    family, keep = cut_of(big, cut)
    silence(big, family, keep)
    assert keep.vocabulary is not None
    rows = keep.vocabulary[TOKENS].tolist()
    importance = measure_importance(big, family, rows, 4, feed=feed)
    found = replace(importance.keep(keep.old, keep.shape), vocabulary=keep.vocabulary)
    wanted = logits(cut_model(big, family, keep), TOKENS)
    torch.testing.assert_close(logits(cut_model(big, family, found), TOKENS), wanted)
    for axis in ("layers", "encoder_layers", "encoder_mlp", "global_mlp", "seen", "hidden"):
        if cut != "all" or axis != "encoder_mlp":
            assert getattr(found, axis).tolist() == getattr(keep, axis).tolist(), axis


def test_one_layer_that_looks_always_stays() -> None:
    big = tiny_mllama()
    with torch.no_grad():
        for layer in (3, 4):
            block = big.model.language_model.layers[layer]
            block.cross_attn_attn_gate.zero_()
            block.cross_attn_mlp_gate.fill_(0.01 * layer)
    family = family_of(big.config)
    importance = measure_importance(big, family, TOKENS.tolist(), 4, feed=feed)
    old = family.shape_of(big.config)
    kept = importance.keep(old, old.with_sizes(layers=2)).layers.tolist()
    assert kept == [0, 4]


def test_a_grid_cuts_both_the_language_part_and_the_encoder() -> None:
    model = tiny_mllama()
    family = family_of(model.config)
    found = grid(family, family.shape_of(model.config), model.config, 0.5)
    assert {each.shape.encoder_layers for each in found} >= {1, 2, 5}
    for each in found:
        check_shape(family, model.config, each.shape)


def test_mending_brings_what_tokens_that_see_say_nearer() -> None:
    big = tiny_mllama(plain=False)
    family, keep = cut_of(big, "mlp")
    keep = replace(keep, vocabulary=None)
    generator = torch.Generator().manual_seed(2)
    rows = torch.randint(3, 80, (64, 11), generator=generator).tolist()
    wanted = logits(big, TOKENS).log_softmax(-1)

    def apart(student: Any) -> float:
        said = logits(student, TOKENS).log_softmax(-1)
        return float((wanted.exp() * (wanted - said)).sum(-1).mean())

    student = cut_model(big, family, keep)
    before = apart(student)
    mended = mend(student, big, family, keep, rows, 4, feed=feed)
    assert apart(student) < 0.9 * before
    names = {each.name.rpartition(".")[2] for each in mended if ".cross_attn." in each.name}
    assert names == {"q_proj", "o_proj"}
