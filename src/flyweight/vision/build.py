"""A Mllama made of a text model and an image encoder."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from transformers import MllamaConfig
from transformers.models.mllama.image_processing_pil_mllama import MllamaImageProcessorPil

from flyweight.checkpoint import Checkpoint
from flyweight.vision.facts import copy_texts, write_facts
from flyweight.vision.language import (
    language_tensors,
    put_language,
    text_config,
)
from flyweight.vision.learned import Learned
from flyweight.vision.mllama import Mllama
from flyweight.vision.sizes import new_encoder
from flyweight.vision.writing import image_token, read_language, save_model, stored, write_processor


@dataclass(frozen=True)
class Built:
    """How many parameters are the language model's and how many the eyes', and where these look."""

    language: int
    eyes: int
    crossing: list[int]


def write_vision(source: Checkpoint, eyes: Learned, count: int, folder: Path, seed: int) -> Built:
    """Write a Mllama with `source` as its language model, eyes and `count` layers to look through.

    What the eyes have not learned begins at random.
    """
    tokenizer = source.tokenizer()
    image_id = image_token(tokenizer, source)
    config: Any = MllamaConfig(
        text_config=text_config(source.config, count),
        vision_config=eyes.config,
        image_token_index=image_id,
    )
    text, language = read_language(source)
    torch.manual_seed(seed)
    model = Mllama(config).eval()
    _initialise(model, eyes.weights)
    put_language(model, text)
    model.generation_config = text.generation_config  # it says what ends an answer
    del text  # never all of it twice
    save_model(model, folder, stored(source.path))
    pictures = MllamaImageProcessorPil(
        size={"height": eyes.config.image_size, "width": eyes.config.image_size},
        max_image_tiles=eyes.config.max_num_tiles,
        image_mean=eyes.mean,
        image_std=eyes.std,
    )
    write_processor(tokenizer, pictures, folder)
    kept = copy_texts(source.path, folder)
    write_facts(folder, source.name, language, kept)
    own = sum(tensor.numel() for _, tensor in language_tensors(model))
    return Built(
        own, sum(p.numel() for p in model.parameters()) - own,
        config.text_config.cross_attention_layers,
    )  # fmt: skip


def _initialise(model: Any, learned: Mapping[str, Tensor]) -> None:
    """Draw cross-attention and projector; the encoder as it was `learned`, else a new one."""
    vision = model.model.vision_model
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            looks = "cross_attn." in name or name == "model.multi_modal_projector.weight"
            if looks and parameter.dim() == 2:
                torch.nn.init.xavier_uniform_(parameter)
        if not learned:
            new_encoder(vision)
        parameters = dict(vision.named_parameters())
        for name, tensor in learned.items():
            parameters[name].copy_(tensor)


__all__ = ["Built", "write_vision"]
