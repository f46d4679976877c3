"""Every family in llama.cpp against transformers in fp32: all log-probabilities after many prompts.

llama.cpp rounds what enters a product to F16 (11 bits). The same rounding done in transformers says
how far apart two right answers may be; wrong exports are further by an order of magnitude.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers
from cutting import random_keep
from gguf import GGUFReader
from gguf.quants import dequantize
from safetensors.torch import load_file, save_file
from torch import Tensor

from flyweight.anatomy import family_of
from flyweight.anatomy.gguf import LLAMA, GgufMap
from flyweight.checkpoint import open_checkpoint, save_checkpoint
from flyweight.errors import EngineError, TeacherError
from flyweight.runtime.gguf import write_gguf
from flyweight.runtime.llama import LlamaEngine
from flyweight.runtime.parity import compare
from flyweight.runtime.rounding import rounded
from tiny import tiny_tokenizer
from zoo import DECODERS, ZOO, build

VOCABULARY = 304  # the tiny tokenizer's, padded
FULL, SLIDING = "full_attention", "sliding_attention"
LENGTHS = (2, 2, 2, 3, 3, 3, 4, 4, 4, 5, 5, 5, 6, 7, 8, 9, 11, 14, 17, 23, 31, 45, 60, 90)
PROMPTS = [
    [0, *(6 + (7 * i * i + 13 * place) % 294 for i in range(length - 1))]
    for place, length in enumerate(LENGTHS)
]
ALIKE, APART = 4, 20  # times the difference that rounding makes
DECIDED = 0.02  # nats between an expert that is chosen and one that is not
NAMES = [name for name in DECODERS if family_of(getattr(transformers, ZOO[name][0])).gguf]
MIXTURES = ("mixtral", "qwen3_moe")
HIDDEN_IS_HEADS = ("olmo2", "stablelm")  # heads x head_dim is hidden there

Model = Any
Prompt = list[int]


@dataclass(frozen=True)
class Agreement:
    """The largest difference of log-probabilities: the file's, and that which rounding makes."""

    found: float
    rounding: float
    prompts: int
    values: int


def make(name: str, **changes: Any) -> Model:
    """A tiny model whose sizes llama.cpp can take."""
    if name in HIDDEN_IS_HEADS:
        changes = {"hidden_size": 128} | changes
    return build(name, vocab_size=VOCABULARY, **changes)


