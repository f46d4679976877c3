"""From sums over a corpus to the scores of everything that can be cut."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from flyweight.anatomy import Family
from flyweight.shrink.importance import Importance
from flyweight.shrink.readings import Reading
from flyweight.shrink.sums import Sums


def scores(model: Any, family: Family, readings: Sequence[Reading], sums: Sums) -> Importance:
    """Activation scores, with first-order ones beside them where the sums hold any."""
    collected = _Collected(model, family, readings, sums)
    return collected.activation(collected.taylor() if "gate" in collected.names else None)


class _Collected:
    """Sums, stacked block by block."""

    def __init__(self, model: Any, family: Family, readings: Sequence[Reading], sums: Sums) -> None:
        self.model, self.family, self.readings, self.sums = model, family, readings, sums
        self.shape = family.shape_of(model.config)
        self.names = {name.partition(".")[0] for name in sums.tensors}

    def activation(self, taylor: Importance | None) -> Importance:
        """What each part says, or adds to the residual stream, for a token on average."""
        tokens, outward = self.sums.tokens, self._outward()
        mixture = bool(self.shape.experts)
        fed = "experts" if mixture else "mlp"
        return self._importance(
            **self._eyes(outward),
            layers=self._stacked("influence", "layers") / tokens,
            hidden=(self._stacked("square", "hidden") / tokens).sqrt().mean(0),
            mlp=(self._stacked("square", fed) / tokens).sqrt() * outward[fed],
            values=(self._stacked("square", "values") / tokens).sqrt() * outward["values"],
            experts=self._stacked("added", "experts") / tokens if mixture else None,
            taylor=taylor,
        )

    def _eyes(self, outward: dict[str, Tensor]) -> dict[str, Tensor]:
        """What is known of an encoder and of what it says; only the order of scores counts."""
        if not self.shape.encoder_layers:
            return {}
        said = {
            axis: self._stacked("square", axis).sqrt() * outward[axis]
            for axis in ("seen", "encoder_mlp", "global_mlp")
            if axis in outward  # an encoder may have no blocks over all tiles
        }
        said["seen"] = said["seen"].norm(dim=0)
        return said | {"encoder_layers": self._stacked("influence", "encoder_layers")}

    def taylor(self) -> Importance:
        """Root mean square of a sequence's change in loss, in nats to first order."""
        mixture = bool(self.shape.experts)
        return self._importance(
            layers=self._moved("gate", "layers"),
            hidden=(self._stacked("gate", "hidden").mean(0) / self.sums.sequences).sqrt(),
            mlp=self._moved("gate", "experts" if mixture else "mlp"),
            values=self._moved("gate", "values"),
            heads=self._moved("heads", "values"),
            groups=self._moved("groups", "values"),
            experts=self._moved("whole", "experts") if mixture else None,
        )

    def _importance(self, *, values: Tensor, **found: Any) -> Importance:
        shape = self.shape
        heads = (shape.layers, shape.kv_groups, shape.group_heads, shape.value_dim)
        found["values"] = values.view(heads)
        rounded: dict[str, Any] = {
            name: each.float() if isinstance(each, Tensor) else each for name, each in found.items()
        }
        return Importance(
            **rounded,
            turning=self.family.turning(self.model.config),
            pinned=self._pinned(found["layers"]),
        )

    def _pinned(self, influence: Tensor) -> tuple[int, ...]:
        """Blocks that must stay: the family's, and of each other kind the one that does most."""
        pinned, kind = self.family.pinned, self.family.kind
        if kind is not None:
            config = self.model.config
            kinds = [kind(config, layer) for layer in range(len(influence))]
            missing = set(kinds) - {kinds[layer] for layer in pinned}
            for layer in influence.argsort(descending=True).tolist():
                if kinds[layer] in missing:
                    missing.remove(kinds[layer])
                    pinned = (*pinned, layer)
        return pinned

    def _moved(self, name: str, axis: str) -> Tensor:
        return (self._stacked(name, axis) / self.sums.sequences).sqrt()

    def _stacked(self, name: str, axis: str) -> Tensor:
        """Sums [places, ...] of all modules that are read along an axis."""
        modules = [reading.module for reading in self.readings if reading.axis == axis]
        return torch.stack([self.sums.tensors[f"{name}.{module}"] for module in modules])

    def _outward(self) -> dict[str, Tensor]:
        """[L, C] or [L, E, C]: the norm of the column that carries each channel to the stream."""
        found: dict[str, list[Tensor]] = {}
        for reading in self.readings:
            if reading.outward:
                name = f"{reading.module}.{reading.outward}"
                weight = self.model.get_parameter(name).detach().double().cpu()
                found.setdefault(reading.axis, []).append(weight.norm(dim=-2))
        return {axis: torch.stack(norms) for axis, norms in found.items()}
