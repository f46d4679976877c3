"""Image encoders that begin with nothing learned, by the name of their size."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from flyweight.errors import OptionError

MOST_TILES = 16
META_TAPS = (3, 7, 15, 23, 30)  # of 32 layers: where Meta's encoder also lets its features out


@dataclass(frozen=True)
class EncoderSize:
    """A ViT with `layers` within tiles and `across` over all tiles; pixels of a tile and a patch.

    `taps` counts layers from the end, -1 being the last: what leaves those is given to the language
    model besides. Counted so, transformers and Meta's code mean the same layer, where counts from
    the front are one apart (mllama.py).
    """

    width: int
    layers: int
    across: int
    heads: int
    image: int
    patch: int
    taps: tuple[int, ...]

    def config(self, tiles: int, image: int | None = None, patch: int | None = None) -> Any:
        """transformers' config of it, of pictures in up to so many tiles of `image` pixels."""
        from transformers import MllamaVisionConfig

        image = self.image if image is None else image
        patch = self.patch if patch is None else patch
        check_tiles(tiles)
        if patch < 1 or image < patch or image % patch:
            raise OptionError(
                f"tiles of {image} pixels in patches of {patch}: give pixels that are a multiple "
                "of the patch."
            )
        return MllamaVisionConfig(
            hidden_size=self.width,
            num_hidden_layers=self.layers,
            num_global_layers=self.across,
            attention_heads=self.heads,
            intermediate_size=4 * self.width,
            vision_output_dim=self.width * (1 + len(self.taps)),
            image_size=image,
            patch_size=patch,
            max_num_tiles=tiles,
            supported_aspect_ratios=[list(each) for each in arrangements(tiles)],
            intermediate_layers_indices=list(self.taps),
        )


def check_tiles(tiles: int) -> None:
    """OptionError for a number of tiles that cannot be."""
    if not 1 <= tiles <= MOST_TILES:
        raise OptionError(f"--tiles is {tiles}: give 1 to {MOST_TILES}.")


def arrangements(tiles: int) -> list[tuple[int, int]]:
    """How pictures are laid in up to so many tiles, in the order of their numbers, from 1.

    Source: transformers' get_all_supported_aspect_ratios, which numbers them in use.
    """
    across = range(1, tiles + 1)
    return [(rows, columns) for rows in across for columns in across if rows * columns <= tiles]


SIZES = {
    "tiny": EncoderSize(192, 6, 2, 3, image=160, patch=16, taps=(-4, -2)),
    "small": EncoderSize(384, 12, 2, 6, image=224, patch=14, taps=(-8, -4, -2)),
    "base": EncoderSize(768, 12, 4, 12, image=224, patch=14, taps=(-8, -4, -2)),
    "meta": EncoderSize(
        1280, 32, 8, 16, image=560, patch=14, taps=tuple(t - 33 for t in META_TAPS)
    ),
}


def new_encoder(vision: Any) -> None:
    """Let a Mllama encoder begin: products after Glorot, places told by sines, gates as Meta's.

    Position embeddings that are sines of a patch's row and column, and not noise, let a small
    encoder find its way in a fraction of the pictures. Source: Beyer et al., arXiv:2205.01580.
    """
    import torch
    from torch import nn

    with torch.no_grad():
        for module in vision.modules():
            if isinstance(module, nn.Linear):
                nn.init.xavier_uniform_(module.weight)
        nn.init.xavier_uniform_(vision.patch_embedding.weight.view(vision.hidden_size, -1))
        grid = vision.image_size // vision.patch_size
        places = vision.gated_positional_embedding.embedding  # [1 + patches, D], the first: class
        places[1:].copy_(0.5 * _sines(grid, vision.hidden_size))
        for layer in vision.global_transformer.layers:
            layer.gate_attn.fill_(torch.pi / 4)
            layer.gate_ffn.fill_(torch.pi / 4)


def _sines(grid: int, width: int) -> Any:
    """[patches, D]: sines and cosines of column and row, of wavelengths up to 10,000 patches."""
    import torch

    quarter = width // 4
    slow = 10_000 ** -(torch.arange(quarter) / max(1, quarter - 1))
    rows, columns = torch.meshgrid(torch.arange(grid), torch.arange(grid), indexing="ij")
    turns = [each.flatten()[:, None] * slow for each in (columns, rows)]
    return torch.cat([part for turn in turns for part in (turn.sin(), turn.cos())], 1)


__all__ = ["META_TAPS", "SIZES", "EncoderSize", "arrangements", "check_tiles", "new_encoder"]
