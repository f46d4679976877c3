"""What answers of a service take: metered, written into the ledger, held to a budget."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from datetime import datetime
from typing import Any

from flyweight.energy.budget import WARNED, Budget
from flyweight.energy.constants import constants
from flyweight.energy.ledger import Kind, Ledger, entry
from flyweight.energy.meter import Account, Meter, Nanojoules
from flyweight.energy.meter import meter as new_meter
from flyweight.errors import FolderError
from flyweight.figure import total
from flyweight.progress import say
from flyweight.serve.faults import Fault
from flyweight.serve.metrics import Metrics
from flyweight.sticker_card import Boundaries

_OFTEN = 60.0  # seconds between lines of what no answer took


class Metering:
    """The meter of a service. `ledger` None: nothing is kept, and a budget is of this process.

    `end` may be called in any thread; the rest lives in the event loop.
    """

    def __init__(self, metrics: Metrics, ledger: Ledger | None, budget: Budget | None) -> None:
        self.metrics, self.ledger, self.budget = metrics, ledger, budget
        self.meter: Meter = new_meter().start()
        self._lock = threading.Lock()
        self._spent = 0.0  # joules of the period
        self._period: datetime | None = None
        self._warned = False
        self._failed = ""  # why the ledger cannot be written, while it cannot
        self._told_idle = Nanojoules()

    def begin(self, prompt: int) -> Account:
        """An answer whose engine begins with so many tokens of a prompt."""
        return self.meter.begin(prompt)

    def end(self, account: Account, model: str, key: str, prompt: int) -> Boundaries:
        """The answer is over: what it took, which stands in the ledger when this returns."""
        account.end()
        joules = self.meter.boundaries(account.taken)
        self._keep(
            "answer", model, joules, key=key, read=account.tokens_read,
            reused=max(0, prompt - account.tokens_read), written=account.tokens_written,
            seconds=account.taken.seconds / 1e9,
        )  # fmt: skip
        for kind, part in (("read", account.reading), ("written", account.writing)):
            self.metrics.joules.labels(model, kind).inc(part.whole / 1e9)
        return joules

    def check(self) -> None:
        """Fault 429 where the budget is used up."""
        if self.budget is None:
            return
        now = datetime.now().astimezone()
        with self._lock:
            self._begin_period(now)
            spent = self._spent
        if spent >= self.budget.joules:
            ends = self.budget.ends(now)
            raise Fault(
                429,
                f"The energy budget, {self.budget}, is used up. There is more from "
                f"{ends:%Y-%m-%d %H:%M} on.",
                code="energy_budget_exceeded",
                retry=max(1.0, (ends - now).total_seconds()),
            )
        if spent >= WARNED * self.budget.joules and not self._warned:
            self._warned = True
            say(f"{spent / self.budget.joules:.0%} of the energy budget, {self.budget}, is used.")

    def sweep(self) -> None:
        """Bring what others spent of the budget, and what no answer took, up to now."""
        self.meter.settle()
        if self.budget is not None:
            with self._lock:
                self._begin_period(datetime.now().astimezone(), again=True)
        rest = self._rest()
        if (rest.seconds - self._told_idle.seconds) / 1e9 >= _OFTEN:
            self._keep_idle(rest)

    def close(self) -> None:
        """Write what no answer took, stop the meter and close the ledger."""
        self.meter.stop()
        self._keep_idle(self._rest())
        if self.ledger is not None:
            self.ledger.close()

    def gauge(self) -> None:
        """Set what the metrics tell of the whole computer's chip."""
        self.meter.settle()
        parts = {
            "answers": self.meter.answers.whole,
            "idle": self.meter.idle.whole,
            "unattributed": self.meter.unattributed.whole,
        }
        for part, nanojoules in parts.items():
            self.metrics.chip.labels(part).set(nanojoules / 1e9)

    def _rest(self) -> Nanojoules:
        """Work that no answer claimed, and the time in which none was in progress."""
        ours, idle = self.meter.unattributed, self.meter.idle
        return Nanojoules(ours.counted - self.meter.others, ours.modelled, idle.seconds)

    def _keep_idle(self, rest: Nanojoules) -> None:
        told, self._told_idle = self._told_idle, rest
        new = Nanojoules(
            max(0, rest.counted - told.counted),
            max(0, rest.modelled - told.modelled),
            rest.seconds - told.seconds,
        )
        self._keep("idle", "", self.meter.boundaries(new), seconds=new.seconds / 1e9)

    def _keep(self, kind: Kind, model: str, joules: Boundaries, **told: Any) -> None:
        line = entry(kind, model, joules, constants().version, **told)
        if kind == "answer":
            with self._lock:
                self._spent += line.computer
        if self.ledger is None:
            return
        failed = self.ledger.keep(line) or ""
        if failed and not self._failed:
            say(f"What answers take is held in memory, and kept when that is possible: {failed}")
        if not self.ledger.pending or failed:
            self._failed = failed
        self.metrics.unkept.set(len(self.ledger.pending))

    def _begin_period(self, now: datetime, again: bool = False) -> None:
        """Read what was spent by any process where a new period has begun. The lock is held."""
        assert self.budget is not None
        began = self.budget.began(now)
        if began == self._period and not again:
            return
        known = self._spent if began == self._period else 0.0
        self._warned = self._warned and began == self._period
        self._period, self._spent = began, known
        if self.ledger is not None:
            try:
                self._spent = self.ledger.joules(began.timestamp())
            except FolderError as error:  # what this process knows of is what there is
                say(str(error))


def joules_told(answers: Sequence[Boundaries]) -> dict[str, Any]:
    """What `usage` says of energy: joules at each boundary with the range, and how it is known."""
    found: dict[str, Any] = {}
    for name in ("chip", "computer", "facility"):
        whole = total(getattr(each, name) for each in answers)
        numbers = {"value": whole.value or 0.0, "low": whole.low, "high": whole.high}
        found[name] = {key: float(f"{number:.4g}") for key, number in numbers.items()}
        found[name]["kind"] = whole.kind
    return found | {"source": answers[0].chip.source if answers else ""}


__all__ = ["Metering", "joules_told"]
