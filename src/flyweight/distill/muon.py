"""Muon for the matrices of hidden layers, AdamW for all else, as one optimiser.

A network that learns from scratch comes as far in about half the examples: each step turns a weight
in all its directions alike, where AdamW follows the few that are loudest. Source: K. Jordan et al.,
"Muon: an optimizer for hidden layers in neural networks" (2024); steps as long as AdamW's after Liu
et al., arXiv:2502.16982.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor, nn
from torch.optim import AdamW, Muon, Optimizer

from flyweight.distill.attached import LEARNED

LONGER = 3.0  # Muon's rate beside AdamW's


class MuonAndAdamW(Optimizer):
    """torch's two optimisers behind one face; AdamW has what is in no hidden layer.

    `decayed` names the parameters that decay; matrices of hidden layers always do. A rate is
    AdamW's, to which Muon's stands as LONGER to 1.
    """

    def __init__(
        self, model: nn.Module, rate: float, weight_decay: float, beta2: float, decayed: set[str]
    ) -> None:
        hidden = hidden_matrices(model)
        inside = {id(each) for each in hidden}
        rest = {
            name: each
            for name, each in model.named_parameters()
            if each.requires_grad and id(each) not in inside
        }
        groups = [
            {
                "params": [each for name, each in rest.items() if (name in decayed) == decays],
                "weight_decay": weight_decay if decays else 0.0,
            }
            for decays in (True, False)
        ]
        self.both: tuple[Optimizer, Optimizer] = (
            Muon(
                hidden,
                lr=LONGER * rate,
                weight_decay=weight_decay,
                adjust_lr_fn="match_rms_adamw",
            ),
            AdamW(groups, lr=rate, betas=(0.9, beta2), fused=True),
        )
        super().__init__([each for one in self.both for each in one.param_groups], {"lr": rate})

    @property
    def param_groups(self) -> list[dict[str, Any]]:
        """The groups of both: schedules set their rates, loading replaces them."""
        return [group for each in self.both for group in each.param_groups]

    @param_groups.setter
    def param_groups(self, _: Any) -> None:  # pyright: ignore[reportIncompatibleVariableOverride]
        """Optimizer's own, which are never used."""

    def add_param_group(self, param_group: dict[str, Any]) -> None:
        """Called by Optimizer for groups that are here already."""

    def step(self, closure: Any = None) -> None:  # type: ignore[override]
        assert closure is None
        for each in self.both:
            each.step()

    def zero_grad(self, set_to_none: bool = True) -> None:
        for each in self.both:
            each.zero_grad(set_to_none)

    def state_dict(self) -> dict[str, Any]:
        return {"both": [each.state_dict() for each in self.both]}

    def load_state_dict(self, state_dict: Mapping[str, Any]) -> None:  # type: ignore[override]
        for each, state in zip(self.both, state_dict["both"], strict=True):
            each.load_state_dict(state)


def hidden_matrices(model: nn.Module) -> list[Tensor]:
    """The weights of linear layers that are trained, the head and an objective's own left out."""
    head: Any = getattr(model, "get_output_embeddings", lambda: None)()
    return [
        module.weight
        for name, module in model.named_modules()
        if isinstance(module, nn.Linear)
        and module is not head
        and not name.startswith(LEARNED)
        and module.weight.requires_grad
    ]


__all__ = ["MuonAndAdamW", "hidden_matrices"]
