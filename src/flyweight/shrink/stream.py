"""Cutting a checkpoint on disk: tensor by tensor from its files into new ones.

Sizes are known before anything is read, so a shard's header is written first and each part straight
behind it. What is held at a time is the part of one tensor that stays (twice where it is scaled)
and a block of its file.
"""

from __future__ import annotations

import json
import math
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from flyweight.anatomy import Family
from flyweight.checkpoint import PROCESSOR_FILES, open_checkpoint
from flyweight.errors import OptionError, TeacherError
from flyweight.folder import check_place, check_space, new_folder
from flyweight.progress import Bar, bar
from flyweight.shrink.cut import cut_config, cut_tensors, new_name, place_of
from flyweight.shrink.keep import Keep, is_fixed
from flyweight.shrink.scales import size_of
from flyweight.shrink.stored import KINDS, StoredTensor, raw_bytes, stored_tensors
from flyweight.shrink.token_ids import renumber_config
from flyweight.weight_files import INDEX, WEIGHTS

SHARD_BYTES = 5 * 10**9
NAMES = {kind: name for name, kind in KINDS.items()}
COMPUTED = (".rotary_emb.inv_freq", ".position_ids")  # which old files hold and nobody loads
GENERATION = "generation_config.json"
TOKENIZER = (
    "tokenizer*", "*.model", "*.jinja", "vocab.*", "merges.txt", "added_tokens.json",
    "special_tokens_map.json",
)  # fmt: skip


@dataclass(frozen=True)
class Planned:
    """A tensor of the new checkpoint: its name in the source, its new one, type and sizes."""

    source: str
    name: str
    kind: torch.dtype
    sizes: tuple[int, ...]

    @property
    def bytes(self) -> int:
        return math.prod(self.sizes) * self.kind.itemsize


def cut_folder(
    source: Path,
    out: Path,
    family: Family,
    keep: Keep,
    *,
    tokenizer: Any = None,
    finish: Callable[[Path], None] | None = None,
    shard_bytes: int = SHARD_BYTES,
) -> Path:
    """Cut the checkpoint in a folder into a new one at `out`, never holding more than a tensor.

    Types stay (16 bits stay 16 bits), and so do the names of an expert's tensors in files; others
    are named as in memory. The new folder is whole or not there at all.

    Args:
        source: A Hugging Face folder, its safetensors in one file or in shards.
        out: The folder to write: new, empty or ours.
        family: What its architecture is made of.
        keep: What stays.
        tokenizer: Written in the place of the source's, whose files are copied where it is None;
            a vocabulary that is cut needs one.
        finish: What else is to be done to the folder before it appears at `out`, given its place.
        shard_bytes: The most that one file holds, unless a single tensor is larger.

    Raises:
        FlyweightError: A source that cannot be read, another shape than `keep` was chosen for, a
            place that cannot be written, no room.
    """
    source, out = Path(source), Path(out)
    config = open_checkpoint(source.absolute(), pictures=family.pictures).config
    _check(source, out, family, config, keep, tokenizer)
    tensors = _whole_network(source, stored_tensors(source), family, config)
    shards = _shards(tensors, family, keep, shard_bytes)
    check_space(out.parent, sum(each.bytes for shard in shards for each in shard))
    with (
        new_folder(out) as folder,
        bar("Cutting", sum(map(len, shards))) as running,
    ):
        files = _file_names(len(shards))
        for file, shard in zip(files, shards, strict=True):
            wanted = {each.source: tensors[each.source] for each in shard}
            parts = cut_tensors(wanted, family, config, keep)
            _write_shard(folder / file, shard, parts, running)
        if len(shards) > 1:
            _write_index(folder / INDEX, dict(zip(files, shards, strict=True)))
        _write_others(source, folder, cut_config(family, config, keep), keep, tokenizer)
        if finish is not None:
            finish(folder)
    return out


def _check(
    source: Path, out: Path, family: Family, config: Any, keep: Keep, tokenizer: Any
) -> None:
    """OptionError or FolderError for what cannot go together."""
    shape = family.shape_of(config)
    if keep.old != shape:
        raise OptionError(f"what stays was chosen in {keep.old}; {source} is {shape}.")
    if keep.vocabulary is not None and tokenizer is None:
        raise OptionError("a vocabulary that is cut needs its tokenizer: rebuild_tokenizer.")
    check_place(out, source)


