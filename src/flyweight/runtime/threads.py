"""How many threads answer fastest."""

from __future__ import annotations

from flyweight.energy.machine import cores

SMALL_FILE = 32 * 2**20  # bytes of weights below which one thread answers fastest


def default_threads(size: int) -> int:
    """Threads for weights of so many bytes on this machine."""
    return 1 if size < SMALL_FILE else cores()


__all__ = ["SMALL_FILE", "cores", "default_threads"]
