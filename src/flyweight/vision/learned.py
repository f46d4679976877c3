"""Encoders that have learned something: a ViT, CLIP or SigLIP in the places of a Mllama encoder.

Mllama's attention has no biases, and its tokens pass a norm before the first layer. What has no
place is put where it does the same or nearly so: a key's bias changes no attention; a query's and
a value's become one shift of the norm before them, fitted by least squares; what is left of the
output's is added behind the MLP. Training mends the rest. The layers over all tiles begin closed.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from flyweight.errors import TeacherError, reason_of
from flyweight.vision.sizes import arrangements, check_tiles

HALF = [0.5, 0.5, 0.5]  # ViT's and SigLIP's normalisation
Tensors = Mapping[str, Tensor]


@dataclass(frozen=True)
class Names:
    """How a kind of encoder names its tensors; `{layer}` stands for a block's number."""

    patches: str
    positions: str
    first: str | None  # the class token; None: it has none
    before: str | None  # the norm before the first block
    after: str
    block: str
    query: str
    key: str
    value: str
    output: str
    norms: tuple[str, str]


CLIP = Names(
    "embeddings.patch_embedding", "embeddings.position_embedding.weight",
    "embeddings.class_embedding", "pre_layrnorm", "post_layernorm", "encoder.layers.{layer}.",
    "self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj", "self_attn.out_proj",
    ("layer_norm1", "layer_norm2"),
)  # fmt: skip
SIGLIP = Names(
    CLIP.patches, CLIP.positions, None, None, CLIP.after, CLIP.block,
    CLIP.query, CLIP.key, CLIP.value, CLIP.output, CLIP.norms,
)  # fmt: skip
VIT = Names(
    "embeddings.patch_embeddings.projection", "embeddings.position_embeddings",
    "embeddings.cls_token", None, "layernorm", "layers.{layer}.",
    "attention.q_proj", "attention.k_proj", "attention.v_proj", "attention.o_proj",
    ("layernorm_before", "layernorm_after"),
)  # fmt: skip
KINDS = {
    "vit": ("ViTModel", VIT),
    "clip": ("CLIPVisionModel", CLIP),
    "clip_vision_model": ("CLIPVisionModel", CLIP),
    "siglip": ("SiglipVisionModel", SIGLIP),
    "siglip_vision_model": ("SiglipVisionModel", SIGLIP),
}


@dataclass(frozen=True)
class Learned:
    """An encoder's config and weights as Mllama has them, and how its pictures are normalised."""

    config: Any
    weights: dict[str, Tensor]
    mean: list[float]
    std: list[float]


def read_encoder(name: str, tiles: int) -> Learned:
    """What the encoder in a folder, or of a hub name, has learned; TeacherError for other kinds."""
    check_tiles(tiles)
    try:
        return _read(name, tiles)
    except TeacherError:
        raise
    except Exception as error:  # transformers raises many kinds for a broken checkpoint
        raise TeacherError(
            f"{name}: is no image encoder that can be read ({reason_of(error)}). Give a size "
            "(tiny, small, base, meta), or the folder of a ViT, CLIP or SigLIP model."
        ) from error


def _read(name: str, tiles: int) -> Learned:
    import transformers

    folder = _folder(name)
    whole = transformers.AutoConfig.from_pretrained(folder, local_files_only=True)
    loader, names = KINDS.get(whole.model_type, ("", None))
    if names is None:
        raise TeacherError(
            f"{name}: an encoder of the kind {whole.model_type} has no place in a Mllama. Use "
            f"one of these: {', '.join(KINDS)}."
        )
    model = getattr(transformers, loader).from_pretrained(
        folder, dtype="float32", use_safetensors=True, local_files_only=True
    )
    sides = (model.config.image_size, model.config.patch_size)
    if not all(isinstance(side, int) for side in sides):
        raise TeacherError(f"{name}: its pictures or patches are no squares. Use another encoder.")
    config = _config(model.config, tiles)
    mean, std = _normalisation(folder)
    return Learned(config, _weights(model.state_dict(), names, config), mean, std)


def _folder(name: str) -> Path:
    if Path(name).is_dir():
        return Path(name)
    from huggingface_hub import snapshot_download

    return Path(snapshot_download(name, allow_patterns=["*.safetensors", "*.json"]))


