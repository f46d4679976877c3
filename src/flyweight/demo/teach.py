"""Make the demo's teacher: `python -m flyweight.demo.teach OUT`, under an hour on two cores.

A Llama of 8.4 M parameters learns all the jobs of `jobs.py` from endless fresh lessons, every
one drawn from train phrasings only, and is saved in bf16 as an ordinary Hugging Face folder.
"""

from __future__ import annotations

import argparse
import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import torch
from transformers import LlamaConfig, LlamaForCausalLM

from flyweight.checkpoint import round_weights, save_checkpoint
from flyweight.demo.jobs import Conversation, lessons
from flyweight.demo.orders import CORRECTIONS
from flyweight.demo.tokenizer import VOCABULARY, train_tokenizer
from flyweight.distill.losses import cross_entropy
from flyweight.distill.trainer import Row, Schedule, train
from flyweight.progress import track
from flyweight.tasks.encode import encode

SEED = 7


@dataclass(frozen=True)
class Stage:
    """A part of the teaching: its steps, the weight of prompt tokens, how rare lessons are met.

    Of the lessons without a correction ("pump 3, no wait, fan 7") one in `one_in` is kept.
    """

    title: str
    schedule: Schedule
    prompt_weight: float
    one_in: int = 1


# First prompts and answers together: the language must be there before a job can be learned. Then
# the answers alone: what cannot be learned of the prompts drowns the few tokens that tell which
# machine is meant. The first stage ends when it has found the machines, its rate still high. Last,
# what is rare and still goes wrong comes more often: a machine that takes the place of another.
STAGES = (
    Stage("Teaching the language", Schedule(2600, 32, 1.5e-3, seed=SEED, stop=1800), 0.05),
    Stage("Teaching the jobs", Schedule(4000, 32, 8e-4, seed=SEED + 1), 0.0),
    Stage("Teaching corrections", Schedule(2400, 32, 8e-4, seed=SEED + 2), 0.0, one_in=3),
)


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


def stage_lessons(stage: Stage) -> Iterator[Conversation]:
    """Endless lessons of a stage, reproducible from its seed."""
    rng = random.Random(f"{stage.schedule.seed}/{stage.title}")
    for conversation in lessons(stage.schedule.seed):
        asked = conversation[1]["content"]
        rare = any(words in asked for words in CORRECTIONS)
        if rare or rng.randrange(stage.one_in) == 0:
            yield conversation


def lesson_rows(tokenizer: Any, stage: Stage) -> list[Row]:
    """A stage's lessons as training rows: the last turn at weight 1, the rest at less."""
    rows, count = [], stage.schedule.steps * stage.schedule.batch_size
    for conversation in track(list(islice(stage_lessons(stage), count)), "Writing lessons"):
        example = encode(tokenizer, conversation[:-1], conversation[-1]["content"])
        weights = np.ones(len(example), dtype=np.float32)
        weights[: example.prompt_length] = stage.prompt_weight
        rows.append({"input_ids": example.ids, "weights": weights})
    return rows


def teach_stage(model: Any, tokenizer: Any, stage: Stage) -> None:
    """Train a model in place through one stage; it ends with what can be saved."""
    rows = lesson_rows(tokenizer, stage)
    train(model, rows, cross_entropy, stage.schedule, stage.title)
    round_weights(model)


def teach(out: Path, stages: Sequence[Stage] = STAGES) -> None:
    """Train the teacher from its seed, stage by stage, and save it to `out`."""
    torch.set_num_threads(2)
    tokenizer = train_tokenizer(SEED)
    model: Any = new_model(SEED)
    for stage in stages:
        teach_stage(model, tokenizer, stage)
    save_checkpoint(model, tokenizer, out)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("out", type=Path)
    teach(parser.parse_args().out)
