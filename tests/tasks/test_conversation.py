"""Chats: the ids are the template's own, and the assistant's turns are found in them, no more."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from flyweight.errors import TaskError
from flyweight.tasks.conversation import encode_chat
from flyweight.tasks.encode import encode
from tiny import tiny_tokenizer

CHATML = (
    "{% for message in messages %}{{ '<|' + message['role'] + '|>\n' }}"
    "{% if message['role'] == 'assistant' %}{% generation %}"
    "{{ message['content'] + '<|end|>' }}{% endgeneration %}{{ '\n' }}"
    "{% else %}{{ message['content'] + '<|end|>\n' }}{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|assistant|>\n' }}{% endif %}"
)
TRIMMED = (  # as Llama 3's and Gemma's
    "{{ bos_token }}{% for message in messages %}{{ '<|' + message['role'] + '|>\n' }}"
    "{% if message['role'] == 'assistant' %}{% generation %}"
    "{{ message['content'] | trim + '<|end|>' }}{% endgeneration %}"
    "{% else %}{{ message['content'] | trim + '<|end|>' }}{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|assistant|>\n' }}{% endif %}"
)
THINKING = (  # as Qwen3's: a last turn has thoughts, an earlier one has not
    "{% for message in messages %}{{ '<|' + message['role'] + '|>' }}"
    "{% if message['role'] == 'assistant' %}{% set said = message['content'].split('</t>')[-1] %}"
    "{% if loop.last %}{{ '<t></t>' }}{% endif %}{% generation %}"
    "{{ said + '<|end|>' }}{% endgeneration %}"
    "{% else %}{{ message['content'] + '<|end|>' }}{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|assistant|>' }}{% endif %}"
)
CHAT = [
    {"role": "system", "content": "it's a pump"},
    {"role": "user", "content": "is it hot?"},
    {"role": "assistant", "content": " it is hot "},
    {"role": "user", "content": "it is hot "},
    {"role": "assistant", "content": "<t>oil</t>the valve\nis open"},
    {"role": "user", "content": "since 3.2 hours?"},
    {"role": "assistant", "content": "yes"},
]


def with_template(template: str | None) -> Any:
    tokenizer = tiny_tokenizer()
    tokenizer.chat_template = template
    return tokenizer


@pytest.mark.parametrize("template", [CHATML, TRIMMED], ids=["chatml", "trimmed"])
@pytest.mark.parametrize("turns", [3, 4, 5, 7])
def test_the_masks_are_those_of_transformers(template: str, turns: int) -> None:
    """Which knows them from the template's own `generation` blocks; ours asks for none."""
    tokenizer, chat = with_template(template), CHAT[:turns]
    found = encode_chat(tokenizer, chat, "here")
    told = tokenizer.apply_chat_template(chat, return_dict=True, return_assistant_tokens_mask=True)
    assert found.ids.tolist() == told["input_ids"]
    assert found.said.astype(int).tolist() == told["assistant_masks"]


def test_a_template_that_leaves_out_old_thoughts() -> None:
    """What the template adds to the last turn alone may count there: the model writes it."""
    tokenizer = with_template(THINKING)
    found = encode_chat(tokenizer, CHAT, "here")
    told = tokenizer.apply_chat_template(CHAT, return_dict=True, return_assistant_tokens_mask=True)
    assert found.ids.tolist() == told["input_ids"]
    masks = np.array(told["assistant_masks"], dtype=bool)
    assert (found.said | ~masks).all()
    added = tokenizer.decode(found.ids[found.said & ~masks])
    assert added in ("", "<t></t>")


def test_one_question_is_as_an_item_is() -> None:
    tokenizer = tiny_tokenizer()
    found = encode_chat(tokenizer, CHAT[:3], "here")
    item = encode(tokenizer, CHAT[:2], CHAT[2]["content"])
    assert found.ids.tolist() == item.ids.tolist()
    assert found.said.tolist() == [i >= item.prompt_length for i in range(len(item))]


def test_without_a_template_turns_follow_each_other() -> None:
    tokenizer = with_template(None)
    found = encode_chat(tokenizer, CHAT[1:3], "here")
    assert tokenizer.decode(found.ids) == "is it hot? it is hot <|end|>"
    assert tokenizer.decode(found.ids[found.said]) == " it is hot <|end|>"
    found = encode_chat(tokenizer, CHAT[1:4], "here")
    assert tokenizer.decode(found.ids[found.said]).strip() == "it is hot"


def test_calls_behind_an_answer_count() -> None:
    calling = CHATML.replace(
        "+ '<|end|>' }}{% endg", "+ message.get('call', '') + '<|end|>' }}{% endg"
    )
    tokenizer = with_template(calling)
    chat = [CHAT[1], {"role": "assistant", "content": "", "call": "pump(12)"}, CHAT[3]]
    found = encode_chat(tokenizer, chat, "here")
    told = tokenizer.apply_chat_template(chat, return_dict=True, return_assistant_tokens_mask=True)
    assert found.said.astype(int).tolist() == told["assistant_masks"]
    assert tokenizer.decode(found.ids[found.said]) == "pump(12)<|end|>"


@pytest.mark.parametrize(
    ("template", "said"),
    [
        ("{{ raise_exception('no system') }}", "here: .* refuses it .no system"),
        ("{% for m in messages %}{{ m['role'] }}{% endfor %}", "here, message 2: .* leaves"),
        # a call without arguments, where a template takes them for granted
        ("{{ messages[-1].call.arguments | tojson }}", "here: .* refuses it .* not JSON"),
    ],
)
def test_what_a_template_does_not_take_is_named(template: str, said: str) -> None:
    with pytest.raises(TaskError, match=said):
        encode_chat(with_template(template), [CHAT[1], CHAT[2] | {"call": {}}], "here")


def test_a_prompt_that_a_template_trips_over_is_named() -> None:
    tokenizer = with_template("{{ messages[-1].call.arguments | tojson }}")
    with pytest.raises(TaskError, match="refuses the messages that end in 'is it hot"):
        encode(tokenizer, [CHAT[1] | {"call": {}}], "yes")
