"""A checkpoint as files for its runtime, proven before they get their names."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

from flyweight.errors import FolderError, OptionError
from flyweight.folder import GGUF_NAMES, ONNX_NAMES, disk_errors

if TYPE_CHECKING:
    from flyweight.anatomy.gguf import GgufMap
    from flyweight.anatomy.inputs import Inputs
    from flyweight.runtime.gguf import GgufReport
    from flyweight.runtime.onnx_file import LogitReport
    from flyweight.runtime.parity import ParityReport


PARITY_PROMPTS = 100  # at most, of those given
PARITY_TOKENS = 32  # of each answer
ALIVE_PROMPTS = 8  # that a file of fewer bits has to answer

NEUTRAL_TIES = 0.25  # of the neutral prompts may end in near ties: no model was made for them

# What the proof runs on when no task is at hand: no model's subject in particular.
NEUTRAL = (
    "What is the time?",
    "Write one sentence about the sea.",
    "List three colours, separated by commas.",
    "The quick brown fox jumps over the lazy dog.",
    "How many days has a leap year? Answer with a number: 365 or 366.",
    "Pump P-101 stopped at 06:45; pressure 3.2 bar, 71.5 °C.",
    '{"name": "valve", "open": true, "turns": [1, 2, 3]}',
    "I'm sure they'll say it's Anna's, don't you think?",
    "def double(x):\n    return 2 * x\n\nprint(double(21))",
    "Bonjour, où est la gare ? Straße, naïve, Ærøskøbing.",
    "今天天气很好。これはペンです。",
    "Yes",
    "  two  spaces,\ttabs\t\tand\r\nline ends\n\n\n",
    "UPPER lower MiXeD 1234567890 3.14159 -42 1e-6 0x1F",
    "e-mail: someone@example.org, see https://example.org/a?b=c&d=e#f",
    "😀👩‍🔧🇫🇷 ½ ² ™ “quotes” — …",
)


@dataclass(frozen=True)
class PackReport:
    """The files by their bits, what was written into each, and the proof of the 16-bit one."""

    files: dict[int, Path]
    written: dict[int, GgufReport]
    parity: ParityReport


def pack_classifier(
    checkpoint: Path, bits: Sequence[int], context: int,
    prompts: Sequence[Sequence[int]] | None = None,
) -> tuple[dict[int, Path], LogitReport]:  # fmt: skip
    """Write and prove an encoder's ONNX files, as `pack_checkpoint` does a writer's.

    The proof runs on `prompts`, or on neutral ones, cut to `context` tokens. Returns the files by
    their bits, and the proof of the 32-bit one.
    """
    from transformers import AutoTokenizer

    from flyweight.runtime.gguf import replace_file
    from flyweight.runtime.onnx_file import check_finite, check_logits, quantise_onnx, write_onnx

    wanted = _widths(bits, ONNX_NAMES)
    if prompts is None:
        tokenizer = AutoTokenizer.from_pretrained(checkpoint, local_files_only=True)
        prompts = [tokenizer(text)["input_ids"][:context] for text in NEUTRAL]
    prompts = prompts[:PARITY_PROMPTS]
    with disk_errors(checkpoint), _folder_beside(checkpoint) as folder:
        unproven = {width: Path(folder) / ONNX_NAMES[width] for width in {32, *wanted}}
        write_onnx(checkpoint, unproven[32])
        if 8 in unproven:
            quantise_onnx(unproven[32], unproven[8])
            check_finite(unproven[8], prompts)
        parity = check_logits(checkpoint, unproven[32], prompts)
        files = {width: checkpoint / ONNX_NAMES[width] for width in wanted}
        for width, path in files.items():
            replace_file(unproven[width], path)
    return files, parity


def _widths(bits: Sequence[int], names: Mapping[int, str]) -> list[int]:
    """The bits that were asked for, the most first, or OptionError."""
    if not bits or not set(bits) <= set(names):
        known = ", ".join(map(str, names))
        raise OptionError(f"--bits {', '.join(map(str, bits))}: choose from {known}.")
    return sorted(set(bits), reverse=True)


def pack_checkpoint(
    checkpoint: Path,
    bits: Sequence[int],
    gguf_map: GgufMap,
    prompts: Sequence[Sequence[int]] | None = None,
    *,
    texts: Sequence[Sequence[int]] = (),
    max_tokens: int = PARITY_TOKENS,
) -> PackReport:
    """Write and prove GGUF files; all get their names at the end, or none does.

    Weights are rounded for `texts` (token ids of a task) where there are any. The proof runs on
    `prompts` (token ids, the first PARITY_PROMPTS), or on neutral ones. It needs the 16-bit file,
    which is made for it even where it is not asked for.
    """
    from flyweight.runtime.gguf import replace_file, write_gguf

    wanted = _widths(bits, GGUF_NAMES)
    with _folder_beside(checkpoint) as folder:
        unproven = {width: Path(folder) / GGUF_NAMES[width] for width in {16, *wanted}}
        inputs = _inputs(checkpoint, texts if min(wanted) < 16 else ())
        written = {
            width: write_gguf(checkpoint, path, width, gguf_map, inputs)
            for width, path in unproven.items()
        }
        parity = _prove(checkpoint, unproven, prompts, max_tokens)
        files = {width: checkpoint / GGUF_NAMES[width] for width in wanted}
        for width, path in files.items():
            replace_file(unproven[width], path)
    return PackReport(files, {width: written[width] for width in wanted}, parity)


def quantise_checkpoint(
    checkpoint: Path, out: Path, gguf_map: GgufMap, texts: Sequence[Sequence[int]]
) -> None:
    """Write the GGUF files of fewer than 16 bits into the folder `out`, rounded for `texts`.

    For a checkpoint whose 16-bit file is proven. Raises ParityError for a file that does not run.
    """
    from transformers import AutoTokenizer

    from flyweight.runtime.gguf import write_gguf
    from flyweight.runtime.parity import check_alive

    inputs = _inputs(checkpoint, texts)
    tokenizer = AutoTokenizer.from_pretrained(checkpoint, local_files_only=True)
    prompts = [_prompt(tokenizer, text) for text in NEUTRAL[:ALIVE_PROMPTS]]
    for width in GGUF_NAMES:
        if width < 16:
            write_gguf(checkpoint, out / GGUF_NAMES[width], width, gguf_map, inputs)
            check_alive(out / GGUF_NAMES[width], prompts)


def _inputs(checkpoint: Path, texts: Sequence[Sequence[int]]) -> Inputs | None:
    """What feeds the checkpoint's matrices on `texts`; None without any."""
    from flyweight.anatomy.inputs import measure_inputs
    from flyweight.checkpoint import open_checkpoint

    return measure_inputs(open_checkpoint(checkpoint).frozen(), texts) if texts else None


