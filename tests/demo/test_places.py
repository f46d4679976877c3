"""The first lesson of the demo's eyes: its loss label by label, and where needles are seen."""

from __future__ import annotations

import random
from collections import defaultdict
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from flyweight.demo.pictures import draw
from flyweight.demo.pictures.labels import PARTS, Labels, labels
from flyweight.demo.places import MIDDLES, NEAR, Places
from flyweight.demo.teach_eyes import as_seen
from flyweight.vision.encoded import Encoded
from flyweight.vision.pixels import Shelf

GRID, WIDTH = 10, 12
TOKENS = 1 + GRID**2
KINDS = ("gauge", "bar", "gauge", "meter", "sheet", "pie")
PICTURES = [draw(random.Random(f"places/{kind}"), kind) for kind in KINDS]
TOLD = [labels(each.facts, GRID) for each in PICTURES]


def lesson(told: list[Labels], shelf: Any = None) -> Places:
    """Places whose heads are drawn at random."""
    torch.manual_seed(0)
    return Places(shelf, told, WIDTH, GRID)


def one_by_one(places: Places, states: torch.Tensor, told: list[Labels]) -> torch.Tensor:
    """The loss as its docstring says it, a label and a point at a time; states [B, tokens, D]."""
    losses, points, offsets = defaultdict(list), [], []
    learned = places.learned
    for row, each in enumerate(told):
        for token, name, answer in each.told:
            logits = learned[name](learned["norm"](states[row, token]))
            if name == "part":
                near = torch.exp(-((MIDDLES - each.fraction) ** 2) / (2 * NEAR**2))
                losses[name].append(-2 * (near / near.sum() * logits.log_softmax(-1)).sum())
            else:
                losses[name].append(F.cross_entropy(logits, torch.tensor(answer)))
        for number, (x, y) in enumerate(each.points or ()):
            shown = learned["norm"](states[row, 1:])
            column, line = (min(GRID - 1, max(0, int(part * GRID))) for part in (x, y))
            patch = line * GRID + column
            points.append(-2 * learned["heat"](shown)[:, number].log_softmax(0)[patch])
            offset = learned["offset"](shown[patch])[2 * number : 2 * number + 2]
            aim = torch.tensor([x * GRID - column - 0.5, y * GRID - line - 0.5])
            offsets.append((offset - aim).abs().mean())
    parts = [*losses.values(), points, offsets]
    return sum((torch.stack(each).mean() for each in parts if each), torch.zeros(()))


@pytest.mark.parametrize("rows", [range(6), [1, 3], [0], [4]])
def test_the_loss_and_its_gradient_are_those_of_each_label(rows: Any) -> None:
    told = [TOLD[row] for row in rows]
    given = {"pixel_values": torch.zeros(len(told), *[1] * 5)}
    places = lesson(told, SimpleNamespace(inputs=lambda _: given))
    states = torch.randn(len(told), 1, 1, TOKENS, WIDTH, requires_grad=True)
    model = SimpleNamespace(
        model=SimpleNamespace(vision_model=lambda **_: SimpleNamespace(last_hidden_state=states))
    )
    loss = places(model, {"picture": torch.arange(len(told))})
    wanted = one_by_one(places, states[:, 0, 0], told)
    assert loss.item() == pytest.approx(wanted.item(), rel=1e-5)
    (here,) = torch.autograd.grad(loss, states)
    (there,) = torch.autograd.grad(wanted, states)
    torch.testing.assert_close(here, there, rtol=1e-4, atol=1e-6)


def test_needles_are_seen_at_the_mean_of_what_their_tokens_say() -> None:
    states = torch.randn(len(TOLD), 1, 1, TOKENS, WIDTH).bfloat16()
    stored = states.view(torch.int16).numpy()
    places = lesson(TOLD)
    found = places.fractions(Encoded(Shelf.__new__(Shelf), stored[:5]))
    assert list(found) == [0, 2]  # the gauges, of those that the encoder saw
    for number, fraction in found.items():
        tokens = [token for token, name, _ in TOLD[number].told if name == "part"]
        each = []
        for token in tokens:
            shown = places.learned["norm"](states[number, 0, 0, token].float())
            shares = places.learned["part"](shown).softmax(-1).detach().numpy()
            each.append(np.dot(shares, (np.arange(PARTS) + 0.5) / PARTS))
        assert fraction == pytest.approx(np.mean(each), abs=1e-5)


def test_gauges_are_answered_as_they_are_seen_and_nothing_else_changes() -> None:
    questions = [each.questions for each in PICTURES]
    true = {row: each.fraction for row, each in enumerate(TOLD) if each.points}
    assert as_seen(questions, TOLD, true) == questions  # seen as they are
    lowest = as_seen(questions, TOLD, dict.fromkeys(true, 0.0))
    for row, (before, after) in enumerate(zip(questions, lowest, strict=True)):
        for one, other in zip(before, after, strict=True):
            if one.kind == "gauge":
                number, unit = other.answer.split()
                assert (float(number), unit) == (PICTURES[row].facts["low"], one.answer.split()[1])
                assert (other.prompt, other.value) == (one.prompt, one.value)
            else:
                assert one == other
