"""The one trainer: transformers' Trainer with an objective for a loss. Nothing else imports it."""

from __future__ import annotations

import shutil
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import transformers
from torch import Tensor, nn
from transformers import Trainer, TrainerCallback, TrainingArguments

from flyweight.distill.attached import attached, with_learned
from flyweight.distill.losses import MULTIPLE, Batch, Objective
from flyweight.distill.muon import MuonAndAdamW
from flyweight.distill.order import Batches
from flyweight.distill.parts import at_once, parts
from flyweight.distill.resume import (
    READ,
    Checkpoint,
    Reading,
    Trained,
    load_weights,
    losses_of,
    newest_checkpoint,
    readings_of,
    save_weights,
)
from flyweight.folder import disk_errors, seal
from flyweight.progress import Bar, bar

Row = dict[str, Any]
SAVE_EVERY = 30.0  # seconds between checkpoints at the least; they change nothing in the result


@dataclass(frozen=True)
class Schedule:
    """How long and how fast to train: `steps` of `batch_size` rows, linear decay to zero.

    `stop` ends it after that many steps, the rate still on its way down. `muon` is for networks
    that learn from scratch (muon.py); else all is AdamW's.
    """

    steps: int
    batch_size: int = 32
    learning_rate: float = 1e-3
    warmup: float = 0.05
    weight_decay: float = 0.01
    seed: int = 0
    stop: int | None = None
    muon: bool = False

    @property
    def last(self) -> int:
        """How many steps are taken."""
        return self.steps if self.stop is None else min(self.stop, self.steps)


@dataclass(frozen=True)
class Probe:
    """What is read off the model on the way: after each of `steps`, some named numbers."""

    steps: frozenset[int]
    read: Callable[[Any], Reading]


# Tokens up to which plain attention trains faster on a CPU than the fused kind: 1.7 times at 128,
# at 512 it is the other way round.
SHORT = 200
# The same of a picture's tokens, which all see each other: 1.5 times at 400, half as fast at 3,000.
SHORT_BESIDES = 1000


def collate(rows: Sequence[Row]) -> Batch:
    """Rows as one right-padded batch; what the teacher said, where present, laid end to end.

    Where rows have a `prompt_length`, the batch has `prompt_lengths` int64 [B]; where they have
    `position_ids` (packing.py), it has those too, int64 [B, T], which go on over the padding; where
    they have the number of a `picture`, those, int64 [B]. Of rows with a `label` labels.py tells.
    """
    length = max(len(row["input_ids"]) for row in rows)
    length += -length % MULTIPLE
    ids = torch.zeros(len(rows), length, dtype=torch.long)
    weights = torch.zeros(len(rows), length)
    for i, row in enumerate(rows):
        ids[i, : len(row["input_ids"])] = torch.as_tensor(row["input_ids"])
        weights[i, : len(row["weights"])] = torch.as_tensor(row["weights"])
    batch = {"input_ids": ids, "weights": weights}
    for key in ("top", "indices", "tail"):
        if key in rows[0]:
            batch[key] = torch.cat([row[key] for row in rows])
    if "position_ids" in rows[0]:
        batch["position_ids"] = _positions(rows, length)
    if "label" in rows[0]:
        batch["labels"] = torch.tensor([row["label"] for row in rows])
        batch["lengths"] = torch.tensor([len(row["input_ids"]) for row in rows])
    if "said" in rows[0]:
        batch["said"] = torch.stack([torch.as_tensor(row["said"]) for row in rows])
    if "picture" in rows[0]:
        batch["picture"] = torch.tensor([row["picture"] for row in rows])
    if "prompt_length" in rows[0]:
        batch["prompt_lengths"] = torch.tensor([row["prompt_length"] for row in rows])
    return batch


def _positions(rows: Sequence[Row], length: int) -> Tensor:
    """Positions int64 [B, length]; the padding belongs to the last document of its row."""
    positions = torch.zeros(len(rows), length, dtype=torch.long)
    for i, row in enumerate(rows):
        own = torch.as_tensor(row["position_ids"])
        positions[i, : len(own)] = own
        positions[i, len(own) :] = own[-1] + 1 + torch.arange(length - len(own))
    return positions


