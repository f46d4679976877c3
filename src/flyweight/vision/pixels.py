"""Pictures as a Mllama encoder is given them, and many of them kept on disk."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from transformers.models.mllama.image_processing_pil_mllama import MllamaImageProcessorPil

from flyweight.errors import TeacherError, reason_of
from flyweight.folder import check_space

LAID = 16  # bytes that tell how a picture is laid


@dataclass(frozen=True)
class Tiled:
    """A picture cut into tiles: uint8 [tiles, 3, S, S], and the number of its arrangement."""

    tiles: np.ndarray
    arrangement: int  # from 1, of transformers' list

    def sha256(self) -> str:
        """A hex name for it."""
        digest = hashlib.sha256(f"{self.tiles.shape} {self.arrangement} ".encode())
        digest.update(self.tiles.tobytes())
        return digest.hexdigest()


class Cutter:
    """Cuts pictures into a model's tiles, by transformers' image processor with its settings."""

    def __init__(self, processor: Any) -> None:
        self.processor = processor
        self.most, self.side = int(processor.max_image_tiles), int(processor.size["height"])
        mean, std = (
            torch.tensor(each, dtype=torch.float32).view(1, 1, 1, 3, 1, 1)
            for each in (processor.image_mean, processor.image_std)
        )
        self._mean, self._std, self._scale = mean, std, float(processor.rescale_factor)

    @classmethod
    def of(cls, folder: Path) -> Cutter:
        """The cutter of a Mllama folder; TeacherError where its processor cannot be read."""
        try:
            return cls(MllamaImageProcessorPil.from_pretrained(folder, local_files_only=True))
        except Exception as error:  # transformers raises many kinds for an odd config
            raise TeacherError(
                f"{folder}: its processor cannot be used ({reason_of(error)})."
            ) from error

    def cut(self, image: Image.Image) -> Tiled:
        """The tiles of one RGB picture."""
        out = self.processor(image, do_rescale=False, do_normalize=False, return_tensors="np")
        used = int(out["aspect_ratio_mask"].sum())
        tiles = out["pixel_values"][0, 0, :used].round().astype(np.uint8)
        return Tiled(tiles, int(out["aspect_ratio_ids"][0, 0]))

    def given(self, pictures: Sequence[Tiled]) -> dict[str, Tensor]:
        """What the encoder is given of these pictures."""
        tiles = torch.zeros(len(pictures), self.most, 3, self.side, self.side, dtype=torch.uint8)
        for row, picture in enumerate(pictures):
            tiles[row, : len(picture.tiles)] = torch.from_numpy(picture.tiles)
        arrangements = torch.tensor([picture.arrangement for picture in pictures])
        counts = torch.tensor([len(picture.tiles) for picture in pictures])
        return self.inputs(tiles, arrangements, counts)

    def inputs(self, tiles: Tensor, arrangements: Tensor, counts: Tensor) -> dict[str, Tensor]:
        """What the encoder is given of uint8 tiles [B, tiles, 3, S, S], `counts` of them used."""
        pixels = tiles[:, None].float()  # in place from here on: it is large
        pixels.mul_(self._scale).sub_(self._mean.to(pixels.device)).div_(
            self._std.to(pixels.device)
        )
        given = self.arrangement(arrangements, counts)
        used = given["aspect_ratio_mask"][..., None, None, None]  # [B, 1, tiles, 1, 1, 1]
        return given | {"pixel_values": pixels.mul_(used)}

    def arrangement(self, arrangements: Tensor, counts: Tensor) -> dict[str, Tensor]:
        """How pictures are laid in tiles, `counts` of them used."""
        used = torch.arange(self.most, device=counts.device) < counts[:, None]  # [B, tiles]
        return {
            "aspect_ratio_ids": arrangements[:, None],
            "aspect_ratio_mask": used[:, None].long(),
        }


class Shelf:
    """Tiles of many pictures in one file, memory-mapped: a training reads them in any order.

    Behind them stands how they are laid: the numbers of tiles, then the arrangements.
    """

    def __init__(self, file: Path, cutter: Cutter) -> None:
        """Open a file that `fill` wrote, with this cutter."""
        self.cutter = cutter
        each = _bytes_of(cutter)
        count = file.stat().st_size // (each + LAID)
        laid = np.fromfile(file, np.int64, offset=count * each)
        self._counts, self._arrangements = torch.from_numpy(laid.reshape(2, count))
        shape = (count, cutter.most, 3, cutter.side, cutter.side)
        self._tiles = np.memmap(file, np.uint8, "r", shape=shape)

    def __len__(self) -> int:
        return len(self._tiles)

    @classmethod
    def fill(cls, file: Path, cutter: Cutter, images: Iterable[Image.Image], count: int) -> Shelf:
        """Write the tiles of `count` pictures to `file`, whole or not at all. NoSpace before."""
        each = _bytes_of(cutter)
        scratch = file.with_name(f".{file.name}")
        scratch.unlink(missing_ok=True)  # what a kill left behind is room
        check_space(file, count * (each + LAID))
        laid = np.zeros((2, count), np.int64)  # tiles of each picture, and their arrangement
        try:
            with scratch.open("wb") as out:
                for place, image in enumerate(images):
                    found = cutter.cut(image)
                    laid[:, place] = len(found.tiles), found.arrangement
                    out.write(found.tiles.tobytes().ljust(each, b"\0"))
                out.write(laid.tobytes())
            scratch.replace(file)
        finally:
            scratch.unlink(missing_ok=True)
        return cls(file, cutter)

    def inputs(self, numbers: Tensor) -> dict[str, Tensor]:
        """What the encoder is given of these pictures, int64 [B]."""
        tiles = torch.from_numpy(self._tiles[numbers.cpu().numpy()]).to(numbers.device)
        return self.cutter.inputs(tiles, *self._laid(numbers))

    def arrangement(self, numbers: Tensor) -> dict[str, Tensor]:
        """How these pictures, int64 [B], are laid in tiles."""
        return self.cutter.arrangement(*self._laid(numbers))

    def _laid(self, numbers: Tensor) -> tuple[Tensor, Tensor]:
        here, device = numbers.cpu(), numbers.device
        return self._arrangements[here].to(device), self._counts[here].to(device)


def _bytes_of(cutter: Cutter) -> int:
    """What the tiles of a picture take on a shelf."""
    return cutter.most * 3 * cutter.side**2


__all__ = ["Cutter", "Shelf", "Tiled"]
