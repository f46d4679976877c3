"""A tiny random model of every family, in fp32 and eval mode, with weights that hide no mistake.

Weights are drawn wide, biases and norm weights too: those of a fresh model are 0 and 1. Epsilons
are so large that a wrong one shows.
"""

from __future__ import annotations

from typing import Any

import torch
import transformers
from torch import nn

SIZES: dict[str, Any] = {
    "vocab_size": 80,
    "hidden_size": 64,
    "intermediate_size": 96,
    "num_hidden_layers": 4,
    "num_attention_heads": 8,
    "num_key_value_heads": 4,
    "head_dim": 16,
    "max_position_embeddings": 128,
    "initializer_range": 0.2,
    "bos_token_id": 0,
    "eos_token_id": 1,
    "pad_token_id": 2,
    "tie_word_embeddings": False,
}
ENCODER: dict[str, Any] = {
    name: size for name, size in SIZES.items() if name not in ("head_dim", "num_key_value_heads")
} | {"num_labels": 5, "cls_token_id": 3, "sep_token_id": 1}
EPSILON = 1e-3

# name -> transformers' config, model, and what differs from SIZES
ZOO: dict[str, tuple[str, str, dict[str, Any]]] = {
    "llama": ("LlamaConfig", "LlamaForCausalLM", {}),
    "llama biased": (
        "LlamaConfig",
        "LlamaForCausalLM",
        {"attention_bias": True, "mlp_bias": True, "tie_word_embeddings": True},
    ),
    "llama 3 rope": (
        "LlamaConfig",
        "LlamaForCausalLM",
        {
            "rope_parameters": {
                "rope_type": "llama3",
                "rope_theta": 500000.0,
                "factor": 8.0,
                "low_freq_factor": 1.0,
                "high_freq_factor": 4.0,
                "original_max_position_embeddings": 64,
            }
        },
    ),
    "mistral": ("MistralConfig", "MistralForCausalLM", {}),
    "qwen2": ("Qwen2Config", "Qwen2ForCausalLM", {"tie_word_embeddings": True}),
    "qwen3": ("Qwen3Config", "Qwen3ForCausalLM", {}),
    "granite": (
        "GraniteConfig",
        "GraniteForCausalLM",
        {
            "embedding_multiplier": 1.7,
            "attention_multiplier": 0.2,
            "residual_multiplier": 0.6,
            "logits_scaling": 3.0,
        },
    ),
    "gemma2": (
        "Gemma2Config",
        "Gemma2ForCausalLM",
        {
            "tie_word_embeddings": True,
            "query_pre_attn_scalar": 20,
            "attn_logit_softcapping": 5.0,
            "final_logit_softcapping": 3.0,
            "sliding_window": 6,
        },
    ),
    "gemma3": (
        "Gemma3TextConfig",
        "Gemma3ForCausalLM",
        {
            "query_pre_attn_scalar": 20,
            "sliding_window": 6,
            "layer_types": [
                "sliding_attention",
                "full_attention",
                "sliding_attention",
                "full_attention",
            ],
        },
    ),
    "phi3": ("Phi3Config", "Phi3ForCausalLM", {}),
    "olmo2": ("Olmo2Config", "Olmo2ForCausalLM", {}),
    "stablelm": (
        "StableLmConfig",
        "StableLmForCausalLM",
        {
            "num_key_value_heads": 8,
            "partial_rotary_factor": 0.5,
            "use_qkv_bias": True,
        },
    ),
    "mixtral": ("MixtralConfig", "MixtralForCausalLM", {"num_local_experts": 6}),
    "qwen3_moe": (
        "Qwen3MoeConfig",
        "Qwen3MoeForCausalLM",
        {
            "num_experts": 6,
            "num_experts_per_tok": 2,
            "moe_intermediate_size": 96,
            "norm_topk_prob": True,
        },
    ),
    "bert": ("BertConfig", "BertForSequenceClassification", ENCODER),
    "modernbert": (
        "ModernBertConfig",
        "ModernBertForSequenceClassification",
        ENCODER | {"norm_bias": True, "local_attention": 6, "classifier_bias": True},
    ),
}
DECODERS = [name for name in ZOO if "bert" not in name]


def build(name: str, seed: int = 0, **changes: Any) -> Any:
    """The tiny model of that name, with changes to its config."""
    config_class, model_class, settings = ZOO[name]
    of_encoder = "num_labels" in settings
    given = {**({} if of_encoder else SIZES), **settings, **changes}
    if name == "stablelm":  # it has no such field, its heads are hidden over heads wide
        del given["head_dim"]
    if "layer_types" in given and "num_hidden_layers" in changes:
        given["layer_types"] = given["layer_types"][: changes["num_hidden_layers"]]
    for field in ("rms_norm_eps", "layer_norm_eps", "norm_eps"):
        given.setdefault(field, EPSILON)
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        model = getattr(transformers, model_class)(getattr(transformers, config_class)(**given))
        for label, parameter in model.named_parameters():
            if "norm" in label.lower() and label.endswith("weight"):
                low = -0.5 if "gemma" in name else 0.5  # Gemma's multiply by 1 + w
                nn.init.uniform_(parameter, low, low + 1)
            elif label.endswith("bias"):
                nn.init.normal_(parameter, std=0.2)
    return model.float().eval()


def ids(model: Any, rows: int = 3, length: int = 17) -> torch.Tensor:
    """Token ids int64 [rows, length], none of them padding."""
    generator = torch.Generator().manual_seed(0)
    return torch.randint(3, model.config.vocab_size, (rows, length), generator=generator)


@torch.inference_mode()
def logits(model: Any, tokens: torch.Tensor | None = None) -> torch.Tensor:
    """What the model says."""
    how = {"use_cache": False} if model.can_generate() else {}
    return model(ids(model) if tokens is None else tokens, **how).logits
