"""How long a stage takes: an assumption for each kind, bent by what past stages of it took.

A stage takes so many seconds to begin, some for each token and some for each floating-point
operation. The assumption gives all three; the records tell two factors, of what is counted (begun,
tokens) and of the operations. With few records the factors stay near those
of the kind's relatives, with none at all near those of the whole machine.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from scipy.optimize import least_squares

# Seconds to begin, a token, and an operation; measured with one core of a server of 2023.
ASSUMED = {
    "teacher": (0.2, 1e-4, 5e-11),
    "vocabulary": (1.0, 0.0, 1e-9),
    "quantise": (0.4, 4e-5, 3e-11),
    "answers": (0.35, 2.5e-5, 1.3e-11),
    "measure": (0.35, 2.5e-5, 1.3e-11),
    "score": (0.1, 4.8e-5, 1.1e-11),
    "record": (0.1, 4e-5, 4e-12),
    "rank": (0.1, 2e-5, 1.3e-11),
    "mend": (0.3, 4e-5, 1.3e-11),
    "distil": (0.8, 2.6e-5, 1.25e-11),
    "scratch": (0.8, 2.6e-5, 1.25e-11),
    "pack": (0.3, 1e-4, 6e-11),
    "rival": (0.3, 1e-4, 6e-11),
    "check": (0.1, 4e-5, 4e-12),
    "test": (0.35, 2.5e-5, 1.3e-11),
    "teacher (ONNX)": (7.0, 1e-4, 1e-10),
    "pack (ONNX)": (7.0, 1e-4, 1e-10),
    "rival (ONNX)": (7.0, 1e-4, 1e-10),
    "answers (ONNX)": (1.5, 3e-5, 3e-11),
    "measure (ONNX)": (1.5, 3e-5, 3e-11),
    "test (ONNX)": (1.5, 3e-5, 3e-11),
}
ONNX = " (ONNX)"  # stages of encoders that take quite another time than those of models that write
TRAINING = ("distil", "scratch")  # what an accelerator does; the rest is the processor's
RELATIVES = (
    TRAINING,
    ("answers", "measure", "test"),
    ("score", "record", "rank", "mend", "check"),
    ("teacher", "vocabulary", "quantise", "pack", "rival"),
    ("answers (ONNX)", "measure (ONNX)", "test (ONNX)"),
    ("teacher (ONNX)", "pack (ONNX)", "rival (ONNX)"),
)
NOISE = 0.2  # of one stage's seconds, relative
NEARNESS = 0.6  # how far, relative, a kind's factors lie from those of its relatives
FADING = 0.97  # what a record still counts when the next one is there

Record = tuple[float, float, float]  # tokens, operations, seconds


@dataclass(frozen=True)
class Work:
    """What a stage has to do: so many tokens read, trained on or written, and operations."""

    kind: str
    tokens: float
    flops: float


def assumed(work: Work, speed: float = 1.0, accelerator: float = 1.0) -> tuple[float, float]:
    """Seconds for what is counted, and for the operations, where nothing is known.

    `speed` divides all, `accelerator` also what training does with tokens.
    """
    start, token, operation = ASSUMED[work.kind]
    faster = speed * (accelerator if work.kind in TRAINING else 1.0)
    return start / speed + token * work.tokens / faster, operation * work.flops / faster


class Rates:
    """Seconds of any work, from the records of a machine: {kind: oldest to newest}."""

    def __init__(
        self, records: Mapping[str, Sequence[Record]], speed: float = 1.0, accelerator: float = 1.0
    ) -> None:
        self._told: dict[str, np.ndarray] = {}  # [n, 3]: counted, operations, seconds
        for kind in ASSUMED:
            found = [record for record in records.get(kind, ()) if record[2] > 0]
            if found:
                self._told[kind] = np.array(
                    [
                        (*assumed(Work(kind, tokens, flops), speed, accelerator), seconds)
                        for tokens, flops, seconds in found
                    ]
                )
        self._speeds = speed, accelerator
        self._factors: dict[str, np.ndarray] = {}

    def seconds(self, work: Work) -> float:
        """How long this work is likely to take; never negative, and more of it takes longer."""
        counted, operations = self.factors(work.kind) * assumed(work, *self._speeds)
        return float(counted + operations)

    def factors(self, kind: str) -> np.ndarray:
        """float [2]: what the assumption is multiplied by, for what is counted and operations."""
        if kind not in self._factors:
            self._factors[kind] = self._fitted(kind)
        return self._factors[kind]

    def _fitted(self, kind: str) -> np.ndarray:
        common = self._common(kind)
        if kind not in self._told:
            return np.exp([common, common])
        told = self._told[kind]
        parts, seconds = told[:, :2], told[:, 2]
        weights = FADING ** np.arange(len(told) - 1, -1, -1.0)

        def errors(logs: np.ndarray) -> np.ndarray:
            wrong = np.log(parts @ np.exp(logs) / seconds) * np.sqrt(weights) / NOISE
            return np.concatenate([wrong, (logs - common) / NEARNESS])

        # soft_l1: one stage that was held up says little
        return np.exp(least_squares(errors, [common, common], loss="soft_l1").x)

    def _common(self, kind: str) -> float:
        """The logarithm of the one factor of the kind's relatives, drawn towards the machine's."""
        [relatives] = [group for group in RELATIVES if kind in group]
        return self._middle(relatives, towards=self._middle(ASSUMED, towards=0.0))

    def _middle(self, kinds: Sequence[str] | Mapping[str, object], towards: float) -> float:
        """The median of the kinds' own medians; half of a kind with one record is `towards`."""
        middles = []
        for kind in kinds:
            if kind in self._told:
                told = self._told[kind]
                own = float(np.median(np.log(told[:, 2] / told[:, :2].sum(axis=1))))
                middles.append((own * len(told) + towards) / (len(told) + 1))
        return float(np.median(middles)) if middles else towards


__all__ = ["ASSUMED", "Rates", "Record", "Work", "assumed"]
