"""The same work under CodeCarbon and Zeus: run by energy.py in benchmarks/.venv-energy.

Prints one JSON object a line: what, the peer, and its joules (None where it says nothing).
"""

from __future__ import annotations

import json
import logging
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from typing import Any

ROUNDS = 20  # of CodeCarbon's empty tasks: one takes milliseconds


def spin(seconds: float) -> None:
    """Keep a core busy for so much CPU time of this thread."""
    since = time.thread_time()
    while time.thread_time() - since < seconds:
        pass


def say(what: str, peer: str, **told: Any) -> None:
    """One finding."""
    print(json.dumps({"what": what, "peer": peer, **told}), flush=True)


def neighbour(seconds: float) -> subprocess.Popen[bytes]:
    """Another process that keeps a core busy."""
    code = f"import time; end = time.monotonic() + {seconds}\nwhile time.monotonic() < end: pass"
    return subprocess.Popen([sys.executable, "-c", code])


def codecarbon(busy: float) -> None:
    """Every case by CodeCarbon's tasks, in process mode, in France, offline."""
    from codecarbon import OfflineEmissionsTracker

    tracker = OfflineEmissionsTracker(
        country_iso_code="FRA", tracking_mode="process", save_to_file=False,
        log_level="critical", allow_multiple_runs=True,
    )  # fmt: skip
    name = "codecarbon"

    def metered(label: str, work: Callable[[], object]) -> tuple[float, float]:
        tracker.start_task(label)
        work()
        found = tracker.stop_task(label)
        return found.energy_consumed * 3.6e6, found.cpu_energy * 3.6e6

    metered("first", lambda: spin(0.1))
    whole, cpu = metered("busy", lambda: spin(busy))
    say("busy", name, joules=whole, cpu=cpu)
    whole, cpu = metered("idle", lambda: time.sleep(busy))
    say("sleep", name, joules=whole, cpu=cpu)
    other = neighbour(busy + 1)
    time.sleep(0.5)
    whole, cpu = metered("sleep", lambda: time.sleep(busy))
    say("sleep beside a busy process", name, joules=whole, cpu=cpu)
    other.wait()
    found: dict[str, Any] = {}

    def task(label: str) -> None:
        tracker.start_task(label)
        spin(busy)
        found[label] = tracker.stop_task(label)

    threads = [threading.Thread(target=task, args=(label,)) for label in ("one", "other")]
    threading.excepthook = lambda _: None
    for each in threads:
        each.start()
    for each in threads:
        each.join()
    for label in ("one", "other"):
        told = found.get(label)
        say(f"two at once: {label}", name, joules=told and told.energy_consumed * 3.6e6)
    times = []
    for number in range(ROUNDS):
        since = time.perf_counter()
        tracker.start_task(f"empty {number}")
        tracker.stop_task(f"empty {number}")
        times.append((time.perf_counter() - since) * 1e6)
    say("overhead", name, microseconds=times)


def zeus(busy: float) -> None:
    """Zeus' windows."""
    from zeus.monitor import ZeusMonitor

    monitor = ZeusMonitor(gpu_indices=[])

    def joules(found: Any) -> float | None:
        known = list((found.cpu_energy or {}).values())
        return sum(known) if known else None

    monitor.begin_window("busy")
    spin(busy)
    say("busy", "zeus", joules=joules(monitor.end_window("busy")))
    times = []
    for _ in range(500):
        since = time.perf_counter()
        monitor.begin_window("empty")
        monitor.end_window("empty")
        times.append((time.perf_counter() - since) * 1e6)
    say("overhead", "zeus", microseconds=times)


if __name__ == "__main__":
    logging.disable(logging.CRITICAL)
    codecarbon(float(sys.argv[1]))
    zeus(float(sys.argv[1]))
