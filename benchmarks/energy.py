"""What does the meter say, and cost, beside CodeCarbon and Zeus?

    python3 -m venv benchmarks/.venv-energy
    benchmarks/.venv-energy/bin/pip install codecarbon==3.3.2 zeus==0.16.0
    python benchmarks/energy.py

The same busy loop, a sleep, a sleep while another process is busy, and two answers of equal work at
once, by all three; what an answer's metering costs; and, where this computer has a counter (RAPL),
a minute beside it. Without the environment of the peers, ours alone.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import threading
import time
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory

from rich.console import Console
from rich.table import Table
from scipy.stats import quantile_test

from energy_peer import neighbour, spin
from flyweight.energy.constants import constants
from flyweight.energy.counters import find_rapl
from flyweight.energy.ledger import Ledger, entry
from flyweight.energy.meter import Account, Meter, meter

PEERS = Path(__file__).parent / ".venv-energy/bin/python"
ROUNDS = 2000
console = Console(highlight=False, width=110)


def middle(values: list[float]) -> str:
    """A median with its 95 % interval."""
    found = quantile_test(values, p=0.5).confidence_interval(0.95)
    return f"{statistics.median(values):,.1f} ({found.low:,.1f} to {found.high:,.1f})"


def answered(work: Callable[[], object]) -> float:
    """Joules of one answer, ours."""
    with meter() as running, running.answer() as account:
        work()
    return account.taken.whole / 1e9


def at_once(busy: float) -> tuple[float, float]:
    """Joules of two answers of equal work in two threads."""
    accounts: list[Account] = []
    with meter() as running:

        def work() -> None:
            with running.answer() as account:
                accounts.append(account)
                spin(busy)

        threads = [threading.Thread(target=work) for _ in range(2)]
        for each in threads:
            each.start()
        for each in threads:
            each.join()
    one, other = (each.taken.whole / 1e9 for each in accounts)
    return one, other


def beside_a_neighbour(busy: float) -> float:
    """Joules of a sleep while another process keeps a core busy."""
    other = neighbour(busy + 1)
    time.sleep(0.5)
    found = answered(lambda: time.sleep(busy))
    other.wait()
    return found


def overhead(open_answers: int, tokens: bool) -> list[float]:
    """Microseconds of metering one empty answer while so many others are in progress."""
    times = []
    with meter() as running:
        others = [running.begin(8 if tokens else 0) for _ in range(open_answers - 1)]
        for _ in range(ROUNDS):
            since = time.perf_counter()
            account = running.begin(8 if tokens else 0)
            if tokens:
                account.whole(8, 1)
            account.end()
            times.append((time.perf_counter() - since) * 1e6)
        for each in others:
            each.end()
    return times


def written_down() -> list[float]:
    """Microseconds of an answer's figures and its line in the ledger."""
    times = []
    with TemporaryDirectory() as folder, Ledger(Path(folder) / "ledger") as ledger:
        running = Meter().start()
        account = running.begin(8)
        account.whole(8, 1)
        account.end()
        for _ in range(ROUNDS):
            since = time.perf_counter()
            joules = running.boundaries(account.taken)
            ledger.keep(entry("answer", "m", joules, constants().version, read=8, written=1))
            times.append((time.perf_counter() - since) * 1e6)
    return times


def beside_rapl(seconds: float) -> None:
    """The meter's total of a minute beside the counter itself, read before and after."""
    notes: list[str] = []
    counter = find_rapl(notes)
    if counter is None:
        console.print(f"no counter to hold it beside here{': ' if notes else ''}{' '.join(notes)}")
        return
    before = counter.read()
    with meter() as running:
        until = time.monotonic() + seconds
        while time.monotonic() < until:
            with running.answer():
                spin(0.02)
            time.sleep(0.02)
    after = counter.read()
    told = sum(new - old for old, new in zip(before, after, strict=True))
    console.print(f"{seconds:.0f} s: the meter {running.total / told:.4f} of the counter")


def peers(busy: float) -> list[dict]:
    """What the peers say, in their own environment."""
    if not PEERS.exists():
        console.print(f"no {PEERS}: ours alone")
        return []
    script = Path(__file__).with_name("energy_peer.py")
    done = subprocess.run([PEERS, script, str(busy)], capture_output=True, text=True, check=False)
    found = []
    for line in done.stdout.splitlines():
        try:
            told = json.loads(line)
        except ValueError:
            continue
        if isinstance(told, dict) and "what" in told:
            found.append(told)
    if done.returncode:
        console.print(f"the peers ended with {done.stderr.splitlines()[-1:]}")
    return found


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--busy", type=float, default=2.0, help="seconds of each case")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--minute", type=float, default=60.0, help="seconds beside a counter")
    options = parser.parse_args()
    busy, ours, theirs = options.busy, [], []
    for _ in range(options.rounds):
        one, other = at_once(busy)
        ours.append(
            {
                "busy": answered(lambda: spin(busy)),
                "sleep": answered(lambda: time.sleep(busy)),
                "sleep beside a busy process": beside_a_neighbour(busy),
                "two at once: one": one,
                "two at once: other": other,
            }
        )
        theirs.append(peers(busy))
    table = Table(title=f"Joules of {busy:g} s, median of {options.rounds} runs in turn")
    for head in ("", "Flyweight, chip", "CodeCarbon, all", "its CPU", "Zeus"):
        table.add_column(head, justify="right" if head else "left")
    for what in ours[0]:
        told = {
            (peer, field): [
                each.get(field) for run in theirs for each in run
                if (each["what"], each["peer"]) == (what, peer)
            ]
            for peer, field in (("codecarbon", "joules"), ("codecarbon", "cpu"), ("zeus", "joules"))
        }  # fmt: skip
        shown = [
            "nothing" if values and None in values
            else f"{statistics.median(values):.2f}" if values else "–"
            for values in told.values()
        ]  # fmt: skip
        table.add_row(what, f"{statistics.median([run[what] for run in ours]):.3f}", *shown)
    console.print(table)
    apart = [abs(run["two at once: one"] / run["two at once: other"] - 1) for run in ours]
    console.print(f"equal work at once: at most {max(apart):.2%} apart in {len(apart)} runs")
    for count in (1, 10, 100):
        console.print(
            f"metering an answer, {count} in progress: {middle(overhead(count, False))} µs by "
            f"threads, {middle(overhead(count, True))} µs by tokens"
        )
    console.print(f"its figures and its line in the ledger: {middle(written_down())} µs")
    for peer in ("codecarbon", "zeus"):
        times = [
            number for run in theirs for each in run
            if (each["what"], each["peer"]) == ("overhead", peer) for number in each["microseconds"]
        ]  # fmt: skip
        if times:
            console.print(f"{peer}, a task or window: {middle(times)} µs, n = {len(times):,}")
    beside_rapl(options.minute)


if __name__ == "__main__":
    main()
