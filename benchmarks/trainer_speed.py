"""How many tokens a second does a whole distillation step take, beside a plain loop and TRL's?

    python benchmarks/trainer_speed.py                # the demo's teacher and a student
    python benchmarks/trainer_speed.py --case wide    # drawn at random, 32,768 tokens

Forward KL from a teacher that runs in each step, on the answers alone; the same models, rows and
order of batches, weights in fp32 and products in bf16, AdamW, gradients clipped. `ours` is
distill/trainer.py; `plain` a loop as everybody writes it, with full logits, and with attention
either as transformers chooses it or plain as ours does on short rows; `trl` is GKDTrainer at
lmbda 0 and beta 0, without the gradient checkpointing that it would do by itself. Each run is a
process of its own, the arms in turn. A step's time is from its start to that of the next, in CPU
seconds with one thread, since other work may share the cores; the first few are left out. Ratios
are taken step by step, on the same batch; the interval is a bootstrap over steps.
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import random
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

HERE = Path(__file__).parent
PEERS = HERE / ".venv-kd/bin/python"
ARMS = ("ours", "plain", "plain, eager", "trl")
BATCH, RATE, WARM = 32, 1e-3, 5
DEMO = HERE.parent / "src/flyweight/demo/teacher"
SIZES = {"layers": 2, "hidden": 192, "mlp": 768}  # of the demo's student: 1.57 M parameters
RESAMPLES = 2000

Clock = Callable[[], None]


# ---------------------------------------------------------------- the case


def prepare(case: str, folder: Path, steps: int) -> None:
    """Teacher and student as folders, and the rows in the order in which they are trained on."""
    from flyweight.distill.order import batch_order

    rows = demo(folder) if case == "demo" else wide(folder)
    lengths = [len(row["ids"]) for row in rows]
    order = batch_order(lengths, steps, BATCH, 0)
    told = {"rows": rows, "order": order, "steps": steps}
    (folder / "rows.json").write_text(json.dumps(told), encoding="utf-8")


def demo(folder: Path) -> list[dict[str, Any]]:
    """The embedded teacher, a student cut from it, and the work orders."""
    from flyweight.checkpoint import open_checkpoint, save_checkpoint
    from flyweight.demo.orders import write_task
    from flyweight.shrink.calibrate import measure_importance
    from flyweight.shrink.cut import cut_model
    from flyweight.tasks.encode import encode_items
    from flyweight.tasks.read import read_task

    source = open_checkpoint(DEMO)
    model, tokenizer = source.model(), source.tokenizer()
    write_task(folder / "task.jsonl")
    task = read_task(folder / "task.jsonl")
    examples = encode_items(tokenizer, task.train[:1600], task.name, source.context)
    sequences = [each.ids.tolist() for each in examples[:32]]
    keep = measure_importance(model, source.family, sequences).keep(
        source.shape, source.shape.with_sizes(**SIZES)
    )
    save_checkpoint(cut_model(model, source.family, keep), tokenizer, folder / "student")
    save_checkpoint(model, tokenizer, folder / "teacher")
    return [{"ids": each.ids.tolist(), "prompt": each.prompt_length} for each in examples]


def wide(folder: Path) -> list[dict[str, Any]]:
    """Two Llamas drawn at random whose vocabulary weighs more than all else, and random rows."""
    import torch
    from transformers import AutoTokenizer, LlamaConfig, LlamaForCausalLM

    torch.manual_seed(0)
    for name, width, layers in (("teacher", 512, 4), ("student", 256, 2)):
        config = LlamaConfig(
            vocab_size=32_768, hidden_size=width, intermediate_size=3 * width,
            num_hidden_layers=layers, num_attention_heads=width // 64, num_key_value_heads=2,
            head_dim=64, tie_word_embeddings=True, bos_token_id=0, eos_token_id=1, pad_token_id=2,
        )  # fmt: skip
        LlamaForCausalLM(config).save_pretrained(folder / name)
        AutoTokenizer.from_pretrained(DEMO).save_pretrained(folder / name)
    lot = random.Random(0)
    return [
        {"ids": [lot.randrange(3, 32_768) for _ in range(lot.randint(48, 80))], "prompt": 16}
        for _ in range(320)
    ]


# ---------------------------------------------------------------- the arms, each in a process


def load(folder: Path, name: str) -> Any:
    from transformers import AutoModelForCausalLM

    return AutoModelForCausalLM.from_pretrained(folder / name, dtype="float32")


def ours(folder: Path, told: dict[str, Any], tick: Clock) -> None:
    """Flyweight's trainer; the rows in its own order, which is the one told."""
    import numpy as np

    from flyweight.distill.divergences import Blend
    from flyweight.distill.live import LiveDistillation
    from flyweight.distill.trainer import Schedule, train

    rows = []
    for row in told["rows"]:
        weights = np.ones(len(row["ids"]), dtype=np.float32)
        weights[: row["prompt"]] = 0
        rows.append({"input_ids": np.array(row["ids"], dtype=np.int32), "weights": weights})
    judge = LiveDistillation(load(folder, "teacher"), Blend())

    class Timed:
        teacher = judge.teacher

        def __call__(self, model: Any, batch: Any) -> Any:
            tick()
            return judge(model, batch)

    schedule = Schedule(told["steps"], BATCH, RATE, seed=0)
    train(load(folder, "student"), rows, Timed(), schedule, "")


