"""What a job takes in energy and carbon: foretold from its seconds, and as it was metered."""

from __future__ import annotations

from flyweight.card import QuoteCard
from flyweight.energy.constants import JOULES_A_KWH, constants, facts_of
from flyweight.energy.hosting import boundaries
from flyweight.energy.machine import computer_kind
from flyweight.energy.power import around
from flyweight.energy.sticker import carbon_of
from flyweight.figure import Figure
from flyweight.make.machine import Machine

ENERGY = "energy"  # the kind of record that holds joules foretold and taken


def with_energy(quote: QuoteCard, machine: Machine, country: str | None) -> QuoteCard:
    """The quote with kWh and kg of CO2e, bent by what past jobs here took of what was foretold."""
    joules = foretold(quote.seconds, machine.name) * machine.factor(ENERGY)
    energy, carbon = joules * (1 / JOULES_A_KWH), carbon_of(joules, country) * 0.001
    return quote.model_copy(
        update={
            "energy": energy,
            "energy_kwh": energy.value,
            "carbon": carbon,
            "co2_kg": carbon.value,
        }
    )


def as_it_was(quote: QuoteCard, joules: Figure, country: str | None) -> QuoteCard:
    """The settled quote with the energy that was metered."""
    found = {
        "actual_energy": joules * (1 / JOULES_A_KWH),
        "actual_carbon": carbon_of(joules, country) * 0.001,
    }
    return quote.model_copy(update=found)


def foretold(seconds: float, machine: str) -> Figure:
    """Joules of so many seconds of work with all that the machine has, its building included."""
    if machine in constants().devices:
        busy = {"low": seconds, "value": seconds, "high": seconds}
        return boundaries(facts_of(machine), busy, busy, f"the watts of a {machine}").facility  # type: ignore[arg-type]
    computer = computer_kind()
    chip = computer.core * (computer.cores * seconds)
    told = chip.model_copy(update={"kind": "assumed", "source": "all cores busy"})
    return around(told, seconds, computer).facility


__all__ = ["ENERGY", "as_it_was", "foretold", "with_energy"]
