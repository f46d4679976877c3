"""Random networks of several shapes, run in the engines to learn what their parts take."""

from __future__ import annotations

from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np

from flyweight.checkpoint import open_checkpoint, save_checkpoint
from flyweight.make.blocks import Load, Run, load_of
from flyweight.make.form import Form, form_of
from flyweight.progress import bar
from flyweight.runtime.threads import SMALL_FILE

# Layers, hidden channels, MLP channels, heads, tokens. Three are too large for one thread.
WRITERS = (
    (2, 64, 128, 2, 1024), (6, 64, 256, 2, 1024), (2, 128, 1024, 4, 2048), (4, 128, 384, 2, 2048),
    (8, 128, 512, 4, 2048), (3, 192, 768, 6, 2048), (2, 256, 512, 8, 4096), (8, 256, 1024, 8, 2048),
    (6, 384, 1536, 6, 4096), (8, 768, 3072, 12, 16384), (4, 1024, 4096, 16, 8192),
    (3, 2048, 6144, 16, 8192),
)  # fmt: skip
CLASSIFIERS = (
    (1, 96, 192, 4, 1024), (2, 128, 512, 4, 2048), (6, 96, 384, 3, 2048), (3, 192, 768, 6, 4096),
    (6, 256, 1024, 8, 4096), (6, 384, 1536, 12, 8192), (8, 768, 3072, 12, 8192),
    (4, 1024, 4096, 16, 8192),
)  # fmt: skip
WRITING = ((24, 48), (160, 8))  # tokens read and written
READING = ((8, 0), (24, 0), (96, 0))
TIMED = 12  # answers to each, of those that one thread answers
FEW = 4  # of larger ones, which take long
ROUNDS = 2
CONTEXT = 512
BYTES = 256  # tokens that the tokenizer has; the rows beyond them are padding


def measure_networks(causal: bool) -> dict[int, list[Run]]:
    """What networks that write, or that classify, took in their engine, by bit width.

    Each runs ROUNDS times, the others in between, of which the fastest counts: what else goes on in
    a machine only ever adds.
    """
    shapes, build = (WRITERS, _writer) if causal else (CLASSIFIERS, _classifier)
    what = "that write" if causal else "that classify"
    found: dict[int, list[Run]] = {}
    with (
        bar(f"Measuring networks {what}", len(shapes) * (1 + ROUNDS)) as running,
        TemporaryDirectory() as scratch,
    ):
        forms = []
        for number, shape in enumerate(shapes):
            forms.append(_packed(build(*shape), Path(scratch) / str(number)))
            running.advance()
        rounds = []
        for _ in range(ROUNDS):
            took = []
            for form in forms:
                took += _runs(form)
                running.advance()
            rounds.append(took)
    for same in zip(*rounds, strict=True):
        bits, best = min(same, key=lambda each: each[1].latency_p50)
        found.setdefault(bits, []).append(best)
    return found


def _packed(model: Any, folder: Path) -> Form:
    """A network as a folder with its files, and a tokenizer of single bytes."""
    save_checkpoint(model.eval(), _tokenizer(), folder)
    form = form_of(open_checkpoint(folder))
    for bits, name in form.files.items():
        if not (folder / name).exists():
            form.write(bits, folder / name)
    return form


def _runs(form: Form) -> list[tuple[int, Run]]:
    source = form.source
    load = load_of(source.family, source.shape, source.config)
    lengths = WRITING if source.family.causal else READING
    return [
        (bits, _run(form, load, source.path / name, read, written))
        for bits, name in form.files.items()
        for read, written in lengths
    ]


def _run(form: Form, load: Load, file: Path, read: int, written: int) -> Run:
    generator = np.random.default_rng(0)
    timed = TIMED if file.stat().st_size < SMALL_FILE else FEW
    prompts = generator.integers(0, BYTES, (timed, read)).tolist()
    cost = form.answers(file, prompts, written, lambda: None).cost
    return Run(
        load,
        file.stat().st_size,
        read,
        written,
        cost.latency_p50,
        cost.latency_p95,
        cost.peak_memory_bytes,
    )


def _tokenizer() -> Any:
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    pair = (letters[0], letters[1])  # llama.cpp loads no tokenizer without a merge
    tokens = {token: number for number, token in enumerate([*letters, "".join(pair)])}
    raw = Tokenizer(models.BPE(tokens, [pair]))
    raw.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    raw.decoder = decoders.ByteLevel()
    raw.add_special_tokens(["<end>"])
    return PreTrainedTokenizerFast(tokenizer_object=raw, eos_token="<end>")


def _writer(layers: int, hidden: int, mlp: int, heads: int, tokens: int) -> Any:
    from transformers import LlamaConfig, LlamaForCausalLM

    return LlamaForCausalLM(
        LlamaConfig(
            vocab_size=tokens,
            hidden_size=hidden,
            intermediate_size=mlp,
            num_hidden_layers=layers,
            num_attention_heads=heads,
            num_key_value_heads=max(1, heads // 2),
            max_position_embeddings=CONTEXT,
            tie_word_embeddings=True,
            bos_token_id=BYTES + 1,
            eos_token_id=BYTES + 1,
        )
    )


def _classifier(layers: int, hidden: int, mlp: int, heads: int, tokens: int) -> Any:
    from transformers import BertConfig, BertForSequenceClassification

    return BertForSequenceClassification(
        BertConfig(
            vocab_size=tokens,
            hidden_size=hidden,
            intermediate_size=mlp,
            num_hidden_layers=layers,
            num_attention_heads=heads,
            max_position_embeddings=CONTEXT,
            num_labels=16,  # pyright: ignore[reportCallIssue]
        )
    )


__all__ = ["measure_networks"]