def _config(config: Any, tiles: int) -> Any:
    from transformers import MllamaVisionConfig

    layers, width = config.num_hidden_layers, config.hidden_size
    taps = sorted({-max(2, layers * 3 // 4), -max(2, layers // 2), -2})
    taps = [tap for tap in taps if -tap <= layers]
    return MllamaVisionConfig(
        hidden_size=width,
        hidden_act=config.hidden_act,
        num_hidden_layers=layers,
        num_global_layers=2,
        attention_heads=config.num_attention_heads,
        intermediate_size=config.intermediate_size,
        vision_output_dim=width * (1 + len(taps)),
        image_size=config.image_size,
        patch_size=config.patch_size,
        norm_eps=config.layer_norm_eps,
        max_num_tiles=tiles,
        supported_aspect_ratios=[list(each) for each in arrangements(tiles)],
        intermediate_layers_indices=taps,
    )


def _normalisation(folder: Path) -> tuple[list[float], list[float]]:
    file = folder / "preprocessor_config.json"
    told = json.loads(file.read_text(encoding="utf-8")) if file.exists() else {}
    mean, std = (
        [float(part) for part in told.get(f"image_{each}", HALF)] for each in ("mean", "std")
    )
    if len(mean) != 3 or len(std) != 3:
        raise ValueError(f"{file.name}: image_mean and image_std are three numbers each")
    return mean, std


def _weights(given: Tensors, names: Names, config: Any) -> dict[str, Tensor]:
    width = config.hidden_size
    positions = given[names.positions].reshape(-1, width).clone()
    bias = given.get(f"{names.patches}.bias", torch.zeros(width))
    first = torch.zeros(width) if names.first is None else given[names.first].reshape(width)
    if names.first is None:
        positions = torch.cat([torch.zeros(1, width), positions])
    positions[1:] += bias  # Mllama's patches have none
    weights = {
        "patch_embedding.weight": given[f"{names.patches}.weight"],
        "class_embedding": first,
        "gated_positional_embedding.embedding": positions,
        **_norm(given, names.after, "layernorm_post"),
    }
    if names.before is not None:
        weights |= _norm(given, names.before, "layernorm_pre")
    else:  # it has to let tokens pass: their usual spread is given back
        spread = _spread(given[f"{names.patches}.weight"], positions[1:])
        weights["layernorm_pre.weight"] = torch.full((width,), spread)
    for layer in range(config.num_hidden_layers):
        block = names.block.format(layer=layer)
        weights |= _block(partial(_tensor, given, block, config), names, layer)
    for layer in range(config.num_global_layers):
        for gate in ("gate_attn", "gate_ffn"):
            weights[f"global_transformer.layers.{layer}.{gate}"] = torch.zeros(1)
    return weights


def _spread(patches: Tensor, positions: Tensor) -> float:
    """The usual deviation of a token's channels before the first layer.

    `patches` [D, 3, P, P] are tried on noise with the spectrum of photographs, 1 / f, of deviation
    1 as normalised pictures have; `positions` [N, D] are added.
    """
    grid = int(len(positions) ** 0.5)
    side = grid * patches.shape[-1]
    far = torch.fft.fftfreq(side)
    falls = (far[:, None].square() + far.square()).sqrt().clamp(min=1 / side)
    white = torch.randn(4, 3, side, side, generator=torch.Generator().manual_seed(0))
    noise = torch.fft.ifft2(torch.fft.fft2(white) / falls).real
    noise = (noise - noise.mean()) / noise.std()
    tokens = torch.nn.functional.conv2d(noise, patches, stride=patches.shape[-1])
    return float((tokens.flatten(2).transpose(1, 2) + positions).std(-1).mean())


def _tensor(given: Tensors, block: str, config: Any, name: str) -> Tensor:
    """A block's tensor; a bias that it does not have is 0."""
    if name.endswith("bias") and block + name not in given:
        wide = name.startswith("mlp.fc1")
        return torch.zeros(config.intermediate_size if wide else config.hidden_size)
    return given[block + name]


def _norm(given: Tensors, name: str, place: str) -> dict[str, Tensor]:
    return {f"{place}.{part}": given[f"{name}.{part}"] for part in ("weight", "bias")}


def _block(of: Callable[[str], Tensor], names: Names, layer: int) -> dict[str, Tensor]:
    """One block; `of` gives its tensors by their own names."""
    queries, values, output = (
        of(f"{name}.weight") for name in (names.query, names.value, names.output)
    )
    wanted_queries = of(f"{names.query}.bias")
    wanted = output @ of(f"{names.value}.bias") + of(f"{names.output}.bias")
    through = output @ values  # what a shift of the norm adds to the output
    shift = torch.linalg.lstsq(
        torch.cat([queries, through]), torch.cat([wanted_queries, wanted])[:, None]
    ).solution[:, 0]
    first, second = names.norms
    own = f"transformer.layers.{layer}."
    return {
        f"{own}self_attn.q_proj.weight": queries,
        f"{own}self_attn.k_proj.weight": of(f"{names.key}.weight"),
        f"{own}self_attn.v_proj.weight": values,
        f"{own}self_attn.o_proj.weight": output,
        f"{own}input_layernorm.weight": of(f"{first}.weight"),
        f"{own}input_layernorm.bias": of(f"{first}.bias") + shift,
        f"{own}post_attention_layernorm.weight": of(f"{second}.weight"),
        f"{own}post_attention_layernorm.bias": of(f"{second}.bias"),
        f"{own}mlp.fc1.weight": of("mlp.fc1.weight"),
        f"{own}mlp.fc1.bias": of("mlp.fc1.bias"),
        f"{own}mlp.fc2.weight": of("mlp.fc2.weight"),
        f"{own}mlp.fc2.bias": of("mlp.fc2.bias") + wanted - through @ shift,
    }


__all__ = ["KINDS", "Learned", "read_encoder"]
