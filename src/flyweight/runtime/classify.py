"""Encoders that classify: token ids in, one logit a label out, by ONNX Runtime or torch."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from flyweight.errors import EngineError, MissingExtra
from flyweight.runtime.threads import default_threads

INPUTS = ("input_ids", "attention_mask")  # of a file, int64 [B, T] each
LOGITS = "logits"  # its output, float32 [B, C]


@contextmanager
def extra() -> Iterator[None]:
    """MissingExtra where something of the extra is absent."""
    try:
        yield
    except ImportError as error:
        if not str(error.name or "").startswith("onnx"):
            raise
        raise MissingExtra(
            f"{error.name} is not installed, which encoders need to run: "
            "pip install 'flyweight[onnx]'."
        ) from error


class Classifier(Protocol):
    """What classifies."""

    threads: int

    def logits(self, ids: Sequence[int]) -> np.ndarray:
        """float32 [C], of one text."""
        ...

    def batch(self, rows: Sequence[Sequence[int]]) -> np.ndarray:
        """float32 [n, C], of several texts at once.

        At 8 bits they share the scale of what is rounded: alone each may give other logits.
        """
        ...

    def close(self) -> None:
        """Give the memory back."""
        ...


class OnnxClassifier(AbstractContextManager["OnnxClassifier"]):
    """An ONNX file in ONNX Runtime, on the CPU.

    `threads` None chooses: one for files under SMALL_FILE, else every core. Raises EngineError for
    a file that it does not load.
    """

    def __init__(self, file: Path, *, threads: int | None = None) -> None:
        with extra():
            import onnxruntime

        self.file = Path(file)
        try:
            self.threads = threads or default_threads(self.file.stat().st_size)
            options = onnxruntime.SessionOptions()
            options.intra_op_num_threads = self.threads
            options.inter_op_num_threads = 1
            options.log_severity_level = 4
            options.enable_mem_pattern = False  # one for each length of text would pile up
            self._session: Any = onnxruntime.InferenceSession(
                str(self.file), options, providers=["CPUExecutionProvider"]
            )
        except Exception as error:  # onnxruntime raises a dozen kinds, none of them its own
            raise EngineError(
                f"{self.file}: ONNX Runtime does not load it ({_first_line(error)}). "
                "Pack the model again."
            ) from error
        names = {each.name for each in self._session.get_inputs()}
        if names != set(INPUTS):
            raise EngineError(
                f"{self.file}: it takes {', '.join(sorted(names))}, where {' and '.join(INPUTS)} "
                "are given. Pack the model again."
            )

    def logits(self, ids: Sequence[int]) -> np.ndarray:
        return self.batch([ids])[0]

    def batch(self, rows: Sequence[Sequence[int]]) -> np.ndarray:
        ids, mask = padded(rows)
        try:
            return self._session.run([LOGITS], dict(zip(INPUTS, (ids, mask), strict=True)))[0]
        except Exception as error:  # as above
            raise EngineError(f"{self.file}: {_first_line(error)}") from error

    def close(self) -> None:
        self._session = None

    def __exit__(self, *_: object) -> None:
        self.close()


class TorchClassifier(AbstractContextManager["TorchClassifier"]):
    """A checkpoint folder in torch, in fp32; its `threads` are the whole process's."""

    def __init__(self, checkpoint: Path, *, threads: int | None = None) -> None:
        import torch

        from flyweight.checkpoint import open_checkpoint

        source = open_checkpoint(checkpoint)
        self.threads = threads or default_threads(source.bytes)
        torch.set_num_threads(self.threads)
        self._model: Any = source.model()  # in fp32, as plain transformers: it is timed

    def logits(self, ids: Sequence[int]) -> np.ndarray:
        return self.batch([ids])[0]

    def batch(self, rows: Sequence[Sequence[int]]) -> np.ndarray:
        import torch

        given = dict(zip(INPUTS, map(torch.from_numpy, padded(rows)), strict=True))
        with torch.inference_mode():
            return self._model(**given).logits.numpy()

    def close(self) -> None:
        self._model = None

    def __exit__(self, *_: object) -> None:
        self.close()


def padded(rows: Sequence[Sequence[int]]) -> tuple[np.ndarray, np.ndarray]:
    """Ids int64 [n, T], zeros on the right, and what of them is no padding."""
    longest = max(map(len, rows))
    ids = np.zeros((len(rows), longest), dtype=np.int64)
    mask = np.zeros_like(ids)
    for place, row in enumerate(rows):
        ids[place, : len(row)] = row
        mask[place, : len(row)] = 1
    return ids, mask


def open_classifier(model: Path, *, threads: int | None = None) -> Classifier:
    """The engine for a model: an ONNX file in ONNX Runtime, a checkpoint folder in torch."""
    kind = TorchClassifier if Path(model).is_dir() else OnnxClassifier
    return kind(model, threads=threads)


def _first_line(error: Exception) -> str:
    text = str(error).strip()
    return text.splitlines()[0][:200] if text else type(error).__name__


__all__ = ["INPUTS", "LOGITS", "Classifier", "OnnxClassifier", "TorchClassifier",
           "extra", "open_classifier", "padded"]  # fmt: skip
