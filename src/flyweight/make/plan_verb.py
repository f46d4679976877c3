"""The verb `plan`: what serving a model takes, beside a smaller and a bigger one."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from flyweight.energy.hosting import Model
    from flyweight.energy.planning import Device, Task

_MOST_TOKENS = 10**7
_MOST_BESIDE = 4  # models in a table that can still be read


def plan(
    model: str,
    *,
    load: str = "0.1req/s",
    bits: int = 16,
    device: str = "a100-80",
    read: int = 500,
    write: int = 250,
    country: str | None = None,
    against: Sequence[str] = (),
    json: bool = False,
) -> dict[str, Any]:
    """Foretell what serving a model takes: devices, speed, energy, CO2 and water.

    Nothing is run: data sheets, what serving usually reaches of them, and watts, all dated and
    assumed, each with a range. Beside the model stand a small one and the next bigger size, and how
    many times the energy of the small one the big one takes, with the reasons why that is a range.

    Args:
        model: Parameters, such as 500B, 1.5b or 270M, or a model folder or hub name.
        load: Requests in a time, such as 10req/s, 500/min or 2e6/day.
        bits: Of a weight, 2 to 16.
        device: a100-80, h100, h200, laptop, phone, pi-5, or this, whose memory is measured.
        read: Tokens of a prompt.
        write: Tokens of an answer.
        country: Whose grid the power comes from, such as FRA; FLYWEIGHT_COUNTRY if not given, else
            CO2 is a range over all countries.
        against: A model to put beside it, in place of the two; repeat the option for several.
        json: Print JSON instead of tables.

    Returns:
        The plan: that of the model, those `beside` it, and `ratios` of their energy.

    Raises:
        FlyweightError: A size, load, device or country that is none, or a model that is not there.
    """
    from json import dumps

    from flyweight.energy.constants import told_country
    from flyweight.energy.load import read_load, read_model, short_size, sizes_beside
    from flyweight.energy.planning import Task
    from flyweight.make.plan_show import show_plan

    _check(bits, read, write, against)
    task = Task(read_load(str(load)), read, write, told_country(country))
    subject = read_model(str(model), bits)
    named = against or [short_size(each) for each in sizes_beside(subject.parameters)]
    models = [subject, *(read_model(str(each), bits) for each in named)]
    found = _plan(models, _device(device), task)
    if json:
        print(dumps(found, indent=2))
    else:
        show_plan(found)
    return found


def _check(bits: int, read: int, write: int, against: Sequence[str]) -> None:
    from flyweight.errors import OptionError

    if not 2 <= bits <= 16:
        raise OptionError(f"--bits is {bits}: give 2 to 16, such as 16, 8 or 4.")
    for option, value in (("--read", read), ("--write", write)):
        if not 1 <= value <= _MOST_TOKENS:
            raise OptionError(f"{option} is {value}: give 1 to {_MOST_TOKENS:,} tokens.")
    if len(against) > _MOST_BESIDE:
        raise OptionError(f"--against names {len(against)} models: give {_MOST_BESIDE} at most.")


def _device(name: str) -> Device:
    from flyweight.energy.constants import facts_of
    from flyweight.energy.hosting import MOST_A_COPY
    from flyweight.energy.planning import Device
    from flyweight.make.plan_here import this_machine

    if name == "this":
        return this_machine()
    facts = facts_of(name)
    return Device(name, facts, MOST_A_COPY if facts.computer == "server" else 1)


def _plan(models: Sequence[Model], device: Device, task: Task) -> dict[str, Any]:
    """The first model's plan, with those beside it and their ratios, as JSON holds it."""
    from flyweight.energy.beside import ratio
    from flyweight.energy.constants import constants
    from flyweight.energy.planning import plan as plan_one

    plans = [plan_one(each, device, task) for each in models]
    ratios = []
    for other, planned in zip(models[1:], plans[1:], strict=True):
        if plans[0].fits and planned.fits:
            smaller, bigger = sorted((models[0], other), key=lambda each: each.parameters)
            ratios.append(ratio(bigger, smaller, device, task).model_dump(mode="json"))
    first, *others = [each.model_dump(mode="json") for each in plans]
    return {
        **first,
        "beside": others,
        "ratios": ratios,
        "load": task.load,
        "read": task.read,
        "write": task.written,
        "country": task.country,
        "kind": "assumed",
        "constants": constants().version,
        "device_source": device.facts.source,
        "assumptions": _assumptions(models, device, task),
    }


def _assumptions(models: Sequence[Model], device: Device, task: Task) -> list[str]:
    """What a reader of the figures has to know, in plain sentences."""
    from flyweight.energy.hosting import KV_SOURCE

    found = ["The devices are on all year for this alone, and none is kept back for peaks."]
    if any(each.kv.source == KV_SOURCE for each in models):
        found.append(f"{KV_SOURCE[0].upper()}{KV_SOURCE[1:]}.")
    mixed = [each for each in models if each.active < each.parameters]
    found += [
        f"Of {each.name}'s parameters a token meets {each.active / each.parameters:.0%}."
        for each in mixed
    ]
    if len(mixed) < len(models):
        found.append(
            "A token meets all parameters; of a mixture of experts it would be fewer."
            if not mixed
            else "In the others it meets all."
        )
    if task.country is None:
        found.append("CO2e is a range over the grids of all countries: --country FRA tells yours.")
    if device.name == "this":
        found.append("What this machine's memory and processor reach was measured, not its watts.")
    if device.facts.computer != "server":
        found.append("Water is that of power plants; there is no data centre around it.")
    return found


__all__ = ["plan"]
