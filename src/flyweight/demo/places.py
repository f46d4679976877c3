"""The first lesson of the demo's eyes: where things are in a picture and what they mean."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import groupby
from operator import itemgetter
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from flyweight.demo.pictures.labels import ASKED, PARTS, POINTS, Labels
from flyweight.distill.losses import Batch
from flyweight.vision.encoded import Encoded
from flyweight.vision.pixels import Shelf

NEAR = 0.012  # of a scale: how far a part may be from the needle and still be half right
MIDDLES = (torch.arange(PARTS) + 0.5) / PARTS  # of the parts


class Places:
    """Cross-entropy of every label at its patch; the needle's points as patches and offsets.

    `learned` reads the encoder's states, whose width is `width`.
    """

    def __init__(self, shelf: Shelf, told: Sequence[Labels], width: int, grid: int) -> None:
        self.shelf, self.told, self.grid = shelf, told, grid
        heads = {name: nn.Linear(width, count) for name, count in ASKED.items()}
        heads["heat"], heads["offset"] = nn.Linear(width, len(POINTS)), nn.Linear(width, 8)
        self.learned = nn.ModuleDict({"norm": nn.LayerNorm(width), **heads})

    def __call__(self, model: Any, batch: Batch) -> Tensor:
        given = self.shelf.inputs(batch["picture"])
        light = 0.8 + 0.4 * torch.rand(len(batch["picture"]), 1, 1, 1, 1, 1)
        given["pixel_values"].mul_(light.to(given["pixel_values"].device))
        states = model.model.vision_model(**given).last_hidden_state  # [B, 1, 1, tokens, D]
        told = [self.told[i] for i in batch["picture"].tolist()]
        asked = sorted(
            (name, row, token, answer) for row, each in enumerate(told)
            for token, name, answer in each.told
        )  # fmt: skip
        dials = [row for row, each in enumerate(told) if each.points is not None]
        tokens = states.shape[-2]
        places = [row * tokens + token for _, row, token, _ in asked]
        patches = [row * tokens + token for row in dials for token in range(1, tokens)]
        # taken out at once: to go back through an index fills the whole of `states` with zeros
        shown = states.flatten(0, 3).index_select(
            0, torch.tensor(places + patches, device=states.device)
        )
        of_labels, of_patches = self.learned["norm"](shown.float()).split(
            [len(places), len(patches)]
        )
        fractions = of_labels.new_tensor([told[row].fraction for _, row, _, _ in asked])
        loss = self._labels(of_labels, [(name, answer) for name, _, _, answer in asked], fractions)
        if dials:
            points = of_patches.new_tensor([told[row].points for row in dials])
            loss = loss + self._points(of_patches.unflatten(0, (len(dials), -1)), points)
        return loss * batch["share"] if "share" in batch else loss

    def _labels(self, shown: Tensor, asked: Sequence[tuple[str, int]], fractions: Tensor) -> Tensor:
        """Of tokens [labels, D]: what each is asked and its answer, by what is asked."""
        loss, begin = shown.new_zeros(()), 0
        for name, of_name in groupby(asked, key=itemgetter(0)):
            right = torch.tensor([answer for _, answer in of_name], device=shown.device)
            end = begin + len(right)
            logits = self.learned[name](shown[begin:end])
            if name == "part":
                loss = loss + 2 * F.cross_entropy(logits, _near(fractions[begin:end]))
            else:
                loss = loss + F.cross_entropy(logits, right)
            begin = end
        return loss

    def _points(self, shown: Tensor, points: Tensor) -> Tensor:
        """Of patches [G, patches, D]: where the points [G, points, x and y] are."""
        at = points * self.grid
        cells = at.floor().clamp(0, self.grid - 1)
        patches = (cells[..., 1] * self.grid + cells[..., 0]).long()  # [G, points]
        heat = self.learned["heat"](shown).transpose(1, 2)  # [G, points, patches]
        offsets = self.learned["offset"](shown).unflatten(-1, (len(POINTS), 2))
        dials, names = (torch.arange(n, device=shown.device) for n in (len(points), len(POINTS)))
        here = dials[:, None], patches, names
        missed = (offsets[here] - (at - cells - 0.5)).abs().mean()
        return 2 * F.cross_entropy(heat.flatten(0, 1), patches.flatten()) + missed

    @torch.no_grad()
    def fractions(self, known: Encoded) -> dict[int, float]:
        """Where on its scale the needle of each gauge among these pictures stands, as it is seen.

        The mean over the tokens that are asked.
        """
        asked = [
            (number, token) for number, each in enumerate(self.told[: len(known)])
            for token, name, _ in each.told if name == "part"
        ]  # fmt: skip
        numbers, tokens = torch.tensor(asked, dtype=torch.long).reshape(-1, 2).T
        shares = self.learned["part"](self.learned["norm"](known.tokens(numbers, tokens)))
        seen = (shares.softmax(-1) * MIDDLES).sum(-1).double()
        sums, counts = (torch.bincount(numbers, each) for each in (seen, torch.ones_like(seen)))
        return {i: float(sums[i] / counts[i]) for i in counts.nonzero().flatten().tolist()}


def _near(fractions: Tensor) -> Tensor:
    """Shares [N, PARTS] of the parts of a scale: most for the nearest to the needle."""
    return (-((MIDDLES.to(fractions.device) - fractions[:, None]) ** 2) / (2 * NEAR**2)).softmax(-1)


__all__ = ["MIDDLES", "Places"]
