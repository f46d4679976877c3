"""Running sums over a corpus, kept on disk so that a pass goes on where it was ended.

Only a sealed save counts (folder.py): its list of hashes is written last.
"""

from __future__ import annotations

import hashlib
import json
import re
import shutil
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from flyweight.errors import FolderError
from flyweight.folder import disk_errors, read_seal, seal
from flyweight.mapped import plain

SAVE_EVERY = 30.0  # seconds between saves at the least; they change nothing in the result
_FILE = "sums.safetensors"


@dataclass
class Sums:
    """Sums in fp64 by name, and over how much they run."""

    tensors: dict[str, Tensor] = field(default_factory=dict)
    batches: int = 0
    sequences: int = 0
    tokens: int = 0

    def add(self, name: str, value: Tensor) -> None:
        """Add `value` of any shape, always the same under one name."""
        value = value.detach().double().cpu()
        self.tensors[name] = self.tensors[name] + value if name in self.tensors else value


class Saves:
    """The saves of one pass in a folder (None: nowhere); `inputs` decide the sums, with the corpus.

    Raises FolderError where the folder holds sums of another pass.
    """

    def __init__(self, folder: Path | None, inputs: dict[str, Any]) -> None:
        self.folder = None if folder is None else folder.absolute()
        self._inputs = json.loads(json.dumps(inputs))
        self._last = time.monotonic()
        self._read = ""  # hash of the prompts that the loaded sums have read

    def load(self) -> Sums:
        """The furthest whole save, nothing without one."""
        for place in self._places():
            facts = read_seal(place)
            if facts is None:
                continue
            if facts["inputs"] != self._inputs:
                raise self._foreign("model or other settings")
            self._read = facts["prompts"]
            return Sums(
                load_file(place / _FILE), facts["batches"], facts["sequences"], facts["tokens"]
            )
        return Sums()

    def check(self, prompts: str) -> None:
        """FolderError unless the loaded sums have read the prompts of this hash."""
        if self._read != prompts:
            raise self._foreign("prompts")

    def save(self, sums: Sums, prompts: str, *, now: bool = False) -> None:
        """Save what `prompts` (their hash) have come to, if it is time or `now`."""
        if self.folder is None or not (now or time.monotonic() - self._last >= SAVE_EVERY):
            return
        place = self.folder / f"after-{sums.batches}"
        with disk_errors(self.folder):
            shutil.rmtree(place, ignore_errors=True)  # what a kill left behind
            place.mkdir(parents=True)
            save_file(sums.tensors, place / _FILE)
            seal(
                place, inputs=self._inputs, prompts=prompts, batches=sums.batches,
                sequences=sums.sequences, tokens=sums.tokens,
            )  # fmt: skip
        for older in self._places():
            if older != place:
                shutil.rmtree(older, ignore_errors=True)
        self._last = time.monotonic()

    def _places(self) -> list[Path]:
        """Folders of saves, whole or not, the furthest first."""
        if self.folder is None:
            return []
        found = [
            (int(match[1]), path)
            for path in self.folder.glob("after-*")
            if (match := re.fullmatch(r"after-(\d+)", path.name))
        ]
        return [path for _, path in sorted(found, reverse=True)]

    def _foreign(self, what: str) -> FolderError:
        return FolderError(
            f"{self.folder} holds sums over other {what}. Give another folder, or remove it."
        )


def model_sha256(model: Any) -> str:
    """One hash over a model's config and all its weights."""
    told = {name: value for name, value in model.config.to_dict().items() if name[0] != "_"}
    told.pop("dtype", None)  # of the files: the same weights may be held or left there
    digest = hashlib.sha256(json.dumps(told, sort_keys=True, default=str).encode())
    for name, weight in model.named_parameters():
        digest.update(f"{name} {weight.dtype} {tuple(weight.shape)}".encode())
        raw = plain(weight.detach()).cpu().contiguous().reshape(-1).view(torch.uint8)
        digest.update(raw.numpy().data)
    return digest.hexdigest()
