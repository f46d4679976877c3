"""The teacher's tokenizer: digits alone, nothing lost, markers whole, a template that renders."""

from __future__ import annotations

import json
from itertools import islice
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from transformers import PreTrainedTokenizerFast

from flyweight.anatomy.gguf import LLAMA
from flyweight.demo import jobs
from flyweight.demo.tokenizer import (
    BEGIN,
    END,
    PAD,
    RESERVED,
    ROLES,
    VOCABULARY,
    train_tokenizer,
)
from flyweight.runtime.gguf import write_gguf
from flyweight.runtime.llama import LlamaEngine
from flyweight.runtime.tokenizer_gguf import pre_tokenizer_name

SPECIAL = (BEGIN, END, PAD, *ROLES, *RESERVED)
CALL = {"function": {"name": "stop_machine", "arguments": {"asset": "pump 4"}}}
texts = st.text(st.characters(exclude_categories=["Cs"]))


@pytest.fixture(scope="module")
def tokenizer() -> PreTrainedTokenizerFast:
    return train_tokenizer(7, conversations=2000)


def ids_of(tokenizer: PreTrainedTokenizerFast, text: str) -> list[int]:
    return tokenizer(text, add_special_tokens=False)["input_ids"]


def test_the_vocabulary_is_full_and_begins_with_the_special_tokens(
    tokenizer: PreTrainedTokenizerFast,
) -> None:
    assert len(tokenizer) == VOCABULARY
    assert tokenizer.convert_ids_to_tokens(list(range(len(SPECIAL)))) == list(SPECIAL)
    ends = (tokenizer.bos_token_id, tokenizer.eos_token_id, tokenizer.pad_token_id)
    assert ends == (0, 1, 2)


def test_32_tokens_are_reserved() -> None:
    assert len(RESERVED) == len(set(RESERVED)) == 32


def test_the_seed_decides_the_tokenizer(tokenizer: PreTrainedTokenizerFast) -> None:
    again = train_tokenizer(7, conversations=2000)
    assert again.backend_tokenizer.to_str() == tokenizer.backend_tokenizer.to_str()


def test_no_learned_token_holds_a_digit_beside_anything(
    tokenizer: PreTrainedTokenizerFast,
) -> None:
    learned = set(tokenizer.get_vocab()) - set(SPECIAL)
    with_digits = {token for token in learned if any(c.isascii() and c.isdigit() for c in token)}
    assert with_digits == set("0123456789")


@given(number=st.integers(0, 10**12))
def test_a_number_is_its_digits(tokenizer: PreTrainedTokenizerFast, number: int) -> None:
    tokens = tokenizer.convert_ids_to_tokens(ids_of(tokenizer, str(number)))
    assert tokens == list(str(number))


@given(text=texts)
def test_any_text_comes_back(tokenizer: PreTrainedTokenizerFast, text: str) -> None:
    assert tokenizer.decode(ids_of(tokenizer, text)) == text


@given(before=texts, marker=st.sampled_from(SPECIAL), after=texts)
def test_a_special_token_is_one_id_wherever_it_stands(
    tokenizer: PreTrainedTokenizerFast, before: str, marker: str, after: str
) -> None:
    whole = ids_of(tokenizer, before + marker + after)
    expected = [
        *ids_of(tokenizer, before),
        tokenizer.convert_tokens_to_ids(marker),
        *ids_of(tokenizer, after),
    ]
    assert whole == expected


def test_the_template_marks_every_turn_and_asks_for_the_answer(
    tokenizer: PreTrainedTokenizerFast,
) -> None:
    messages = [
        {"role": "system", "content": "Use the tools."},
        {"role": "user", "content": "stop pump 4"},
        {"role": "assistant", "content": "", "tool_calls": [CALL]},
        {"role": "tool", "content": '{"ok":true}'},
    ]
    said = tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
    call = '<|tool_call|>{"name":"stop_machine","arguments":{"asset": "pump 4"}}'
    assert said == (
        "<|begin|><|system|>Use the tools.<|end|><|user|>stop pump 4<|end|>"
        f'<|assistant|>{call}<|end|><|tool|>{{"ok":true}}<|end|><|assistant|>'
    )
    without = tokenizer.apply_chat_template(messages, tokenize=False)
    assert said == without + "<|assistant|>"


def test_a_lesson_in_words_is_the_same_ids_as_its_turns(
    tokenizer: PreTrainedTokenizerFast,
) -> None:
    for conversation in islice(jobs.lessons(1), 20):
        ids = tokenizer.apply_chat_template(conversation, return_dict=False)
        turns = [(f"<|{m['role']}|>", m["content"], END) for m in conversation]
        apart = [BEGIN, *(part for turn in turns for part in turn)]
        assert ids == [i for part in apart for i in ids_of(tokenizer, part)]


def test_llama_cpp_knows_its_pre_tokenizer_and_splits_alike(
    tokenizer: PreTrainedTokenizerFast, make_llama, tmp_path: Path
) -> None:
    described = json.loads(tokenizer.backend_tokenizer.to_str())
    assert pre_tokenizer_name(described) == "qwen2"
    folder = make_llama(tmp_path / "llama", vocab_size=VOCABULARY, num_hidden_layers=1)
    tokenizer.save_pretrained(folder)
    gguf = tmp_path / "model.gguf"
    write_gguf(folder, gguf, 16, LLAMA)
    lessons = [c[1]["content"] for c in islice(jobs.lessons(2), 100)]
    with LlamaEngine(gguf) as engine:
        for text in [*lessons, "Ünïcode 😀 ½ 3.2bar\t x\n\n y  z", "<|user|>hi<|end|>"]:
            assert engine.tokenize(text) == ids_of(tokenizer, text)
