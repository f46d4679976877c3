"""Make the demo's teacher: `python -m flyweight.demo.teach OUT`, under an hour on two cores.

A Llama of 8.4 M parameters learns all the jobs of `jobs.py` from endless fresh lessons, every
one drawn from train phrasings only, and is saved in bf16 as an ordinary Hugging Face folder.
"""

from __future__ import annotations

import argparse
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import torch
from transformers import LlamaConfig, LlamaForCausalLM

from flyweight.checkpoint import save_checkpoint
from flyweight.demo.jobs import lessons
from flyweight.demo.tokenizer import VOCABULARY, train_tokenizer
from flyweight.distill.losses import cross_entropy
from flyweight.distill.trainer import Row, Schedule, train
from flyweight.progress import track
from flyweight.tasks.encode import encode

SEED = 7
SCHEDULE = Schedule(steps=2600, batch_size=32, learning_rate=1.5e-3, seed=SEED)
# Prompts teach the language, answers the jobs. More than this, and what cannot be learned of the
# prompts drowns the few tokens that tell which machine is meant.
PROMPT_WEIGHT = 0.05


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


def lesson_rows(tokenizer: Any, count: int, seed: int) -> list[Row]:
    """`count` conversations as training rows: the last turn at weight 1, the rest at less."""
    rows = []
    for conversation in track(list(islice(lessons(seed), count)), "Writing lessons"):
        example = encode(tokenizer, conversation[:-1], conversation[-1]["content"])
        weights = np.ones(len(example), dtype=np.float32)
        weights[: example.prompt_length] = PROMPT_WEIGHT
        rows.append({"input_ids": example.ids, "weights": weights})
    return rows


def teach(out: Path, schedule: Schedule = SCHEDULE) -> None:
    """Train the teacher from its seed and save it to `out`."""
    torch.set_num_threads(2)
    tokenizer = train_tokenizer(schedule.seed)
    model = new_model(schedule.seed)
    rows = lesson_rows(tokenizer, schedule.steps * schedule.batch_size, schedule.seed)
    train(model, rows, cross_entropy, schedule, "Teaching")
    save_checkpoint(model, tokenizer, out)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("out", type=Path)
    teach(parser.parse_args().out)
