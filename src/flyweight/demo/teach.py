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

from flyweight.checkpoint import round_weights, save_checkpoint
from flyweight.demo.jobs import lessons
from flyweight.demo.tokenizer import VOCABULARY, train_tokenizer
from flyweight.distill.losses import cross_entropy
from flyweight.distill.trainer import Row, Schedule, train
from flyweight.progress import track
from flyweight.tasks.encode import encode

SEED = 7
# First prompts and answers together: the language must be there before a job can be learned. Then
# the answers alone: what cannot be learned of the prompts drowns the few tokens that tell which
# machine is meant. The first stage ends when it has found the machines, its rate still high.
LANGUAGE = Schedule(steps=2600, stop=1800, batch_size=32, learning_rate=1.5e-3, seed=SEED)
JOBS = Schedule(steps=1600, batch_size=32, learning_rate=8e-4, seed=SEED + 1)
PROMPT_WEIGHT = 0.05  # in the first stage


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


def lesson_rows(tokenizer: Any, count: int, seed: int, prompt_weight: float) -> list[Row]:
    """`count` conversations as training rows: the last turn at weight 1, the rest at less."""
    rows = []
    for conversation in track(list(islice(lessons(seed), count)), "Writing lessons"):
        example = encode(tokenizer, conversation[:-1], conversation[-1]["content"])
        weights = np.ones(len(example), dtype=np.float32)
        weights[: example.prompt_length] = prompt_weight
        rows.append({"input_ids": example.ids, "weights": weights})
    return rows


def teach(out: Path, language: Schedule = LANGUAGE, jobs: Schedule = JOBS) -> None:
    """Train the teacher from its seed, in two stages, and save it to `out`."""
    torch.set_num_threads(2)
    tokenizer = train_tokenizer(SEED)
    model: Any = new_model(SEED)
    stages = ((language, PROMPT_WEIGHT, "Teaching the language"), (jobs, 0.0, "Teaching the jobs"))
    for schedule, prompt_weight, title in stages:
        count = schedule.steps * schedule.batch_size
        rows = lesson_rows(tokenizer, count, schedule.seed, prompt_weight)
        train(model, rows, cross_entropy, schedule, title)
        round_weights(model)  # each stage ends with what can be saved
    save_checkpoint(model, tokenizer, out)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("out", type=Path)
    teach(parser.parse_args().out)
