"""What does a big teacher take that is only read, beside the same one loaded in fp32?

    python benchmarks/big_teacher.py                                    # 1.76 G parameters
    python benchmarks/big_teacher.py --layers 32 --vocabulary 128256    # Llama 3.1 8B

A Llama of that width is drawn at random and written in bf16, 2 bytes a parameter. Each arm, in a
process of its own and in turn, opens it and has its word on some tokens recorded, as `make` and
`distill` do: `mapped` as they do it, `held` as transformers loads it in fp32. Read are the largest
private memory of the process (what of a file is mapped the system can drop), the time to open it
and to record, and whether both said the same to the bit. With --products 32 nothing is multiplied
in bf16, as on a processor that cannot. An arm that would not fit the free memory is left out,
which is said.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import subprocess
import sys
import threading
import time
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Self

ARMS = ("mapped", "held")
WIDTH = {"hidden_size": 4096, "intermediate_size": 14336, "num_attention_heads": 32}
ROWS = 16
RESERVE = 2 * 2**30  # bytes that stay free for others


def draw(folder: Path, layers: int, vocabulary: int) -> int:
    """Write the teacher in files of 2 GB, a tensor at a time; its parameters."""
    import torch
    from safetensors.torch import save_file
    from transformers import LlamaConfig, LlamaForCausalLM

    config = LlamaConfig(
        **WIDTH, num_key_value_heads=8, num_hidden_layers=layers, vocab_size=vocabulary,
        dtype="bfloat16", architectures=["LlamaForCausalLM"],
    )  # fmt: skip
    with torch.device("meta"):
        shapes = {name: each.shape for name, each in LlamaForCausalLM(config).named_parameters()}
    generator, shard, places = torch.Generator().manual_seed(0), {}, {}
    for name, shape in shapes.items():
        weight = torch.ones(shape, dtype=torch.bfloat16)
        shard[name] = weight if "norm" in name else weight.normal_(0, 0.02, generator=generator)
        if name == list(shapes)[-1] or sum(each.nbytes for each in shard.values()) > 2e9:
            file = f"model-{len(set(places.values())):05d}.safetensors"
            save_file(shard, folder / file, {"format": "pt"})
            places |= dict.fromkeys(shard, file)
            shard = {}
    (folder / "model.safetensors.index.json").write_text(
        json.dumps({"metadata": {}, "weight_map": places})
    )
    config.save_pretrained(folder)
    return sum(shape.numel() for shape in shapes.values())


def private() -> int:
    """Bytes of this process that are no file's."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return 1024 * next(int(line.split()[1]) for line in lines if line.startswith("RssAnon"))


class Highest:
    """The largest private memory while it watches."""

    def __init__(self) -> None:
        self.bytes, self._done = private(), threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)

    def _watch(self) -> None:
        while not self._done.wait(0.02):
            self.bytes = max(self.bytes, private())

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._done.set()
        self._thread.join()


def child(arm: str, folder: Path, tokens: int, products: int) -> None:
    """One arm; prints a line of JSON."""
    import numpy as np
    import torch

    from flyweight import checkpoint
    from flyweight.checkpoint import open_checkpoint
    from flyweight.distill import trainer
    from flyweight.distill.teacher import record_teacher

    if products == 32:
        trainer.fast_dtype = lambda device="cpu": torch.float32
    checkpoint.MAPPED = 0
    source = open_checkpoint(folder)
    lot = np.random.default_rng(0)
    ids = lot.integers(0, source.config.vocab_size, (ROWS, tokens // ROWS), dtype=np.int32)
    rows: list[dict[str, Any]] = [
        {"input_ids": each, "weights": np.ones(len(each), dtype=np.float32)} for each in ids
    ]
    with Highest() as highest:
        started = time.perf_counter()
        teacher = source.frozen() if arm == "mapped" else source.model()
        opened, cpu = time.perf_counter(), time.process_time()
        said = record_teacher(teacher, rows)
        seconds = time.process_time() - cpu
    digest = hashlib.sha256()
    for row in said:
        for key in ("top", "indices", "tail"):
            digest.update(row[key].numpy().tobytes())
    found = {"private": highest.bytes, "open": opened - started, "record": seconds}
    print(json.dumps(found | {"said": digest.hexdigest()[:16]}))


def available() -> int:
    """Bytes of memory that can still be had."""
    lines = Path("/proc/meminfo").read_text().splitlines()
    return 1024 * next(int(line.split()[1]) for line in lines if line.startswith("MemAvailable"))


def main() -> None:
    """Draw the teacher, run the arms, print the table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--layers", type=int, default=8)
    parser.add_argument("--vocabulary", type=int, default=2048)
    parser.add_argument("--tokens", type=int, default=2048)
    parser.add_argument("--products", type=int, choices=(16, 32), default=16)
    parser.add_argument("--folder", type=Path, help="where the teacher is drawn")
    parser.add_argument("--child", choices=ARMS, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.child:
        child(options.child, options.folder, options.tokens, options.products)
        return
    with TemporaryDirectory(dir=options.folder) as scratch:
        parameters = draw(Path(scratch), options.layers, options.vocabulary)
        print(f"{parameters / 1e9:.2f} G parameters, {options.tokens:,} tokens, products in "
              f"{options.products} bits")  # fmt: skip
        print("| arm | private GB | opened in s | recorded in CPU s | said |")
        print("|---|---|---|---|---|")
        for arm in ARMS:
            if arm == "held" and 4 * parameters + RESERVE > available():
                print(f"| {arm} | left out: {4 * parameters / 1e9:.0f} GB are not free | | | |")
                continue
            command = [sys.executable, __file__, "--child", arm, "--folder", scratch]
            command += ["--tokens", str(options.tokens), "--products", str(options.products)]
            done = subprocess.run(command, capture_output=True, text=True, check=False)
            if done.returncode:
                raise SystemExit(done.stderr[-2000:])
            found = json.loads(done.stdout.splitlines()[-1])
            print(f"| {arm} | {found['private'] / 1e9:.2f} | {found['open']:.1f} "
                  f"| {found['record']:.0f} | {found['said']} |", flush=True)  # fmt: skip


if __name__ == "__main__":
    main()
