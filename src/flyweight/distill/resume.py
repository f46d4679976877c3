"""Where a training stood when it ended or was ended: checkpoints that count, and its course.

The Trainer writes a checkpoint file by file; one that a kill cut short looks like any other. Here
only a sealed one counts: its list of hashes is written last.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from flyweight.errors import FolderError
from flyweight.folder import WEIGHTS, read_seal

Reading = dict[str, float]
READ = "read_"  # what a reading's names begin with in the Trainer's log


@dataclass(frozen=True)
class Trained:
    """The course of a training up to `step`: a loss a step in nats, readings, seconds in all."""

    step: int
    losses: list[float]
    readings: list[tuple[int, Reading]] = field(default_factory=list)
    seconds: float = 0.0

    def until(self, step: int) -> Trained:
        """The same course as it stood after `step` steps (its seconds in proportion)."""
        return Trained(
            min(step, self.step),
            self.losses[:step],
            [(at, reading) for at, reading in self.readings if at <= step],
            self.seconds * min(1.0, step / max(1, self.step)),
        )


@dataclass(frozen=True)
class Checkpoint:
    """A whole checkpoint of the Trainer, after `step` steps and `seconds` of training."""

    path: Path
    step: int
    seconds: float

    def trained(self) -> Trained:
        """The course that led to it."""
        state = json.loads((self.path / "trainer_state.json").read_text(encoding="utf-8"))
        history = state["log_history"]
        return Trained(self.step, losses_of(history), readings_of(history), self.seconds)


def newest_checkpoint(folder: Path) -> Checkpoint | None:
    """The furthest checkpoint in `folder` that is whole and unchanged, None without one."""
    found = {
        int(match[1]): path
        for path in folder.glob("checkpoint-*")
        if (match := re.fullmatch(r"checkpoint-(\d+)", path.name))
    }
    for step in sorted(found, reverse=True):
        facts = read_seal(found[step])
        if facts is not None:
            return Checkpoint(found[step], step, float(facts.get("seconds", 0.0)))
    return None


def save_weights(model: Any, folder: Path) -> None:
    """Write a model's weights into a checkpoint, by their names in memory."""
    from safetensors.torch import save_model

    folder.mkdir(parents=True, exist_ok=True)
    save_model(model, str(folder / WEIGHTS))


def load_weights(model: Any, checkpoint: Path) -> None:
    """Put a checkpoint's weights into `model` in place; FolderError where some are missing."""
    from safetensors.torch import load_model

    missing, _ = load_model(model, checkpoint / WEIGHTS, strict=False)
    if missing:
        raise FolderError(
            f"{checkpoint}: {len(missing)} weights are missing, such as {min(missing)} (an older "
            "version wrote it). Remove it, and the training begins anew."
        )
    model.tie_weights()


def losses_of(history: Sequence[dict[str, Any]]) -> list[float]:
    """The loss of every step in the Trainer's log."""
    return [float(entry["loss"]) for entry in history if "loss" in entry]


def readings_of(history: Sequence[dict[str, Any]]) -> list[tuple[int, Reading]]:
    """The probe's readings in the Trainer's log, each with its step."""
    found = []
    for entry in history:
        reading = {
            name.removeprefix(READ): float(value)
            for name, value in entry.items()
            if name.startswith(READ)
        }
        if reading:
            found.append((int(entry["step"]), reading))
    return found
