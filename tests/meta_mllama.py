"""Meta's own Mllama, tiny and random, and its weights under transformers' names.

The reference is llama-models' `multimodal/model.py` on fairscale. Its code runs as it stands, with
its 32 + 8 encoder layers and the five that it taps; only the encoder's width is made small. One
thing is stood in for where it is missing: torchvision, of which `image_transform.py` uses four
functions on Pillow images, here written in Pillow and torch.
"""

from __future__ import annotations

import importlib
import importlib.util
import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from types import ModuleType
from typing import Any, NamedTuple
from unittest.mock import patch

import numpy as np
import torch
from PIL import Image
from torch import Tensor, distributed, nn
from transformers import MllamaConfig
from transformers.models.mllama.configuration_mllama import MllamaTextConfig, MllamaVisionConfig
from transformers.models.mllama.image_processing_pil_mllama import (
    build_aspect_ratio_mask_np,
    convert_aspect_ratios_to_ids_np,
    get_all_supported_aspect_ratios,
    pack_images,
)
from transformers.models.mllama.processing_mllama import (
    convert_sparse_cross_attention_mask_to_dense,
    get_cross_attention_token_mask,
)

LAYERS, CROSS = 6, 2  # of the language model, and cross-attention layers before some of them
WIDTH, HEADS = 64, 4  # of the encoder and of the language model
VOCABULARY = 80
IMAGE = VOCABULARY  # the image token: the first row of the trainable embeddings
TILES, SIDE = 4, 28  # at most so many tiles, each of so many pixels squared
ROWS, LENGTH = 8, 32  # of Meta's caches
EPSILON = 1e-3  # so large that a wrong one shows
THETA = 10000.0
LLAMA3_ROPE = {  # what Meta's `apply_scaling` has as numbers
    "rope_type": "llama3",
    "factor": 8.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 8192,
}
RATIOS = get_all_supported_aspect_ratios(TILES)  # (rows, columns) of tiles


class Picture(NamedTuple):
    """An image cut into tiles, as Meta's transform returns it."""

    tiles: Tensor  # [rows * columns, 3, SIDE, SIDE]
    ratio: tuple[int, int]  # (rows, columns)


class Batch(NamedTuple):
    """Prompts of one length, each with the pictures of its image tokens."""

    tokens: Tensor  # [B, T]
    pictures: list[list[Picture]]


def reference() -> Any:
    """Meta's module, imported with torchvision or with what stands in for it meanwhile."""
    missing = importlib.util.find_spec("torchvision") is None
    stand_ins = _torchvision() if missing else {}
    sys.modules.update(stand_ins)
    try:
        return importlib.import_module("llama_models.llama3.multimodal.model")
    finally:  # others ask whether it is there
        for name in stand_ins:
            del sys.modules[name]


def _torchvision() -> dict[str, ModuleType]:
    """What Meta's `image_transform.py` imports."""

    def to_tensor(image: Image.Image) -> Tensor:
        return torch.from_numpy(np.array(image)).permute(2, 0, 1).float() / 255

    def normalize(image: Tensor, mean: Any, std: Any) -> Tensor:
        return (image - torch.tensor(mean)[:, None, None]) / torch.tensor(std)[:, None, None]

    names = ["torchvision", "torchvision.transforms", "torchvision.transforms.functional"]
    whole, transforms, functional = modules = [ModuleType(name) for name in names]
    vars(whole).update(transforms=transforms)
    vars(transforms).update(
        functional=functional,
        InterpolationMode=Image.Resampling,
        Normalize=lambda mean, std, inplace: partial(normalize, mean=mean, std=std),
        ToTensor=lambda: to_tensor,
    )
    vars(functional).update(
        resize=lambda image, size, interpolation: image.resize(size[::-1], interpolation)
    )
    return dict(zip(names, modules, strict=True))


@contextmanager
def alone() -> Iterator[None]:
    """fairscale's model parallel group with this process alone in it, over no port and no file."""
    from fairscale.nn.model_parallel import initialize

    distributed.init_process_group("gloo", store=distributed.HashStore(), rank=0, world_size=1)
    try:
        initialize.initialize_model_parallel(1)
        yield
    finally:
        initialize.destroy_model_parallel()
        distributed.destroy_process_group()


