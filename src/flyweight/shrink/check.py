"""Whether a shape can be cut out of another, said before anything is done."""

from __future__ import annotations

from typing import Any

from flyweight.anatomy import Family, Shape
from flyweight.errors import OptionError, reason_of
from flyweight.shrink.shapes import fits

EXACT_ROPE = ("default", "linear", "llama3")  # kinds whose rates depend on no other pair
GROUPED = 8  # channels that a mixture's grouped product takes at a time, at 16 bits


def check_share(keep: float) -> None:
    """OptionError unless `keep` is a share."""
    if not 0 < keep < 1:
        raise OptionError(f"--keep is {keep}: give a share between 0 and 1, such as 0.25.")


def check_shape(family: Family, config: Any, new: Shape) -> None:
    """OptionError unless `new` can be cut out of the network that `config` describes."""
    old = family.shape_of(config)
    for name, size in new.as_dict().items():
        most, option = old.size(name), f"--{name.replace('_', '-')}"
        least = family.least[name](config) if name in family.least else 1
        if size > most:
            raise OptionError(f"{option} is {size}: the teacher has {most}.")
        if size < least:
            raise OptionError(f"{option} is {size}: give at least {least}.")
    _check_heads(family, old, new)
    if new.head_dim != old.head_dim:
        _check_width(family, config, old, new)
    _check_config(family, config, new)
    if new.experts and (new.hidden % GROUPED or new.mlp % GROUPED):
        raise OptionError(
            f"--hidden {new.hidden} and --mlp {new.mlp}: a mixture of experts needs multiples of "
            f"{GROUPED}."
        )


def _check_config(family: Family, config: Any, new: Shape) -> None:
    """Transformers' configs have rules of their own, such as the length of RoPE's factors."""
    try:
        family.config_for(config, new)
    except Exception as error:  # of several kinds, as the config's class has it
        raise OptionError(
            f"{new}: transformers has no such {family.name}: {reason_of(error)}"
        ) from error


def _check_heads(family: Family, old: Shape, new: Shape) -> None:
    if new.heads % new.kv_groups or new.group_heads > old.group_heads:
        raise OptionError(
            f"--heads {new.heads} does not fit {new.kv_groups} KV groups: give a multiple of "
            f"{new.kv_groups}, at most {new.kv_groups * old.group_heads}."
        )
    if family.hidden_is_heads and new.hidden != new.heads * new.head_dim:
        raise OptionError(
            f"--hidden {new.hidden} with {new.heads} heads of {new.head_dim}: in {family.name} "
            f"hidden is heads x head_dim. Give --hidden {new.heads * new.head_dim}, or other heads."
        )
    if not fits(new):
        raise OptionError(
            f"--hidden {new.hidden} with {new.heads} heads: transformers loads no such model. Give "
            f"a multiple of {new.heads}, such as {max(1, new.hidden // new.heads) * new.heads}."
        )


def _check_width(family: Family, config: Any, old: Shape, new: Shape) -> None:
    """A narrower head keeps every r-th RoPE pair, r whole."""
    turning = family.turning(config)
    possible = [
        old.head_dim // stride
        for stride in range(2, old.head_dim // 2 + 1)
        if old.head_dim % stride == 0 and turning % (2 * stride) == 0
    ]
    if new.head_dim not in possible:
        raise OptionError(
            f"--head-dim {new.head_dim}: of {old.head_dim} only every r-th RoPE pair can stay. "
            f"Give one of {', '.join(map(str, possible)) or 'no other size'}."
        )
    for kind in _rope_kinds(getattr(config, "rope_parameters", None) or {}):
        if turning and kind not in EXACT_ROPE:
            raise OptionError(
                f"--head-dim {new.head_dim}: RoPE of the kind {kind!r} has other rates in a "
                "narrower head. Leave the head's width as it is."
            )


def _rope_kinds(parameters: dict[str, Any]) -> set[str]:
    """The kinds of RoPE in a config's `rope_parameters`, one or one for each kind of layer."""
    if "rope_type" in parameters:
        return {parameters["rope_type"]}
    return {part["rope_type"] for part in parameters.values() if isinstance(part, dict)}
