"""A Mllama's language model, step by step: fused products, keys and values in place, no framework.

transformers' forward pass spends most of a small model's step on calls; this one takes a third of
them and computes the same. What is read of a picture is kept: keys and values of the
cross-attention layers are computed once for all questions about it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

FIRST = 256  # tokens for which there is room at first; it doubles
Product = Callable[[Tensor], Tensor]


@dataclass
class Seen:
    """What a picture is to the language model: keys and values [1, G, N, H] by layer."""

    keys: dict[int, Tensor]
    values: dict[int, Tensor]


@dataclass(frozen=True)
class Sizes:
    """Heads, groups, their width, and the norms' epsilon."""

    heads: int
    groups: int
    width: int
    epsilon: float

    @property
    def queries(self) -> int:
        return self.heads * self.width


@dataclass(frozen=True)
class MLP:
    """A gated MLP behind its norm; gate and up are one product, `down` holds its gate's factor."""

    norm: Tensor
    gate_up: Product
    down: Product
    act: Product
    epsilon: float

    def __call__(self, x: Tensor) -> Tensor:
        gate, up = self.gate_up(_normed(x, self.norm, self.epsilon)).chunk(2, -1)
        return x + self.down(self.act(gate) * up)


class SelfLayer:
    """A layer of the language model's own, with the keys and values of what it has read."""

    def __init__(self, layer: Any, sizes: Sizes, product: Callable[[Tensor], Product]) -> None:
        own = layer.self_attn
        self.sizes, self.norm = sizes, layer.input_layernorm.weight.detach()
        self.qkv = product(
            torch.cat([own.q_proj.weight, own.k_proj.weight, own.v_proj.weight]).detach()
        )
        self.out = product(own.o_proj.weight.detach())
        self.mlp = _mlp(layer, sizes.epsilon, 1.0, product)
        self.kept = torch.zeros(2, 1, sizes.groups, FIRST, sizes.width)  # keys, values

    def room(self, tokens: int) -> None:
        """Make room for so many tokens."""
        while self.kept.shape[3] < tokens:
            self.kept = torch.cat([self.kept, torch.zeros_like(self.kept)], dim=3)

    def __call__(self, x: Tensor, start: int, turn: tuple[Tensor, Tensor]) -> Tensor:
        """x [T, D] at the places from `start` on; `turn` are cos and sin [T, 1, H]."""
        sizes, tokens = self.sizes, len(x)
        end = start + tokens
        given = self.qkv(_normed(x, self.norm, sizes.epsilon)).view(tokens, -1, sizes.width)
        turned = sizes.heads + sizes.groups
        both = _rotated(given[:, :turned], turn).transpose(0, 1)  # [heads + groups, T, H]
        self.kept[0, 0, :, start:end] = both[sizes.heads :]
        self.kept[1, 0, :, start:end] = given[:, turned:].transpose(0, 1)
        keys, values = self.kept[:, :, :, :end]
        said = _attention(both[None, : sizes.heads], keys, values, _causal(tokens, start))
        return self.mlp(x + self.out(said))


class CrossLayer:
    """A cross-attention layer; its gates are factors of its last products."""

    def __init__(self, layer: Any, sizes: Sizes, product: Callable[[Tensor], Product]) -> None:
        own = layer.cross_attn
        self.sizes, self.key_norm = sizes, own.k_norm
        self.key_value = own.k_proj, own.v_proj
        self.norm = layer.input_layernorm.weight.detach()
        self.query_norm = layer.cross_attn.q_norm.weight.detach()
        self.queries = product(layer.cross_attn.q_proj.weight.detach())
        gates = [layer.cross_attn_attn_gate, layer.cross_attn_mlp_gate]
        attention, thought = (float(gate.detach().tanh()) for gate in gates)
        self.out = product(layer.cross_attn.o_proj.weight.detach() * attention)
        self.mlp = _mlp(layer, sizes.epsilon, thought, product)

    def look(self, states: Tensor) -> tuple[Tensor, Tensor]:
        """Keys and values [1, G, N, H] of what an encoder says of a picture [N, D]."""
        sizes = self.sizes
        keys, values = (
            part(states).view(len(states), sizes.groups, sizes.width).transpose(0, 1)[None]
            for part in self.key_value
        )
        return self.key_norm(keys), values.contiguous()

    def __call__(self, x: Tensor, keys: Tensor, values: Tensor) -> Tensor:
        """x [T, D], all of which see the picture."""
        sizes = self.sizes
        queries = self.queries(_normed(x, self.norm, sizes.epsilon))
        queries = _normed(queries.view(len(x), -1, sizes.width), self.query_norm, sizes.epsilon)
        said = _attention(queries.transpose(0, 1)[None], keys, values, None)
        return self.mlp(x + self.out(said))