def build_meta(layers: int = LAYERS, cross: int = CROSS, seed: int = 0) -> Any:
    """Meta's model, every parameter of it drawn, with its caches, in fp32; pictures come as tiles.

    To be called inside `alone`.
    """
    meta = reference()
    args = meta.ModelArgs(
        dim=WIDTH,
        n_layers=layers,
        n_heads=HEADS,
        n_kv_heads=HEADS // 2,
        vocab_size=VOCABULARY,
        multiple_of=32,
        norm_eps=EPSILON,
        rope_theta=THETA,
        use_scaled_rope=True,
        max_batch_size=ROWS,
        max_seq_len=LENGTH,
        vision_chunk_size=SIDE,
        vision_max_num_chunks=TILES,
        vision_num_cross_attention_layers=cross,
    )
    narrow = partial(meta.VisionEncoder, width=WIDTH, heads=HEADS)
    with patch.object(meta, "VisionEncoder", narrow):
        model = meta.CrossAttentionTransformer(args)
    seeing = model.vision_model
    features = WIDTH * (1 + len(seeing.vision_encoder.return_intermediate))
    seeing.vision_projection = meta.ColumnParallelLinear(features, WIDTH, bias=True)
    model.image_transform = lambda picture: picture
    _draw(model, torch.Generator().manual_seed(seed))
    model.setup_cache(ROWS, torch.device("cpu"), torch.float32)
    return model.eval()


@torch.no_grad()
def _draw(model: nn.Module, generator: torch.Generator) -> None:
    """Gates open, norms off 1, biases off 0, the rest by its fan-in: nothing stays as it was."""
    for name, parameter in model.named_parameters():
        if parameter.numel() == 1:  # a gate
            parameter.uniform_(0.4, 0.9, generator=generator)
        elif parameter.ndim == 1 and name.endswith("weight"):  # of a norm
            parameter.uniform_(0.5, 1.5, generator=generator)
        elif "embed" in name:
            parameter.normal_(std=0.5, generator=generator)
        else:
            fan_in = parameter.shape[1] if parameter.ndim > 1 else 4
            parameter.normal_(std=fan_in**-0.5, generator=generator)


def crossing(model: Any) -> list[int]:
    """transformers' numbers of the cross-attention layers, by Meta's own schedule."""
    return [layer + earlier for earlier, layer in enumerate(model.text_model.fusion_schedule)]


def config_of(model: Any) -> MllamaConfig:
    """The config of the same sizes for transformers."""
    cross = crossing(model)
    vision = MllamaVisionConfig(
        hidden_size=WIDTH,
        attention_heads=HEADS,
        intermediate_size=4 * WIDTH,
        image_size=SIDE,
        max_num_tiles=TILES,
        vision_output_dim=model.vision_model.vision_projection.in_features,
    )
    text = MllamaTextConfig(
        vocab_size=VOCABULARY,
        hidden_size=WIDTH,
        num_hidden_layers=model.text_model.n_layers + len(cross),
        cross_attention_layers=cross,
        num_attention_heads=HEADS,
        num_key_value_heads=HEADS // 2,
        intermediate_size=model.text_model.layers[0].feed_forward.w1.out_features,
        rms_norm_eps=EPSILON,
        rope_parameters=LLAMA3_ROPE | {"rope_theta": THETA},
        bos_token_id=0,
        eos_token_id=1,
        pad_token_id=2,
    )
    return MllamaConfig(vision_config=vision, text_config=text, image_token_index=IMAGE)


