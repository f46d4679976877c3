"""What can be cut in each architecture; no code elsewhere names one."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from flyweight.anatomy.family import AXES, Family, Shape
from flyweight.anatomy.llama import LLAMA
from flyweight.errors import UnsupportedFamily

if TYPE_CHECKING:
    from torch import Tensor

_FAMILIES = (LLAMA,)


def families() -> tuple[Family, ...]:
    """Every family that Flyweight can cut."""
    return _FAMILIES


def family_of(config: Any) -> Family:
    """The family of a transformers config; UnsupportedFamily names those that are supported."""
    for family in _FAMILIES:
        if config.model_type in family.model_types:
            return family
    known = ", ".join(name for family in _FAMILIES for name in family.model_types)
    raise UnsupportedFamily(
        f"Flyweight cannot cut the architecture {config.model_type!r} yet. "
        f"Use a model of one of these: {known}."
    )


def logits_from_hidden(model: Any, hidden: Tensor) -> Tensor:
    """Logits [..., V] from the final hidden states [..., D]: the head with all its scaling."""
    return model.get_output_embeddings()(hidden)


__all__ = ["AXES", "Family", "Shape", "families", "family_of", "logits_from_hidden"]