class Decoder:
    """The language model of a Mllama (`model`, fp32), which loses its layers to this."""

    def __init__(self, model: Any, product: Callable[[Tensor], Product] | None = None) -> None:
        product = product or plain
        text, language = model.config.text_config, model.model.language_model
        sizes = Sizes(
            text.num_attention_heads,
            text.num_key_value_heads,
            text.hidden_size // text.num_attention_heads,
            text.rms_norm_eps,
        )
        crossing = set(text.cross_attention_layers)
        self.layers: list[SelfLayer | CrossLayer] = []
        for place in range(len(language.layers)):
            kind = CrossLayer if place in crossing else SelfLayer
            self.layers.append(kind(language.layers[place], sizes, product))
            language.layers[place] = nn.Identity()  # never all of it twice
        self.embedding = language.embed_tokens.weight.detach()
        self.norm, self.epsilon = language.norm.weight.detach(), sizes.epsilon
        self.head = product(model.lm_head.weight.detach())
        self._rotary = language.rotary_emb
        self._turns = torch.zeros(2, 0, 1, sizes.width)

    def look(self, states: Tensor) -> Seen:
        """What is kept of a picture; `states` [N, D] is what the projector gives."""
        seen = {
            place: layer.look(states)
            for place, layer in enumerate(self.layers)
            if isinstance(layer, CrossLayer)
        }
        return Seen(
            {place: keys for place, (keys, _) in seen.items()},
            {place: values for place, (_, values) in seen.items()},
        )

    def read(self, ids: Sequence[int], start: int, seen: Seen | None, image: int) -> Tensor:
        """Logits [V] after the last of `ids`, which stand at `start` and after.

        Tokens at places from `image` on see the picture.
        """
        x = self.embedding[list(ids)]  # [T, D]
        turn = self._turn(start, start + len(ids))
        blind = min(max(image - start, 0), len(x))
        for place, layer in enumerate(self.layers):
            if isinstance(layer, SelfLayer):
                layer.room(start + len(ids))
                x = layer(x, start, turn)
            elif seen is not None and blind < len(x):
                looked = layer(x[blind:], seen.keys[place], seen.values[place])
                x = torch.cat([x[:blind], looked]) if blind else looked
        return self.head(_normed(x[-1:], self.norm, self.epsilon))[0]

    def _turn(self, start: int, end: int) -> tuple[Tensor, Tensor]:
        """cos and sin [T, 1, H] of these places."""
        if self._turns.shape[1] < end:
            places = torch.arange(max(FIRST, 2 * end))[None]
            cos, sin = self._rotary(self.embedding, places)
            half = cos.shape[-1] // 2
            sin = torch.cat([-sin[..., :half], sin[..., half:]], -1)  # the first half's sign
            self._turns = torch.stack([cos[0], sin[0]])[:, :, None]
        return self._turns[0, start:end], self._turns[1, start:end]


def plain(weight: Tensor) -> Product:
    """A product with a weight as it is."""
    weight = weight.contiguous()
    return lambda x: F.linear(x, weight)


def _mlp(layer: Any, epsilon: float, factor: float, product: Callable[[Tensor], Product]) -> MLP:
    own = layer.mlp
    return MLP(
        layer.post_attention_layernorm.weight.detach(),
        product(torch.cat([own.gate_proj.weight, own.up_proj.weight]).detach()),
        product(own.down_proj.weight.detach() * factor),
        own.act_fn,
        epsilon,
    )


def _normed(x: Tensor, weight: Tensor, epsilon: float) -> Tensor:
    return F.rms_norm(x, weight.shape, weight, epsilon)


def _rotated(x: Tensor, turn: tuple[Tensor, Tensor]) -> Tensor:
    """x [T, heads, H] turned by its places; halves of a head pair up (sin carries the sign)."""
    cos, sin = turn
    return torch.addcmul(x * cos, x.roll(x.shape[-1] // 2, -1), sin)


def _attention(queries: Tensor, keys: Tensor, values: Tensor, mask: Tensor | None) -> Tensor:
    """[T, heads x H] of queries [1, heads, T, H] over keys and values [1, groups, S, H]."""
    said = F.scaled_dot_product_attention(queries, keys, values, attn_mask=mask, enable_gqa=True)
    return said[0].transpose(0, 1).flatten(1)


def _causal(tokens: int, start: int) -> Tensor | None:
    """bool [T, S]: what each of the tokens from `start` on may see; None: all."""
    if tokens == 1:
        return None
    return torch.ones(tokens, start + tokens, dtype=torch.bool).tril(start)


__all__ = ["Decoder", "Product", "Seen", "plain"]