def fast_dtype(device: str = "cpu") -> torch.dtype:
    """bfloat16 where a device computes in it, else float32."""
    capabilities = getattr(torch.cpu, "get_capabilities", dict)()  # older torch does not tell
    if device == "cuda" or (device == "cpu" and capabilities.get("avx512_bf16")):
        return torch.bfloat16
    return torch.float32


def fast_math(ids: Tensor) -> torch.autocast:
    """Computes in its device's fast type what is computed within, on the device of `ids`."""
    dtype = fast_dtype(ids.device.type)
    return torch.autocast(ids.device.type, dtype, enabled=dtype != torch.float32)


def train(
    model: Any,
    rows: Sequence[Row] | Batches,
    objective: Objective,
    schedule: Schedule,
    title: str,
    *,
    keep: Path | None = None,
    until: int | None = None,
    probe: Probe | None = None,
) -> Trained:
    """Train `model` in place to the schedule's last step, or to step `until` of it.

    `rows` come in batches of the schedule's size, or in Batches for as many steps.
    What the objective brings with it (attached.py) is trained and kept in checkpoints as well.
    With `keep` the training leaves checkpoints in that folder and goes on from the newest whole
    one, to the very weights that an uninterrupted run would give; a folder that is there already
    only has its checkpoint read. Raises NoSpace or FolderError when it cannot be written.
    """
    last = schedule.last if until is None else min(until, schedule.last)
    done = newest_checkpoint(keep) if keep else None
    if done is not None and done.step >= last:
        with with_learned(model, objective):
            load_weights(model, done.path)
        model.eval()
        return done.trained().until(last)
    with tempfile.TemporaryDirectory() as scratch:
        folder = keep or Path(scratch)
        with disk_errors(folder), bar(title, last) as running:
            watch = _Watch(running, last, probe, keep is not None, done.seconds if done else 0.0)
            batches = rows if isinstance(rows, Batches) else _batches(rows, schedule)
            _run(model, batches, objective, schedule, folder, watch, done)
    return Trained(last, watch.losses, watch.readings, watch.seconds)


def _batches(rows: Sequence[Row], schedule: Schedule) -> Batches:
    return Batches.of(rows, schedule.steps, schedule.batch_size, schedule.seed)


def _run(
    model: Any,
    batches: Batches,
    objective: Objective,
    schedule: Schedule,
    folder: Path,
    watch: _Watch,
    done: Checkpoint | None,
) -> None:
    steps = [[batches.rows[place] for place in batch] for batch in batches.places]
    arguments = _arguments(folder, schedule)
    besides = getattr(objective, "tokens_besides", 0)
    short = batches.usual_length <= SHORT and besides <= SHORT_BESIDES
    plain = short and not torch.cuda.is_available()
    device, dtype = arguments.device, fast_dtype(arguments.device.type)
    with attached(model, objective, device, dtype, plain_attention=plain):
        model.train()
        trainer = _ObjectiveTrainer(
            model=model,
            args=arguments,
            train_dataset=steps,  # type: ignore[arg-type]
            data_collator=lambda batch: collate(*batch),  # of one step
            callbacks=[watch],
        )
        trainer.objective, trainer.besides = objective, besides
        trainer.total = batches.total
        trainer.probe = watch.probe
        trainer.muon = schedule.muon
        trainer.remove_callback(transformers.PrinterCallback)
        trainer.train(resume_from_checkpoint=str(done.path) if done else None)


