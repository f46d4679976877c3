"""Make the demo's teacher: `python -m flyweight.demo.teach OUT`, under an hour on two cores.

A Llama of 8.4 M parameters learns all the jobs of `jobs.py` from endless fresh lessons, every
one drawn from train phrasings only, and is saved in bf16 as an ordinary Hugging Face folder.
"""

from __future__ import annotations

import argparse
import random
from itertools import islice
from pathlib import Path

import numpy as np
import torch
from transformers import LlamaConfig, LlamaForCausalLM

from flyweight.demo import jobs
from flyweight.demo.tokenizer import VOCABULARY, train_tokenizer
from flyweight.distill.losses import cross_entropy
from flyweight.distill.trainer import Schedule, train
from flyweight.progress import track
from flyweight.tasks.encode import encode

SEED = 7
STEPS, BATCH = 3600, 32
PROMPT_WEIGHT = 0.1  # prompts teach the language, answers the jobs


def new_model(seed: int = SEED) -> LlamaForCausalLM:
    """An untrained teacher: 8 layers, 256 wide, 8 heads in 4 groups, tied embeddings."""
    torch.manual_seed(seed)
    config = LlamaConfig(
        vocab_size=VOCABULARY,
        hidden_size=256,
        intermediate_size=1024,
        num_hidden_layers=8,
        num_attention_heads=8,
        num_key_value_heads=4,
        head_dim=32,
        max_position_embeddings=2048,
        tie_word_embeddings=True,
        bos_token_id=0,
        eos_token_id=1,
        pad_token_id=2,
    )
    return LlamaForCausalLM(config)


def lesson_rows(tokenizer, count: int, seed: int) -> list[dict[str, np.ndarray]]:
    """`count` conversations as training rows: the last turn at weight 1, the rest at less."""
    rows = []
    lessons = islice(jobs.lessons(seed), count)
    for conversation in track(list(lessons), "Writing lessons"):
        example = encode(tokenizer, conversation[:-1], conversation[-1]["content"])
        weights = np.ones(len(example), dtype=np.float32)
        weights[: example.prompt_length] = PROMPT_WEIGHT
        rows.append({"input_ids": example.ids, "weights": weights})
    random.Random(seed).shuffle(rows)
    return rows


def teach(out: Path, steps: int = STEPS, seed: int = SEED) -> None:
    """Train the teacher from its seed and save it to `out`."""
    torch.set_num_threads(2)
    tokenizer = train_tokenizer(seed)
    model = new_model(seed)
    rows = lesson_rows(tokenizer, steps * BATCH, seed)
    schedule = Schedule(steps=steps, batch_size=BATCH, learning_rate=1.5e-3, seed=seed)
    train(model, rows, cross_entropy, schedule, "Teaching")
    model.to(torch.bfloat16).save_pretrained(out)
    tokenizer.save_pretrained(out)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])  # type: ignore[union-attr]
    parser.add_argument("out", type=Path)
    parser.add_argument("--steps", type=int, default=STEPS)
    parser.add_argument("--seed", type=int, default=SEED)
    options = parser.parse_args()
    teach(options.out, options.steps, options.seed)
