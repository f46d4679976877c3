"""What do a distillation loss and its gradient cost, beside full logits, TRL's and Liger's losses?

    python benchmarks/kd_cost.py                      # 2,048 tokens, vocabulary 128,256
    python benchmarks/kd_cost.py --flat               # our memory, 512 to 16,384 tokens
    python benchmarks/kd_cost.py --exact              # errors against fp64, all arms

Student and teacher are hidden states and a head each; the loss is the generalised Jensen-Shannon
divergence (beta 0: forward KL), averaged over tokens. Each run is a process of its own, in turn,
warmed up on 32 tokens. Memory is the highest resident size during the call, less what was there
before and less the gradient of the head; time is the process's CPU time, with one thread, since
other work may share the cores, and beside it the wall clock's. An arm that would not fit the free
memory is left out, which is said.
"""

from __future__ import annotations

import argparse
import ctypes
import json
import math
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
PEERS = HERE / ".venv-kd/bin/python"
# arm -> how many logits of all its tokens (Liger: of a chunk) it holds at its peak, roughly
ARMS = {"ours": 0.5, "plain": 7, "trl": 15, "liger 64": 15, "liger 256": 15, "liger 1024": 15}
RESERVE = 1.5 * 2**30  # bytes that stay free for others
KILLED = -9


def inputs(tokens: int, hidden: int, vocabulary: int, dtype: Any) -> dict[str, Any]:
    """Hidden states and heads of both, whose logits have a deviation of 3."""
    import torch

    generator = torch.Generator().manual_seed(0)

    def drawn(rows: int, scale: float) -> Any:
        out = torch.empty(rows, hidden, dtype=dtype)
        for start in range(0, rows, 4096):
            part = out[start : start + 4096]
            part.copy_(torch.randn(part.shape, generator=generator) * scale)
        return out

    spread = 3 / math.sqrt(hidden)
    return {
        "h": drawn(tokens, 1).requires_grad_(),
        "w": drawn(vocabulary, spread).requires_grad_(),
        "th": drawn(tokens, 1),
        "tw": drawn(vocabulary, spread),
    }


def ours(given: dict[str, Any], beta: float, budget: int) -> Any:
    """Flyweight's chunked loss."""
    import torch

    from flyweight.distill.chunked import chunked_loss
    from flyweight.distill.divergences import Blend
    from flyweight.distill.head import Head
    from flyweight.distill.judges import Live

    tokens = len(given["h"])
    targets = torch.zeros(tokens, dtype=torch.long)
    judge = Live(Blend(1.0, beta), given["th"], Head(given["tw"]), targets)
    weights = torch.full((tokens,), 1 / tokens)
    return chunked_loss(given["h"], Head(given["w"]), weights, judge, budget)


def plain(given: dict[str, Any], beta: float) -> Any:
    """Full logits and torch's own operations, in fp32 after the heads, as everybody writes it."""
    import torch
    import torch.nn.functional as F

    log_q = F.linear(given["h"], given["w"]).float().log_softmax(-1)
    with torch.no_grad():
        log_p = F.linear(given["th"], given["tw"]).float().log_softmax(-1)
    if beta == 0:
        return F.kl_div(log_q, log_p, reduction="batchmean", log_target=True)
    mixed = torch.logaddexp(log_q + math.log(1 - beta), log_p + math.log(beta))
    by_p = F.kl_div(mixed, log_p, reduction="batchmean", log_target=True)
    by_q = F.kl_div(mixed, log_q, reduction="batchmean", log_target=True)
    return beta * by_p + (1 - beta) * by_q


def trl(given: dict[str, Any], beta: float) -> Any:
    """TRL's GKD loss on logits in the heads' type, as its trainer calls it."""
    import torch
    import torch.nn.functional as F
    from trl.experimental.gkd import GKDTrainer

    said = F.linear(given["h"], given["w"])[None]
    with torch.no_grad():
        theirs = F.linear(given["th"], given["tw"])[None]
    labels = torch.zeros(said.shape[:2], dtype=torch.long)
    return GKDTrainer.generalized_jsd_loss(said, theirs, labels, beta=beta)


def liger(given: dict[str, Any], beta: float, chunk: int) -> Any:
    """Liger's chunked loss without compilation (17 s of it on a CPU)."""
    import torch
    from liger_kernel.chunked_loss import LigerFusedLinearJSDLoss

    labels = torch.zeros(len(given["h"]), dtype=torch.long)
    loss = LigerFusedLinearJSDLoss(0.0, 1.0, beta, compiled=False, chunk_size=chunk)
    return loss(given["h"], given["w"], given["th"], given["tw"], labels)


def loss_of(arm: str, beta: float, budget: int) -> Callable[[dict[str, Any]], Any]:
    """The loss of an arm by its name."""
    name, _, size = arm.partition(" ")
    if name == "liger":
        return lambda given: liger(given, beta, int(size))
    if name == "ours":
        return lambda given: ours(given, beta, budget)
    return lambda given: {"plain": plain, "trl": trl}[name](given, beta)


