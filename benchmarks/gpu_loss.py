"""How large should chunks and blocks of the distillation loss be on a GPU, beside full logits?

    python benchmarks/gpu_loss.py                     # Llama-3.1-8B to Llama-3.2-1B, 8,188 tokens
    python benchmarks/gpu_loss.py --tiny              # the same code, on a CPU

Hidden states of teacher and student, the teacher's head in bf16, the student's in fp32 under
autocast: the forward KL and its gradients, as in each step of distill/trainer.py. `chunked` is
distill/chunked.py with so many MiB of logits a chunk and so many logits (a power of two) a block;
`plain` has full logits and torch's own operations. All in one process, in turn, there and back;
the time is the median of the runs after the first, memory the most that was allocated beyond what
was there before. A loss that is not within a thousandth of the first one's is an error.
"""

from __future__ import annotations

import argparse
import math
import statistics
import time
from collections.abc import Callable
from typing import Any

CHUNKS, BLOCKS = (256, 512, 1024, 2048), (22, 23, 24, 25, 26)
SPREAD = 3.0  # deviation of the logits


def inputs(device: str, tokens: int, widths: tuple[int, int], vocabulary: int) -> dict[str, Any]:
    """Hidden states and heads of both."""
    import torch

    lot = torch.Generator(device).manual_seed(0)
    half = torch.bfloat16

    def drawn(rows: int, width: int, scale: float, dtype: Any) -> Any:
        made = torch.empty(rows, width, device=device, dtype=dtype)
        return made.normal_(0, scale, generator=lot)

    mine, yours = widths
    return {
        "h": drawn(tokens, mine, 1, torch.float32).requires_grad_(),
        "w": drawn(vocabulary, mine, SPREAD / math.sqrt(mine), torch.float32).requires_grad_(),
        "th": drawn(tokens, yours, 1, half),
        "tw": drawn(vocabulary, yours, SPREAD / math.sqrt(yours), half),
    }


def chunked(given: dict[str, Any], chunk: int, block: int) -> Any:
    """Flyweight's loss at these sizes."""
    import torch

    from flyweight.distill import chunked as module
    from flyweight.distill.divergences import Blend
    from flyweight.distill.head import Head
    from flyweight.distill.judges import Live

    module.GPU_BLOCK = module.CACHED = 2**block
    tokens, device = len(given["h"]), given["h"].device
    targets = torch.zeros(tokens, dtype=torch.long, device=device)
    weights = torch.full((tokens,), 1 / tokens, device=device)
    judge = Live(Blend(), given["th"], Head(given["tw"]), targets)
    return module.chunked_loss(given["h"], Head(given["w"]), weights, judge, chunk * 2**20)


def plain(given: dict[str, Any]) -> Any:
    """Full logits."""
    import torch
    import torch.nn.functional as F

    log_q = F.linear(given["h"], given["w"]).float().log_softmax(-1)
    with torch.no_grad():
        log_p = F.linear(given["th"], given["tw"]).float().log_softmax(-1)
    return F.kl_div(log_q, log_p, reduction="batchmean", log_target=True)


def measured(loss_of: Callable[[], Any], given: dict[str, Any]) -> tuple[float, float, float]:
    """Seconds, bytes (nan on a CPU) and loss of a pass there and back."""
    import torch

    device = given["h"].device.type
    cuda = device == "cuda"
    given["h"].grad = given["w"].grad = None
    if cuda:
        torch.cuda.synchronize()
        torch.cuda.reset_peak_memory_stats()
    before, start = torch.cuda.memory_allocated() if cuda else 0, time.perf_counter()
    with torch.autocast(device, torch.bfloat16):
        loss = loss_of()
    loss.backward()
    if cuda:
        torch.cuda.synchronize()
    took = time.perf_counter() - start
    return took, torch.cuda.max_memory_allocated() - before if cuda else math.nan, loss.item()


def main() -> None:
    """Measure, and print the table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--tiny", action="store_true")
    parser.add_argument("--rounds", type=int, default=6)
    parser.add_argument("--chunks", nargs="+", type=int, default=CHUNKS, help="MiB")
    parser.add_argument("--blocks", nargs="+", type=int, default=BLOCKS, help="powers of two")
    options = parser.parse_args()
    import torch

    if not options.tiny and not torch.cuda.is_available():
        parser.exit(2, "no GPU here: --tiny runs without\n")
    device = "cpu" if options.tiny else "cuda"
    given = inputs(
        device, *((64, (48, 64), 512) if options.tiny else (8188, (2048, 4096), 128_256))
    )
    arms: dict[str, Callable[[], Any]] = {"plain": lambda: plain(given)}
    for chunk in options.chunks:
        for block in options.blocks:
            arms[f"{chunk} MiB, 2^{block}"] = lambda c=chunk, b=block: chunked(given, c, b)
    runs: dict[str, list[tuple[float, float, float]]] = {name: [] for name in arms}
    for number in range(options.rounds):
        for name in list(arms)[:: 1 if number % 2 == 0 else -1]:
            runs[name].append(measured(arms[name], given))
    first = runs["plain"][0][2]
    print("| arm | ms (range) | GiB | loss |\n|---|---|---|---|")
    for name, each in runs.items():
        took, held, losses = zip(*each, strict=True)
        times = [1e3 * seconds for seconds in took[1:]]
        print(f"| {name} | {statistics.median(times):.1f} ({min(times):.1f} to {max(times):.1f}) "
              f"| {max(held) / 2**30:.2f} | {losses[-1]:.5f} |", flush=True)  # fmt: skip
        if abs(losses[-1] / first - 1) > 1e-3:
            raise SystemExit(f"{name}: a loss of {losses[-1]}, not {first}")


if __name__ == "__main__":
    main()
