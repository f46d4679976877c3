"""Mixtures of experts: Mixtral, and Qwen 3's. In memory all experts of a block are one tensor."""

from __future__ import annotations

from dataclasses import replace

from flyweight.anatomy.gguf import MIXTRAL as MIXTRAL_GGUF
from flyweight.anatomy.gguf import QWEN3_MOE as QWEN3_MOE_GGUF
from flyweight.anatomy.llama import (
    ATTENTION,
    BLOCK,
    CUTTABLE,
    DEFAULTS,
    EMBEDDINGS,
    LLAMA,
    PRE_NORMS,
    SIZES,
)
from flyweight.anatomy.qwen import QWEN3

EXPERTS = {
    f"{BLOCK}.mlp.gate.weight": "experts hidden",
    f"{BLOCK}.mlp.experts.gate_up_proj": "experts (mlp + mlp) hidden",
    f"{BLOCK}.mlp.experts.down_proj": "experts hidden mlp",
}
ROUTED = {"experts": lambda config: config.num_experts_per_tok}  # each token asks so many
MIXTRAL_FILES = f"{BLOCK}.block_sparse_moe"
QWEN_FILES = f"{BLOCK}.mlp.experts.{{expert}}"

MIXTRAL = replace(
    LLAMA,
    name="mixtral",
    model_types=("mixtral",),
    parameters=EMBEDDINGS | PRE_NORMS | ATTENTION | EXPERTS,
    stored={
        f"{MIXTRAL_FILES}.gate.weight": "experts hidden",
        f"{MIXTRAL_FILES}.experts.{{expert}}.w1.weight": "mlp hidden",
        f"{MIXTRAL_FILES}.experts.{{expert}}.w2.weight": "hidden mlp",
        f"{MIXTRAL_FILES}.experts.{{expert}}.w3.weight": "mlp hidden",
    },
    present={},
    sizes=SIZES | {"experts": "num_local_experts"},
    least=ROUTED,
    defaults=DEFAULTS,
    cuttable=(*CUTTABLE, "experts"),
    gguf=MIXTRAL_GGUF,
)

WITHOUT_MLP = {name: told for name, told in QWEN3.parameters.items() if ".mlp." not in name}

QWEN3_MOE = replace(
    QWEN3,
    name="qwen3_moe",
    model_types=("qwen3_moe",),
    parameters=WITHOUT_MLP | EXPERTS,
    stored={
        f"{QWEN_FILES}.gate_proj.weight": "mlp hidden",
        f"{QWEN_FILES}.up_proj.weight": "mlp hidden",
        f"{QWEN_FILES}.down_proj.weight": "hidden mlp",
    },
    least=ROUTED,
    sizes=SIZES | {"mlp": "moe_intermediate_size", "experts": "num_local_experts"},
    cuttable=(*CUTTABLE, "experts"),
    gguf=QWEN3_MOE_GGUF,
)
