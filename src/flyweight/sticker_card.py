"""`sticker.json`: what a model costs an answer, and how each number of it is known.

The schema is public (docs/reference/sticker.schema.json). Energy is in joules, water in litres,
carbon in grams of CO2e, all of one answer where nothing else is said.
"""

from __future__ import annotations

from pydantic import Field

from flyweight.figure import Figure, Frozen

SCHEMA = 1


class Boundaries(Frozen):
    """The same energy seen from three places, in joules.

    `chip`: what the work added to the processor. `computer`: all that the computer took meanwhile,
    idle power and losses included. `facility`: that times the building's PUE, 1 where there is no
    data centre.
    """

    chip: Figure
    computer: Figure
    facility: Figure


class Metered(Frozen):
    """What answers took, the mean of so many, one at a time with nothing reused."""

    answers: int
    seconds: float
    tokens_read: float
    tokens_written: float
    joules: Boundaries
    reading: Figure  # joules at the chip for the prompt
    writing: Figure  # and for what was written
    notes: list[str] = Field(default_factory=list)


class MeteredDevice(Frozen):
    """Where it was metered: the processor's name, its cores, the kind of computer."""

    processor: str
    cores: int
    threads: int
    computer: str  # server, desktop, laptop, phone, board
    computer_source: str  # how the kind is known


class Counterfactual(Frozen):
    """The same answer by a big hosted model: joules, how many times ours, and what is assumed."""

    name: str
    joules: Figure
    ratio: Figure
    assumptions: list[str]


class Making(Frozen):
    """What making the model took, and its share in one answer of so many."""

    kwh: Figure
    carbon: Figure
    answers: int
    joules_an_answer: Figure


class Sticker(Frozen):
    """A model's sticker. Headlines are at the boundary `facility`: all that an answer takes."""

    schema_version: int = SCHEMA
    model: str
    bits: int
    bytes: int
    task: str | None  # what it was judged on
    made: str  # ISO 8601, UTC
    constants: str  # the version of the dated constants
    device: MeteredDevice
    engine: str
    country: str | None
    answers: int  # that were metered
    seconds: float  # of one answer
    tokens_read: float  # of one answer, on average
    tokens_written: float
    joules: Boundaries
    reading: Figure  # joules at the chip for the prompt
    writing: Figure  # and for what was written
    score: float | None  # of the task, 0 to 1: the share that is right
    score_name: str | None
    joules_a_correct_answer: Figure | None
    answers_a_phone_charge: Figure
    answers_a_bottle: Figure
    carbon: Figure
    embodied_carbon: Figure  # the computer's making, over its years, for the seconds of one answer
    water: Figure
    counterfactual: Counterfactual
    making: Making | None
    notes: list[str]  # what a reader has to know: a counter that could not be read, say

    @property
    def kind(self) -> str:
        """Measured, modelled or assumed: how the energy at the chip is known."""
        return self.joules.chip.kind


__all__ = ["SCHEMA", "Boundaries", "Counterfactual", "Making", "Metered",
           "MeteredDevice", "Sticker"]  # fmt: skip
