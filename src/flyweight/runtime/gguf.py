"""A checkpoint as one GGUF file at 16, 8, 5 or 4 bits, written tensor by tensor.

16 bits is F16, 8 is Q8_0, 5 is Q5_0, 4 is Q4_0 (blocks of 32 weights with one F16 scale; how they
are rounded: quantise.py). Vectors (norms, biases) are F32, as llama.cpp wants them, and so is what
chooses among experts. In the files of 5 and 4 bits the embedding and output matrices are Q8_0: they
are read once a token but hurt most when coarse, and llama.cpp's own files do likewise.
"""

from __future__ import annotations

import errno
import json
import os
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from gguf import GGMLQuantizationType, GGUFEndian, GGUFWriter, LlamaFileType
from gguf.quants import quant_shape_to_byte_shape, quantize
from safetensors import SafetensorError, safe_open
from torch import Tensor

from flyweight.anatomy.gguf import GgufMap, Part
from flyweight.anatomy.inputs import Inputs
from flyweight.errors import EngineError, FolderError, NoSpace, OptionError, TeacherError
from flyweight.folder import GGUF_NAMES
from flyweight.runtime.quantise import BLOCK, QUANTISED, quantise
from flyweight.runtime.tokenizer_gguf import tokenizer_metadata

_F32, _F16 = GGMLQuantizationType.F32, GGMLQuantizationType.F16
_KINDS = {
    16: _F16,
    8: GGMLQuantizationType.Q8_0,
    5: GGMLQuantizationType.Q5_0,
    4: GGMLQuantizationType.Q4_0,
}
_FILE_TYPES = {
    16: LlamaFileType.MOSTLY_F16,
    8: LlamaFileType.MOSTLY_Q8_0,
    5: LlamaFileType.MOSTLY_Q5_0,
    4: LlamaFileType.MOSTLY_Q4_0,
}
_FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}


@dataclass(frozen=True)
class GgufReport:
    """What was written: the file's bytes, and the matrices whose rows fit no block of 32."""

    bytes: int
    kept_at_16: list[str]


@dataclass(frozen=True)
class _Piece:
    """Where a tensor, or one expert's share of it, is read."""

    parameter: str
    source: Path
    part: Part
    shape: tuple[int, ...]


@dataclass(frozen=True)
class _Plan:
    """One tensor to come: the pieces that it is made of, how it is called and stored."""

    pieces: list[_Piece]  # one for each expert, in their order; none for a computed tensor
    name: str
    shape: tuple[int, ...]
    kind: GGMLQuantizationType

    @property
    def nbytes(self) -> int:
        if self.kind in (_F32, _F16):
            return int(np.prod(self.shape)) * (4 if self.kind == _F32 else 2)
        return int(np.prod(quant_shape_to_byte_shape(self.shape, self.kind)))


def write_gguf(
    checkpoint: Path,
    destination: Path,
    bits: int,
    gguf_map: GgufMap,
    inputs: Inputs | None = None,
) -> GgufReport:
    """Write a Hugging Face checkpoint as GGUF at 16, 8, 5 or 4 bits, whole or not at all.

    With `inputs`, what feeds its matrices on some texts, weights are rounded for these. Raises
    TeacherError for an unreadable checkpoint, UnsupportedFamily for a tensor without a place,
    EngineError for a tokenizer that llama.cpp does not know, NoSpace and FolderError.
    """
    if bits not in _KINDS:
        raise OptionError(f"bits {bits} is not one of {', '.join(map(str, GGUF_NAMES))}")
    config = _config(checkpoint)
    keys = {f"{gguf_map.architecture}.{key}": v for key, v in gguf_map.metadata(config).items()}
    computed = gguf_map.computed(config)
    plans = _plan(checkpoint, config, bits, gguf_map)
    extra = [_Plan([], name, tuple(tensor.shape), _F32) for name, tensor in computed.items()]
    keys |= {"general.file_type": int(_FILE_TYPES[bits]), "general.quantization_version": 2}
    keys |= tokenizer_metadata(checkpoint, config.vocab_size)

    temporary = destination.with_name(f".{destination.name}.{os.getpid()}.part")
    try:
        with _folder_errors(destination):
            _check_space(destination.parent, sum(plan.nbytes for plan in plans))
            _write(temporary, gguf_map, config, keys, plans + extra, computed, inputs or Inputs())
            size = temporary.stat().st_size
        replace_file(temporary, destination)
    finally:
        temporary.unlink(missing_ok=True)
    kept = [plan.name for plan in plans if plan.kind == _F16 and bits < 16]
    return GgufReport(size, kept)


def replace_file(temporary: Path, destination: Path) -> None:
    """Give a finished file its name in one step. Raises FolderError or NoSpace."""
    with _folder_errors(destination):
        temporary.replace(destination)