def padded(rows: list[dict[str, Any]]) -> dict[str, Any]:
    """A batch as trainers take it, padded on the right."""
    import torch

    ids = torch.zeros(len(rows), max(len(row["ids"]) for row in rows), dtype=torch.long)
    mask, labels = torch.zeros_like(ids), torch.full_like(ids, -100)
    for place, row in enumerate(rows):
        length, said = len(row["ids"]), torch.tensor(row["ids"])
        ids[place, :length], mask[place, :length] = said, 1
        labels[place, row["prompt"] : length] = said[row["prompt"] :]
    prompts = {"prompts": ids[:, :1], "prompt_attention_mask": mask[:, :1]}  # not looked at
    return {"input_ids": ids, "attention_mask": mask, "labels": labels} | prompts


def plain(folder: Path, told: dict[str, Any], tick: Clock, attention: str | None = None) -> None:
    """Full logits and torch's own operations."""
    import torch
    import torch.nn.functional as F

    student, teacher = load(folder, "student").train(), load(folder, "teacher").eval()
    if attention is not None:
        student.set_attn_implementation(attention)
        teacher.set_attn_implementation(attention)
    optimizer = torch.optim.AdamW(student.parameters(), RATE, weight_decay=0.01, fused=True)
    rows = [told["rows"][place] for place in told["order"]]
    for start in range(0, len(rows), BATCH):
        tick()
        batch = padded(rows[start : start + BATCH])
        wanted = batch["labels"][:, 1:] != -100
        with torch.autocast("cpu", torch.bfloat16):
            said = student(batch["input_ids"], use_cache=False).logits[:, :-1]
            with torch.no_grad():
                theirs = teacher(batch["input_ids"], use_cache=False).logits[:, :-1]
        log_q = said[wanted].float().log_softmax(-1)
        log_p = theirs[wanted].float().log_softmax(-1)
        F.kl_div(log_q, log_p, reduction="batchmean", log_target=True).backward()
        torch.nn.utils.clip_grad_norm_(student.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()


def trl(folder: Path, told: dict[str, Any], tick: Clock) -> None:
    """TRL's trainer on the same batches."""
    from datasets import Dataset
    from transformers import AutoTokenizer, TrainerCallback
    from trl.experimental.gkd import GKDConfig, GKDTrainer

    class Ticks(TrainerCallback):
        def on_step_begin(self, *_: Any, **__: Any) -> None:
            tick()

    arguments = GKDConfig(
        output_dir=str(folder / "trl"), max_steps=told["steps"], per_device_train_batch_size=BATCH,
        learning_rate=RATE, lmbda=0.0, beta=0.0, temperature=1.0, bf16=True, use_cpu=True,
        gradient_checkpointing=False, optim="adamw_torch_fused", save_strategy="no",
        report_to="none", logging_steps=10_000, disable_tqdm=True,
        train_sampling_strategy="sequential", weight_decay=0.01, dataloader_pin_memory=False,
    )  # fmt: skip
    trainer = GKDTrainer(
        model=load(folder, "student"),
        teacher_model=load(folder, "teacher"),
        args=arguments,
        data_collator=padded,
        train_dataset=Dataset.from_list([told["rows"][place] for place in told["order"]]),
        processing_class=AutoTokenizer.from_pretrained(folder / "teacher"),
        callbacks=[Ticks()],
    )
    trainer.train()


def child(arm: str, folder: Path) -> None:
    """One arm's run; prints the CPU and wall seconds of each step but the last."""
    import torch

    torch.set_num_threads(1)
    told = json.loads((folder / "rows.json").read_text(encoding="utf-8"))
    cpu: list[float] = []
    wall: list[float] = []

    def tick() -> None:
        cpu.append(time.process_time())
        wall.append(time.perf_counter())

    if arm == "ours":
        ours(folder, told, tick)
    elif arm == "trl":
        trl(folder, told, tick)
    else:
        plain(folder, told, tick, "eager" if "eager" in arm else None)
    print(json.dumps({"cpu": between(cpu), "wall": between(wall)}))


def between(times: list[float]) -> list[float]:
    return [after - before for before, after in itertools.pairwise(times)]


# ---------------------------------------------------------------- the parent


def runs(
    arms: list[str], folder: Path, rounds: int
) -> Iterator[tuple[str, dict[str, list[float]]]]:
    """Each arm's steps, the arms in turn, there and back."""
    environment = os.environ | {"OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}
    for number in range(rounds):
        for arm in arms if number % 2 == 0 else arms[::-1]:
            python = str(PEERS) if arm == "trl" else sys.executable
            command = [python, __file__, "--child", arm, "--folder", str(folder)]
            done = subprocess.run(
                command, capture_output=True, text=True, env=environment, check=False
            )
            if done.returncode:
                raise SystemExit(f"{arm}: {done.stderr[-2000:]}")
            steps = json.loads(done.stdout.splitlines()[-1])
            yield arm, {name: each[WARM:] for name, each in steps.items()}


def interval(ratios: list[float]) -> tuple[float, float]:
    """Of the median, 95 %."""
    lot = random.Random(0)
    medians = sorted(
        statistics.median(lot.choices(ratios, k=len(ratios))) for _ in range(RESAMPLES)
    )
    return medians[round(0.025 * RESAMPLES)], medians[round(0.975 * RESAMPLES) - 1]


def report(case: str, folder: Path, found: dict[str, dict[str, list[float]]]) -> None:
    """The table."""
    told = json.loads((folder / "rows.json").read_text(encoding="utf-8"))
    batches = [
        told["order"][start : start + BATCH] for start in range(0, len(told["order"]), BATCH)
    ]
    counts = [sum(len(told["rows"][place]["ids"]) for place in batch) for batch in batches]
    tokens = sum(counts[WARM:-1]) / len(counts[WARM:-1])  # of a step
    print(f"\n{case}: {tokens:,.0f} tokens a step, {len(found['ours']['cpu'])} steps an arm")
    print("| arm | tokens/s, CPU | tokens/s, wall | ours has so many times as many (95 %) |")
    print("|---|---|---|---|")
    for arm, steps in found.items():
        cpu, wall = (tokens / statistics.median(steps[name]) for name in ("cpu", "wall"))
        pairs = zip(steps["cpu"], found["ours"]["cpu"], strict=True)
        ratios = [theirs / own for theirs, own in pairs]
        low, high = interval(ratios)
        ratio = f"{statistics.median(ratios):.2f} ({low:.2f} to {high:.2f})"
        print(f"| {arm} | {cpu:,.0f} | {wall:,.0f} | {'' if arm == 'ours' else ratio} |")


def main() -> None:
    """Measure, and print the table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--case", choices=("demo", "wide"), default="demo")
    parser.add_argument("--rounds", type=int, default=4)
    parser.add_argument("--steps", type=int, default=26, help="of a run")
    parser.add_argument("--arms", nargs="+", choices=ARMS, default=list(ARMS))
    parser.add_argument("--child", choices=ARMS, help=argparse.SUPPRESS)
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.child:
        child(options.child, options.folder)
        return
    arms = options.arms
    if "trl" in arms and not PEERS.exists():
        print(f"Without TRL. For it: python3 -m venv {PEERS.parents[1]}\n"
              f"{PEERS.parent}/pip install -r {HERE}/requirements-kd.txt")  # fmt: skip
        arms = [arm for arm in arms if arm != "trl"]
    with TemporaryDirectory() as scratch:
        folder = Path(scratch)
        prepare(options.case, folder, options.steps)
        found: dict[str, dict[str, list[float]]] = {arm: {"cpu": [], "wall": []} for arm in arms}
        for arm, steps in runs(arms, folder, options.rounds):
            for name, each in steps.items():
                found[arm][name] += each
            print(f"  {arm}: {statistics.median(steps['cpu']) * 1e3:.0f} ms a step", flush=True)
        report(options.case, folder, found)


if __name__ == "__main__":
    main()
