"""Mllama (Llama 3.2 Vision) as Meta's code computes it, on transformers' own modules.

transformers 5.23 differs from Meta's code in three places, which docs/concepts/vision.md shows with
a few lines each. What a text token without an image reads of one is not masked: tokens before the
image, and rows of a batch that have none, change. The encoder's intermediate features are taken
after the layers that the config names, not before them. And where no mask is given, fused attention
hides most of an image from the first tokens, as if patches were words that follow. Here all is as
Meta has it, with the same parameters under the same names, so that official checkpoints load.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from torch import Tensor
from transformers import GenerationConfig, MllamaConfig, MllamaForConditionalGeneration
from transformers.initialization import no_init_weights
from transformers.modeling_outputs import BaseModelOutput
from transformers.models.mllama.modeling_mllama import (
    MllamaCrossAttentionDecoderLayer,
    MllamaVisionEncoder,
)

from flyweight.errors import TeacherError
from flyweight.shrink.stream import GENERATION
from flyweight.vision.int8 import read_int8


class Mllama(MllamaForConditionalGeneration):
    """transformers' model, corrected; where no image is given it is the language model alone."""

    def __init__(self, config: Any) -> None:
        super().__init__(config)
        self.model.vision_model.transformer.__class__ = _Encoder
        for layer in self.model.language_model.layers:
            if isinstance(layer, MllamaCrossAttentionDecoderLayer):
                layer.__class__ = _CrossAttention  # the same parameters, one product more
                own: Any = layer.cross_attn
                own.is_causal = False  # which sdpa takes for granted where there is no mask


class _Encoder(MllamaVisionEncoder):
    """The local encoder: hidden states are those before each layer, then the last one's."""

    def forward(
        self, hidden_states: Tensor, attention_mask: Tensor | None = None
    ) -> BaseModelOutput:
        out = super().forward(hidden_states, attention_mask)
        assert out.hidden_states is not None
        out.hidden_states = (hidden_states, *out.hidden_states)  # type: ignore[assignment]
        return out


class _CrossAttention(MllamaCrossAttentionDecoderLayer):
    """A gated cross-attention block; tokens that see no image pass through it unchanged."""

    def forward(  # type: ignore[override]
        self,
        hidden_states: Tensor,
        cross_attention_states: Tensor | None = None,
        cross_attention_mask: Tensor | None = None,
        attention_mask: Tensor | None = None,
        full_text_row_masked_out_mask: Tensor | None = None,
        position_ids: Tensor | None = None,
        past_key_values: Any = None,
        use_cache: bool | None = False,
        position_embeddings: Any = None,
        **kwargs: Any,
    ) -> Tensor:
        masked = full_text_row_masked_out_mask
        sees = 1.0 if masked is None else masked[:, 0]  # [B, T, 1]: 0 where no image is seen
        read, _ = self.cross_attn(
            hidden_states=self.input_layernorm(hidden_states),
            attention_mask=cross_attention_mask,
            cross_attention_states=cross_attention_states,
            past_key_values=past_key_values,
            **kwargs,
        )
        hidden_states = hidden_states + self.cross_attn_attn_gate.tanh() * (sees * read)
        thought = self.mlp(self.post_attention_layernorm(hidden_states))
        return hidden_states + self.cross_attn_mlp_gate.tanh() * (sees * thought)


def load(folder: Path, *, dtype: str = "float32") -> Mllama:
    """The corrected model of a Mllama folder, in eval mode; TeacherError if weights are missing."""
    loaded: Any = Mllama.from_pretrained(
        folder,
        dtype=dtype,
        use_safetensors=True,
        local_files_only=True,
        output_loading_info=True,
    )
    model, report = loaded
    missing = report["missing_keys"]
    if missing:  # transformers draws them at random
        raise TeacherError(
            f"{folder}: {len(missing)} of its tensors missing, such as {min(missing)}. Download or "
            "save the model again."
        )
    return model.eval()


def load_int8(folder: Path, file: Path) -> Mllama:
    """The corrected model of a Mllama folder in fp32, with the weights of its file of 8 bits.

    TeacherError for a file that does not fit the config.
    """
    with no_init_weights():
        model = Mllama(MllamaConfig.from_pretrained(folder, local_files_only=True)).float()
    read_int8(model, file)
    if (folder / GENERATION).is_file():  # it may name ends of an answer
        told = GenerationConfig.from_pretrained(folder, local_files_only=True)
        model.generation_config = told
    return model.eval()


__all__ = ["Mllama", "load", "load_int8"]
