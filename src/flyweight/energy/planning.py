"""How many devices a model takes for a load, and what that costs an answer and a year."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

from flyweight.energy.constants import (
    JOULES_A_KWH,
    DeviceFacts,
    Serving,
    carbon_intensity,
    constants,
)
from flyweight.energy.hosting import (
    LEVELS,
    MOST_A_COPY,
    ByLevel,
    Copy,
    Level,
    Model,
    boundaries,
    copies_at,
    devices_a_copy,
    levelled,
    said,
    sourced,
)
from flyweight.figure import Figure, Frozen, exactly
from flyweight.sticker_card import Boundaries

SECONDS_A_YEAR = 365 * 86400


@dataclass(frozen=True)
class Device:
    """A device to plan for; a model is spread over `most` of them at most."""

    name: str
    facts: DeviceFacts
    most: int = 1


@dataclass(frozen=True)
class Task:
    """What is asked: answers a second, tokens read and written for each, where, if known."""

    load: float
    read: int
    written: int
    country: str | None = None


class Year(Frozen):
    """A year at that load: carbon of the power and of the devices' making (its share), in kg."""

    answers: float
    kwh: Figure
    carbon: Figure
    embodied_carbon: Figure
    water: Figure  # litres


class DoesNotFit(Frozen):
    """A model that the device, or as many as can share one model, cannot hold."""

    model: str
    parameters: int
    bits: int
    fits: Literal[False] = False
    why: str
    device: str
    devices: None = None
    memory_needed: float  # bytes


class Planned(Frozen):
    """A model at its load: `devices` in all, of which each copy takes `devices_a_copy`.

    Figures are of one answer where nothing else is said. `batch`: answers that a copy writes at a
    time at this load; below 1 it is idle between them.
    """

    model: str
    parameters: int
    active: int  # parameters that one token meets
    bits: int
    fits: Literal[True] = True
    device: str
    devices: int
    devices_a_copy: int
    copies: int
    devices_range: tuple[int, int]  # where the devices reach more, or less, than is typical
    memory_needed: float  # bytes, of a copy
    memory: float  # bytes that its devices have
    batch: Figure
    batch_most: int
    busy: Figure  # the share of the time
    seconds: Figure
    tokens_per_second: Figure  # as one who reads along sees them
    answers_per_second_most: Figure  # of all copies, in full batches
    joules: Boundaries
    year: Year


@dataclass(frozen=True)
class Running:
    """All copies of a model under a load: which the batch is, and which share they are busy."""

    copy: Copy
    copies: int
    load: float  # of one copy

    @property
    def devices(self) -> int:
        """Of all copies."""
        return self.copies * self.copy.devices

    @property
    def batch(self) -> float:
        """Answers at a time; below 1 the share of the time that there is one."""
        return self.copy.batch_for(self.load) if self.busy >= 1 else self.busy

    @property
    def busy(self) -> float:
        return min(1.0, self.load / self.copy.rate(1))

    @property
    def device_seconds(self) -> float:
        """Of one answer, all devices together, at work or not."""
        return self.copy.devices / self.load


def plan(
    model: Model, device: Device, task: Task, serving: Serving | None = None
) -> Planned | DoesNotFit:
    """The devices for that load and what they cost; no device is kept back for peaks."""
    served = serving or constants().serving
    found = running(model, device, task, served)
    if found is None:
        return _too_large(model, device, served)
    source = said(device.facts, served, model)
    joules = _joules(found, device.facts, source)
    usual = found["value"]
    count = usual.copy.devices
    return Planned(
        model=model.name,
        parameters=model.parameters,
        active=model.active,
        bits=model.bits,
        device=device.name,
        devices=usual.devices,
        devices_a_copy=count,
        copies=usual.copies,
        devices_range=(found["low"].devices, found["high"].devices),
        memory_needed=served.room * model.bytes,
        memory=count * device.facts.memory,
        batch=levelled(lambda level: found[level].batch, source),
        batch_most=usual.copy.most,
        busy=levelled(lambda level: found[level].busy, source),
        seconds=levelled(lambda level: _seconds(found[level]), source),
        tokens_per_second=levelled(
            lambda level: 1 / found[level].copy.step(max(1, found[level].batch)), source
        ),
        answers_per_second_most=levelled(
            lambda level: usual.copies * found[level].copy.rate(found[level].copy.most), source
        ),
        joules=joules,
        year=_year(joules, device.facts, task, found),
    )


def running(
    model: Model, device: Device, task: Task, serving: Serving
) -> dict[Level, Running] | None:
    """The copies that carry the load at each level; None where the device cannot hold the model.

    A copy takes as few devices as hold it, or more where that makes fewer of them in all: one whose
    memory is nearly full of weights can hardly batch.
    """
    facts, most = device.facts, device.most
    least = devices_a_copy(model, facts, serving, task.read, task.written, most)
    if least is None:
        return None
    sizes = [least << power for power in range(MOST_A_COPY.bit_length()) if least << power <= most]
    found: list[dict[Level, Running]] = []
    for each in sizes:
        copies = copies_at(model, facts, serving, task.read, task.written, each)
        found.append({level: _copies(copies[level], task.load) for level in LEVELS})
    return min(found, key=lambda each: each["value"].copies * each["value"].copy.devices)


def _copies(copy: Copy, load: float) -> Running:
    count = max(1, math.ceil(load / copy.rate(copy.most) - 1e-9))
    return Running(copy, count, load / count)


def _seconds(found: Running) -> float:
    return found.copy.seconds(max(1.0, found.batch))


def _joules(found: dict[Level, Running], facts: DeviceFacts, source: str) -> Boundaries:
    on: ByLevel = {level: found[level].device_seconds for level in LEVELS}
    busy: ByLevel = {level: on[level] * found[level].busy for level in LEVELS}
    return boundaries(facts, busy, on, source)


def _year(
    joules: Boundaries,
    facts: DeviceFacts,
    task: Task,
    found: dict[Level, Running],
) -> Year:
    """Water: on the site by what the computers take, at the power plants by all that is drawn."""
    known = constants()
    answers = task.load * SECONDS_A_YEAR
    kwh = joules.facility * (answers / JOULES_A_KWH)
    site = known.water.site if facts.computer == "server" else exactly(0.0)
    plant = sourced(known.water.plant, known.water.source)
    litres = joules.computer * (answers / JOULES_A_KWH) * sourced(site) + kwh * plant
    devices = levelled(lambda level: float(found[level].devices), "")
    return Year(
        answers=answers,
        kwh=kwh,
        carbon=kwh * carbon_intensity(task.country) * 1e-3,
        embodied_carbon=sourced(facts.embodied, facts.source) * devices * (1 / facts.years),
        water=litres,
    )


def _too_large(model: Model, device: Device, serving: Serving) -> DoesNotFit:
    needed = serving.room * model.bytes
    many = f"{device.most} x {device.name}" if device.most > 1 else device.name
    return DoesNotFit(
        model=model.name,
        parameters=model.parameters,
        bits=model.bits,
        why=(
            f"does not fit: {needed / 1e9:,.{0 if needed >= 1e11 else 2}f} GB and its context are "
            f"needed, {many} has "
            f"{device.most * device.facts.memory / 1e9:,.3g} GB"
        ),
        device=device.name,
        memory_needed=needed,
    )


__all__ = ["SECONDS_A_YEAR", "Device", "DoesNotFit", "Planned", "Running", "Task", "Year", "plan",
           "running"]  # fmt: skip
