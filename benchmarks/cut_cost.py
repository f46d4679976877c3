"""What does cutting a model by half cost beside Torch-Pruning, in seconds and peak memory?

    python3 -m venv benchmarks/.venv-prune
    benchmarks/.venv-prune/bin/pip install -r benchmarks/requirements-prune.txt
    python benchmarks/cut_cost.py

A random model of the shape of Llama 3.2 1B, in bf16, to half the hidden channels, MLP channels and
query heads, from folder to folder; each run in a process of its own, in turn, after its imports.
Torch-Pruning runs as in its own example for language models (examples/LLMs/prune_llm.py), choosing
by magnitude, and once more choosing at random, as we do here: the cut alone.

    python benchmarks/cut_cost.py --huge

Ours alone, on a random checkpoint of 10 GB in shards: peak memory beside twice the largest tensor.

Memory is what a process takes above what its imports took: resident (of the kernel, with pages of
files that it maps) and anonymous (its own, sampled every 20 ms).
"""

from __future__ import annotations

import argparse
import json
import math
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any

PEER = Path(__file__).parent / ".venv-prune" / "bin" / "python"
RUNS = {
    "ours, on disk": "disk",
    "ours, in memory": "memory",
    "Torch-Pruning, by magnitude": "peer-magnitude",
    "Torch-Pruning, at random": "peer-random",
}
LLAMA_32_1B = {
    "hidden_size": 2048,
    "intermediate_size": 8192,
    "num_hidden_layers": 16,
    "num_attention_heads": 32,
    "num_key_value_heads": 8,
    "head_dim": 64,
    "vocab_size": 128256,
    "tie_word_embeddings": True,
}
TEN_GB = {
    "hidden_size": 4096,
    "intermediate_size": 14336,
    "num_hidden_layers": 19,
    "num_attention_heads": 32,
    "num_key_value_heads": 8,
    "head_dim": 128,
    "vocab_size": 128256,
    "tie_word_embeddings": False,
}
LEAST_FREE = 600 * 2**20  # bytes of the machine's memory at which a run is ended, and tried again
ROOM = 5 * 10**9  # bytes of it that a run waits for
NO_ROOM = "ended: the machine had no memory left"
RANDOM = 2**22  # numbers drawn; every tensor is a stretch of them, over and over


# What runs in a process of its own


def memory(pid: int | str, *names: str) -> list[int]:
    """Bytes of these fields of /proc/PID/status."""
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    told = dict(line.split(":", 1) for line in lines)
    return [int(told[name].split()[0]) * 1024 for name in names]


