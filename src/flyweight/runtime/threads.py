"""How many threads answer fastest."""

from __future__ import annotations

import os

SMALL_FILE = 32 * 2**20  # bytes of weights below which one thread answers fastest


def cores() -> int:
    """Cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def default_threads(size: int) -> int:
    """Threads for weights of so many bytes on this machine."""
    return 1 if size < SMALL_FILE else cores()


__all__ = ["SMALL_FILE", "cores", "default_threads"]
