"""What can be cut in each architecture; no code elsewhere names one."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from flyweight.anatomy.bert import BERT
from flyweight.anatomy.family import Family
from flyweight.anatomy.gemma import GEMMA2, GEMMA3
from flyweight.anatomy.granite import GRANITE
from flyweight.anatomy.llama import LLAMA
from flyweight.anatomy.mixture import MIXTRAL, QWEN3_MOE
from flyweight.anatomy.mllama import MLLAMA
from flyweight.anatomy.modernbert import MODERNBERT
from flyweight.anatomy.olmo2 import OLMO2
from flyweight.anatomy.phi3 import PHI3
from flyweight.anatomy.qwen import QWEN2, QWEN3
from flyweight.anatomy.shape import AXES, Shape
from flyweight.anatomy.stablelm import STABLELM
from flyweight.errors import UnsupportedFamily

if TYPE_CHECKING:
    from torch import Tensor

_FAMILIES = [
    LLAMA,
    QWEN2,
    QWEN3,
    GRANITE,
    GEMMA2,
    GEMMA3,
    PHI3,
    OLMO2,
    STABLELM,
    MIXTRAL,
    QWEN3_MOE,
    BERT,
    MODERNBERT,
    MLLAMA,
]


def families() -> tuple[Family, ...]:
    """Every family that Flyweight can cut."""
    return tuple(_FAMILIES)


def register(family: Family) -> None:
    """Let Flyweight cut one more family; it goes before those that claim the same model types."""
    _FAMILIES.insert(0, family)


def family_of(config: Any) -> Family:
    """The family of a transformers config; UnsupportedFamily names those that are supported."""
    for family in _FAMILIES:
        if config.model_type in family.model_types:
            return family
    known = ", ".join(name for family in _FAMILIES for name in family.model_types)
    raise UnsupportedFamily(
        f"Flyweight cannot cut the architecture {config.model_type!r} yet. "
        f"Use a model of one of these: {known}; or declare it: docs/guides/teach-a-family.md."
    )


def logits_from_hidden(model: Any, hidden: Tensor) -> Tensor:
    """Logits [..., V] from the final hidden states [..., D]: the head with all its scaling."""
    logits = model.get_output_embeddings()(hidden)
    return family_of(model.config).logits(model.config, logits)


__all__ = ["AXES", "Family", "Shape", "families", "family_of", "logits_from_hidden", "register"]