def half(config: Any) -> Any:
    """A keep at random of half the hidden channels, MLP channels and heads of every group."""
    import torch

    from flyweight.anatomy import family_of
    from flyweight.shrink.importance import Importance

    family = family_of(config)
    old = family.shape_of(config)
    new = old.with_sizes(hidden=old.hidden // 2, mlp=old.mlp // 2, heads=old.heads // 2)
    torch.manual_seed(0)
    scores = Importance(
        layers=torch.rand(old.layers),
        hidden=torch.rand(old.hidden),
        mlp=torch.rand(old.layers, old.mlp),
        values=torch.rand(old.layers, old.kv_groups, old.group_heads, old.head_dim),
        turning=family.turning(config),
    )
    return scores.keep(old, new)


def ours_on_disk(source: Path, out: Path, shard_bytes: int) -> None:
    """Tensor by tensor."""
    from transformers import AutoConfig

    from flyweight.anatomy import family_of
    from flyweight.shrink.stream import cut_folder

    config = AutoConfig.from_pretrained(source)
    cut_folder(source, out, family_of(config), half(config), shard_bytes=shard_bytes)


def ours_in_memory(source: Path, out: Path) -> None:
    """Loaded whole, cut, saved."""
    from transformers import AutoModelForCausalLM

    from flyweight.anatomy import family_of
    from flyweight.shrink.cut import cut_model

    model = AutoModelForCausalLM.from_pretrained(source, dtype="auto")
    cut_model(model, family_of(model.config), half(model.config)).save_pretrained(out)


def peer(source: Path, out: Path, importance: str) -> None:
    """Torch-Pruning's example, but for what the CPU, GQA's config and tied embeddings need."""
    import torch
    import torch_pruning as tp  # type: ignore
    from transformers import AutoModelForCausalLM

    model: Any = AutoModelForCausalLM.from_pretrained(source, dtype="auto").eval()
    model.config.use_cache = False
    num_heads = {}
    for name, module in model.named_modules():
        if name.endswith("self_attn"):
            num_heads[module.q_proj] = model.config.num_attention_heads
            num_heads[module.k_proj] = model.config.num_key_value_heads
            num_heads[module.v_proj] = model.config.num_key_value_heads
    by_magnitude = tp.importance.GroupMagnitudeImportance(p=2, group_reduction="mean")
    pruner = tp.pruner.MetaPruner(
        model,
        example_inputs=torch.tensor([[1, 2, 3, 4]]),
        importance=by_magnitude if importance == "magnitude" else tp.importance.RandomImportance(),
        global_pruning=False,
        pruning_ratio=0.5,
        ignored_layers=[model.lm_head],
        num_heads=num_heads,
        prune_num_heads=True,
        prune_head_dims=False,
        head_pruning_ratio=0.5,
        round_to=4,
        output_transform=lambda said: said.logits,
    )
    for group in pruner.step(interactive=True):
        group.prune()
    layer = model.model.layers[0]
    model.config.hidden_size = model.lm_head.in_features
    model.config.num_attention_heads = layer.self_attn.q_proj.out_features // model.config.head_dim
    model.config.num_key_value_heads = layer.self_attn.k_proj.out_features // model.config.head_dim
    model.config.intermediate_size = layer.mlp.gate_proj.out_features
    model.tie_weights()
    model.save_pretrained(out)


def child(run: str, source: Path, out: Path) -> None:
    """One run; prints what it took as JSON."""
    import torch
    import transformers  # so that loading it counts for nobody

    torch.set_num_threads(1)
    transformers.logging.set_verbosity_error()
    if run.startswith("peer"):
        import_module("torch_pruning")
    else:
        import_module("flyweight.shrink.stream")
        import_module("flyweight.shrink.importance")
    import_module("transformers.models.llama.modeling_llama")
    Path("/proc/self/clear_refs").write_text("5")  # the peak starts from here
    before = dict(zip(("resident", "anonymous"), memory("self", "VmRSS", "RssAnon"), strict=True))
    print(json.dumps(before), flush=True)
    started, at_work = time.perf_counter(), time.process_time()
    if run.startswith("disk"):
        ours_on_disk(source, out, 10**9 if run == "disk-shards" else 5 * 10**9)
    elif run == "memory":
        ours_in_memory(source, out)
    else:
        peer(source, out, run.removeprefix("peer-"))
    took = {
        "seconds": time.perf_counter() - started,
        "cpu": time.process_time() - at_work,
        "resident": memory("self", "VmHWM")[0],
    }
    print(json.dumps(took), flush=True)


# What starts and watches it


@dataclass(frozen=True)
class Cost:
    """What a run took: seconds, those of the processor, bytes above those of its imports."""

    seconds: float
    cpu: float
    resident: int
    anonymous: int


def measure(python: Path, run: str, source: Path, out: Path, limit: float) -> Cost | str:
    """The cost of one run, or why there is none."""
    while available() < ROOM:
        time.sleep(5)
    command = [str(python), __file__, "--child", run, str(source), str(out)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}
    with tempfile.TemporaryFile("w+") as said, tempfile.TemporaryFile("w+") as errors:
        process = subprocess.Popen(command, stdout=said, stderr=errors, env=environment)
        started, anonymous, reason = time.perf_counter(), 0, ""
        while process.poll() is None:
            try:
                anonymous = max(anonymous, *memory(process.pid, "RssAnon"))
            except (OSError, KeyError):
                continue  # it has just ended
            if time.perf_counter() - started > limit:
                reason = f"ended after {limit:.0f} s"
            elif available() < LEAST_FREE:
                reason = NO_ROOM
            if reason:
                process.kill()
                process.wait()
                return reason
            time.sleep(0.02)
        said.seek(0)
        errors.seek(0)
        lines = said.read().splitlines()
        if process.returncode:
            return (errors.read().strip().splitlines() or ["no word"])[-1][:200]
    before, after = [json.loads(line) for line in lines if line.startswith("{")]
    return Cost(
        after["seconds"],
        after["cpu"],
        after["resident"] - before["resident"],
        anonymous - before["anonymous"],
    )


def available() -> int:
    """Bytes that the machine could still give."""
    lines = Path("/proc/meminfo").read_text().splitlines()
    told = dict(line.split(":", 1) for line in lines)
    return int(told["MemAvailable"].split()[0]) * 1024


def write_random(folder: Path, sizes: dict[str, Any]) -> tuple[int, int]:
    """A random Llama in bf16, a shard a block; its bytes, and those of the largest tensor."""
    import torch
    from safetensors.torch import save_file
    from transformers import LlamaConfig

    from flyweight.anatomy import family_of

    config = LlamaConfig(**sizes, dtype="bfloat16", architectures=["LlamaForCausalLM"])
    config.save_pretrained(folder)
    family = family_of(config)
    shards: dict[str, dict[str, tuple[int, ...]]] = {}
    for name, shape in family.tensors(family.shape_of(config), config):
        block = name.split(".")[2] if ".layers." in name else name
        shards.setdefault(block, {})[name] = shape
    torch.manual_seed(0)
    pool = (torch.randn(RANDOM) * 0.02).bfloat16()
    where: dict[str, str] = {}
    for number, shard in enumerate(shards.values(), 1):
        file = f"model-{number:05d}-of-{len(shards):05d}.safetensors"
        tensors = {name: _stretch(pool, shape, "norm" in name) for name, shape in shard.items()}
        save_file(tensors, folder / file, {"format": "pt"})
        where |= dict.fromkeys(shard, file)
    total = sum(file.stat().st_size for file in folder.glob("*.safetensors"))
    index = {"metadata": {"total_size": total}, "weight_map": where}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    largest = max(math.prod(shape) for shard in shards.values() for shape in shard.values())
    return total, 2 * largest


def _stretch(pool: Any, shape: tuple[int, ...], of_norm: bool) -> Any:
    """A tensor out of the pool, from a random place on."""
    import torch

    count = math.prod(shape)
    start = int(torch.randint(len(pool), ()))
    found = torch.empty(count, dtype=pool.dtype)
    done = 0
    while done < count:
        part = pool[start : start + count - done]
        found[done : done + len(part)] = part
        done, start = done + len(part), 0
    return (found + 1 if of_norm else found).view(shape)


def side_by_side(work: Path, python: Path, rounds: int, limit: float) -> None:
    """All runs in turn, and the table."""
    from rich.console import Console
    from rich.table import Table

    total, _ = write_random(work / "source", LLAMA_32_1B)
    found: dict[str, list[Cost]] = {label: [] for label in RUNS}
    failed: dict[str, str] = {}
    counts: dict[str, int] = {}
    for number in range(rounds):
        labels = list(RUNS) if number % 2 == 0 else list(reversed(RUNS))
        for label in labels:
            if label in failed:
                continue
            run, out = RUNS[label], work / "out"
            for file in (work / "source").iterdir():
                file.read_bytes()  # for nobody from the disk
            interpreter = python if run.startswith("peer") else Path(sys.executable)
            cost = measure(interpreter, run, work / "source", out, limit)
            while cost == NO_ROOM:  # taken by others
                shutil.rmtree(out, ignore_errors=True)
                cost = measure(interpreter, run, work / "source", out, limit)
            if isinstance(cost, str):
                failed[label] = cost
            else:
                found[label].append(cost)
                counts[label] = parameters(out)
            print(f"round {number + 1}: {label}: {cost}", flush=True)
            shutil.rmtree(out, ignore_errors=True)
    console = Console(width=110)
    table = Table(title=f"Cut by half, {total / 1e9:.2f} GB, {rounds} rounds: median (range)")
    for heading in ("", "seconds", "of the CPU", "resident, MB", "anonymous, MB", "parameters"):
        table.add_column(heading, justify="left" if not heading else "right")
    for label, costs in found.items():
        if label in failed:
            table.add_row(label, failed[label])
            continue
        table.add_row(
            label,
            spread([cost.seconds for cost in costs]),
            spread([cost.cpu for cost in costs]),
            spread([cost.resident / 1e6 for cost in costs]),
            spread([cost.anonymous / 1e6 for cost in costs]),
            f"{counts[label]:,}",
        )
    console.print(table)
    for peers in [label for label in RUNS if label.startswith("Torch") and found[label]]:
        for ours in [label for label in RUNS if label.startswith("ours") and found[label]]:
            pairs = list(zip(found[ours], found[peers], strict=False))
            shares = {
                "time": [one.seconds / other.seconds for one, other in pairs],
                "CPU time": [one.cpu / other.cpu for one, other in pairs],
                "resident": [one.resident / other.resident for one, other in pairs],
                "anonymous": [one.anonymous / other.anonymous for one, other in pairs],
            }
            told = ", ".join(f"{name} {spread(each, 3)}" for name, each in shares.items())
            console.print(f"{ours} / {peers}: {told}")


def spread(values: list[float], digits: int = 1) -> str:
    """Median, and the range in brackets."""
    middle, low, high = statistics.median(values), min(values), max(values)
    return f"{middle:,.{digits}f} ({low:,.{digits}f}-{high:,.{digits}f})"


def tensors_of(folder: Path) -> Iterator[tuple[str, Any]]:
    """Names and slices of every tensor, by safetensors."""
    from safetensors import safe_open

    for file in sorted(folder.glob("*.safetensors")):
        with safe_open(file, framework="pt") as opened:
            for name in opened.keys():  # noqa: SIM118 (no dict)
                yield name, opened.get_slice(name)


def parameters(folder: Path) -> int:
    """Parameters in a folder's files."""
    return sum(math.prod(part.get_shape()) for _, part in tensors_of(folder))


def huge(work: Path, limit: float) -> None:
    """Ours on 10 GB, with what came out compared with safetensors' and torch's own slices."""
    total, largest = write_random(work / "source", TEN_GB)
    print(f"{total / 1e9:.2f} GB, largest tensor {largest / 1e6:,.0f} MB", flush=True)
    cost = measure(Path(sys.executable), "disk-shards", work / "source", work / "out", limit)
    if isinstance(cost, str):
        raise SystemExit(cost)
    written = sum(file.stat().st_size for file in (work / "out").glob("*.safetensors"))
    print(
        f"{written / 1e9:.2f} GB written in {len(list((work / 'out').glob('*.safetensors')))} "
        f"shards in {cost.seconds:.0f} s, {cost.cpu:.0f} s of the CPU\n"
        f"peak {cost.resident / 1e6:,.0f} MB resident, {cost.anonymous / 1e6:,.0f} MB anonymous, "
        f"above the imports; twice the largest tensor is {2 * largest / 1e6:,.0f} MB: "
        f"{cost.resident / 2 / largest:.2f} of it"
    )
    print(f"{check(work / 'source', work / 'out')} tensors equal torch's own slices")


def check(source: Path, out: Path) -> int:
    """How many tensors are what plain indexing gives: those outside blocks and of two blocks."""
    import torch
    from transformers import AutoConfig

    keep = half(AutoConfig.from_pretrained(source))
    width, groups = keep.old.head_dim, keep.old.group_heads
    cut, equal = dict(tensors_of(out)), 0
    for name, part in tensors_of(source):
        layer = int(name.split(".")[2]) if ".layers." in name else None
        if layer not in (None, 0, keep.old.layers - 1):
            continue
        found, wanted = cut[name][:], part[:]
        heads = torch.tensor([])
        if layer is not None:
            places = keep.group_heads[layer] + groups * torch.arange(keep.old.kv_groups)[:, None]
            heads = (places.flatten()[:, None] * width + torch.arange(width)).flatten()
        if wanted.dim() == 1:
            assert torch.equal(found, (wanted[keep.hidden].float() * 2**0.5).bfloat16()), name
        else:
            rows = {"q_proj": heads, "o_proj": keep.hidden, "down_proj": keep.hidden}
            columns = {"o_proj": heads}
            if layer is not None:
                rows |= dict.fromkeys(("gate_proj", "up_proj"), keep.mlp[layer])
                columns["down_proj"] = keep.mlp[layer]
            kind = name.split(".")[-2]
            wanted = wanted[rows.get(kind, torch.arange(len(wanted)))]
            assert torch.equal(found, wanted[:, columns.get(kind, keep.hidden)]), name
        equal += 1
    return equal


def main() -> None:
    """Read the options, and run."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--child", nargs=3, help=argparse.SUPPRESS)
    parser.add_argument("--huge", action="store_true")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--limit", type=float, default=1800, help="seconds, for one run")
    parser.add_argument("--peer", type=Path, default=PEER, help="its Python")
    parser.add_argument("--work", type=Path, default=Path(tempfile.gettempdir()))
    options = parser.parse_args()
    if options.child:
        run, source, out = options.child
        child(run, Path(source), Path(out))
        return
    if not options.huge and not options.peer.exists():
        lines = (__doc__ or "").splitlines()
        raise SystemExit(f"{options.peer} is not there. First:\n" + "\n".join(lines[2:4]))
    with tempfile.TemporaryDirectory(dir=options.work) as work:
        (Path(work) / "source").mkdir()
        if options.huge:
            huge(Path(work), options.limit)
        else:
            side_by_side(Path(work), options.peer, options.rounds, options.limit)


if __name__ == "__main__":
    main()