def _arguments(folder: Path, schedule: Schedule) -> TrainingArguments:
    arguments = TrainingArguments(
        output_dir=str(folder),
        max_steps=schedule.steps,
        per_device_train_batch_size=1,  # all rows of a step as one, since their number may differ
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
    if arguments.n_gpu > 1:  # else Trainer splits batches, whose parts do not belong together
        arguments._n_gpu = 1
    return arguments


class _ObjectiveTrainer(Trainer):
    """Trainer whose loss is an objective, computed in the processor's fast type."""

    objective: Objective
    besides: int
    total: float
    probe: Probe | None
    muon = False

    def create_optimizer(self, model: Any = None) -> torch.optim.Optimizer:
        if self.muon and self.optimizer is None:
            args, trained = self.args, self.model
            assert trained is not None
            decayed = set(self.get_decay_parameter_names(trained))
            self.optimizer = MuonAndAdamW(
                trained, args.learning_rate, args.weight_decay, args.adam_beta2, decayed
            )
        return super().create_optimizer(model)

    def training_step(self, model: nn.Module, inputs: Batch, *rest: Any) -> Tensor:  # type: ignore[override]
        # every token counts the same, whatever the lengths of the others in its batch
        inputs["total"] = torch.tensor(self.total)
        most = at_once(self.args.device)
        losses = [super(_ObjectiveTrainer, self).training_step(model, part, *rest)
                  for part in parts(inputs, most, self.besides)]  # fmt: skip
        return torch.stack(losses).sum()

    def _save(self, output_dir: str | None = None, state_dict: Any = None) -> None:
        """A checkpoint's weights, by their names in memory, by which they are loaded again.

        Of some families (mixtures, Mllama) transformers' own has other names and shapes, which its
        Trainer then passes over without a word.
        """
        save_weights(self.model, Path(output_dir or self.args.output_dir or "."))

    def _load_from_checkpoint(self, resume_from_checkpoint: str, model: Any = None) -> None:
        """As `_save` has written it."""
        load_weights(self.model, Path(resume_from_checkpoint))

    def compute_loss(self, model: nn.Module, inputs: Batch, return_outputs=False, **_: Any):  # type: ignore[override]
        with fast_math(inputs["input_ids"]):
            return self.objective(model, inputs)

    def evaluate(self, *_: Any, **__: Any) -> Reading:
        """Take the probe's reading; it is logged, and so saved with the state."""
        assert self.probe is not None
        model: Any = self.model
        model.eval()
        reading = self.probe.read(model)
        model.train()
        self.log({f"{READ}{name}": value for name, value in reading.items()})
        self.control = self.callback_handler.on_evaluate(
            self.args, self.state, self.control, reading
        )
        return reading


class _Watch(TrainerCallback):
    """Moves the bar, keeps losses and readings, asks for checkpoints, and ends in time."""

    def __init__(
        self, running: Bar, last: int, probe: Probe | None, saving: bool, seconds: float
    ) -> None:
        self.running, self.last, self.probe, self.saving = running, last, probe, saving
        self.history: list[dict[str, float]] = []
        self.before, self.started = seconds, time.perf_counter()
        self.asked = self.started
        self.saved, self.cost = self.started, 0.0  # when the last checkpoint was, what it took

    @property
    def losses(self) -> list[float]:
        return losses_of(self.history)

    @property
    def readings(self) -> list[tuple[int, Reading]]:
        return readings_of(self.history)

    @property
    def seconds(self) -> float:
        """Spent on this training so far, by all the runs that it took."""
        return self.before + time.perf_counter() - self.started

    def on_train_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        self.running.advance(state.global_step)

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        self.running.advance()
        at_end = state.global_step >= self.last
        control.should_training_stop |= at_end
        control.should_evaluate = self.probe is not None and state.global_step in self.probe.steps
        due = time.perf_counter() - self.saved >= max(SAVE_EVERY, 10 * self.cost)
        control.should_save = self.saving and (at_end or due)
        self.asked = time.perf_counter()

    def on_log(self, args: Any, state: Any, control: Any, logs: Any = None, **_: Any) -> None:
        self.history = state.log_history
        if logs and "loss" in logs:
            self.running.note(f"loss {float(logs['loss']):.3f}")

    def on_save(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        newest = Path(args.output_dir) / f"checkpoint-{state.global_step}"
        seal(newest, step=state.global_step, seconds=self.seconds)
        for other in Path(args.output_dir).glob("checkpoint-*"):
            if other != newest:
                shutil.rmtree(other, ignore_errors=True)
        self.saved = time.perf_counter()
        self.cost = self.saved - self.asked
