"""An encoder with a classification head as an ONNX file, at 32 or 8 bits, and the proof of it.

The 32-bit file computes what transformers does. The 8-bit one holds the weights of matrices and
embeddings in 8 bits and rounds what is multiplied with them as it runs (onnxruntime's dynamic
quantisation), one scale for each output of a matrix.
"""

from __future__ import annotations

import contextlib
import logging
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from flyweight.errors import ParityError
from flyweight.runtime.classify import INPUTS, LOGITS, OnnxClassifier, extra

QUANTISED = ("MatMul", "Gemm", "Gather")  # operators whose weights get 8 bits
TOLERANCE = 1e-3  # of the spread of the logits


@dataclass(frozen=True)
class LogitReport:
    """How near a 32-bit file's logits are to those of transformers in fp32."""

    prompts: int
    equal: int  # that get the same label
    furthest: float  # the largest difference
    spread: float  # standard deviation of all logits


def write_onnx(checkpoint: Path, out: Path) -> None:
    """Write the encoder in a checkpoint folder as an ONNX file at 32 bits.

    Batch and sequence are free, up to the model's context. Raises MissingExtra without
    onnx, onnxruntime and onnxscript.
    """
    with extra():
        _export(checkpoint, out)


def quantise_onnx(whole: Path, out: Path) -> None:
    """Write the 8-bit file of a 32-bit one."""
    with extra():
        from onnxruntime.quantization import QuantType, quantize_dynamic
    with _quiet():
        quantize_dynamic(
            whole,
            out,
            weight_type=QuantType.QInt8,
            per_channel=True,
            op_types_to_quantize=list(QUANTISED),
        )


def _export(checkpoint: Path, out: Path) -> None:
    import onnxscript  # noqa: F401  torch's own complaint about it is many lines long
    import torch
    from torch.export import Dim

    from flyweight.checkpoint import open_checkpoint

    source = open_checkpoint(checkpoint)
    model = source.model()
    model.set_attn_implementation("eager")  # plain products, which any runtime knows

    class Logits(torch.nn.Module):
        """Logits [B, C] of ids [B, T] and what of them is no padding."""

        def __init__(self) -> None:
            super().__init__()
            self.model = model

        def forward(self, input_ids: torch.Tensor, attention_mask: torch.Tensor) -> torch.Tensor:
            return self.model(input_ids=input_ids, attention_mask=attention_mask).logits

    ids = torch.ones(2, 5, dtype=torch.long)
    mask = torch.tensor([[1, 1, 1, 1, 1], [1, 1, 1, 0, 0]])
    free = {0: Dim("batch", min=1, max=2**16), 1: Dim("sequence", min=2, max=source.context)}
    with _quiet():
        program: Any = torch.onnx.export(
            Logits().eval(),
            (ids, mask),
            dynamo=True,
            input_names=list(INPUTS),
            output_names=[LOGITS],
            dynamic_shapes=dict.fromkeys(INPUTS, free),
            external_data=False,
            verbose=False,
        )
    # of each operator the exporter tells the lines of code, with their paths, that it came from
    program.model.metadata_props.clear()
    for node in program.model.graph.all_nodes():
        node.metadata_props.clear()
        for value in node.outputs:
            value.metadata_props.clear()
    program.save(str(out))


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Exporters warn of what is no concern of a user: absent torchvision, skipped preprocessing."""
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings(), contextlib.redirect_stdout(None):
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(before)


def check_logits(checkpoint: Path, file: Path, prompts: Sequence[Sequence[int]]) -> LogitReport:
    """Compare a 32-bit file's logits with those of fp32 transformers on the same weights.

    Raises ParityError where one is off by more than TOLERANCE of their standard deviation.
    """
    import torch

    from flyweight.checkpoint import open_checkpoint

    model = open_checkpoint(checkpoint).model()
    with torch.inference_mode():
        wanted = np.concatenate(
            [model(input_ids=torch.tensor([list(prompt)])).logits.numpy() for prompt in prompts]
        )
    with OnnxClassifier(file) as engine:
        found = np.stack([engine.logits(prompt) for prompt in prompts])
        padded = engine.batch(prompts)
    spread = max(float(wanted.std()), float(np.finfo(np.float32).tiny))
    furthest = max(float(np.abs(each - wanted).max()) for each in (found, padded))
    if not furthest <= TOLERANCE * spread:  # a NaN as well
        raise ParityError(
            f"{file}: its logits differ from those of transformers in fp32 by up to "
            f"{furthest:.2g}, {furthest / spread:.1%} of their spread; the export is not faithful, "
            "do not use it"
        )
    equal = int((found.argmax(1) == wanted.argmax(1)).sum())
    return LogitReport(len(prompts), equal, furthest, spread)


def check_finite(file: Path, prompts: Sequence[Sequence[int]]) -> None:
    """ParityError unless a file of 8 bits, whose logits may rightly differ, gives numbers."""

    with OnnxClassifier(file) as engine:
        if not np.isfinite(engine.batch(prompts)).all():
            raise ParityError(f"{file}: its logits are not finite; the weights overflow")


__all__ = ["LogitReport", "check_finite", "check_logits", "quantise_onnx", "write_onnx"]
