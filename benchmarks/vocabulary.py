"""What does cutting the vocabulary to a task's own tokens save, and what is split otherwise then?

Two cases: the embedded teacher (2,048 rows of 256) on the demo's task, and an embedding of Llama
3.2's size (128,256 rows of 2,048 in bf16) on Banking77's questions. The tokenizer of the second is
byte-level BPE trained here on the texts of shared/data (without Banking77) as far as they go; what
is missing of 128,256 are merges of random tokens, and the weights are random. A real tokenizer can
be given instead, as a Hugging Face folder.

The peer is the subset that one would take first: the tokens that the data use, the bytes and the
special tokens, without those that they are made from. Counted for both: held-out texts whose tokens
all stay, and how many of them are split otherwise than before.

    python benchmarks/vocabulary.py                        # a minute and a half on one core
    python benchmarks/vocabulary.py --tokenizer FOLDER
"""

from __future__ import annotations

import argparse
import csv
import json
import os
import random
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
from rich.console import Console
from rich.table import Table
from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, trainers
from torch import Tensor
from transformers import AutoTokenizer, PreTrainedTokenizerFast

from flyweight.checkpoint import open_checkpoint
from flyweight.demo.orders import write_task
from flyweight.runtime.tokenizer_gguf import KNOWN
from flyweight.shrink.coverage import Coverage, coverage
from flyweight.shrink.cut import cut_model
from flyweight.shrink.keep import keep_all
from flyweight.shrink.retoken import rebuild_tokenizer
from flyweight.shrink.token_ids import named_ids, renumber_config
from flyweight.shrink.vocabulary import (
    BYTES_AT_16_BITS,
    count_tokens,
    describe,
    must_stay,
    plan_vocabulary,
)
from flyweight.tasks.items import Item
from flyweight.tasks.read import read_task

SHARED = Path(os.environ.get("FLYWEIGHT_SHARED", Path(__file__).parents[2] / "shared"))
TEACHER = Path(__file__).parents[1] / "src" / "flyweight" / "demo" / "teacher"
ROWS, HIDDEN = 128_256, 2048  # of Llama 3.2 1B
SPECIAL = [f"<|reserved_{i}|>" for i in range(256)]
COMPARED = 200  # texts whose logits are compared


@dataclass(frozen=True)
class Subset:
    """What a choice of tokens keeps, and how many of the texts that it should not touch it does."""

    name: str
    rows: int
    whole: int  # held-out texts whose tokens all stay
    differ: int  # of them, split otherwise
    train_differ: int  # of the texts that it was chosen for
    report: Coverage


def questions(name: str) -> list[str]:
    with (SHARED / "data" / "banking77" / name).open(encoding="utf-8") as file:
        return [row["text"] for row in csv.DictReader(file)]


def corpus() -> Iterator[str]:
    """Lines of every text in shared/data but Banking77's."""
    data = SHARED / "data"
    for name in ("text/wikitext2-valid.txt", "stories/tinystories_sample.txt"):
        yield from (data / name).read_text(encoding="utf-8").splitlines()
    for folder in ("text/gsm8k", "tools", "safety"):
        for path in sorted((data / folder).rglob("*.*")):
            if path.suffix in (".jsonl", ".json", ".csv"):
                yield from path.read_text(encoding="utf-8").splitlines()


def large_tokenizer() -> Any:
    """Byte-level BPE of ROWS tokens with Llama 3's pre-tokenizer; prints how many are learned."""
    [(steps, _)] = [key for key, name in KNOWN.items() if name == "llama-bpe"]
    tokenizer = Tokenizer(models.BPE(ignore_merges=True))
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(steps[0]), behavior="isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=ROWS - len(SPECIAL),
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
        max_token_length=16,
    )
    tokenizer.train_from_iterator(corpus(), trainer)
    model = json.loads(tokenizer.to_str())["model"]
    vocab, merges = model["vocab"], [tuple(pair) for pair in model["merges"]]
    print(f"{len(vocab):,} of {ROWS:,} tokens are learned, the others are random merges.")
    rng, tokens = random.Random(0), list(vocab)
    while len(vocab) < ROWS - len(SPECIAL):
        pair = rng.choice(tokens), rng.choice(tokens)
        if "".join(pair) not in vocab:
            vocab["".join(pair)] = len(vocab)
            merges.append(pair)
    tokenizer.model = models.BPE(vocab, merges, ignore_merges=True)
    tokenizer.add_special_tokens(SPECIAL)
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, bos_token=SPECIAL[0], eos_token=SPECIAL[1]
    )


def ids_of(tokenizer: Any, texts: Sequence[str]) -> list[list[int]]:
    return tokenizer(list(texts), add_special_tokens=False)["input_ids"]


def try_subset(
    name: str, old: Any, keep: Tensor, rows: int, train: Sequence[str], held: Sequence[str]
) -> Subset:
    """How the tokenizer of `keep` splits what it was chosen for, and what it was not."""
    new, kept = rebuild_tokenizer(old, keep, rows=rows), set(keep.tolist())

    def compare(texts: Sequence[str]) -> tuple[int, int]:
        both = zip(texts, ids_of(old, texts), strict=True)
        whole = [(text, ids) for text, ids in both if set(ids) <= kept]
        found = ids_of(new, [text for text, _ in whole]) if whole else []
        return len(whole), sum(
            keep[now].tolist() != was for now, (_, was) in zip(found, whole, strict=True)
        )

    whole, differ = compare(held)
    return Subset(name, len(keep), whole, differ, compare(train)[1], coverage(old, new, keep, held))


