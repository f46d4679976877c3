"""How much energy answers may take in an hour, a day, a week or a month."""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Literal

from flyweight.energy.constants import JOULES_A_WH
from flyweight.energy.sticker_words import WATT_HOURS, amount
from flyweight.errors import OptionError

Period = Literal["hour", "day", "week", "month"]
WARNED = 0.8  # of the budget: from there on it is said
_UNITS = {"J": 1.0, "kJ": 1e3, "MJ": 1e6, "Wh": 3.6e3, "kWh": 3.6e6, "MWh": 3.6e9}
_BUDGET = re.compile(
    r"\s*(\d+(?:\.\d+)?)\s*([kM]?Wh|[kM]?J)\s*(?:/|per)\s*(hour|day|week|month)\s*"
)


@dataclass(frozen=True)
class Budget:
    """Joules of a calendar period, in this computer's time zone."""

    joules: float
    period: Period
    told: str = ""  # as it was given: "2J"

    @classmethod
    def read(cls, told: str) -> Budget:
        """The budget of "1kWh/day", "500 Wh per hour" or "3MJ/week". OptionError else."""
        found = _BUDGET.fullmatch(told)
        if not found or not float(found[1]):
            raise OptionError(
                f"--budget is {told[:40]!r}: give energy above 0 and hour, day, week or month, "
                "such as 1kWh/day or 200Wh/hour"
            )
        joules, told = float(found[1]) * _UNITS[found[2]], f"{found[1]} {found[2]}"
        return cls(joules, found[3], told)  # type: ignore[arg-type]

    def began(self, now: float) -> float:
        """When the period began that a moment is in; both in seconds since 1970."""
        # by the clock on the wall, whose days have 23 hours in spring and 25 in autumn
        return self._start(wall(now)).timestamp()

    def ends(self, now: float) -> float:
        """When it ends."""
        start = self._start(wall(now))
        if self.period == "hour":
            return start.timestamp() + 3600
        if self.period == "month":
            return (start + timedelta(days=32)).replace(day=1).timestamp()
        return (start + timedelta(days=7 if self.period == "week" else 1)).timestamp()

    def _start(self, wall: datetime) -> datetime:
        start = wall.replace(minute=0, second=0, microsecond=0)
        if self.period == "hour":
            return start
        start = start.replace(hour=0, fold=0)
        if self.period == "week":
            return start - timedelta(days=start.weekday())
        return start.replace(day=1) if self.period == "month" else start

    def __str__(self) -> str:
        told = self.told or amount(self.joules / JOULES_A_WH, WATT_HOURS)
        return f"{told} of this {self.period}"


def wall(moment: float) -> datetime:
    """What the clock on the wall shows at a moment (seconds since 1970)."""
    return datetime.fromtimestamp(moment)  # noqa: DTZ006  that of this computer is wanted


__all__ = ["WARNED", "Budget", "Period", "wall"]
