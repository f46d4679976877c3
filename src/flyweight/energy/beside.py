"""How many times the energy of a small model a big one takes, and why that is a range.

Both run on the same device, so watts mostly cancel and are taken as they typically are; what is
reached of the device goes the same way for both.
"""

from __future__ import annotations

from collections.abc import Callable

from flyweight.energy.constants import DeviceFacts, Serving, constants
from flyweight.energy.hosting import LEVELS, Copy, Level, Model, at, copies_at, levelled
from flyweight.energy.planning import Device, Running, Task, running
from flyweight.figure import Figure, Frozen


class Batching(Frozen):
    """One model's own: its fullest batch, and how many times as much an answer alone takes."""

    model: str
    batch: int
    devices: int  # of a copy
    alone: Figure


class Ratio(Frozen):
    """The energy of an answer of `bigger`, as a multiple of that of `smaller`.

    `energy` holds all the others: its value is at the load that was asked for. `idle`: both wait,
    which leaves the devices; `weights`: bytes alone; `alone`: one answer at a time; `full`: in the
    fullest batches; `spread`: whether one is spread over more than a box and the other is not.
    """

    bigger: str
    smaller: str
    energy: Figure
    idle: float
    weights: float
    alone: Figure
    full: Figure
    spread: bool
    batching: tuple[Batching, Batching]  # of the bigger, of the smaller


def ratio(
    bigger: Model,
    smaller: Model,
    device: Device,
    task: Task,
    serving: Serving | None = None,
) -> Ratio:
    """The two models side by side; the device must hold either of them."""
    served, facts = serving or constants().serving, device.facts
    big, small = (copies_at(each, facts, served, task.read, task.written)
                  for each in (bigger, smaller))  # fmt: skip
    devices = big["value"].devices, small["value"].devices
    source = f"Flyweight's constants of {constants().version}; {served.source}"

    def times(one: Callable[[Level], float], other: Callable[[Level], float]) -> Figure:
        return levelled(lambda level: one(level) / other(level), source)

    loads = [running(each, device, task, served) or {} for each in (bigger, smaller)]
    at_load = times(*(lambda level, each=each: _joules(each[level], facts) for each in loads))
    alone = times(lambda level: spent(big[level], 1), lambda level: spent(small[level], 1))
    full = times(lambda level: spent(big[level]), lambda level: spent(small[level]))
    idle, weights = devices[0] / devices[1], bigger.bytes / smaller.bytes
    all_of_them = [idle, weights, *(at(each, level) for each in (at_load, alone, full)
                                    for level in LEVELS)]  # fmt: skip
    return Ratio(
        bigger=bigger.name,
        smaller=smaller.name,
        energy=at_load.model_copy(update={"low": min(all_of_them), "high": max(all_of_them)}),
        idle=idle,
        weights=weights,
        alone=alone,
        full=full,
        spread=devices[0] > served.box >= devices[1],
        batching=(_batching(big, source), _batching(small, source)),
    )


def spent(copy: Copy, batch: float | None = None) -> float:
    """Device-seconds of an answer in such a batch, the fullest one if not told."""
    return copy.devices / copy.rate(batch or copy.most)


def _batching(found: dict[Level, Copy], source: str) -> Batching:
    return Batching(
        model=found["value"].model.name,
        batch=found["value"].most,
        devices=found["value"].devices,
        alone=levelled(lambda level: spent(found[level], 1) / spent(found[level]), source),
    )


def _joules(found: Running, facts: DeviceFacts) -> float:
    """Of one answer at the load, in joules at the computer."""
    busy, idle, rest = (at(each, "value") for each in (facts.busy, facts.idle, facts.rest))
    return found.device_seconds * (busy * found.busy + idle * (1 - found.busy) + rest)


__all__ = ["Batching", "Ratio", "ratio", "spent"]
