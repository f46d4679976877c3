"""A conversation in the terminal: what is typed, what is shown, what is kept."""

from __future__ import annotations

import io
import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from flyweight.anatomy.gguf import LLAMA
from flyweight.runtime.chat_format import ChatFormat
from flyweight.runtime.gguf import write_gguf
from flyweight.runtime.llama import LlamaEngine
from flyweight.runtime.terminal import Terminal, harmless


@pytest.fixture(scope="module")
def file(tiny_llama: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A lone GGUF file."""
    file = tmp_path_factory.mktemp("terminal") / "tiny.gguf"
    write_gguf(tiny_llama, file, 16, LLAMA)
    return file


@pytest.fixture(scope="module")
def engine(file: Path) -> Iterator[LlamaEngine]:
    with LlamaEngine(file, context=512) as engine:
        yield engine


def talk(
    engine: LlamaEngine, file: Path, lines: Sequence[str], longest: int = 24
) -> tuple[str, list[dict[str, Any]]]:
    """What is shown when these lines are typed, and the conversation."""
    shown = io.StringIO()
    console = Console(file=shown, width=200, force_terminal=False)
    terminal = Terminal(engine, ChatFormat.of(engine, file, None), console, longest, None)
    typed = iter(lines)

    def next_line(*_: object, **__: object) -> str:
        try:
            return next(typed)
        except StopIteration:
            raise EOFError from None

    console.input = next_line  # type: ignore[method-assign]
    terminal.run()
    return shown.getvalue(), terminal.messages


def test_what_is_said_is_the_engines_answer(engine: LlamaEngine, file: Path) -> None:
    shown, messages = talk(engine, file, ["/system Be brief.", "pump 5", "again"])
    form = ChatFormat.of(engine, file, None)
    assert [each["role"] for each in messages] == ["system", *["user", "assistant"] * 2]
    for place in (2, 4):
        wanted = engine.generate(form.prompt(messages[:place]), 24).text
        assert wanted.startswith(messages[place]["content"])
        assert harmless(messages[place]["content"]) in shown
    assert "24 tokens" in shown
    assert "cut off" in shown


def test_commands(engine: LlamaEngine, file: Path, tmp_path: Path) -> None:
    schema = tmp_path / "schema.json"
    schema.write_text('{"type": "integer", "minimum": 1, "maximum": 9}')
    wrong = tmp_path / "wrong.json"
    wrong.write_text('{"type": "nosuch"}')
    shown, messages = talk(
        engine,
        file,
        [
            "/retry",
            "pump 5",
            "/retry",
            f"/schema {wrong}",
            f"/schema {schema}",
            "how many?",
            "/schema off",
            f"/save {tmp_path / 'talk.json'}",
            f"/save {tmp_path / 'no' / 'talk.md'}",
            "/nosuch",
            "/help",
            "/new",
            "hello",
        ],
    )
    for told in ("nothing was said yet", "cannot be used", "no command", "/schema FILE"):
        assert told in shown
    assert [each["role"] for each in messages] == ["user", "assistant"]
    kept = json.loads((tmp_path / "talk.json").read_text())["messages"]
    assert [each["role"] for each in kept] == ["user", "assistant"] * 2
    assert 1 <= json.loads(kept[3]["content"]) <= 9
    assert not (tmp_path / "no").exists()


def test_each_message_by_itself_where_the_model_was_judged_so(
    engine: LlamaEngine, file: Path
) -> None:
    console = Console(file=io.StringIO(), width=200)
    form = ChatFormat.of(engine, file, None)
    terminal = Terminal(engine, form, console, 24, "Be brief.", alone=True)
    for said in ("pump 5", "valve 7", "/alone", "fan 3"):
        terminal.take(said)
    system, *turns = terminal.messages
    alone = engine.generate(form.prompt([system, turns[2]]), 24).text
    assert alone.startswith(turns[3]["content"])
    together = engine.generate(form.prompt([system, *turns[:5]]), 24).text
    assert together.startswith(turns[5]["content"])


def test_a_call_is_shown_and_its_result_goes_back(
    engine: LlamaEngine, file: Path, tmp_path: Path
) -> None:
    tools = tmp_path / "tools.json"
    tool = {"name": "pump", "parameters": {"type": "object", "properties": {}}}
    tools.write_text(json.dumps([{"type": "function", "function": tool}]))
    # a schema that leaves nothing to say: a call, or 1
    schema = tmp_path / "one.json"
    schema.write_text('{"const": 1}')
    for said in "abcdefghijklmnopqrstuvwxyz":
        lines = [f"/tools {tools}", f"/schema {schema}", said, *["9"] * 30]
        shown, messages = talk(engine, file, lines, longest=60)
        if any(each["role"] == "tool" for each in messages):
            break
    else:
        pytest.fail("no try called")
    assert "calls pump({})" in shown
    place = next(i for i, each in enumerate(messages) if each["role"] == "tool")
    assert messages[place - 1]["tool_calls"][0]["function"]["name"] == "pump"
    assert messages[place]["content"] == "9"


def test_ctrl_c_stops_the_answer_and_the_talk_goes_on(engine: LlamaEngine, file: Path) -> None:
    shown = io.StringIO()
    console = Console(file=shown, width=200)
    terminal = Terminal(engine, ChatFormat.of(engine, file, None), console, 200, None)
    pieces: list[object] = []
    show = console.print

    def show_until(*given: object, **options: Any) -> None:
        show(*given, **options)
        given = given if options.get("end") == "" else ()
        pieces.extend(given)
        if given and len(pieces) == 5:
            raise KeyboardInterrupt  # as Python's own handler does, wherever the main thread is

    console.print = show_until  # type: ignore[method-assign]
    terminal.take("pump 5")
    assert "stopped" in shown.getvalue()
    whole = engine.generate(terminal.form.prompt(terminal.messages[:1]), 200).text
    kept = terminal.messages[1]["content"]
    assert kept
    assert whole.startswith(kept)
    assert len(kept) < len(whole)
    terminal.take("and now?")
    assert [each["role"] for each in terminal.messages] == ["user", "assistant"] * 2


def test_nothing_commands_the_terminal() -> None:
    assert harmless("a\x1b[31mred\x07\r\u202e\n\tb½今") == "a[31mred\n\tb½今"
