"""The verb `pack`: a checkpoint as files for its runtime, rounded for a task where one is given."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from flyweight.checkpoint import Checkpoint


def pack(model: Path, *, bits: Sequence[int] = (), data: Path | None = None) -> Path:
    """Write the files that an engine runs into a checkpoint folder, and prove them.

    A model that writes gets GGUF files for llama.cpp, an encoder that classifies ONNX files. A file
    gets its name only when it is proven: the one of most bits answers as transformers does, its
    tokenizer splits texts alike, the others load and answer. With --data the weights of fewer than
    16 bits are rounded so that on texts like these the model says what it said before.

    Args:
        model: The checkpoint folder; the files are written into it.
        bits: 16, 8, 5 or 4, of an encoder 32 or 8; repeat the option for several. All if not given.
        data: JSONL or Parquet, whose train items tell which weights matter.

    Raises:
        FlyweightError: A checkpoint that cannot be read, or a file that disagrees with it.
    """
    from flyweight.checkpoint import open_checkpoint
    from flyweight.errors import OptionError
    from flyweight.folder import GGUF_NAMES, ONNX_NAMES

    source = open_checkpoint(model)
    if source.family.causal:
        _pack_writer(source, bits or tuple(GGUF_NAMES), data)
    elif data is not None:
        raise OptionError(
            f"--data {data}: {model} classifies, and its ONNX files are rounded by themselves. "
            "Leave --data out."
        )
    else:
        _pack_encoder(source, bits or tuple(ONNX_NAMES))
    return Path(model)


def _pack_writer(source: Checkpoint, bits: Sequence[int], data: Path | None) -> None:
    from flyweight.progress import say
    from flyweight.runtime.pack import pack_checkpoint

    source.tokenizer()  # refused where there is none
    texts = _texts(source, data) if data is not None else []
    report = pack_checkpoint(source.path, bits, source.gguf_map, texts=texts)
    for width, path in report.files.items():
        kept = report.written[width].kept_at_16
        note = f", {len(kept)} tensors kept at 16 bits" if kept else ""
        note += f", rounded for {len(texts)} train items" if texts and width < 16 else ""
        say(f"{path}: {report.written[width].bytes:,} bytes{note}")
    say(f"{report.parity.equal} of {report.parity.prompts} answers equal transformers' in fp32")


def _texts(source: Checkpoint, data: Path) -> list[list[int]]:
    """Token ids of the train items that tell what matters, with their answers where they have any.

    What has neither answer nor template is plain text.
    """
    from flyweight.make.workload import CALIBRATION
    from flyweight.tasks.encode import encode_items
    from flyweight.tasks.read import read_task

    tokenizer, items = source.tokenizer(), read_task(data).train[:CALIBRATION]
    plain = not tokenizer.chat_template
    examples = encode_items(tokenizer, items, data.name, source.context, plain=plain)
    return [example.ids.tolist() for example in examples]


def _pack_encoder(source: Checkpoint, bits: Sequence[int]) -> None:
    from flyweight.progress import say
    from flyweight.runtime.pack import pack_classifier

    source.tokenizer()  # refused where there is none
    files, parity = pack_classifier(source.path, bits, source.context)
    for path in files.values():
        say(f"{path}: {path.stat().st_size:,} bytes")
    say(
        f"Logits of {parity.prompts} texts are those of transformers in fp32, to "
        f"{parity.furthest / parity.spread:.1g} of their spread"
    )


__all__ = ["pack"]