def _folder_beside(checkpoint: Path) -> TemporaryDirectory[str]:
    try:
        return TemporaryDirectory(prefix=".pack-", dir=checkpoint)
    except OSError as error:
        raise FolderError(
            f"{checkpoint}: cannot be written: {error.strerror}. Copy it to a folder that can."
        ) from error


def _prove(
    checkpoint: Path,
    files: dict[int, Path],
    prompts: Sequence[Sequence[int]] | None,
    max_tokens: int,
) -> ParityReport:
    from transformers import AutoTokenizer

    from flyweight.runtime.parity import (
        NEAR_TIE_SHARE,
        check_alive,
        check_parity,
        check_tokenizer,
    )

    tokenizer = AutoTokenizer.from_pretrained(checkpoint, local_files_only=True)
    share = NEAR_TIE_SHARE if prompts is not None else NEUTRAL_TIES
    if prompts is None:
        prompts = [_prompt(tokenizer, text) for text in NEUTRAL]
    prompts = prompts[:PARITY_PROMPTS]
    said = [tokenizer.decode(prompt) for prompt in prompts]
    check_tokenizer(checkpoint, files[16], [*NEUTRAL, *said])
    for width, path in files.items():
        if width != 16:
            check_alive(path, prompts[:ALIVE_PROMPTS])
    return check_parity(checkpoint, files[16], prompts, max_tokens, tie_share=share)


def _prompt(tokenizer: Any, text: str) -> list[int]:
    if not tokenizer.chat_template:
        return tokenizer(text)["input_ids"]
    return tokenizer.apply_chat_template(
        [{"role": "user", "content": text}], add_generation_prompt=True, return_dict=False
    )


__all__ = ["NEUTRAL", "PackReport", "pack_checkpoint", "pack_classifier", "quantise_checkpoint"]
