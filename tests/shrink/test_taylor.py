"""First-order scores against autograd over weights, explicit gates, and real zeroing."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from scipy.stats import spearmanr
from torch import Tensor

from flyweight.anatomy import family_of
from flyweight.shrink.calibrate import measure_importance
from flyweight.shrink.importance import Importance
from zoo import build

PROMPTS = [[3 + (7 * i + 5 * j * j) % 70 for j in range(3 + 3 * i % 11)] for i in range(6)]
WEIGHTS = [
    [0.0, *[0.2] * (len(row) // 2 - 1), *[1.0] * (len(row) - len(row) // 2)] for row in PROMPTS
]
ROWS = [
    {"input_ids": ids, "weights": weights} for ids, weights in zip(PROMPTS, WEIGHTS, strict=True)
]
GROUPS, HEADS, WIDTH = 4, 2, 16


def measured(model: Any, rows: Any = ROWS, batch_size: int = 32) -> Importance:
    """The first-order scores."""
    found = measure_importance(model, family_of(model.config), rows, batch_size, taylor=True)
    assert found.taylor is not None
    return found.taylor


def losses(model: Any) -> Iterator[Tensor]:
    """The loss of each row by transformers' own logits."""
    for ids, weights in zip(PROMPTS, WEIGHTS, strict=True):
        tokens = torch.tensor(ids)
        logits = model(tokens[None]).logits[0, :-1]
        nats = F.cross_entropy(logits, tokens[1:], reduction="none")
        yield (nats * torch.tensor(weights[1:], dtype=nats.dtype)).sum()


def over_rows(model: Any, read: Callable[[], Tensor]) -> Tensor:
    """Root mean square over the rows of what `read` finds in the weights' gradients."""
    found = []
    for loss in losses(model):
        model.zero_grad()
        loss.backward()
        found.append(read().detach())
    model.zero_grad()
    return torch.stack(found).pow(2).mean(0).sqrt()


def moved(weight: Tensor) -> Tensor:
    """w x dL/dw."""
    assert weight.grad is not None
    return weight * weight.grad


@pytest.fixture(scope="module")
def model() -> Any:
    return build("llama", seed=3)


@pytest.fixture(scope="module")
def found(model: Any) -> Importance:
    return measured(model, batch_size=4)


def test_channels_score_as_the_weights_that_read_them(model: Any, found: Importance) -> None:
    """LLM-Pruner's sum of w x dL/dw, over the weights that read a group, row by row."""
    plain = copy.deepcopy(model)
    blocks = plain.model.layers
    norms = [plain.model.norm]
    for block in blocks:
        norms += [block.input_layernorm, block.post_attention_layernorm]

    def heads() -> Tensor:
        columns = torch.stack([moved(block.self_attn.o_proj.weight).sum(0) for block in blocks])
        return columns.view(4, GROUPS, HEADS, WIDTH)

    for scores, read in [
        (found.mlp, lambda: torch.stack([moved(b.mlp.down_proj.weight).sum(0) for b in blocks])),
        (found.values, heads),
        (found.group_heads, lambda: heads().sum(-1)),
        (found.kv_groups, lambda: heads().sum((-1, -2))),
    ]:
        torch.testing.assert_close(scores, over_rows(plain, read), rtol=1e-3, atol=1e-5)
    hidden = over_rows(plain, lambda: torch.stack([moved(norm.weight) for norm in norms]))
    torch.testing.assert_close(found.hidden, hidden.pow(2).mean(0).sqrt(), rtol=1e-3, atol=1e-5)


def test_blocks_score_as_gates_on_what_they_change(model: Any, found: Importance) -> None:
    plain, gates = copy.deepcopy(model), torch.ones(4, requires_grad=True)
    for layer, block in enumerate(plain.model.layers):
        block.register_forward_hook(
            lambda _, inputs, output, layer=layer: inputs[0] + gates[layer] * (output - inputs[0])
        )
    each = torch.stack([torch.autograd.grad(loss, gates)[0] for loss in losses(plain)])
    torch.testing.assert_close(found.layers, each.pow(2).mean(0).sqrt(), rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize("name", ["mixtral", "qwen3_moe"])
def test_experts_score_as_their_weights_outward(name: str) -> None:
    model = build(name)
    found, plain = measured(model, batch_size=4), copy.deepcopy(model)
    plain.config._experts_implementation = "eager"

    def read() -> Tensor:
        outward = [moved(block.mlp.experts.down_proj) for block in plain.model.layers]
        return torch.stack(outward).sum(2)  # [L, E, M]

    torch.testing.assert_close(found.mlp, over_rows(plain, read), rtol=1e-3, atol=1e-5)
    whole = over_rows(plain, lambda: read().sum(-1))
    assert found.experts is not None
    torch.testing.assert_close(found.experts, whole, rtol=1e-3, atol=1e-5)


def really(model: Any) -> Tensor:
    """[M]: root mean square of a row's change in loss, each channel of block 1 zeroed in turn."""
    weight = model.model.layers[1].mlp.down_proj.weight
    with torch.no_grad():
        before, changes = torch.stack(list(losses(model))), []
        for channel in range(weight.shape[1]):
            column = weight[:, channel].clone()
            weight[:, channel] = 0
            changes.append(torch.stack(list(losses(model))) - before)
            weight[:, channel] = column
    return torch.stack(changes, 1).pow(2).mean(0).sqrt()


def test_what_zeroing_a_channel_really_does() -> None:
    model = build("llama", seed=3, num_hidden_layers=2, intermediate_size=24).double()
    ordered = spearmanr(measured(model).mlp[1], really(model)).statistic
    assert ordered > 0.9, ordered
    with torch.no_grad():
        model.model.layers[1].mlp.down_proj.weight.mul_(1e-3)
    wanted = really(model).float()
    torch.testing.assert_close(measured(model).mlp[1], wanted, rtol=0.01, atol=1e-7)


@pytest.mark.parametrize("batch_size", [1, 5])
def test_batches_and_padding_do_not_matter(model: Any, found: Importance, batch_size: int) -> None:
    again = measured(model, ROWS[::-1], batch_size)
    for name in ("layers", "hidden", "mlp", "values", "heads", "groups"):
        torch.testing.assert_close(getattr(again, name), getattr(found, name), rtol=1e-3, atol=1e-5)


def test_plain_prompts_count_every_token(model: Any) -> None:
    ones = [{"input_ids": ids, "weights": [1.0] * len(ids)} for ids in PROMPTS]
    for name in ("layers", "hidden", "mlp", "values"):
        assert torch.equal(
            getattr(measured(model, PROMPTS), name), getattr(measured(model, ones), name)
        )


def test_the_activation_scores_beside_are_the_same(model: Any) -> None:
    alone = measure_importance(model, family_of(model.config), PROMPTS)
    beside = measure_importance(model, family_of(model.config), PROMPTS, taylor=True)
    for name in ("layers", "hidden", "mlp", "values"):
        torch.testing.assert_close(getattr(beside, name), getattr(alone, name))


def test_the_model_is_left_as_it_was() -> None:
    model = build("llama", num_hidden_layers=1)
    model.lm_head.weight.requires_grad_(False)
    measured(model)
    trained = {name: weight.requires_grad for name, weight in model.named_parameters()}
    assert trained.pop("lm_head.weight") is False
    assert all(trained.values())
    assert all(weight.grad is None for weight in model.parameters())
    assert not any(module._forward_hooks for module in model.modules())
