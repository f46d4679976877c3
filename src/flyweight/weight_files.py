"""The files that hold a checkpoint's weights, and what types these are of."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path

from flyweight.errors import TeacherError

WEIGHTS = "model.safetensors"
INDEX = "model.safetensors.index.json"
_WORKED_OUT = (".inv_freq", ".position_ids")  # anew, whatever the file says


def weight_files(folder: Path) -> list[Path]:
    """The safetensors files that transformers would load; TeacherError where some are missing.

    That is `model.safetensors`, or else the shards that `model.safetensors.index.json` names.
    """
    single, index = folder / WEIGHTS, folder / INDEX
    if single.is_file():
        return [single]
    try:
        named = set(json.loads(index.read_bytes())["weight_map"].values())
        shards = [folder / name for name in sorted(named)]
    except FileNotFoundError:
        raise TeacherError(f"{folder}: neither {WEIGHTS} nor {INDEX}. Add the weights.") from None
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise TeacherError(f"{index} cannot be read. Download or save it again.") from error
    for shard in shards:
        if shard.parent != folder:
            raise TeacherError(f"{index} names a file elsewhere, {shard}. Download it again.")
        if not shard.is_file():
            raise TeacherError(f"{folder}: {shard.name} is missing. Download it again.")
    return shards


def types_in(files: Iterable[Path]) -> set[str]:
    """The types of the weights in safetensors files, as their headers name them.

    What is worked out anew (positions, the frequencies of RoPE) does not count.
    """
    from safetensors import safe_open

    found: set[str] = set()
    for file in files:
        with safe_open(file, framework="np") as opened:
            for name in opened.keys():  # noqa: SIM118
                if not name.endswith(_WORKED_OUT):
                    found.add(opened.get_slice(name).get_dtype())
    return found


__all__ = ["INDEX", "WEIGHTS", "types_in", "weight_files"]