def _whole_network(
    source: Path, tensors: Mapping[str, StoredTensor], family: Family, config: Any
) -> dict[str, StoredTensor]:
    """The tensors that make the network, without what transformers would not load either.

    TeacherError where any is missing or has other sizes than the config says.
    """
    shape = family.shape_of(config)
    expected = dict(family.tensors(shape, config))
    found: dict[str, StoredTensor] = {}
    for name, tensor in tensors.items():
        if name.endswith(COMPUTED):
            continue
        place, here = place_of(family, name), family.in_memory(name)
        if place.template in family.parameters and here not in expected:
            continue  # a tied head, say
        sizes = expected.get(here) or tuple(size_of(each, shape) for each in place.dimensions)
        if tensor.sizes != sizes:
            raise TeacherError(
                f"{tensor.file}: {name} is {_times(tensor.sizes)}, by config.json "
                f"{_times(sizes)}. Download or save the model again."
            )
        found[name] = tensor
    held = sum(math.prod(tensor.sizes) for tensor in found.values())
    wanted = sum(map(math.prod, expected.values()))
    if held != wanted:
        here = set(map(family.in_memory, found))
        missing = sorted(expected.keys() - here) if not family.stored else []
        example = f", {missing[0]} among what is missing" if missing else ""
        raise TeacherError(
            f"{source}: its files hold {held:,} of {wanted:,} parameters{example}. Download or "
            "save the model again."
        )
    return found


def _times(sizes: tuple[int, ...]) -> str:
    return " x ".join(map(str, sizes))


def _shards(
    tensors: Mapping[str, StoredTensor], family: Family, keep: Keep, most: int
) -> list[list[Planned]]:
    """What the new files hold, in this order; within a file the wider types first, so aligned."""
    shards: list[list[Planned]] = [[]]
    filled = 0
    for name, tensor in tensors.items():
        place = place_of(family, name)
        renamed = new_name(family, place, keep)
        if renamed is None:
            continue
        sizes = tuple(
            size if is_fixed(dimension) else size_of(dimension, keep.shape)
            for size, dimension in zip(tensor.sizes, place.dimensions, strict=True)
        )
        planned = Planned(name, renamed[0], tensor.kind, sizes)
        if shards[-1] and filled + planned.bytes > most:
            shards.append([])
            filled = 0
        shards[-1].append(planned)
        filled += planned.bytes
    return [sorted(shard, key=lambda each: -each.kind.itemsize) for shard in shards]


def _file_names(count: int) -> list[str]:
    if count == 1:
        return [WEIGHTS]
    return [f"model-{number:05d}-of-{count:05d}.safetensors" for number in range(1, count + 1)]


def _write_shard(
    path: Path, shard: list[Planned], parts: Iterator[tuple[str, torch.Tensor]], running: Bar
) -> None:
    """A safetensors file: the length of the header, the header, then the bytes of every tensor."""
    header: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    end = 0
    for each in shard:
        start, end = end, end + each.bytes
        told = {"dtype": NAMES[each.kind], "shape": each.sizes, "data_offsets": [start, end]}
        header[each.name] = told
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    with path.open("wb") as file:
        file.write(len(text).to_bytes(8, "little") + text)
        for _, part in parts:
            file.write(raw_bytes(part))
            del part  # before the next one is read
            running.advance()


def _write_index(path: Path, files: Mapping[str, list[Planned]]) -> None:
    planned = [(file, each) for file, shard in files.items() for each in shard]
    index = {
        "metadata": {
            "total_size": sum(each.bytes for _, each in planned),
            "total_parameters": sum(math.prod(each.sizes) for _, each in planned),
        },
        "weight_map": {each.name: file for file, each in planned},
    }
    path.write_text(json.dumps(index, indent=2) + "\n", encoding="utf-8")


def _write_others(source: Path, folder: Path, config: Any, keep: Keep, tokenizer: Any) -> None:
    """Config, generation config and tokenizer."""
    from transformers import GenerationConfig

    if keep.vocabulary is not None:
        config = renumber_config(config, keep.vocabulary, keep.old.vocabulary)
    config.save_pretrained(folder)
    if keep.vocabulary is not None and (source / GENERATION).is_file():
        generation = GenerationConfig.from_pretrained(source, local_files_only=True)
        renumber_config(generation, keep.vocabulary).save_pretrained(folder)
    elif (source / GENERATION).is_file():
        shutil.copyfile(source / GENERATION, folder / GENERATION)
    if tokenizer is not None:
        tokenizer.save_pretrained(folder)
    else:
        _copy(source, folder, TOKENIZER)
    copy_processor(source, folder)


def copy_processor(source: Path, folder: Path) -> None:
    """What pictures are cut with, if anything, from one model's folder to another's."""
    _copy(source, folder, PROCESSOR_FILES)


def _copy(source: Path, folder: Path, patterns: Sequence[str]) -> None:
    for file in {file for pattern in patterns for file in source.glob(pattern)}:
        if file.is_file():
            shutil.copyfile(file, folder / file.name)
