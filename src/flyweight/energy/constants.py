"""The dated constants: watts, grids, water, devices, each with its range and its source."""

from __future__ import annotations

import difflib
import os
import tomllib
from collections.abc import Mapping
from functools import cache
from importlib.resources import files
from typing import Annotated, Literal

from pydantic import BeforeValidator, Field

from flyweight.errors import OptionError
from flyweight.figure import Figure, Frozen

JOULES_A_WH = 3.6e3
JOULES_A_KWH = 3.6e6
ComputerKind = Literal["server", "desktop", "laptop", "phone", "board"]


def _ranged(told: object) -> object:
    """`[low, typical, high]` as a figure; the source is filled in by what it stands in."""
    if isinstance(told, list) and len(told) == 3:
        low, value, high = told
        return Figure(value=value, low=low, high=high, kind="assumed")
    return told


Ranged = Annotated[Figure, BeforeValidator(_ranged)]


class Computer(Frozen):
    """A kind of computer: watts of a busy core above idle, of the idle chip, of all the rest."""

    core: Ranged
    idle: Ranged
    rest: Ranged
    per: Literal["core", "machine"]  # what `idle`, `rest` and `embodied` are of
    pue: Ranged
    embodied: Ranged  # kg of CO2e
    years: float
    source: str

    def scale(self, cores: int) -> int:
        """How many times `idle`, `rest` and `embodied` count for a machine of so many cores."""
        return cores if self.per == "core" else 1


class DeviceFacts(Frozen):
    """A device to plan for: bytes, bytes a second, operations a second, watts."""

    memory: float
    bandwidth: float
    flops: float
    busy: Ranged
    idle: Ranged
    rest: Ranged
    computer: ComputerKind
    embodied: Ranged
    years: float
    source: str


class Serving(Frozen):
    """What serving reaches of a device, and the room that a model needs beside its weights."""

    bandwidth: Ranged
    flops: Ranged
    spread: Ranged
    box: int
    room: float
    source: str


class Counters(Frozen):
    """How far counters may be off, as shares."""

    nvml: float
    rapl: float
    apple: float
    gpu_idle: float
    source: str


class Water(Frozen):
    """Litres a kWh: on the site of a data centre, and at the power plants."""

    site: Ranged
    plant: Ranged
    source: str


class Equivalents(Frozen):
    """Wh of a phone's charge, litres of a bottle."""

    phone_charge: Ranged
    bottle: float
    source: str


class Hosted(Frozen):
    """Wh of one answer of a big hosted model, as others tell of it."""

    answer: Ranged
    source: str


class Country(Frozen):
    """Grams of CO2e a kWh, and of which year."""

    g: float
    year: int
    name: str


class Grid(Frozen):
    """The countries by their ISO 3166 alpha-3 codes."""

    source: str
    countries: dict[str, Country]


class Constants(Frozen):
    """All of `constants.toml`."""

    version: str
    computers: dict[ComputerKind, Computer]
    counters: Counters
    water: Water
    equivalents: Equivalents
    hosted: Hosted
    devices: dict[str, DeviceFacts]
    serving: Serving
    grid: Annotated[Grid, Field(repr=False)]


@cache
def constants() -> Constants:
    """The constants that this version of Flyweight comes with."""
    text = files("flyweight.energy").joinpath("constants.toml").read_text(encoding="utf-8")
    return Constants.model_validate(tomllib.loads(text))


def carbon_intensity(country: str | None) -> Figure:
    """Grams of CO2e a kWh of a country's grid; without a country the range over all of them.

    `country` is an ISO 3166 alpha-3 code. Raises OptionError for one that is not known.
    """
    known = constants()
    if country is None:
        low, high = _extremes()
        told = f"grids of all countries, {known.version}"
        return Figure(value=None, low=low, high=high, kind="assumed", source=told)
    found = known.grid.countries[find_country(country)]
    # a year's mean: the hours and the neighbours' imports differ by some tenth of it
    source = f"grid of {found.name}, {found.year}"
    return Figure(
        value=found.g, low=0.8 * found.g, high=1.2 * found.g, kind="assumed", source=source
    )


def find_country(code: str) -> str:
    """The country's code in capitals. OptionError for an unknown one, with those that are near."""
    countries = constants().grid.countries
    if code.upper() in countries:
        return code.upper()
    names = {each.name.lower(): key for key, each in countries.items()}
    near = difflib.get_close_matches(code.lower(), names, 3, 0.6)
    told = ", ".join(f"{names[name]} ({countries[names[name]].name})" for name in near)
    raise OptionError(
        f"country {code[:40]!r} is not known: give its ISO code of three letters"
        + (f"; did you mean {told}?" if told else ", such as FRA or USA.")
    )


def told_country(country: str | None) -> str | None:
    """The country that was told, else that of FLYWEIGHT_COUNTRY, else none: it is never guessed."""
    country = country or os.environ.get("FLYWEIGHT_COUNTRY") or None
    return country and find_country(country)


def facts_of(device: str) -> DeviceFacts:
    """The facts of a named device. Raises OptionError for one that is not known."""
    devices: Mapping[str, DeviceFacts] = constants().devices
    if device not in devices:
        raise OptionError(f"device {device[:40]!r} is not known: give {', '.join(devices)} or this")
    return devices[device]


@cache
def _extremes() -> tuple[float, float]:
    found = [each.g for each in constants().grid.countries.values()]
    return min(found), max(found)


__all__ = [
    "JOULES_A_KWH",
    "JOULES_A_WH",
    "Computer", "ComputerKind", "Constants", "DeviceFacts", "Serving", "carbon_intensity",
    "constants", "facts_of", "find_country", "told_country",
]  # fmt: skip
