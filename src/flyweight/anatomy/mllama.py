"""Mllama (Llama 3.2 Vision): a Llama with cross-attention layers among its own, and an encoder.

One list holds both kinds of language layers, which share every size. What the projector says of a
picture is read by the cross-attention layers alone: its channels are an axis of their own. In the
encoder blocks within tiles and MLP channels can go. Its width stays, since that is heads x
head_dim and every tap hands it to the projector, and so do the few blocks over all tiles, whose
MLP is as wide as the others'.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from flyweight.anatomy import llama
from flyweight.anatomy.family import BlockField, Family, Norm
from flyweight.anatomy.llama import CUTTABLE, DEFAULTS, SIZES, norms_of

LANGUAGE = "model.language_model"
BLOCK = f"{LANGUAGE}.layers.{{layer}}"
VISION = "model.vision_model"
WITHIN, OVER = f"{VISION}.transformer.layers", f"{VISION}.global_transformer.layers"
TEXT, EYES = "text_config", "vision_config"


def inner(parameters: dict[str, str]) -> dict[str, str]:
    """A Llama's parameters, where a Mllama has them."""
    return {name.replace(llama.BLOCK, BLOCK): spelling for name, spelling in parameters.items()}


PRE_NORMS, OWN, MLP = inner(llama.PRE_NORMS), inner(llama.ATTENTION), inner(llama.MLP)
HEAD_NORMS = {f"{BLOCK}.cross_attn.{part}_norm.weight": "head_dim" for part in "qk"}
CROSSING = {
    **{name.replace("self_attn", "cross_attn"): spelling for name, spelling in OWN.items()},
    f"{BLOCK}.cross_attn.k_proj.weight": "(kv_groups head_dim) seen",
    f"{BLOCK}.cross_attn.v_proj.weight": "(kv_groups value_dim) seen",
    **HEAD_NORMS,
    f"{BLOCK}.cross_attn_attn_gate": "1",
    f"{BLOCK}.cross_attn_mlp_gate": "1",
}


def encoder_block(block: str, mlp: str) -> dict[str, str]:
    """A block of the encoder whose MLP runs over this axis."""
    norms = (f"{block}.input_layernorm", f"{block}.post_attention_layernorm")
    return {
        **{f"{norm}.{part}": "width" for norm in norms for part in ("weight", "bias")},
        **{f"{block}.self_attn.{part}_proj.weight": "width width" for part in "qkvo"},
        f"{block}.mlp.fc1.weight": f"{mlp} width",
        f"{block}.mlp.fc1.bias": mlp,
        f"{block}.mlp.fc2.weight": f"width {mlp}",
        f"{block}.mlp.fc2.bias": "width",
    }


ENCODER = {
    f"{VISION}.class_embedding": "width",
    f"{VISION}.patch_embedding.weight": "width colours patch patch",
    f"{VISION}.gated_positional_embedding.gate": "1",
    f"{VISION}.gated_positional_embedding.embedding": "positions width",
    f"{VISION}.gated_positional_embedding.tile_embedding.weight": (
        "arrangements (tiles positions width)"
    ),
    **{
        f"{VISION}.{when}_tile_positional_embedding.{name}": spelling
        for when in ("pre", "post")
        for name, spelling in (("gate", "1"), ("embedding.weight", "arrangements (tiles width)"))
    },
    **{
        f"{VISION}.layernorm_{when}.{part}": "width"
        for when in ("pre", "post")
        for part in ("weight", "bias")
    },
    **encoder_block(f"{WITHIN}.{{layer}}", "encoder_mlp"),
    **encoder_block(f"{OVER}.{{layer}}", "global_mlp"),
    f"{OVER}.{{layer}}.gate_attn": "1",
    f"{OVER}.{{layer}}.gate_ffn": "1",
}


def kind(config: Any, layer: int) -> str:
    """What a language layer attends to."""
    return "cross" if layer in config.text_config.cross_attention_layers else "self"