def naive(tokenizer: Any, used: Sequence[Sequence[int]], rows: int, named: set[int]) -> Tensor:
    """The tokens that are used and those that no tokenizer can go without."""
    return torch.tensor(
        sorted(set(count_tokens(used)) | must_stay(describe(tokenizer), rows) | named)
    )


def show(title: str, subsets: Sequence[Subset], rows: int, row_bytes: int, train: int) -> None:
    table = Table(title=title)
    for heading in ("", "rows", "saved", "whole", "split otherwise", "of train", "more tokens"):
        table.add_column(heading, justify="right" if heading else "left")
    for one in subsets:
        table.add_row(
            one.name,
            f"{one.rows:,} of {rows:,}",
            f"{(rows - one.rows) * row_bytes / 1e6:,.2f} MB",
            f"{one.whole:,} of {one.report.texts:,}",
            f"{one.differ:,}",
            f"{one.train_differ:,} of {train:,}",
            f"{one.report.growth:.2%}",
        )
    Console(width=120).print(table)
    print(f"flyweight: {subsets[0].report}")


def rendered(tokenizer: Any, items: Sequence[Item]) -> list[str]:
    """Chats as the teacher meets them, answer and end included."""
    return [
        tokenizer.apply_chat_template(
            [*item.messages, {"role": "assistant", "content": item.answer}], tokenize=False
        )
        for item in items
    ]


@torch.inference_mode()
def demo() -> None:
    """The embedded teacher: tokens, and its logits over the rows that stay."""
    checkpoint = open_checkpoint(TEACHER)
    tokenizer, model, rows = checkpoint.tokenizer(), checkpoint.model(), checkpoint.shape.vocabulary
    with TemporaryDirectory() as folder:
        task = read_task(write_task(Path(folder) / "task.jsonl"))
    train, held = rendered(tokenizer, task.train), rendered(tokenizer, [*task.dev, *task.test])
    used, named = ids_of(tokenizer, train), named_ids(model.config, model.generation_config)
    keep = plan_vocabulary(tokenizer, used, rows=rows, named=named).keep
    chosen = (("flyweight", keep), ("used tokens alone", naive(tokenizer, used, rows, named)))
    subsets = [try_subset(name, tokenizer, ids, rows, train, held) for name, ids in chosen]
    shape, family = checkpoint.shape, checkpoint.family
    size = shape.hidden * BYTES_AT_16_BITS * (1 if family.is_tied(model.config) else 2)
    show("The demo's task, dev and test held out", subsets, rows, size, len(train))

    small = cut_model(model, family, replace(keep_all(shape), vocabulary=keep))
    small.config = renumber_config(small.config, keep)
    place = {old: new for new, old in enumerate(keep.tolist())}
    whole = [ids for ids in ids_of(tokenizer, held) if set(ids) <= place.keys()][:COMPARED]
    worst, exact, hidden = 0.0, 0, 0
    for ids in whole:
        now = torch.tensor([[place[i] for i in ids]])
        before = model(torch.tensor([ids]), output_hidden_states=True)
        after = small(now, output_hidden_states=True)
        difference = (before.logits[..., keep] - after.logits).abs().max().item()
        worst, exact = max(worst, difference), exact + (difference == 0)
        hidden += torch.equal(before.hidden_states[-1], after.hidden_states[-1])
    print(
        f"Logits over the rows that stay, {len(whole)} texts: equal bit for bit in {exact}, "
        f"largest difference {worst:.1e}; last hidden states equal bit for bit in {hidden}."
    )


@torch.inference_mode()
def large(folder: Path | None) -> None:
    """A vocabulary of today's size."""
    tokenizer = AutoTokenizer.from_pretrained(folder) if folder else large_tokenizer()
    rows = len(tokenizer)
    train, held = questions("train.csv"), questions("test.csv")
    used = ids_of(tokenizer, train)
    started = time.perf_counter()
    keep = plan_vocabulary(tokenizer, used, rows=rows).keep
    planned = time.perf_counter()
    rebuild_tokenizer(tokenizer, keep, rows=rows)
    rebuilt = time.perf_counter()
    embedding = torch.randn(rows, HIDDEN, dtype=torch.bfloat16)
    began = time.perf_counter()
    part = embedding.index_select(0, keep)
    cut = time.perf_counter() - began
    print(
        f"Planned in {planned - started:.1f} s, rebuilt in {rebuilt - planned:.1f} s, "
        f"cut out of {embedding.nbytes / 1e6:,.0f} MB in {cut:.3f} s."
    )
    chosen = (("flyweight", keep), ("used tokens alone", naive(tokenizer, used, rows, set())))
    subsets = [try_subset(name, tokenizer, ids, rows, train, held) for name, ids in chosen]
    title = f"Banking77's test questions, {folder.name if folder else 'a tokenizer trained here'}"
    show(title, subsets, rows, HIDDEN * BYTES_AT_16_BITS, len(train))
    hidden = torch.randn(16, HIDDEN, dtype=torch.bfloat16)
    difference = ((hidden @ embedding.T)[:, keep] - hidden @ part.T).abs().max().item()
    print(f"Logits of 16 random states over the rows that stay: largest difference {difference}.")


def main() -> None:
    """Measure, and print the tables."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--tokenizer", type=Path, help="a Hugging Face folder")
    options = parser.parse_args()
    torch.manual_seed(0)
    if options.tokenizer is None:
        demo()
    large(options.tokenizer)


if __name__ == "__main__":
    main()
