"""What a person says of a model's size and of its load, as numbers; and models by their folders."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from flyweight.energy.hosting import Model, model_of_size
from flyweight.errors import OptionError, TeacherError, UnsupportedFamily
from flyweight.figure import exactly

_SIZE = re.compile(r"([\d_,]+(?:\.\d+)?(?:e\d{1,2})?)\s*([kmbgt]?)", re.IGNORECASE)
_POWERS = {"": 1.0, "k": 1e3, "m": 1e6, "b": 1e9, "g": 1e9, "t": 1e12}
_LEAST_SIZE, _MOST_SIZE = 1e4, 1e14  # parameters

_LOAD = re.compile(
    r"([\d_,]*\.?\d+(?:e[+-]?\d{1,2})?)\s*(?:req|requests?|answers?)?\s*(?:/|per)\s*([a-z]+)",
    re.IGNORECASE,
)
_SECONDS = {
    "s": 1, "sec": 1, "second": 1, "min": 60, "minute": 60, "h": 3600, "hour": 3600,
    "d": 86400, "day": 86400, "week": 7 * 86400, "month": 365 * 7200, "year": 365 * 86400,
}  # fmt: skip
_LEAST_LOAD, _MOST_LOAD = 3e-8, 1e6  # answers a second: one a year, ten a day for everybody

# What the next bigger size is, in billions: about twice as much each time.
_STEPS = (0.25, 0.5, 1, 2, 4, 8, 14, 32, 70, 120, 240, 500, 1000, 2000, 4000)
SMALLER = 25  # times, the small model that a big one is put beside: 500B and 20B
_KV_BYTES = 2  # of a key's or a value's number, 16 bits


def read_size(told: str) -> int | None:
    """The parameters of "500B", "1.5b", "270M" or "20_000_000_000"; None for what is no size.

    OptionError for a size that no model has.
    """
    found = _SIZE.fullmatch(told.strip())
    if not found:
        return None
    digits = re.sub("[_,]", "", found[1])
    parameters = float(digits or "nan") * _POWERS[found[2].lower()]
    if not _LEAST_SIZE <= parameters <= _MOST_SIZE:
        raise OptionError(
            f"{told[:40]!r} is no size of a model: give its parameters, such as 500B or 270M."
        )
    return round(parameters)


def read_load(told: str) -> float:
    """Answers a second of "10req/s", "500/min", "2e6/day" or "1000 requests/hour"."""
    found = _LOAD.fullmatch(told.strip())
    unit = found[2].lower() if found else ""
    period = _SECONDS.get(unit) or _SECONDS.get(unit.removesuffix("s"))
    if not found or period is None:
        raise OptionError(
            f"--load is {told[:40]!r}: give how many requests in what time, such as 10req/s, "
            "500/min or 2e6/day."
        )
    load = float(re.sub("[_,]", "", found[1])) / period
    if not _LEAST_LOAD <= load <= _MOST_LOAD:
        raise OptionError(
            f"--load is {told[:40]!r}: give one between a request a year and a million a second."
        )
    return load


def short_size(parameters: float) -> str:
    """A size as people say it: "500B", "1.5B", "270M"."""
    for letter, power in (("T", 1e12), ("B", 1e9), ("M", 1e6), ("k", 1e3)):
        if parameters >= 0.9995 * power:
            return f"{parameters / power:.3g}{letter}"
    return f"{parameters:.0f}"


def sizes_beside(parameters: int) -> list[int]:
    """The sizes that a model is put beside: a small one's, and the next bigger usual one."""
    bigger = next((each * 1e9 for each in _STEPS if each * 1e9 >= 1.2 * parameters), 2 * parameters)
    smaller = parameters / SMALLER
    return [round(each) for each in (smaller, bigger) if _LEAST_SIZE <= each <= _MOST_SIZE]


def read_model(told: str, bits: int) -> Model:
    """The model of that size, in that folder or of that hub name, with `bits` a weight.

    Of a hub name only the config is fetched. TeacherError for what cannot be read, OptionError for
    what is neither, or no model that writes.
    """
    parameters = read_size(told)
    if parameters is not None:
        return model_of_size(parameters, bits, short_size(parameters))
    path = Path(told).expanduser()
    of_hub = re.fullmatch(r"\w[\w.-]*/[\w.-]+", told)
    if not told.strip() or not (path.exists() or of_hub):
        raise OptionError(
            f"{told[:80]!r} is neither a model's size nor its folder: give a size such as 500B or "
            "270M, a model folder, or a hub name."
        )
    try:
        return _model_of(path, told, bits)
    except UnsupportedFamily as error:
        raise OptionError(
            f"{told}: its architecture is not one that Flyweight knows: give its size instead, "
            "such as 8B."
        ) from error


def _model_of(path: Path, told: str, bits: int) -> Model:
    from flyweight.anatomy import family_of
    from flyweight.checkpoint import open_checkpoint

    config = open_checkpoint(path).config if path.exists() else _config_from_hub(told)
    family = family_of(config)
    if not family.causal:
        raise OptionError(f"{told} writes nothing: a plan is for models that write answers.")
    shape = family.shape_of(config)
    numbers = shape.layers * shape.kv_groups * (shape.head_dim + shape.value_dim)
    kv = exactly(float(_KV_BYTES * numbers), "assumed", "keys and values: the model's shape")
    parameters = family.count(shape, config)
    active, routed = parameters, 1.0
    if shape.experts:
        asked = family.least["experts"](config)
        active = family.count(shape.with_sizes(experts=asked), config)
        routed = asked / shape.experts
    return Model(path.name, parameters, bits, kv, active, routed)


def _config_from_hub(name: str) -> Any:
    from huggingface_hub import hf_hub_download
    from huggingface_hub.utils import logging
    from transformers import AutoConfig

    logging.set_verbosity_error()  # of its tries: what came of them is told below
    try:
        file = hf_hub_download(name, "config.json")
        return AutoConfig.from_pretrained(Path(file).parent, local_files_only=True)
    except Exception as error:  # the hub's client and transformers raise dozens of kinds
        why = (str(error).strip().splitlines() or [type(error).__name__])[0][:120]
        raise TeacherError(
            f"{name}: not a folder here, and the hub gave no config that can be read ({why}). "
            "Give its size instead, such as 8B."
        ) from error


__all__ = ["SMALLER", "read_load", "read_model", "read_size", "short_size", "sizes_beside"]