def cut(model: Model, seed: int = 1, **sizes: int) -> Model:
    """The model cut along every axis but the vocabulary, at random places."""
    from flyweight.shrink.cut import cut_model

    family = family_of(model.config)
    old = family.shape_of(model.config)
    wanted = {"layers": 3, "hidden": 32, "mlp": 64, "heads": 2, "kv_groups": 2, "head_dim": 8}
    if old.experts:
        wanted["experts"] = 3
    if family.name == "olmo2":
        wanted |= {"hidden": 64, "heads": 4, "head_dim": 16}
    if family.name == "stablelm":
        wanted |= {"heads": 4, "kv_groups": 4 // old.group_heads}
    new = old.with_sizes(**(wanted | sizes))
    turning = family.turning(model.config)
    return cut_model(model, family, random_keep(seed, old, new, turning, family.pinned))


def coarse(model: Model) -> Model:
    """A copy that rounds to F16 what enters a product, and queries, keys and values."""

    def rounded(tensors: Any) -> Any:
        return tuple(each.half().float() if each.is_floating_point() else each for each in tensors)

    model = copy.deepcopy(model)
    for name, module in model.named_modules():
        if isinstance(module, torch.nn.Linear) or name.endswith("experts"):
            module.register_forward_pre_hook(lambda module, given: rounded(given))
        if name.endswith(("q_proj", "k_proj", "v_proj", "qkv_proj", "q_norm", "k_norm")):
            module.register_forward_hook(lambda module, given, made: rounded([made])[0])
    return model


@torch.inference_mode()
def told(model: Model, prompt: Prompt) -> Tensor:
    """Log-probabilities [V] of what follows a prompt."""
    return model(torch.tensor([prompt])).logits[0, -1].float().log_softmax(-1)


@torch.inference_mode()
def decided(model: Model, prompt: Prompt) -> bool:
    """Whether no choice of experts on the way hangs on what rounding can turn."""
    if "num_experts_per_tok" not in model.config.to_dict():
        return True
    chosen = model.config.num_experts_per_tok
    for router in model(torch.tensor([prompt]), output_router_logits=True).router_logits:
        best = router.topk(chosen + 1).values  # [T, chosen + 1]
        if (best[:, -2] - best[:, -1]).min() < DECIDED:
            return False
    return True


def agreement(model: Model, folder: Path, gguf_map: GgufMap | None = None) -> Agreement:
    """What the exported file says beside what transformers says of the same (rounded) weights."""
    save_checkpoint(model, tiny_tokenizer(), folder / "model")
    source = open_checkpoint(folder / "model")
    write_gguf(source.path, folder / "16.gguf", 16, gguf_map or source.gguf_map)
    reference = source.model()
    rough = coarse(reference)
    found, rounding, values, prompts = 0.0, 0.0, 0, 0
    with LlamaEngine(folder / "16.gguf", context=128) as engine:
        for prompt in PROMPTS[:: 3 if model.config.num_hidden_layers > 9 else 1]:
            answer = engine.generate(prompt, 1, top=VOCABULARY)
            if not any(answer.top) or not decided(reference, prompt):
                continue  # llama.cpp tells nothing of tokens that are half a character
            wanted = told(reference, prompt)
            said = torch.tensor([p for _, p in sorted(answer.top[0])])
            assert len(said) == VOCABULARY
            found = max(found, float((said - wanted).abs().max()))
            rounding = max(rounding, float((told(rough, prompt) - wanted).abs().max()))
            values, prompts = values + len(said), prompts + 1
    return Agreement(found, rounding, prompts, values)


def check(found: Agreement) -> None:
    """Two right answers: as near as rounding leaves them, and that is near."""
    assert found.prompts >= 5
    assert found.rounding < 0.2
    assert found.found < ALIKE * found.rounding, found


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("change", [lambda model: model, cut], ids=["uncut", "cut"])
def test_log_probabilities_are_those_of_transformers(
    name: str, change: Callable[[Model], Model], tmp_path: Path
) -> None:
    check(agreement(change(make(name)), tmp_path))
    if name not in MIXTURES:  # in a long answer some choice of experts is always near
        report = compare(tmp_path / "model", tmp_path / "16.gguf", PROMPTS[14:22], 16)
        assert report.differing == []
        assert report.equal >= 6


LINEAR = {"rope_type": "linear", "rope_theta": 1e3, "factor": 4.0}
YARN = {
    "rope_type": "yarn",
    "rope_theta": 1e3,
    "factor": 4.0,
    "original_max_position_embeddings": 32,
}
LONG = {
    "rope_type": "longrope",
    "rope_theta": 1e4,
    "short_factor": [1.0, 1.5, 2.0, 3.0],
    "long_factor": [1.0, 4.0, 8.0, 16.0],
    "original_max_position_embeddings": 100,
    "partial_rotary_factor": 0.5,
}
PARTIAL = {"rope_type": "default", "rope_theta": 1e4, "partial_rotary_factor": 0.5}
LOCAL = {"rope_type": "default", "rope_theta": 100.0}
VARIANTS: dict[str, tuple[str, dict[str, Any]]] = {
    "qwen2, YaRN": ("qwen2", {"rope_parameters": YARN}),
    "qwen3, linear rope, tied": ("qwen3", {"rope_parameters": LINEAR, "tie_word_embeddings": True}),
    "granite, biased, tied": (
        "granite",
        {"attention_bias": True, "mlp_bias": True, "tie_word_embeddings": True},
    ),
    "gemma2, local at the ends": ("gemma2", {"layer_types": [SLIDING, FULL, FULL, SLIDING]}),
    "gemma2, none local": ("gemma2", {"layer_types": [FULL] * 4}),
    "gemma2, all local": ("gemma2", {"layer_types": [SLIDING] * 4}),
    "gemma2, no caps": (
        "gemma2",
        {"attn_logit_softcapping": None, "final_logit_softcapping": None},
    ),
    "gemma2, as many layers as 27B": (
        "gemma2",
        {"num_hidden_layers": 46, "hidden_size": 32, "head_dim": 8},
    ),
    "gemma3, as many layers as 27B": (
        "gemma3",
        {
            "num_hidden_layers": 62,
            "hidden_size": 32,
            "head_dim": 8,
            "layer_types": [SLIDING] * 30 + [FULL] * 32,
        },
    ),
    "gemma3, none local": ("gemma3", {"layer_types": [FULL] * 4}),
    "gemma3, all local, tied": (
        "gemma3",
        {"layer_types": [SLIDING] * 4, "tie_word_embeddings": True},
    ),
    "gemma3, final cap, linear rope": (
        "gemma3",
        {
            "final_logit_softcapping": 3.0,
            "rope_parameters": {"full_attention": LINEAR, "sliding_attention": LOCAL},
        },
    ),
    "phi3, half of a head turns": ("phi3", {"rope_parameters": PARTIAL}),
    "phi3, LongRoPE": (
        "phi3",
        {"hidden_size": 128, "rope_parameters": LONG, "original_max_position_embeddings": 100},
    ),
    "olmo2, tied, linear rope": (
        "olmo2",
        {"tie_word_embeddings": True, "rope_parameters": LINEAR},
    ),
    "stablelm, tied, linear rope": (
        "stablelm",
        {"tie_word_embeddings": True, "rope_parameters": LINEAR | {"partial_rotary_factor": 0.25}},
    ),
    "stablelm, whole heads turn": ("stablelm", {"partial_rotary_factor": 1.0}),
    "stablelm, no biases": ("stablelm", {"use_qkv_bias": False}),
    "stablelm, parallel residual, groups": (
        "stablelm",
        {"use_parallel_residual": True, "num_key_value_heads": 4},
    ),
    "stablelm, parallel residual, no biases": (
        "stablelm",
        {"use_parallel_residual": True, "use_qkv_bias": False},
    ),
}
CUT_TOO = (
    "stablelm, no biases",
    "stablelm, parallel residual, groups",
    "stablelm, parallel residual, no biases",
)


@pytest.mark.parametrize(("name", "changes"), VARIANTS.values(), ids=VARIANTS.keys())
def test_what_configs_may_say_besides(name: str, changes: dict[str, Any], tmp_path: Path) -> None:
    check(agreement(make(name, **changes), tmp_path))


@pytest.mark.parametrize("variant", CUT_TOO)
def test_what_configs_may_say_besides_of_a_cut(variant: str, tmp_path: Path) -> None:
    name, changes = VARIANTS[variant]
    check(agreement(cut(make(name, **changes)), tmp_path))


def says(key: str, value: Any) -> Callable[[GgufMap], GgufMap]:
    """The map with one key of its metadata replaced (by a function of all keys)."""

    def wrong(right: GgufMap) -> GgufMap:
        def metadata(config: Any) -> dict[str, Any]:
            keys = right.metadata(config)
            assert key in keys
            return keys | {key: value(keys) if callable(value) else value}

        return replace(right, metadata=metadata)

    return wrong


def swaps(one: str, other: str) -> Callable[[GgufMap], GgufMap]:
    """The map with two GGUF tensors in each other's place."""

    def wrong(right: GgufMap) -> GgufMap:
        places = {f"blk.{{i}}.{one}.weight": f"blk.{{i}}.{other}.weight"}
        places |= {new: old for old, new in places.items()}
        tensors = {
            parameter: tuple(places.get(name, name) for name in names)
            if isinstance(names, tuple)
            else places.get(names, names)
            for parameter, names in right.tensors.items()
        }
        return replace(right, tensors=tensors)

    return wrong


def others(keys: dict[str, Any]) -> list[bool]:
    return [not slides for slides in keys["attention.sliding_window_pattern"]]


NO_OFFSETS = ("norms without 1", lambda right: replace(right, offsets={}))
NO_FACTORS = ("scores by the root of the width", lambda right: replace(right, factors=lambda c: {}))
PATTERN = ("local for global", says("attention.sliding_window_pattern", others))
WRONG: list[tuple[str, str, Callable[[GgufMap], GgufMap]]] = [
    ("qwen2", "not interleaved", lambda right: replace(right, interleaved={})),
    ("qwen3", "norms of q and k swapped", swaps("attn_q_norm", "attn_k_norm")),
    ("qwen3", "interleaved", lambda r: replace(r, interleaved=LLAMA.interleaved)),
    ("granite", "not interleaved", lambda right: replace(right, interleaved={})),
    ("granite", "no scale of embeddings", says("embedding_scale", 1.0)),
    ("granite", "no scale of residuals", says("residual_scale", 1.0)),
    ("granite", "no scale of attention", says("attention.scale", 0.25)),
    ("granite", "no scale of logits", says("logit_scale", 1.0)),
    ("gemma2", *NO_OFFSETS),
    ("gemma2", *NO_FACTORS),
    ("gemma2", *PATTERN),
    ("gemma2", "a wider window", says("attention.sliding_window", 7)),
    ("gemma2", "no cap on scores", says("attn_logit_softcapping", 1e6)),
    ("gemma2", "no cap on logits", says("final_logit_softcapping", 1e6)),
    ("gemma3", *NO_OFFSETS),
    ("gemma3", *NO_FACTORS),
    ("gemma3", *PATTERN),
    ("gemma3", "one rope for all", says("rope.freq_base_swa", 1e6)),
    ("phi3", "keys for values", swaps("attn_k", "attn_v")),
    ("phi3", "gate for up", swaps("ffn_gate", "ffn_up")),
    ("olmo2", "norms swapped", swaps("post_attention_norm", "post_ffw_norm")),
    ("stablelm", "norms swapped", swaps("attn_norm", "ffn_norm")),
    ("stablelm", "whole heads turn", says("rope.dimension_count", 16)),
    ("stablelm", "interleaved", lambda r: replace(r, interleaved=LLAMA.interleaved)),
    ("mixtral", "gate for up", swaps("ffn_gate_exps", "ffn_up_exps")),
    ("mixtral", "one expert a token", says("expert_used_count", 1)),
    ("qwen3_moe", "gate for up", swaps("ffn_gate_exps", "ffn_up_exps")),
    ("qwen3_moe", "one expert a token", says("expert_used_count", 1)),
]


@pytest.mark.parametrize(
    ("name", "wrong"),
    [(name, wrong) for name, _, wrong in WRONG],
    ids=[f"{name}, {what}" for name, what, _ in WRONG],
)
def test_wrong_exports_are_far_off(
    name: str, wrong: Callable[[GgufMap], GgufMap], tmp_path: Path
) -> None:
    model = make(name)
    right = family_of(model.config).gguf
    assert right is not None
    found = agreement(model, tmp_path, wrong(right))
    assert found.found > APART * found.rounding, found


def read(path: Path) -> dict[str, np.ndarray]:
    return {
        tensor.name: dequantize(tensor.data, tensor.tensor_type)
        for tensor in GGUFReader(path).tensors
    }


@pytest.mark.parametrize("name", NAMES)
def test_a_rounded_model_has_the_weights_of_its_file(name: str, tmp_path: Path) -> None:
    """Its own 16-bit file holds what the 4-bit file of the model holds, but for F16's last bit."""
    model = make(name)
    gguf_map = family_of(model.config).gguf
    assert gguf_map is not None
    for file, folder, bits in (("a", "whole", 4), ("b", "rounded", 16), ("c", "whole", 16)):
        each = (
            model if folder == "whole" else rounded(copy.deepcopy(model), tmp_path / "a", gguf_map)
        )
        each.save_pretrained(tmp_path / folder)  # in fp32
        tiny_tokenizer().save_pretrained(tmp_path / folder)
        write_gguf(tmp_path / folder, tmp_path / file, bits, gguf_map)
    wanted, found, before = (read(tmp_path / file) for file in "abc")
    assert wanted.keys() == found.keys() == before.keys()
    for tensor, weight in wanted.items():
        np.testing.assert_allclose(found[tensor], weight, rtol=2**-10, atol=1e-6, err_msg=tensor)
    moved = [name for name in wanted if np.abs(before[name] - wanted[name]).max() > 1e-3]
    assert moved == [name for name in wanted if wanted[name].ndim > 1 and "gate_inp" not in name]


@pytest.mark.parametrize("name", ["phi3", "qwen2"])
def test_beyond_a_window_that_the_graph_lacks_the_engine_refuses(name: str, tmp_path: Path) -> None:
    sliding = {"use_sliding_window": True, "max_window_layers": 2} if name == "qwen2" else {}
    save_checkpoint(make(name, sliding_window=40, **sliding), tiny_tokenizer(), tmp_path / "model")
    source = open_checkpoint(tmp_path / "model")
    write_gguf(source.path, tmp_path / "16.gguf", 16, source.gguf_map)
    with LlamaEngine(tmp_path / "16.gguf", context=128) as engine:
        engine.generate(PROMPTS[LENGTHS.index(31)], 1)
        with pytest.raises(EngineError, match="exceeds the available context size"):
            engine.generate(PROMPTS[LENGTHS.index(45)], 1)


def test_a_missing_expert_is_found(tmp_path: Path) -> None:
    folder = tmp_path / "model"
    save_checkpoint(make("mixtral"), tiny_tokenizer(), folder)
    tensors = load_file(folder / "model.safetensors")
    del tensors["model.layers.2.block_sparse_moe.experts.4.w2.weight"]
    save_file(tensors, folder / "model.safetensors", {"format": "pt"})
    with pytest.raises(TeacherError, match=r"6 experts .*layers\.2\.block.*w2.* there are 5"):
        write_gguf(folder, tmp_path / "16.gguf", 16, open_checkpoint(folder).gguf_map)
    assert not (tmp_path / "16.gguf").exists()