@contextmanager
def _folder_errors(destination: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        if error.errno in _FULL or error.errno is None:  # numpy: "n requested and m written"
            raise NoSpace(f"{destination}: no room on the disk; free some and run again") from error
        raise FolderError(f"{destination}: cannot be written: {error.strerror}") from error


def _config(checkpoint: Path) -> Any:
    from transformers import AutoConfig

    try:
        return AutoConfig.from_pretrained(checkpoint, local_files_only=True)
    except (OSError, ValueError) as error:
        reason = str(error).splitlines()[0]
        raise TeacherError(f"{checkpoint}: config.json cannot be read: {reason}") from error


def kind_of(name: str, shape: Sequence[int], bits: int, gguf_map: GgufMap) -> GGMLQuantizationType:
    """How a tensor of this GGUF name and shape is stored at `bits`: vectors always in 32 bits."""
    if len(shape) == 1 or name.endswith(gguf_map.at_full_precision):
        return _F32
    if shape[-1] % BLOCK:
        return _F16
    return _KINDS[max(bits, 8) if name in gguf_map.at_high_precision else bits]


def _plan(checkpoint: Path, config: Any, bits: int, gguf_map: GgufMap) -> list[_Plan]:
    """Every tensor of the checkpoint that goes into the file, without reading any."""
    pieces: dict[str, list[_Piece]] = {}
    for parameter, source, shape in _parameters(checkpoint):
        for part in gguf_map.parts(parameter, config):
            piece = _Piece(parameter, source, part, part.shape(shape))
            pieces.setdefault(part.tensor, []).append(piece)
    plans = []
    for name, found in pieces.items():
        shape = found[0].shape
        if found[0].part.expert is not None:
            found.sort(key=lambda piece: piece.part.expert or 0)
            _check_experts(checkpoint, found, config.num_local_experts)
            shape = (len(found), *shape)
        plans.append(_Plan(found, name, shape, kind_of(name, shape, bits, gguf_map)))
    return plans


def _check_experts(checkpoint: Path, found: list[_Piece], experts: int) -> None:
    numbers = [piece.part.expert for piece in found]
    if numbers != list(range(experts)) or len({piece.shape for piece in found}) != 1:
        raise TeacherError(
            f"{checkpoint}: {experts} experts of one size are expected, but such as "
            f"{found[0].parameter} there are {len(found)}. Download or save the model again."
        )


def _parameters(checkpoint: Path) -> Iterator[tuple[str, Path, tuple[int, ...]]]:
    """(name, file, shape) of every tensor in a checkpoint's safetensors, one file or several."""
    index = checkpoint / "model.safetensors.index.json"
    try:
        files = {"model.safetensors"}
        if index.exists():
            files = set(json.loads(index.read_text(encoding="utf-8"))["weight_map"].values())
        for file in sorted(files):
            with safe_open(checkpoint / file, framework="pt") as tensors:
                for parameter in sorted(tensors.keys()):
                    shape = tuple(tensors.get_slice(parameter).get_shape())
                    yield parameter, checkpoint / file, shape
    except (OSError, SafetensorError, ValueError, KeyError) as error:
        raise TeacherError(f"{checkpoint}: the safetensors cannot be read: {error}") from error


def _check_space(folder: Path, needed: int) -> None:
    free = shutil.disk_usage(folder).free
    if free < needed:
        raise NoSpace(f"{folder}: {needed / 1e6:.0f} MB needed, {free / 1e6:.0f} MB free")


def _write(
    path: Path,
    gguf_map: GgufMap,
    config: Any,
    keys: dict[str, Any],
    plans: list[_Plan],
    computed: dict[str, Tensor],
    inputs: Inputs,
) -> None:
    writer = GGUFWriter(path, gguf_map.architecture, endianess=GGUFEndian.LITTLE)
    try:
        for key, value in keys.items():
            _add(writer, key, value)
        for plan in plans:
            # the writer wants elements for plain types, bytes (uint8) for blocks, never the data
            writer.add_tensor_info(
                plan.name, plan.shape, np.dtype(np.float32), plan.nbytes, raw_dtype=plan.kind
            )
        writer.write_header_to_file(path)
        writer.write_kv_data_to_file()
        writer.write_ti_data_to_file()
        for plan in plans:
            if plan.pieces:
                parts = [
                    _encode(
                        gguf_map.transform(piece.part, _read(piece), config),
                        piece.parameter,
                        plan.kind,
                        inputs,
                    )
                    for piece in plan.pieces
                ]
            else:
                parts = [computed[plan.name].numpy()]
            writer.write_tensor_data(parts[0] if len(parts) == 1 else np.stack(parts))
    finally:
        writer.close()


def _add(writer: GGUFWriter, key: str, value: Any) -> None:
    """One metadata entry with the type that llama.cpp expects: its integers are unsigned."""
    if isinstance(value, bool):
        writer.add_bool(key, value)
    elif isinstance(value, int):
        writer.add_uint32(key, value)
    elif isinstance(value, float):
        writer.add_float32(key, value)
    elif isinstance(value, str):
        writer.add_string(key, value)
    else:
        writer.add_array(key, value)


def _read(piece: _Piece) -> Tensor:
    with safe_open(piece.source, framework="pt") as tensors:
        return piece.part.take(tensors.get_tensor(piece.parameter)).to(torch.float32)


def _encode(
    weight: Tensor, parameter: str, kind: GGMLQuantizationType, inputs: Inputs
) -> np.ndarray:
    """The bytes of one piece; refuses weights that the type cannot hold."""
    array = np.ascontiguousarray(weight.numpy())
    limit = np.finfo(np.float16).max if kind != _F32 else np.finfo(np.float32).max
    if not (np.abs(array) <= limit).all():
        raise EngineError(
            f"{parameter}: holds values beyond {limit:.0f} or none at all (NaN); "
            "the training diverged, or this checkpoint needs a wider type than GGUF's 16 bits"
        )
    if kind not in QUANTISED:
        return quantize(array, kind)
    if parameter not in inputs.moments:
        return quantise(array, kind)
    return quantise(array, kind, moments=[each.numpy() for each in inputs.moments[parameter]])


__all__ = ["GgufReport", "kind_of", "replace_file", "write_gguf"]
