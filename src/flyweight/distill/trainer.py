"""The one trainer: transformers' Trainer with an objective for a loss. Nothing else imports it."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import transformers
from torch import Tensor, nn
from transformers import Trainer, TrainerCallback, TrainingArguments

from flyweight.distill.losses import Batch, Objective
from flyweight.progress import Bar, bar

Row = dict[str, Any]


@dataclass(frozen=True)
class Schedule:
    """How long and how fast to train: `steps` of `batch_size` rows, linear decay to zero.

    `stop` ends it after that many steps, the rate still on its way down.
    """

    steps: int
    batch_size: int = 32
    learning_rate: float = 1e-3
    warmup: float = 0.05
    weight_decay: float = 0.01
    seed: int = 0
    stop: int | None = None

    @property
    def last(self) -> int:
        """How many steps are taken."""
        return self.steps if self.stop is None else min(self.stop, self.steps)


POOL = 8  # batches among which rows are sorted by length
SHORT = 512  # tokens up to which plain attention trains faster on a CPU than the fused kind: 1.7x


def batch_order(lengths: Sequence[int], steps: int, batch_size: int, seed: int) -> list[int]:
    """Places of the rows to train on, `steps` x `batch_size` of them, epoch after epoch shuffled.

    A batch holds rows of like length, to pad little; the batches themselves come in random order,
    since long runs of only short or only long rows pull a model to and fro. The few rows that are
    left at the end of an epoch share a batch with the first of the next.
    """
    generator = np.random.default_rng(seed)
    wanted = steps * batch_size
    order: list[int] = []
    while len(order) < wanted:
        epoch = generator.permutation(len(lengths)).tolist()
        gap = -len(order) % batch_size
        order += epoch[:gap]
        order += _batched(epoch[gap:], lengths, batch_size, generator)
    return order[:wanted]


def _batched(
    places: list[int], lengths: Sequence[int], batch_size: int, generator: np.random.Generator
) -> list[int]:
    """The places in batches of like length, in random order; what fills no batch comes last."""
    pool = POOL * batch_size
    whole = len(places) - len(places) % batch_size
    batches: list[list[int]] = []
    for start in range(0, whole, pool):
        by_length = sorted(places[start : min(start + pool, whole)], key=lengths.__getitem__)
        batches += [by_length[i : i + batch_size] for i in range(0, len(by_length), batch_size)]
    shuffled = [batches[i] for i in generator.permutation(len(batches))]
    return [place for batch in shuffled for place in batch] + places[whole:]


def collate(rows: Sequence[Row]) -> Batch:
    """Rows as one right-padded batch; the teacher's rows, where present, laid end to end."""
    length = max(len(row["input_ids"]) for row in rows)
    ids = torch.zeros(len(rows), length, dtype=torch.long)
    weights = torch.zeros(len(rows), length)
    for i, row in enumerate(rows):
        ids[i, : len(row["input_ids"])] = torch.as_tensor(row["input_ids"])
        weights[i, : len(row["weights"])] = torch.as_tensor(row["weights"])
    batch = {"input_ids": ids, "weights": weights}
    for key in ("top", "indices"):
        if key in rows[0]:
            batch[key] = torch.cat([row[key] for row in rows])
    return batch


def fast_dtype() -> torch.dtype:
    """bfloat16 where the processor computes in it, else float32."""
    capabilities = getattr(torch.cpu, "get_capabilities", dict)()  # older torch does not tell
    if torch.cuda.is_available() or capabilities.get("avx512_bf16"):
        return torch.bfloat16
    return torch.float32


def fast_math(ids: Tensor) -> torch.autocast:
    """Computes in the processor's fast type what is computed within, on the device of `ids`."""
    dtype = fast_dtype()
    return torch.autocast(ids.device.type, dtype, enabled=dtype != torch.float32)


def train(
    model: Any, rows: Sequence[Row], objective: Objective, schedule: Schedule, title: str
) -> list[float]:
    """Train `model` in place; returns the loss of every step, in nats."""
    lengths = [len(row["input_ids"]) for row in rows]
    order = batch_order(lengths, schedule.steps, schedule.batch_size, schedule.seed)
    mean_weight = float(np.mean([np.sum(row["weights"][1:]) for row in rows]))
    attention = model.config._attn_implementation
    if not torch.cuda.is_available() and max(lengths) <= SHORT:
        model.set_attn_implementation("eager")
    model.train()
    with tempfile.TemporaryDirectory() as scratch, bar(title, schedule.last) as running:
        arguments = TrainingArguments(
            output_dir=scratch,
            max_steps=schedule.steps,
            per_device_train_batch_size=schedule.batch_size,
            learning_rate=schedule.learning_rate,
            lr_scheduler_type="linear",
            warmup_steps=round(schedule.warmup * schedule.steps),
            weight_decay=schedule.weight_decay,
            adam_beta2=0.95,
            optim="adamw_torch_fused",
            seed=schedule.seed,
            train_sampling_strategy="sequential",
            remove_unused_columns=False,
            logging_strategy="steps",
            logging_steps=1,
            save_strategy="no",
            report_to="none",
            disable_tqdm=True,
            dataloader_pin_memory=torch.cuda.is_available(),
            use_cpu=not torch.cuda.is_available(),
        )
        watch = _Watch(running, schedule.last)
        trainer = _ObjectiveTrainer(
            model=model,
            args=arguments,
            train_dataset=[rows[i] for i in order],  # type: ignore[arg-type]
            data_collator=collate,
            callbacks=[watch],
        )
        trainer.objective = objective
        trainer.total = mean_weight * schedule.batch_size
        trainer.remove_callback(transformers.PrinterCallback)
        trainer.train()
    model.to("cpu").eval()
    model.set_attn_implementation(attention)
    return watch.losses


class _ObjectiveTrainer(Trainer):
    """Trainer whose loss is an objective, computed in the processor's fast type."""

    objective: Objective
    total: float

    def compute_loss(self, model: nn.Module, inputs: Batch, return_outputs=False, **_: Any):  # type: ignore[override]
        # every token counts the same, whatever the lengths of the others in its batch
        inputs["total"] = torch.tensor(self.total)
        with fast_math(inputs["input_ids"]):
            return self.objective(model, inputs)


class _Watch(TrainerCallback):
    """Moves the bar, keeps the losses, and ends after the last step."""

    def __init__(self, running: Bar, last: int) -> None:
        self.running, self.last = running, last
        self.losses: list[float] = []

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        self.running.advance()
        control.should_training_stop |= state.global_step >= self.last

    def on_log(self, args: Any, state: Any, control: Any, logs: Any = None, **_: Any) -> None:
        if logs and "loss" in logs:
            self.losses.append(float(logs["loss"]))
            self.running.note(f"loss {self.losses[-1]:.3f}")
