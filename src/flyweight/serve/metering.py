"""What answers of a service take: metered, written into the ledger, held to a budget."""

from __future__ import annotations

import threading
import time
from collections.abc import Sequence
from typing import Any

from flyweight.energy.budget import WARNED, Budget, wall
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
        self._own = 0.0  # of them, by this process since the ledger was last read
        self._period = 0.0  # when it began
        self._warned = self._refused = False  # whether it was said in this period
        self._failed = ""  # why the ledger cannot be written, while it cannot
        self._told_idle = Nanojoules()  # what stands in the ledger of that already
        self._told_chip = Nanojoules()
        self.read_spent()
        for note in self.meter.power.notes:
            say(f"{note}.")

    def begin(self, prompt: int, weight: int = 1) -> Account:
        """An answer whose engine begins with so many tokens of a prompt; see `Meter.begin`."""
        return self.meter.begin(prompt, weight)

    def end(self, account: Account, model: str, key: str) -> Boundaries:
        """The answer is over: what it took, which stands in the ledger when this returns."""
        account.end()
        joules = self.meter.boundaries(account.taken)
        self._keep(
            "answer", model, joules, key=key, read=account.tokens_read,
            reused=account.tokens_reused, written=account.tokens_written,
            seconds=account.taken.on / 1e9,
        )  # fmt: skip
        for kind, part in (("read", account.reading), ("written", account.writing)):
            self.metrics.joules.labels(model, kind).inc(part.whole / 1e9)
        return joules

    def check(self) -> None:
        """Fault 429 where the budget is used up. Asks no file: what is known is what was read."""
        if self.budget is None:
            return
        now = time.time()
        with self._lock:
            began = self.budget.began(now)
            if began != self._period:
                self._period, self._spent = began, 0.0
                self._warned = self._refused = False
            spent = self._spent
        if spent >= self.budget.joules:
            if not self._refused:
                self._refused = True
                say(f"The energy budget, {self.budget}, is used up: requests are refused.")
            ends = self.budget.ends(now)
            raise Fault(
                429,
                f"The energy budget, {self.budget} for all that the computer takes for answers, is "
                f"used up. There is more from "
                f"{wall(ends):%Y-%m-%d %H:%M} on.",
                code="energy_budget_exceeded",
                retry=max(1.0, ends - now),
            )
        if spent >= WARNED * self.budget.joules and not self._warned:
            self._warned = True
            say(f"{spent / self.budget.joules:.0%} of the energy budget, {self.budget}, is used.")

    def sweep(self) -> None:
        """Bring what others spent of the budget, and what no answer took, up to now."""
        self.meter.settle()
        self.read_spent()
        rest = self.meter.rest
        if (rest.on - self._told_idle.on) / 1e9 >= _OFTEN:
            self._keep_idle(rest)

    def read_spent(self) -> None:
        """What every service of this ledger spent of the budget's period; not in the event loop."""
        if self.budget is None or self.ledger is None:
            return
        began = self.budget.began(time.time())
        with self._lock:
            self._own = 0.0
        try:
            spent = self.ledger.joules(began)
        except FolderError as error:  # what this process knows of is what there is
            self._complain(str(error))
            return
        with self._lock:  # and what came while it was read
            same = began == self._period
            self._warned, self._refused = self._warned and same, self._refused and same
            self._period, self._spent = began, spent + self._own

    def close(self) -> None:
        """Write what no answer took, stop the meter and close the ledger."""
        self.meter.stop()
        self._keep_idle(self.meter.rest)
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

    def _keep_idle(self, rest: Nanojoules) -> None:
        new, self._told_idle = rest - self._told_idle, rest
        idle, self._told_chip = self.meter.idle - self._told_chip, self.meter.idle + Nanojoules()
        around = self.meter.boundaries(new)
        # so that the lines' parts at the chip add up: also what it took idle while it answered
        chip = around.chip + self.meter.power.idle_figure(idle)
        joules = around.model_copy(update={"chip": chip})
        self._keep("idle", "", joules, seconds=new.on / 1e9)

    def _complain(self, why: str) -> None:
        """Say once that the ledger fails; again only after it has worked."""
        if not self._failed:
            say(f"What answers take is held in memory, and kept when that is possible: {why}")
        self._failed = why

    def _keep(self, kind: Kind, model: str, joules: Boundaries, **told: Any) -> None:
        line = entry(kind, model, joules, constants().version, **told)
        failed = self.ledger.keep(line) or "" if self.ledger is not None else ""
        if kind == "answer":
            with self._lock:
                self._spent += line.computer
                self._own += line.computer
        if self.ledger is None:
            return
        if failed:
            self._complain(failed)
        elif not self.ledger.pending:
            self._failed = ""
        self.metrics.unkept.set(len(self.ledger.pending))


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
