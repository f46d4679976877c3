"""A device: what its engines take for the building blocks of networks, measured once and kept.

A profile lies in the user's cache folder (FLYWEIGHT_CACHE overrides), one file a machine, and is
measured anew when the processor or an engine is another one. A copied file is a device elsewhere.
"""

from __future__ import annotations

import json
import platform
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import numpy as np

from flyweight.errors import OptionError
from flyweight.folder import disk_errors, write_whole
from flyweight.make.blocks import PLACES, TIMES, Blocks, Load, fit, split_by_threads
from flyweight.make.budget import Figures
from flyweight.make.machine import own_name, processor
from flyweight.runtime.hardware import cache_folder
from flyweight.runtime.threads import SMALL_FILE, cores

FORMAT = 1
WRITES = "writes"
CLASSIFIES = "classifies"
VERBS = {WRITES: "write", CLASSIFIES: "classify"}
WIDTHS = {WRITES: (16, 8, 5, 4), CLASSIFIES: (32, 16, 8)}
ENGINES = {WRITES: ("xllamacpp",), CLASSIFIES: ("onnxruntime", "torch")}


@dataclass(frozen=True)
class Device:
    """A machine, its engines' versions, and blocks by kind of network and bit width.

    Of each width the blocks of files that one thread answers fastest, then those of larger ones.
    """

    name: str
    processor: str
    cores: int
    made: dict[str, str] = field(default_factory=dict)  # by kind, ISO 8601, UTC
    engines: dict[str, str] = field(default_factory=dict)
    blocks: dict[str, dict[int, list[Blocks]]] = field(default_factory=dict)

    def forecast(
        self, load: Load, bits: int, size: float, read: np.ndarray, written: np.ndarray
    ) -> Figures:
        """What a file of `size` bytes is likely to take on prompts and answers of these lengths."""
        kind = WRITES if load.head else CLASSIFIES
        small, *large = self.blocks[kind][bits]
        blocks = large[0] if large and size >= SMALL_FILE else small
        return blocks.figures(load, size, read, written)

    def knows(self, kind: str) -> bool:
        """Whether it was measured for this kind of network, at every width."""
        return all(self.blocks.get(kind, {}).get(bits) for bits in WIDTHS[kind])


def find_device(name: str, causal: bool) -> Device:
    """The device of `--device`, measured for networks that write (`causal`) or that classify."""
    kind = WRITES if causal else CLASSIFIES
    if name == "this":
        found = this_device()
        return found if found.knows(kind) else measure_device(found, kind)
    path = Path(name)
    if not path.is_file():
        raise OptionError(
            f"--device {name}: no such file. Give this, or a profile that `flyweight device --out "
            "FILE` wrote on the other machine."
        )
    found = _read(path)
    if not found.knows(kind):
        raise OptionError(
            f"--device {name}: it knows nothing of networks that {VERBS[kind]}. "
            "Run `flyweight device` on that machine with flyweight[onnx] installed."
        )
    return found


def this_device() -> Device:
    """This machine with what was measured on it by the engines that are installed now."""
    bare = Device(own_name(), processor(), cores(), engines=_versions())
    path = profile_of(bare.name)
    if not path.exists():
        return bare
    known = _read(path)
    if (known.processor, known.cores) != (bare.processor, bare.cores):
        return bare
    same = [
        kind
        for kind, names in ENGINES.items()
        if all(known.engines.get(name) == bare.engines.get(name) for name in names)
    ]
    return replace(
        bare,
        made={kind: each for kind, each in known.made.items() if kind in same},
        blocks={kind: each for kind, each in known.blocks.items() if kind in same},
    )


def measure_device(device: Device, kind: str) -> Device:
    """This machine measured for one more kind of network, and kept."""
    from flyweight.make.networks import measure_networks

    runs = measure_networks(kind == WRITES)
    blocks = {
        bits: [fit(part) for part in split_by_threads(each) if part] for bits, each in runs.items()
    }
    now = datetime.now(UTC).isoformat(timespec="seconds")
    found = replace(
        device,
        made=device.made | {kind: now},
        blocks=device.blocks | {kind: blocks},
    )
    path = profile_of(found.name)
    with disk_errors(path):
        write_device(found, path)
    return found


def write_device(device: Device, path: Path) -> None:
    """Write a profile; at any moment the file is all there or as before."""
    told = asdict(device) | {"format": FORMAT, "system": platform.system()}
    write_whole(path, json.dumps(told, indent=1) + "\n")


def profile_of(name: str) -> Path:
    """Where the profile of a machine of this name is kept."""
    return cache_folder() / "devices" / f"{name}.json"


def _read(path: Path) -> Device:
    try:
        told = json.loads(path.read_text(encoding="utf-8"))
        if told["format"] != FORMAT:
            raise ValueError(f"format {told['format']}")
        blocks = {
            kind: {int(bits): [_blocks(part) for part in parts] for bits, parts in each.items()}
            for kind, each in told["blocks"].items()
        }
        return Device(
            str(told["name"]),
            str(told["processor"]),
            int(told["cores"]),
            dict(told["made"]),
            dict(told["engines"]),
            blocks,
        )
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise OptionError(
            f"{path}: not a device profile ({error}). Remove it, or write it again with "
            "`flyweight device`."
        ) from error


def _blocks(told: Mapping[str, Any]) -> Blocks:
    found = Blocks(**told)
    numbers = np.array([*found.seconds, *found.memory, found.jitter, found.error], dtype=float)
    if (len(found.seconds), len(found.memory)) != (TIMES, PLACES) or not (numbers >= 0).all():
        raise ValueError("costs are missing, or no numbers")
    return found


def _versions() -> dict[str, str]:
    found = {}
    for name in (name for names in ENGINES.values() for name in names):
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue  # an extra
    return found


__all__ = ["CLASSIFIES", "WRITES", "Device", "find_device", "measure_device", "profile_of",
           "this_device", "write_device"]  # fmt: skip