def resident(field: str) -> int:
    """Bytes of this process: VmRSS now, VmHWM at its highest."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(field):
            return int(line.split()[1]) * 1024
    raise OSError(f"no {field} in /proc/self/status")


def one_run(options: argparse.Namespace) -> None:
    """Child: one loss and gradient, measured; prints a line of JSON."""
    import torch

    torch.set_num_threads(options.threads)
    dtype = getattr(torch, options.dtype)
    loss_of_arm = loss_of(options.arm, options.beta, options.budget)
    given = inputs(options.tokens, options.hidden, options.vocabulary, dtype)
    few = {name: each.detach()[:32] if "h" in name else each for name, each in given.items()}
    few["h"] = few["h"].requires_grad_()
    loss_of_arm(few).backward()
    given["w"].grad = None
    ctypes.CDLL("libc.so.6").malloc_trim(0)
    Path("/proc/self/clear_refs").write_text("5")
    before, wall, cpu = resident("VmRSS"), time.perf_counter(), time.process_time()
    loss = loss_of_arm(given)
    loss.backward()
    wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
    gradient = given["w"].grad
    beyond = resident("VmHWM") - before - gradient.numel() * gradient.itemsize
    print(json.dumps({"wall": wall, "cpu": cpu, "bytes": beyond, "loss": loss.item()}))


def errors(options: argparse.Namespace) -> None:
    """Child: relative errors of an arm's gradients against fp64 full logits; a line of JSON."""
    import torch

    dtype = getattr(torch, options.dtype)
    given = inputs(options.tokens, options.hidden, options.vocabulary, dtype)
    exact = {name: each.detach().double() for name, each in given.items()}
    exact["h"].requires_grad_()
    exact["w"].requires_grad_()
    torch.set_default_dtype(torch.float64)
    wanted = plain_exact(exact, options.beta)
    wanted.backward()
    torch.set_default_dtype(torch.float32)
    loss = loss_of(options.arm, options.beta, options.budget)(given)
    loss.backward()
    found = {"loss": abs(loss.item() / wanted.item() - 1)}
    for name in ("h", "w"):
        gap = given[name].grad.double() - exact[name].grad
        found[name] = (gap.norm() / exact[name].grad.norm()).item()
    print(json.dumps(found))


def plain_exact(given: dict[str, Any], beta: float) -> Any:
    """`plain` without the cast to fp32, and by another formula."""
    log_q = (given["h"] @ given["w"].t()).log_softmax(-1)
    log_p = (given["th"] @ given["tw"].t()).log_softmax(-1)
    q, p = log_q.exp(), log_p.exp()
    if beta == 0:
        return (p * (log_p - log_q)).sum(-1).mean()
    log_m = (beta * p + (1 - beta) * q).log()
    return (beta * p * (log_p - log_m) + (1 - beta) * q * (log_q - log_m)).sum(-1).mean()


def available() -> float:
    """Bytes of memory that can still be had."""
    for line in Path("/proc/meminfo").read_text().splitlines():
        if line.startswith("MemAvailable"):
            return int(line.split()[1]) * 1024.0
    return 0.0


def needed(arm: str, values: dict[str, Any]) -> float:
    """Bytes that an arm will take at the least, heads and all."""
    size = 4 if values["dtype"] == "float32" else 2
    held = min(values["tokens"], int(arm.partition(" ")[2] or values["tokens"]))
    logits = held * values["vocabulary"] * (4 if arm == "plain" else size)
    return 4 * values["vocabulary"] * values["hidden"] * size + ARMS[arm] * logits


def run(arm: str, options: argparse.Namespace, job: str, **changes: Any) -> dict[str, float] | str:
    """What a child found, or why there is nothing."""
    values = vars(options) | changes
    need = needed(arm, values)
    ends = time.monotonic() + options.patience
    while need + RESERVE > available() and time.monotonic() < ends:
        time.sleep(5)
    if need + RESERVE > available():
        return f"left out: needs about {need / 2**30:.0f} GiB, {available() / 2**30:.0f} are free"
    python = sys.executable if arm in {"ours", "plain"} else str(options.peers)
    command = [python, __file__, "--child", job, "--arm", arm]
    for name in ("tokens", "hidden", "vocabulary", "dtype", "beta", "threads", "budget"):
        command += [f"--{name}", str(values[name])]
    environment = os.environ | {"OMP_NUM_THREADS": str(options.threads), "HF_HUB_OFFLINE": "1"}
    done = subprocess.run(command, capture_output=True, text=True, env=environment, check=False)
    if done.returncode == KILLED and time.monotonic() < ends:  # others took the memory meanwhile
        return run(arm, options, job, **changes)
    if done.returncode:
        return f"failed: {(done.stderr.strip().splitlines() or [str(done.returncode)])[-1][:90]}"
    return json.loads(done.stdout.splitlines()[-1])


