"""Pre-tokenizers by name: each of the known ones splits in llama.cpp as it does here."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast

from flyweight.anatomy.gguf import LLAMA
from flyweight.errors import EngineError
from flyweight.runtime.gguf import write_gguf
from flyweight.runtime.pack import NEUTRAL
from flyweight.runtime.parity import check_tokenizer
from flyweight.runtime.tokenizer_gguf import KNOWN, pre_tokenizer_name, tokenizer_metadata

SPECIAL = ["<|begin|>", "<|end|>", "<|user|>", "<|assistant|>"]


def make_tokenizer(steps: tuple[str, ...], ignore_merges: bool) -> PreTrainedTokenizerFast:
    tokenizer = Tokenizer(models.BPE(ignore_merges=ignore_merges))
    made: list[Any] = []
    for step in steps:
        if step == "digits":
            made.append(pre_tokenizers.Digits(individual_digits=True))
        elif step != "words":
            made.append(pre_tokenizers.Split(Regex(step), behavior="isolated"))
    made.append(pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex="words" in steps))
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(made)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=500,
        special_tokens=SPECIAL,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator([*NEUTRAL] * 3, trainer)
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, bos_token=SPECIAL[0], eos_token=SPECIAL[1]
    )


@pytest.mark.parametrize(("described", "name"), KNOWN.items(), ids=KNOWN.values())
def test_known_pre_tokenizers_split_alike_in_llama_cpp(
    described: tuple[tuple[str, ...], bool],
    name: str,
    make_llama: Callable[..., Path],
    tmp_path: Path,
) -> None:
    folder = make_llama(tmp_path / name, vocab_size=512)
    make_tokenizer(*described).save_pretrained(folder)
    keys = tokenizer_metadata(folder, 512)
    assert keys["tokenizer.ggml.pre"] == name
    write_gguf(folder, tmp_path / "model.gguf", 16, LLAMA)
    assert check_tokenizer(folder, tmp_path / "model.gguf", NEUTRAL) == len(NEUTRAL)


def test_unknown_tokenizers_are_refused(tiny_llama: Path) -> None:
    described = json.loads((tiny_llama / "tokenizer.json").read_text())
    assert pre_tokenizer_name(described) == "qwen2"
    split = described["pre_tokenizer"]["pretokenizers"][0]
    split["pattern"]["Regex"] = split["pattern"]["Regex"].replace(r"\p{N}|", r"\p{N}{1,5}|")
    with pytest.raises(EngineError, match=r"no pre-tokenizer with the steps .*1,5.*qwen2"):
        pre_tokenizer_name(described)
    described["pre_tokenizer"] = {"type": "Whitespace"}
    with pytest.raises(EngineError, match="Whitespace"):
        pre_tokenizer_name(described)
    with pytest.raises(EngineError, match="Lowercase"):
        pre_tokenizer_name(described | {"normalizer": {"type": "Lowercase"}})
    with pytest.raises(EngineError, match="byte-level BPE"):
        pre_tokenizer_name(described | {"model": {"type": "Unigram"}})


def test_special_and_missing_tokens(tiny_llama: Path) -> None:
    keys = tokenizer_metadata(tiny_llama, 304)
    types = keys["tokenizer.ggml.token_type"]
    assert keys["tokenizer.ggml.tokens"][1] == "<|end|>"
    assert types[:6] == [3] * 6, "special tokens are control tokens"
    assert types[300:] == [5] * 4, "rows without a token are unused"
    assert set(types[6:300]) == {1}
    assert keys["tokenizer.ggml.eos_token_id"] == 1
    assert keys["tokenizer.ggml.add_bos_token"] is False
    with pytest.raises(EngineError, match="do not belong together"):
        tokenizer_metadata(tiny_llama, 299)