FEED_FORWARD = {
    "feed_forward.w1": "mlp.gate_proj",
    "feed_forward.w2": "mlp.down_proj",
    "feed_forward.w3": "mlp.up_proj",
    "attention_norm": "input_layernorm",
    "ffn_norm": "post_attention_layernorm",
}
SELF_LAYER = {f"attention.w{part}": f"self_attn.{part}_proj" for part in "qkvo"} | FEED_FORWARD
CROSS_LAYER = {
    **{f"attention.w{part}": f"cross_attn.{part}_proj" for part in "qkvo"},
    **{f"attention.{part}_norm": f"cross_attn.{part}_norm" for part in "qk"},
    **FEED_FORWARD,
    "gate_attn": "cross_attn_attn_gate",
    "gate_ffwd": "cross_attn_mlp_gate",
}
ENCODER_LAYER = {
    **{f"attn.w{part}": f"self_attn.{part}_proj" for part in "qkvo"},
    "mlp.c_fc": "mlp.fc1",
    "mlp.c_proj": "mlp.fc2",
    "ln_1": "input_layernorm",
    "ln_2": "post_attention_layernorm",
    "gate_attn": "gate_attn",
    "gate_ffn": "gate_ffn",
}
EYES, TONGUE = "model.vision_model", "model.language_model"
OTHERS = {
    "vision_model.vision_projection": "model.multi_modal_projector",
    "vision_model.vision_encoder.class_embedding": f"{EYES}.class_embedding",
    "vision_model.vision_encoder.conv1._linear": f"{EYES}.patch_embedding",
    "vision_model.vision_encoder.ln_pre": f"{EYES}.layernorm_pre",
    "vision_model.vision_encoder.ln_post": f"{EYES}.layernorm_post",
    "vision_model.vision_encoder.positional_embedding": (
        f"{EYES}.gated_positional_embedding.embedding"
    ),
    "vision_model.vision_encoder.gated_positional_embedding": (
        f"{EYES}.gated_positional_embedding.tile_embedding.weight"
    ),
    "vision_model.vision_encoder.gated_positional_embedding_gate": (
        f"{EYES}.gated_positional_embedding.gate"
    ),
    **{
        f"vision_model.vision_encoder.{when}_tile_pos_embed.{theirs}": (
            f"{EYES}.{when}_tile_positional_embedding.{ours}"
        )
        for when in ("pre", "post")
        for theirs, ours in (("embedding", "embedding.weight"), ("gate", "gate"))
    },
    "text_model.tok_embeddings": f"{TONGUE}.embed_tokens",
    "text_model.learnable_embedding": f"{TONGUE}.embed_tokens",  # the rows after those
    "text_model.norm": f"{TONGUE}.norm",
    "text_model.output": "lm_head",
}


def translated(model: Any) -> dict[str, Tensor]:
    """Meta's weights under transformers' names; KeyError where one has none."""
    cross = crossing(model)
    named: dict[str, list[Tensor]] = {}
    for name, weight in model.state_dict().items():
        named.setdefault(_renamed(name, cross), []).append(_rearranged(name, weight))
    return {name: torch.cat(weights) for name, weights in named.items()}


def _renamed(name: str, cross: list[int]) -> str:
    """transformers' name of Meta's parameter."""
    stem, kind = re.fullmatch(r"(.*?)(\.weight|\.bias)?", name).groups("")  # type: ignore
    numbered = re.fullmatch(r"(.*(?:layers|resblocks))\.(\d+)\.(.*)", stem)
    if numbered is None:
        return OTHERS[stem] + kind
    place, number, part = numbered.groups()
    if place == "text_model.cross_attention_layers":
        return f"{TONGUE}.layers.{cross[int(number)]}.{CROSS_LAYER[part]}{kind}"
    if place == "text_model.layers":
        own = [layer for layer in range(int(number) + len(cross) + 1) if layer not in cross]
        return f"{TONGUE}.layers.{own[int(number)]}.{SELF_LAYER[part]}{kind}"
    encoder = place.removeprefix("vision_model.vision_encoder.").removesuffix(".resblocks")
    return f"{EYES}.{encoder}.layers.{number}.{ENCODER_LAYER[part]}{kind}"


