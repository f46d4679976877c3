"""The meter: what each of many answers at once took, so that they add up to all that was taken.

Time is cut into short intervals. What the process took in one is shared among the answers in
progress by the work that they did in it: the CPU time of their own threads, which is known, then
tokens read and written, which an engine computes for them in its threads. What nobody did is
`unattributed`, what the chip takes anyway `idle`. All is counted in whole nanojoules, so that

    the answers + idle + unattributed = total

holds exactly. There is no thread and no timer: an interval ends when an answer begins, ends, or
tells of work.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from types import TracebackType
from typing import Self

from flyweight.energy.account import Account
from flyweight.energy.power import Power, Taken, around, find_power
from flyweight.energy.sharing import Nanojoules, cpu_of, shares_of
from flyweight.figure import Figure
from flyweight.sticker_card import Boundaries, Metered

INTERVAL = 2_000_000  # nanoseconds: work that is told of sooner is settled with the next
PASS = 512  # tokens of a prompt that an engine reads before it says so


class Meter:
    """A meter that runs from `start` (or `with`) to `stop`. Its calls may come from any thread."""

    def __init__(self, power: Power | None = None) -> None:
        self.power = power or find_power()
        self._lock = threading.Lock()
        # answers in progress, in the order in which they began, and three kinds of them
        self._active: dict[Account, None] = {}
        self._threads: dict[Account, None] = {}  # whose work is that of a thread of ours
        self._readers: dict[Account, None] = {}  # whose prompt an engine is reading
        self._touched: dict[Account, None] = {}  # that told of work in this interval
        self._pool = Taken()  # of intervals whose work nobody has told of yet
        self._pool_time = 0
        self.answers = Nanojoules()  # all of them together
        self.idle = Nanojoules()
        self.unattributed = Nanojoules()
        self.others = 0  # nanojoules of those that are unattributed because others worked
        self.total = 0  # nanojoules
        self._running = False

    def start(self) -> Self:
        """Begin; returns itself."""
        self.power.start()
        self._last = time.monotonic_ns()
        self._running = True
        return self

    def stop(self) -> None:
        """End: answers that are still in progress are ended."""
        for account in list(self._active):
            account.end()
        with self._lock:
            self._settle()
            self._running = False

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.stop()

    def begin(self, prompt: int = 0, weight: int = 1) -> Account:
        """A new answer. `prompt`: how many tokens an engine will have to read for it, 0 if none.

        `weight`: the work of one token beside that of other models in this process, its bytes, say.
        """
        account = Account(self, prompt, weight)
        with self._lock:
            if prompt or not self._active:  # of a thread it is known anyway what is its own
                self._settle()
            self._active[account] = None
            (self._readers if prompt else self._threads)[account] = None
        return account

    @contextmanager
    def answer(self, prompt: int = 0) -> Iterator[Account]:
        """An answer from the start to the end of a block; see `begin`."""
        account = self.begin(prompt)
        try:
            yield account
        finally:
            account.end()

    def calm(self, seconds: float = 1.0) -> None:
        """Sleep for a moment where a counter then tells what the chip takes idle."""
        if self.power.could_learn:
            self.settle()
            time.sleep(seconds)
            self.settle()

    def settle(self) -> None:
        """Bring the figures up to now."""
        with self._lock:
            self._settle()

    @property
    def rest(self) -> Nanojoules:
        """Our work that no answer claimed, and the time in which none was in progress."""
        ours = self.unattributed
        return Nanojoules(ours.counted - self.others, ours.modelled, self.idle.on)

    def joules(self, taken: Nanojoules) -> Figure:
        """What something took at the chip, above idle, as a figure."""
        return self.power.figure(taken.counted, taken.modelled)

    def boundaries(self, taken: Nanojoules) -> Boundaries:
        """The same with what the computer takes while it is on for it, and with its building."""
        return around(self.joules(taken), taken.on / 1e9, self.power.computer)

    def mean(self, accounts: Sequence[Account], read_share: float | None = None) -> Metered:
        """What answers that have ended took, one of them. There is one at least.

        `read_share`: the prompt's share of the time where the engine told it only afterwards.
        """
        count = len(accounts)
        reading = _sum(each.reading for each in accounts)
        writing = _sum(each.writing for each in accounts)
        chip = self.joules(reading + writing)
        read, written = self.joules(reading), self.joules(writing)
        if read_share is not None:
            read, written = chip * read_share, chip * (1.0 - read_share)
        whole = self.boundaries(reading + writing)
        return Metered(
            answers=count,
            seconds=(reading + writing).on / 1e9 / count,
            tokens_read=sum(each.tokens_read for each in accounts) / count,
            tokens_written=sum(each.tokens_written for each in accounts) / count,
            joules=Boundaries(
                chip=whole.chip / count,
                computer=whole.computer / count,
                facility=whole.facility / count,
            ),
            reading=read / count,
            writing=written / count,
            notes=list(self.power.notes),
        )

    def _worked_on(self, account: Account) -> None:
        """An account was told of tokens; settle where it is time. The lock is held."""
        if not account.ended:
            self._touched[account] = None
        if not account._told:
            account._told = True
            self._threads.pop(account, None)
        if not account._owed:
            self._readers.pop(account, None)
        if time.monotonic_ns() - self._last >= INTERVAL:
            self._settle()

    def _end(self, account: Account) -> None:
        with self._lock:
            if account.ended:
                return
            account.ended = True
            try:
                self._settle_last(account)
            finally:
                for each in (self._active, self._threads, self._readers, self._touched):
                    each.pop(account, None)
            if not self._active:  # nobody is left who could still tell of work
                self._give(self.unattributed, self._pool, self._pool_time)
                self._pool, self._pool_time = Taken(), 0

    def _settle_last(self, account: Account) -> None:
        """Settle an answer that ends. The lock is held."""
        if not account._told:
            self._take()
            self._share_own(account)
            return
        if not account.tokens_read + account.tokens_written:
            account._read += 1  # it ended before its engine told of anything
            self._touched[account] = None
        self._settle()

    def _settle(self) -> None:
        """Share what was taken since the last time. The lock is held."""
        self._take()
        if self._active:
            self._share()

    def _take(self) -> None:
        """Count what was taken since the last time, into the pool where answers are in progress."""
        if not self._running:
            return
        now = time.monotonic_ns()
        passed, self._last = now - self._last, now
        taken = self.power.take(passed)
        self.total += taken.whole
        self.idle.counted += taken.idle_c
        self.idle.modelled += taken.idle_m
        self.unattributed.counted += taken.others
        self.others += taken.others
        if not self._active:
            self._give(self.unattributed, taken, 0)
            self.idle.on += passed
            return
        pool = self._pool
        pool.ours_c += taken.ours_c
        pool.ours_m += taken.ours_m
        pool.cpu += taken.cpu
        self._pool_time += passed

    def _share_own(self, account: Account) -> None:
        """Give an answer that is a thread's what it has in the pool: its share of the CPU time."""
        ran, pool = cpu_of(account._clock, account._own) - account._ran, self._pool
        if ran <= 0:
            return
        whole = max(ran, pool.cpu)
        part = Nanojoules(
            pool.ours_c * ran // whole, pool.ours_m * ran // whole, self._pool_time * ran // whole
        )
        pool.ours_c -= part.counted
        pool.ours_m -= part.modelled
        pool.cpu = max(0, pool.cpu - ran)
        self._pool_time -= part.on
        account.writing += part
        self.answers += part

    def _share(self) -> None:
        """Give what is in the pool to those who worked; it stays there where nobody did."""
        threads, engines = self._worked()
        if not threads and not engines and len(self._threads) < len(self._active):
            return
        pool = self._pool
        shares = [each for each in shares_of(threads, engines, pool.cpu) if each[0]]
        whole = sum(weight for weight, _, _ in shares)
        if not whole:
            self._give(self.unattributed, pool, self._pool_time)
        left_c, left_m, left_time, left = pool.ours_c, pool.ours_m, self._pool_time, whole
        for weight, account, reads in shares:
            part_c = left_c * weight // left
            part_m = left_m * weight // left
            part_time = left_time * weight // left
            left_c, left_m, left_time = left_c - part_c, left_m - part_m, left_time - part_time
            left -= weight
            bucket = self.unattributed
            if account is not None:
                bucket = account.reading if reads else account.writing
                self.answers.counted += part_c
                self.answers.modelled += part_m
                self.answers.on += part_time
            bucket.counted += part_c
            bucket.modelled += part_m
            bucket.on += part_time
        self._pool, self._pool_time = Taken(), 0

    def _worked(self) -> tuple[dict[Account, int], list[tuple[int, Account, bool]]]:
        """The CPU time of answers that are threads of ours, and the tokens of the others."""
        threads: dict[Account, int] = {}
        engines: list[tuple[int, Account, bool]] = []
        for account in self._threads:
            ran = cpu_of(account._clock, account._own)
            if ran > account._ran:
                threads[account], account._ran = ran - account._ran, ran
        silent = [each for each in self._readers if not each._read and not each._written]
        for account in self._touched:
            if account._read:
                engines.append((account._read * account._weight, account, True))
            if account._written:
                engines.append((account._written * account._weight, account, False))
            account._read = account._written = 0
        self._touched.clear()
        if engines or threads:  # who is silent reads as well, and will tell of it later
            for account in silent:
                part = min(account._owed, PASS)
                account._owed -= part
                account._ahead += part
                engines.append((part * account._weight, account, True))
                if not account._owed:
                    del self._readers[account]
        return threads, engines

    @staticmethod
    def _give(bucket: Nanojoules, taken: Taken, nanoseconds: int) -> None:
        bucket.counted += taken.ours_c
        bucket.modelled += taken.ours_m
        bucket.on += nanoseconds


def _sum(parts: Iterable[Nanojoules]) -> Nanojoules:
    return sum(parts, Nanojoules())


def meter(*, children: bool = False) -> Meter:
    """A meter of this process with the best source that there is; `children`: and of its children.

    with meter() as m, m.answer() as a: ...; then m.joules(a.taken).
    """
    return Meter(find_power(children=children))


__all__ = ["INTERVAL", "PASS", "Account", "Meter", "Nanojoules", "meter"]