def compare(arms: list[str], options: argparse.Namespace) -> None:
    """Time and memory of every arm, in turn, `options.rounds` times."""
    found: dict[str, dict[int, dict[str, float]]] = {arm: {} for arm in arms}
    for number in range(options.rounds):
        for arm in arms if number % 2 == 0 else arms[::-1]:
            result = run(arm, options, "run")
            if isinstance(result, str):
                print(f"{arm}: {result}", flush=True)
            else:
                found[arm][number] = result
                print(f"  {arm} {json.dumps(result)}", flush=True)
    shape = f"{options.tokens:,} tokens x {options.hidden:,} x {options.vocabulary:,}"
    print(f"\n{options.dtype}, beta {options.beta}, {shape}, {options.threads} thread")
    print(
        "| arm | CPU s (range) | wall s | MiB beyond the head's gradient | of ours: time | memory |"
    )
    print("|---|---|---|---|---|---|")
    own = found["ours"]
    for arm, runs in found.items():
        if not runs:
            continue
        cpu, wall, used = ([r[key] for r in runs.values()] for key in ("cpu", "wall", "bytes"))
        memory = statistics.median(used)
        pairs = [runs[number]["cpu"] / own[number]["cpu"] for number in runs if number in own]
        share = memory / statistics.median(each["bytes"] for each in own.values())
        print(
            f"| {arm} | {statistics.median(cpu):.2f} ({min(cpu):.2f} to {max(cpu):.2f}) "
            f"| {statistics.median(wall):.1f} | {memory / 2**20:,.0f} "
            f"| {statistics.median(pairs):.2f} ({min(pairs):.2f} to {max(pairs):.2f}) "
            f"| {share:.1f} |"
        )


def flat(options: argparse.Namespace) -> None:
    """Our memory and time at growing lengths."""
    print("| tokens | MiB beyond the head's gradient | and beyond the hidden states' | CPU s |")
    print("|---|---|---|---|")
    size = 4 if options.dtype == "float32" else 2
    for tokens in (512, 1024, 2048, 4096, 8192, 16384):
        result = run("ours", options, "run", tokens=tokens)
        if isinstance(result, str):
            print(f"{tokens}: {result}")
            continue
        beyond = result["bytes"] / 2**20
        states = tokens * options.hidden * size / 2**20
        print(f"| {tokens:,} | {beyond:,.0f} | {beyond - states:,.0f} | {result['cpu']:.2f} |",
              flush=True)  # fmt: skip


def exact(arms: list[str], options: argparse.Namespace) -> None:
    """Errors against fp64 at 512 tokens, hidden 256, vocabulary 8,192."""
    print("| type | beta | arm | loss | by hidden states | by head |")
    print("|---|---|---|---|---|---|")
    for dtype in ("float32", "bfloat16"):
        for beta in (0.0, 0.5):
            for arm in arms:
                result = run(
                    arm,
                    options,
                    "errors",
                    dtype=dtype,
                    beta=beta,
                    tokens=512,
                    hidden=256,
                    vocabulary=8192,
                    budget=2**22,
                )
                said = result if isinstance(result, str) else (
                    f"{result['loss']:.1e} | {result['h']:.1e} | {result['w']:.1e}"
                )  # fmt: skip
                print(f"| {dtype} | {beta} | {arm} | {said} |", flush=True)


def main() -> None:
    """Measure, and print the table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--tokens", type=int, default=2048)
    parser.add_argument("--hidden", type=int, default=2048)
    parser.add_argument("--vocabulary", type=int, default=128_256)
    parser.add_argument("--dtype", choices=("bfloat16", "float32"), default="bfloat16")
    parser.add_argument("--beta", type=float, default=0.0)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--budget", type=int, default=256 * 2**20, help="bytes of our chunks")
    parser.add_argument("--patience", type=float, default=0, help="seconds to wait for memory")
    parser.add_argument("--arms", nargs="+", choices=ARMS, default=list(ARMS))
    parser.add_argument("--peers", type=Path, default=PEERS, help="the interpreter with the peers")
    parser.add_argument("--flat", action="store_true")
    parser.add_argument("--exact", action="store_true")
    parser.add_argument("--child", choices=("run", "errors"), help=argparse.SUPPRESS)
    parser.add_argument("--arm", choices=ARMS, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.child:
        Path("/proc/self/oom_score_adj").write_text("1000")  # should memory end, end this process
        one_run(options) if options.child == "run" else errors(options)
        return
    if not options.peers.exists():
        print(
            f"python3 -m venv {PEERS.parents[1]}\n"
            f"{PEERS.parent}/pip install -r {HERE}/requirements-kd.txt"
        )
        return
    if options.flat:
        flat(options)
    elif options.exact:
        exact(options.arms, options)
    else:
        compare(options.arms, options)


if __name__ == "__main__":
    main()