def _rearranged(name: str, weight: Tensor) -> Tensor:
    """The weight in transformers' layout."""
    if re.fullmatch(r"text_model\.layers\.\d+\.attention\.w[qk]\.weight", name):
        # Meta turns neighbouring pairs, transformers the two halves of a head; nothing turns the
        # queries and keys of cross-attention, and their norms stay as they are too
        return weight.unflatten(0, (-1, WIDTH // HEADS // 2, 2)).transpose(1, 2).flatten(0, 2)
    if name.endswith("conv1._linear.weight"):
        return weight.unflatten(1, (3, 14, 14))
    if name.endswith((".gated_positional_embedding", "tile_pos_embed.embedding")):
        return _by_ratio(weight)
    return weight


def _by_ratio(tiles: Tensor) -> Tensor:
    """Embeddings [rows, columns, ...] of tiles as one line per aspect ratio; line 0 is padding."""
    table = torch.zeros(1 + len(RATIOS), TILES, *tiles.shape[2:])
    for line, (rows, columns) in enumerate(RATIOS, start=1):
        table[line, : rows * columns] = tiles[:rows, :columns].flatten(0, 1)
    return table.flatten(1)


def make_picture(ratio: tuple[int, int], seed: int = 0) -> Picture:
    """Noise, in so many rows and columns of tiles."""
    generator = torch.Generator().manual_seed(seed)
    tiles = torch.randn(ratio[0] * ratio[1], 3, SIDE, SIDE, generator=generator)
    return Picture(tiles, ratio)


def make_batch(
    places: list[list[int]], ratios: list[list[tuple[int, int]]], length: int = 12, seed: int = 0
) -> Batch:
    """Random prompts with image tokens at these places and pictures of these ratios for them."""
    generator = torch.Generator().manual_seed(seed)
    tokens = torch.randint(3, VOCABULARY, (len(places), length), generator=generator)
    for row, at in enumerate(places):
        tokens[row, at] = IMAGE
    tokens[:, -1] = IMAGE + 5  # another of the trainable embeddings
    pictures = [
        [make_picture(ratio, seed=10 * row + place) for place, ratio in enumerate(wanted)]
        for row, wanted in enumerate(ratios)
    ]
    return Batch(tokens, pictures)


def for_transformers(batch: Batch) -> dict[str, Tensor]:
    """What transformers' processor makes of a batch; without pictures, `input_ids` alone."""
    given = {"input_ids": batch.tokens}
    if not any(batch.pictures):
        return given
    ratios = [[picture.ratio for picture in row] for row in batch.pictures]
    tiles = [[picture.tiles.numpy() for picture in row] for row in batch.pictures]
    pixels, counts = pack_images(tiles, TILES)
    seen = convert_sparse_cross_attention_mask_to_dense(
        [get_cross_attention_token_mask(row, IMAGE) for row in batch.tokens.tolist()],
        num_tiles=counts,
        max_num_tiles=TILES,
        length=batch.tokens.shape[1],
    )
    made = {
        "pixel_values": pixels,
        "aspect_ratio_ids": convert_aspect_ratios_to_ids_np(ratios, TILES),
        "aspect_ratio_mask": build_aspect_ratio_mask_np(ratios, TILES),
        "cross_attention_mask": seen,
    }
    return given | {name: torch.from_numpy(array) for name, array in made.items()}


class Seen(NamedTuple):
    """What Meta's model makes of a batch's pictures before it reads."""

    caches: Tensor  # [cross layers, 2, B, heads, image tokens, head dim]
    masks: Tensor  # [B, 1, T, image tokens], 0 or the lowest number
    rows: Tensor  # [B, 1, T, 1], 0 where a token sees no image


def see(model: Any, batch: Batch, length: int | None = None) -> Seen:
    """Meta's `compute_vision_tokens_masks`, masks by its own rule, for texts of that length."""
    from llama_models.llama3.chat_format import create_vision_mask

    length = length or batch.tokens.shape[1]
    masks = [create_vision_mask(row, IMAGE) for row in batch.tokens.tolist()]
    return Seen(*model.compute_vision_tokens_masks(batch.pictures, masks, length, "cpu"))


def read(model: Any, batch: Batch, seen: Seen, positions: Tensor) -> Tensor:
    """Meta's logits [B, positions, VOCABULARY]; those before must have been read."""
    return model(
        positions, batch.tokens, seen.masks, seen.rows, seen.caches, not any(batch.pictures)
    )


def meta_logits(model: Any, batch: Batch) -> Tensor:
    """Meta's logits [B, T, VOCABULARY] of a whole batch at once."""
    return read(model, batch, see(model, batch), torch.arange(batch.tokens.shape[1]))


def difference(ours: Tensor, theirs: Tensor) -> float:
    """The largest difference in units of the reference's spread."""
    assert ours.shape == theirs.shape
    return float((ours - theirs).abs().max() / theirs.std())
