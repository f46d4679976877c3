"""What a model takes where it is served: a roofline, in plain arithmetic.

To write a token all weights are read, once for all the answers of a batch, and each answer's keys
and values; and every weight is worked with for every token. The slower of the two decides. A prompt
is read by arithmetic alone (that of attention is left out: it shows from some ten thousand tokens
on). What devices reach of their data sheets, and their watts, are assumptions with ranges: all is
worked out three times, at each of `LEVELS`.
"""

from __future__ import annotations

import math
from bisect import bisect_left
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import Literal

from flyweight.energy.constants import DeviceFacts, Serving, constants
from flyweight.figure import Figure, exactly
from flyweight.sticker_card import Boundaries

Level = Literal["low", "value", "high"]
LEVELS: tuple[Level, ...] = ("low", "value", "high")  # of what it costs: low where all goes well
ByLevel = dict[Level, float]

USABLE = 0.9  # of a device's memory, for weights and context: what vLLM takes if not told
TOGETHER = 256  # answers that a copy writes at a time, at most: vLLM's default on such devices
MOST_A_COPY = 128  # devices: so many heads there are to divide among them in the largest models
# Bytes of keys and values of a token, at 16 bits, beside the square root of the parameters: of
# Llama 3, Qwen 2.5, Mistral and Gemma 3, 0.27 to 405 billion, all with grouped-query attention.
KV_RULE = (0.5, 1.0, 2.1)
KV_SOURCE = (
    "keys and values: the square root of the parameters, in bytes a token, as in open models with "
    "grouped-query attention"
)


@dataclass(frozen=True)
class Model:
    """What serving has to know of a model.

    `bits` of a weight; `kv`: bytes of keys and values that a token of context takes over all
    layers; `active`: parameters that one token meets, of `parameters`; `routed`: the share of the
    experts that it is sent to. Of a dense network those are all, and 1.
    """

    name: str
    parameters: int
    bits: int
    kv: Figure
    active: int
    routed: float = 1.0

    @property
    def bytes(self) -> float:
        """Bytes of all weights."""
        return self.parameters * self.bits / 8

    def bytes_read(self, batch: float) -> float:
        """Bytes of the weights that a batch of tokens meets: of experts those that any asks."""
        if self.routed >= 1:
            return self.bytes
        experts = (self.parameters - self.active) / (1 - self.routed)
        return (self.parameters - experts * (1 - self.routed) ** batch) * self.bits / 8


def model_of_size(parameters: int, bits: int, name: str = "") -> Model:
    """A dense model of which only the size is known; its keys and values by a rule of thumb."""
    low, value, high = (math.sqrt(parameters) * each for each in KV_RULE)
    kv = Figure(low=low, value=value, high=high, kind="assumed", source=KV_SOURCE)
    return Model(name or f"{parameters:,}", parameters, bits, kv, parameters)


@dataclass(frozen=True)
class Copy:
    """One copy of a model at work: `devices` share its weights, every answer is alike.

    `read`, `written`: tokens of an answer's prompt and of what is written.
    """

    model: Model
    facts: DeviceFacts
    serving: Serving
    devices: int
    read: float
    written: float
    level: Level = "value"

    def _reached(self, share: Figure) -> float:
        """How many devices' worth of a data sheet is reached, by `share` of it and by spread."""
        better = {"low": "high", "value": "value", "high": "low"}  # it costs little if much is had
        spread = self.serving.spread if self.devices > self.serving.box else exactly(1.0)
        return (
            self.devices * getattr(share, better[self.level]) * getattr(spread, better[self.level])
        )

    @property
    def _kv(self) -> float:
        return at(self.model.kv, self.level)

    @cached_property
    def most(self) -> int:
        """The largest batch that fits and pays: more would only wait, once arithmetic is full.

        So many whole answers' keys and values stand beside the weights.
        """
        free = USABLE * self.devices * self.facts.memory - self.model.bytes
        fitting = max(1, min(TOGETHER, int(free / (self._kv * (self.read + self.written)))))
        tried = range(1, fitting)
        return 1 + bisect_left(tried, True, key=lambda each: self._work(each) >= self._move(each))

    @property
    def prefill(self) -> float:
        """Seconds in which a prompt is read."""
        operations = 2 * self.model.active * self.read
        return operations / (self.facts.flops * self._reached(self.serving.flops))

    def _move(self, batch: float) -> float:
        """Seconds in which weights, keys and values for a token of each answer are read."""
        context = batch * self._kv * (self.read + self.written / 2)  # on average
        reached = self._reached(self.serving.bandwidth)
        return (self.model.bytes_read(batch) + context) / (self.facts.bandwidth * reached)

    def _work(self, batch: float) -> float:
        """Seconds of the arithmetic for that."""
        reached = self._reached(self.serving.flops)
        return 2 * self.model.active * batch / (self.facts.flops * reached)

    def step(self, batch: float) -> float:
        """Seconds in which a batch writes a token of each of its answers."""
        return max(self._move(batch), self._work(batch))

    def seconds(self, batch: float) -> float:
        """Seconds of an answer in such a batch: the others' prompts are read meanwhile too."""
        return batch * self.prefill + self.written * self.step(batch)

    def rate(self, batch: float) -> float:
        """Answers a second, never fewer in a larger batch."""
        return batch / self.seconds(batch)

    def batch_for(self, load: float) -> float:
        """The batch, 1 or more, at which `load` answers a second are written; at most `most`.

        By Little's law as many are under way as come in the time that one takes.
        """
        low, high = 1.0, float(self.most)
        if self.rate(high) <= load:
            return high
        for _ in range(60):
            middle = (low + high) / 2
            low, high = (middle, high) if self.rate(middle) < load else (low, middle)
        return low


