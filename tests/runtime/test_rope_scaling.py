"""A scaled RoPE goes through the cut, distillation and export, beyond the context it was made from.

Within the first context a wrong scaling may pass unseen. So every log-probability is compared with
transformers' after prompts several times as long, and again after the scaling is taken away.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoConfig, AutoModelForCausalLM

import flyweight
from flyweight.checkpoint import save_checkpoint
from flyweight.folder import GGUF_NAMES
from flyweight.runtime.llama import LlamaEngine
from tiny import tiny_tokenizer
from zoo import build

ORIGINAL, CONTEXT = 32, 256  # tokens before the scaling, and with it
VOCABULARY = 304  # the tiny tokenizer's, padded
LENGTHS = (ORIGINAL // 2, ORIGINAL - 2, *range(ORIGINAL + 8, CONTEXT - 8, 19))
ALIKE, APART = 0.1, 1.0  # nats; keys, values and what enters a product are rounded to 11 bits
SCALINGS: dict[str, tuple[str, dict[str, Any]]] = {
    "llama3": (
        "llama",
        {
            "rope_type": "llama3",
            "rope_theta": 1e4,
            "factor": 8.0,
            "low_freq_factor": 1.0,
            "high_freq_factor": 4.0,
            "original_max_position_embeddings": ORIGINAL,
        },
    ),
    "linear": ("qwen3", {"rope_type": "linear", "rope_theta": 1e4, "factor": 8.0}),
    "yarn": (
        "qwen2",
        {
            "rope_type": "yarn",
            "rope_theta": 1e4,
            "factor": 8.0,
            "original_max_position_embeddings": ORIGINAL,
        },
    ),
}


@pytest.fixture(scope="module")
def task(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Items of a few words, most of them to learn from."""
    words = ["pump", "valve", "motor", "pressure", "fault"]
    lines = [
        {
            "prompt": f"the {words[n % 5]} {n}",
            "answer": f"{words[n % 3]} is hot",
            "split": ("train", "train", "train", "dev", "test")[n % 5],
        }
        for n in range(25)
    ]
    path = tmp_path_factory.mktemp("task") / "task.jsonl"
    path.write_text("\n".join(map(json.dumps, lines)))
    return path


def save_teacher(family: str, scaling: dict[str, Any], folder: Path) -> None:
    model = build(
        family,
        vocab_size=VOCABULARY,
        max_position_embeddings=CONTEXT,
        rope_parameters=scaling,
        head_dim=32,
    )
    save_checkpoint(model, tiny_tokenizer(), folder)


def prompts() -> list[list[int]]:
    return [[0, *(6 + (7 * i * i + 13 * n) % 294 for i in range(n - 1))] for n in LENGTHS]


@torch.inference_mode()
def told_by_transformers(folder: Path, scaling: dict[str, Any] | None) -> dict[int, torch.Tensor]:
    """Log-probabilities [V] of what follows each prompt, by its length, with another scaling."""
    config = AutoConfig.from_pretrained(folder)
    if scaling is not None:
        config.rope_parameters = scaling
    model = AutoModelForCausalLM.from_pretrained(folder, config=config, dtype=torch.float32)
    return {
        len(prompt): model(torch.tensor([prompt])).logits[0, -1].log_softmax(-1)
        for prompt in prompts()
    }


def told_by_llama_cpp(gguf: Path) -> dict[int, torch.Tensor]:
    """The same of a file. Nothing is told of a token that ends within a character."""
    found = {}
    with LlamaEngine(gguf, context=CONTEXT) as engine:
        for prompt in prompts():
            answer = engine.generate(prompt, 1, top=VOCABULARY)
            if any(answer.top):
                found[len(prompt)] = torch.tensor([p for _, p in sorted(answer.top[0])])
    return found


def furthest(one: dict[int, torch.Tensor], other: dict[int, torch.Tensor]) -> dict[int, float]:
    """The largest difference after each prompt that both know."""
    return {n: float((one[n] - other[n]).abs().max()) for n in one.keys() & other.keys()}


@pytest.mark.parametrize(("family", "scaling"), SCALINGS.values(), ids=SCALINGS.keys())
def test_scaling_survives_cut_distillation_and_export(
    family: str, scaling: dict[str, Any], task: Path, tmp_path: Path
) -> None:
    teacher, cut, student = (tmp_path / name for name in ("teacher", "cut", "student"))
    save_teacher(family, scaling, teacher)
    # of a narrower head every second pair stays, with the rate at which it turns; YaRN's rates
    # depend on the width, and such a cut is refused
    width = None if scaling["rope_type"] == "yarn" else 16
    flyweight.prune(str(teacher), cut, task=task, layers=2, kv_groups=2, heads=4, head_dim=width)
    flyweight.distill(str(teacher), str(cut), student, data=task, steps=4, batch_size=4)
    flyweight.pack(student, bits=(16,))
    for folder in (teacher, cut, student):
        told = json.loads((folder / "config.json").read_text())
        assert {key: told["rope_parameters"][key] for key in scaling} == scaling, folder
        assert told["max_position_embeddings"] == CONTEXT

    found = told_by_llama_cpp(student / GGUF_NAMES[16])
    beyond = [n for n in found if n > ORIGINAL]
    assert len(beyond) >= 6
    assert max(furthest(found, told_by_transformers(student, None)).values()) < ALIKE
    plain = {"rope_type": "default", "rope_theta": scaling["rope_theta"]}
    without = furthest(found, told_by_transformers(student, plain))
    assert min(without[n] for n in beyond) > APART
