"""Calls of tools: the form is the template's own; what is drawn from the grammar is read back."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jsonschema
import pytest

from flyweight.anatomy.gguf import LLAMA
from flyweight.errors import OptionError
from flyweight.runtime.chat_format import ChatFormat
from flyweight.runtime.gguf import write_gguf
from flyweight.runtime.llama import LlamaEngine
from flyweight.runtime.tool_calls import Call, CallForm, Tools, call_form
from tiny import CHAT_TEMPLATE, SPECIAL

TURN = "{% for m in messages %}{{ '<|' + m.role + '|>' }}"
END = "{{ '<|end|>' }}{% endfor %}{% if add_generation_prompt %}{{ '<|assistant|>' }}{% endif %}"
ARGUMENTS = "{{ c.function.arguments | tojson }}"
# how the templates of well-known families write a call, in their words and no more
FORMS = {
    "plain": (CHAT_TEMPLATE, CallForm()),
    "tags": (
        TURN + "{{ m.content }}{% for c in m.tool_calls or [] %}{{ '\\n' if not loop.first or "
        "m.content }}<tool_call>\n{\"name\": \"{{ c.function.name }}\", \"arguments\": "
        + ARGUMENTS + "}\n</tool_call>{% endfor %}" + END,
        CallForm('<tool_call>\n{"name": "', '", "arguments": ',
                 '}\n</tool_call>\n<tool_call>\n{"name": "', "}\n</tool_call>", False, True),
    ),
    "bare": (
        "{% if tools %}{{ tools | tojson }}{% endif %}" + TURN + "{{ m.content }}"
        "{% for c in m.tool_calls or [] %}{\"name\": \"{{ c.function.name }}\", \"parameters\": "
        + ARGUMENTS + "}{% endfor %}" + END,
        CallForm('{"name": "', '", "parameters": ', '}{"name": "', "}", True, True),
    ),
    "a token": (
        TURN + "{{ m.content }}{% for c in m.tool_calls or [] %}<|system|>{{ c.function.name }}"
        "<|user|>" + ARGUMENTS + "{% endfor %}" + END,
        CallForm(),  # nothing of it would be seen in an answer
    ),
    "refuses calls": (
        TURN + "{% if m.tool_calls %}{{ raise_exception('no calls') }}{% endif %}{{ m.content }}"
        + END,
        CallForm(),
    ),
}  # fmt: skip
TOOLS: list[dict[str, Any]] = [
    {
        "type": "function",
        "function": {
            "name": "pump_state",
            "parameters": {
                "type": "object",
                "properties": {
                    "pump": {"type": "integer", "minimum": 1, "maximum": 40},
                    "why": {"type": "string", "maxLength": 5},
                },
                "required": ["pump", "why"],
            },
        },
    },
    {"type": "function", "function": {"name": "pump", "description": "a prefix of the other"}},
]


@pytest.fixture(scope="module")
def engine(tiny_llama: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[LlamaEngine]:
    file = tmp_path_factory.mktemp("tools") / "model-f16.gguf"
    write_gguf(tiny_llama, file, 16, LLAMA)
    with LlamaEngine(file, context=512) as engine:
        yield engine


def form_of(engine: LlamaEngine, template: str) -> ChatFormat:
    return ChatFormat(
        template,
        lambda text: engine.tokenize(text, add_special=False),
        {"bos_token": SPECIAL[0]},
        SPECIAL,
    )


@pytest.mark.parametrize("name", FORMS)
def test_the_form_is_the_templates(name: str, engine: LlamaEngine) -> None:
    template, wanted = FORMS[name]
    assert call_form(form_of(engine, template)) == wanted


@pytest.mark.parametrize("name", FORMS)
def test_what_is_drawn_is_read_back_and_holds(name: str, engine: LlamaEngine) -> None:
    form = form_of(engine, FORMS[name][0])
    tools = Tools(form, call_form(form), TOOLS)
    prompt = tools.prompt([{"role": "user", "content": "state of pump 5?"}])
    called = said = 0
    for seed in range(12):
        for choice in ("required", "auto"):
            answer = engine.generate(
                prompt,
                150,
                constraint=tools.constraint(choice, parallel=bool(seed % 2)),  # type: ignore[arg-type]
                temperature=1.0,
                seed=seed,
            )
            text, calls = tools.parse(answer.text)
            if answer.stop_id is None:
                continue
            assert calls or choice == "auto"
            assert seed % 2 or len(calls) <= 1
            for call in calls:
                schema = {"pump_state": TOOLS[0]["function"]["parameters"]}.get(call.name, {})
                jsonschema.validate(json.loads(call.arguments), schema)
            called += len(calls)
            said += bool(text)
    assert called > 5
    assert said > 0


def test_calls_and_text_are_told_apart(engine: LlamaEngine) -> None:
    form = form_of(engine, FORMS["tags"][0])
    tools = Tools(form, call_form(form), TOOLS)
    one = '<tool_call>\n{"name": "pump", "arguments": {}}\n</tool_call>'
    other = (
        '<tool_call>\n{"name": "pump_state", "arguments": {"pump": 1, "why": "}{"}}\n</tool_call>'
    )
    assert tools.parse(f"I look. {one}\n{other}") == (
        "I look. ",
        [Call("pump", "{}"), Call("pump_state", '{"pump": 1, "why": "}{"}')],
    )
    for text in ("no call", one.replace("pump", "none"), one[:30], one.replace("{}", "[]"), ""):
        assert tools.parse(text) == (text, [])
    wrong = '{"name": "pump_state", "arguments": {"pump": 99, "why": "", "evil": true}}'
    for text in (wrong, other.replace('"pump": 1', '"pump": "1"')):
        quoted = f"It said <tool_call>\n{wrong}" if text == wrong else text
        assert tools.parse(quoted) == (quoted, [])  # no call that could be made
    for text, held in (("pump <", 1), ("pump <tool", 5), ("a < b", 0), (f"x {one}", len(one))):
        assert tools.held_back(text) == held


def test_the_tools_are_told_and_earlier_calls_are_shown(engine: LlamaEngine) -> None:
    call = {"id": "c1", "function": {"name": "pump", "arguments": '{"a": 1}'}}
    chat = [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": "hi"},
        {"role": "assistant", "content": "", "tool_calls": [call]},
        {"role": "tool", "tool_call_id": "c1", "content": "running"},
    ]
    for name, (template, _) in FORMS.items():
        form = form_of(engine, template)
        text = engine.detokenize(Tools(form, call_form(form), TOOLS).prompt(chat))
        assert text.count("a prefix of the other") == 1, name
        assert '"a": 1' in text
        assert "running" in text
        assert "Be brief." in text


def test_a_schema_that_is_not_understood_is_refused(engine: LlamaEngine) -> None:
    form = form_of(engine, CHAT_TEMPLATE)
    wrong = {"name": "x", "parameters": {"type": "nosuch"}}
    with pytest.raises(OptionError, match="cannot be used"):
        Tools(form, CallForm(), [{"type": "function", "function": wrong}]).constraint(
            "auto", parallel=True
        )
