"""The language model in a Mllama: what can be one, where its tensors go, how it is known again.

Its tensors are named here as in the text model that it came from, so that one hash tells whether a
language model with eyes is still the one without.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from typing import Any, NoReturn

import torch
from torch import Tensor

from flyweight.errors import UnsupportedFamily
from flyweight.mapped import plain
from flyweight.vision.placing import cross_layers, language_layers

IMAGE = "<|image|>"  # the token that stands for an image
EXTRA = 8  # rows of the embedding beyond the vocabulary, the first for IMAGE where it had none
EMBEDDING, HEAD = "model.embed_tokens.weight", "lm_head.weight"
LAYERS = "model.layers."
INNER = "model.language_model."
EMBEDDED = f"{INNER}embed_tokens.weight"
NEW_ROWS = "new_rows"


def check_language(config: Any, name: str) -> None:
    """UnsupportedFamily unless Mllama's layers can compute this text model, bit for bit."""
    if config.model_type not in ("llama", "mistral"):
        _refuse(name, f"it is a {config.model_type}")
    heads, width = config.num_attention_heads, config.hidden_size
    rope = config.rope_parameters.get("rope_type", "default")
    wrong = {
        "its projections have biases": getattr(config, "attention_bias", False)
        or getattr(config, "mlp_bias", False),
        "its heads are not as wide as hidden / heads": heads * (config.head_dim or width // heads)
        != width,
        "its attention slides": getattr(config, "sliding_window", None) is not None,
        f"its RoPE scaling is {rope}": rope in ("dynamic", "longrope"),
    }
    for reason, holds in wrong.items():
        if holds:
            _refuse(name, reason)


def _refuse(name: str, reason: str) -> NoReturn:
    raise UnsupportedFamily(
        f"{name}: cannot be given eyes in the Mllama format ({reason}). Use a Llama model, such as "
        "Llama 3.2 1B or 3B."
    )


def text_config(config: Any, count: int) -> Any:
    """Mllama's config of the text model with `count` cross-attention layers among its own."""
    from transformers import MllamaTextConfig

    same = (
        "vocab_size", "hidden_size", "hidden_act", "num_attention_heads", "num_key_value_heads",
        "intermediate_size", "rms_norm_eps", "max_position_embeddings", "initializer_range",
        "bos_token_id", "eos_token_id", "pad_token_id",
    )  # fmt: skip
    return MllamaTextConfig(
        **{name: getattr(config, name) for name in same},
        num_hidden_layers=config.num_hidden_layers + count,
        cross_attention_layers=cross_layers(config.num_hidden_layers, count),
        rope_parameters=dict(config.rope_parameters),
        tie_word_embeddings=False,  # transformers' Mllama has a head of its own
    )


def places(config: Any) -> dict[str, str]:
    """Beginnings of names in the text model, and what stands for them in a Mllama of `config`."""
    text = config.text_config
    own = language_layers(text.num_hidden_layers, text.cross_attention_layers)
    layers = {f"{LAYERS}{i}.": f"{INNER}layers.{place}." for i, place in enumerate(own)}
    return layers | {"model.": INNER, HEAD: HEAD}


def place_of(name: str, begins: Mapping[str, str]) -> str:
    """The name in a Mllama of a text model's tensor; `begins` as `places` gives them."""
    longest = max((begin for begin in begins if name.startswith(begin)), key=len)
    return begins[longest] + name[len(longest) :]


def language_tensors(model: Any) -> Iterator[tuple[str, Tensor]]:
    """The language model's tensors in a Mllama, in order, named as in its text model."""
    config = model.config
    outer = {place: name for name, place in places(config).items()}
    for name, tensor in sorted(model.state_dict().items()):
        if is_language(name, config):
            rows = config.text_config.vocab_size if name == EMBEDDED else None
            yield place_of(name, outer), tensor[:rows]


def eye_tensors(model: Any) -> Iterator[tuple[str, Tensor]]:
    """All other tensors of a Mllama, by its own names; the embedding's new rows as NEW_ROWS."""
    for name, tensor in sorted(model.state_dict().items()):
        if name == EMBEDDED:
            yield NEW_ROWS, tensor[model.config.text_config.vocab_size :]
        elif not is_language(name, model.config):
            yield name, tensor


def is_language(name: str, config: Any) -> bool:
    """Whether a Mllama's parameter is its language model's (the embedding's last rows are not)."""
    layer = name.removeprefix(f"{INNER}layers.").split(".")[0]
    crosses = layer.isdigit() and int(layer) in config.text_config.cross_attention_layers
    return name.startswith((INNER, HEAD)) and not crosses


def language_sha256(tensors: Iterator[tuple[str, Tensor]]) -> str:
    """One hash of named tensors, as they are at 32 bits (which every 16-bit weight is exactly)."""
    digests = []
    for name, tensor in tensors:
        data = plain(tensor.detach()).to("cpu", torch.float32).contiguous().numpy().tobytes()
        digests.append(f"{name} {list(tensor.shape)} {hashlib.sha256(data).hexdigest()}")
    return hashlib.sha256("\n".join(sorted(digests)).encode()).hexdigest()


def text_tensors(model: Any) -> Iterator[tuple[str, Tensor]]:
    """A text model's tensors, its head named even where it is the embedding."""
    tensors = dict(model.named_parameters())
    tensors.setdefault(HEAD, tensors[EMBEDDING])
    yield from sorted(tensors.items())


def put_language(model: Any, text: Any) -> None:
    """Copy a text model's weights to their places in a Mllama; a new row stands for an image.

    The rows beyond the vocabulary begin as the mean of the others.
    """
    begins = places(model.config)
    parameters = dict(model.named_parameters())
    with torch.no_grad():
        for name, tensor in text_tensors(text):
            into = parameters[place_of(name, begins)]
            into[: len(tensor)].copy_(tensor)
            if name == EMBEDDING:
                into[len(tensor) :].copy_(tensor.float().mean(0))


__all__ = [
    "EMBEDDED",
    "EXTRA",
    "IMAGE",
    "INNER",
    "NEW_ROWS",
    "check_language",
    "eye_tensors",
    "is_language",
    "language_sha256",
    "language_tensors",
    "place_of",
    "places",
    "put_language",
    "text_config",
    "text_tensors",
]