def devices_a_copy(
    model: Model,
    facts: DeviceFacts,
    serving: Serving,
    read: float = 0,
    written: float = 0,
    most: int = MOST_A_COPY,
) -> int | None:
    """How many devices one copy needs: a power of two, or None where that is more than `most`.

    They must hold the weights with the usual room, and the keys and values of one answer.
    """
    context = at(model.kv, "value") * (read + written)
    needed = max(serving.room * model.bytes, (model.bytes + context) / USABLE)
    count = math.ceil(needed / facts.memory - 1e-9)  # what just fits does so after rounding too
    power = 1 << max(0, count - 1).bit_length()
    return power if power <= most else None


def answer(
    model: Model,
    facts: DeviceFacts,
    *,
    read: float,
    written: float,
    batch: float | None = None,
    serving: Serving | None = None,
) -> Boundaries:
    """Joules of one answer of a copy that always writes `batch` answers at a time.

    `read`, `written`: its tokens; `batch` None: as many as fit and pay, which is also the most that
    counts. The devices are never idle, so this is the least for such a batch. However many devices
    a copy takes, it gets.
    """
    served = serving or constants().serving
    found = copies_at(model, facts, served, read, written)
    busy: ByLevel = {
        level: copy.devices / copy.rate(min(batch or copy.most, copy.most))
        for level, copy in found.items()
    }
    return boundaries(facts, busy, busy, said(facts, served, model))


def copies_at(
    model: Model,
    facts: DeviceFacts,
    serving: Serving,
    read: float,
    written: float,
    devices: int | None = None,
) -> dict[Level, Copy]:
    """One copy as it is at each level, on as many devices as it needs if not told."""
    count = devices or devices_a_copy(model, facts, serving, read, written, 2**62)
    assert count is not None
    return {level: Copy(model, facts, serving, count, read, written, level) for level in LEVELS}


def boundaries(facts: DeviceFacts, busy: ByLevel, on: ByLevel, source: str) -> Boundaries:
    """Joules of one answer from its device-seconds at work (`busy`) and all in all (`on`)."""

    def chip(level: Level) -> float:
        return at(facts.busy, level) * busy[level]

    def computer(level: Level) -> float:
        idle = at(facts.idle, level) * (on[level] - busy[level])
        return chip(level) + idle + at(facts.rest, level) * on[level]

    pue = constants().computers[facts.computer].pue
    around = levelled(computer, source)
    return Boundaries(chip=levelled(chip, source), computer=around, facility=around * sourced(pue))


def at(figure: Figure, level: Level) -> float:
    """The figure's low, value or high; a ValueError where it has no value."""
    found = getattr(figure, level)
    if found is None:
        raise ValueError(f"only the range of {figure} is known")
    return found


def levelled(worked_out: Callable[[Level], float], source: str) -> Figure:
    """A figure from what comes out at each level, assumed as all here."""
    found = [worked_out(level) for level in LEVELS]
    return Figure(low=min(found), value=found[1], high=max(found), kind="assumed", source=source)


def sourced(figure: Figure, source: str = "") -> Figure:
    """A constant as a figure that is assumed; without a source where another names it already."""
    return figure.model_copy(update={"kind": "assumed", "source": source})


def said(facts: DeviceFacts, serving: Serving, model: Model) -> str:
    """Where the figures of a model on a device come from."""
    version = f"Flyweight's constants of {constants().version}"
    return f"{version}; {facts.source}; {serving.source}; {model.kv.source}"


__all__ = [
    "LEVELS", "MOST_A_COPY", "TOGETHER", "ByLevel", "Copy", "Level", "Model", "answer", "at",
    "boundaries", "copies_at", "devices_a_copy", "levelled", "model_of_size", "said", "sourced",
]  # fmt: skip