def positions(config: Any) -> int:
    """Tokens of a tile: its patches, and one for all of it."""
    eyes = config.vision_config
    return (eyes.image_size // eyes.patch_size) ** 2 + 1


def places(numbers: Sequence[int], kept: Sequence[int], count: int) -> list[int]:
    """The new numbers of those blocks that stay."""
    stays = list(kept)
    return [stays.index(number) for number in numbers if number in stays]


def taps(numbers: Sequence[int], kept: Sequence[int], count: int) -> list[int]:
    """Where features are taken, among fewer layers: after as many of those before as stay.

    Counted from the end, which transformers and Meta's code take for the same layer. From the front
    it is Meta's count that official checkpoints were trained with: what enters a layer.
    """
    after = [number if number >= 0 else count + 1 + number for number in numbers]
    return [sum(layer < each for layer in kept) - len(kept) - 1 for each in after]


MLLAMA = Family(
    name="mllama",
    model_types=("mllama",),
    parameters={
        f"{LANGUAGE}.embed_tokens.weight": "(vocabulary + 8) hidden",  # 8: the image's token
        f"{LANGUAGE}.norm.weight": "hidden",
        "lm_head.weight": "vocabulary hidden",
        **PRE_NORMS,
        **OWN,
        **CROSSING,
        **MLP,
        "model.multi_modal_projector.weight": "seen (width + width taps)",
        "model.multi_modal_projector.bias": "seen",
        **ENCODER,
    },
    sizes={size: f"{TEXT}.{name}" for size, name in SIZES.items()}
    | {
        "encoder_layers": f"{EYES}.num_hidden_layers",
        "encoder_mlp": f"{EYES}.intermediate_size",
    },
    defaults={size: lambda config, told=told: told(config.text_config) for size, told in
              DEFAULTS.items()},
    fixed={
        "width": f"{EYES}.hidden_size",
        "colours": f"{EYES}.num_channels",
        "patch": f"{EYES}.patch_size",
        "tiles": f"{EYES}.max_num_tiles",
        "positions": positions,
        "arrangements": lambda config: config.vision_config.max_aspect_ratio_id + 1,
        "taps": lambda config: len(config.vision_config.intermediate_layers_indices),
        "global_layers": f"{EYES}.num_global_layers",
    },
    prefixes={  # as transformers 5 and 4 write them
        f"{LANGUAGE}.model.": f"{LANGUAGE}.",
        "language_model.model.": f"{LANGUAGE}.",
        "language_model.lm_head.": "lm_head.",
        "vision_model.": f"{VISION}.",
        "multi_modal_projector.": "model.multi_modal_projector.",
    },
    present=dict.fromkeys(OWN, lambda config, layer: kind(config, layer) == "self")
    | dict.fromkeys(CROSSING, lambda config, layer: kind(config, layer) == "cross"),
    blocks=f"{LANGUAGE}.layers",
    other_blocks={WITHIN: "encoder_layers", OVER: "global_layers"},
    block_fields={
        f"{TEXT}.cross_attention_layers": BlockField("layers", places),
        f"{EYES}.intermediate_layers_indices": BlockField("encoder_layers", taps),
    },
    norms=norms_of(PRE_NORMS, Norm())
    | {
        f"{BLOCK}.cross_attn.{part}_norm": Norm(reads=f"{BLOCK}.cross_attn.{part}_proj")
        for part in "qk"
    }
    | {f"{LANGUAGE}.norm": Norm()},
    norm_epsilon=f"{TEXT}.rms_norm_eps",
    cuttable=(*CUTTABLE, "seen", "encoder_layers", "encoder_mlp", "global_mlp"),
    embedding=f"{LANGUAGE}.embed_tokens.weight",
    head=None,  # never the input embedding, which has more rows
    final_norm=f"{LANGUAGE}.norm",
    hidden_is_heads=True,
    per_layer=(),
    pinned=(0,),  # transformers counts a cache's tokens by it; in the encoder a tap needs one
    kind=kind,
    least={"layers": lambda config: len({kind(config, i) for i in
                                         range(config.text_config.num_hidden_layers)})},
    model="flyweight.vision.mllama:Mllama",  # transformers' own lets pictures leak
    pictures=True,
)  # fmt: skip
