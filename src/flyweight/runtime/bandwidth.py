"""How fast this machine reads weights, which is what limits one stream.

To write a token all weights are read once. So the limit is taken on as many bytes as the model has:
small ones come out of a cache, which is faster than memory, and large ones out of memory.
"""

from __future__ import annotations

import time

from flyweight.runtime.threads import cores

_COLUMNS = 1024  # of the matrix that is read, in float32: 4 kB a row
_ONCE = 2 * 10**8  # bytes of a timed piece, at least
_PIECES = 5


def read_speed(size: int) -> float:
    """Bytes a second at which `size` bytes are read again and again: the best of a few tries.

    A product of a matrix with a vector in torch, with one thread and with every core; what another
    process reads at the same time is missing from it.
    """
    import torch

    rows = max(size // (4 * _COLUMNS), 1)
    matrix = torch.ones(rows, _COLUMNS)  # [R, 1024]
    vector = torch.ones(_COLUMNS)
    out = torch.empty(rows)
    actual = rows * _COLUMNS * 4
    times = max(1, -(-_ONCE // actual))
    before, best = torch.get_num_threads(), 0.0
    try:
        for threads in sorted({1, cores()}):
            torch.set_num_threads(threads)
            for _ in range(_PIECES):
                started = time.perf_counter()
                for _ in range(times):
                    torch.mv(matrix, vector, out=out)
                best = max(best, actual * times / (time.perf_counter() - started))
    finally:
        torch.set_num_threads(before)
    return best


__all__ = ["read_speed"]
