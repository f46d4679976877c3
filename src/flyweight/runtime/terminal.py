"""A conversation in the terminal: what is typed, what is answered, and the commands in between."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from rich.console import Console

from flyweight.energy.account import Account
from flyweight.energy.constants import constants
from flyweight.energy.ledger import Ledger, entry
from flyweight.energy.meter import meter
from flyweight.energy.sticker_words import JOULES, said
from flyweight.errors import FlyweightError, FolderError, OptionError
from flyweight.folder import disk_errors
from flyweight.runtime.chat_format import ChatFormat
from flyweight.runtime.constraint import Constraint
from flyweight.runtime.engine import Engine, Piece, Streamed
from flyweight.runtime.tool_calls import Call, Tools, call_form

HELP = """\
/retry           answer the last message anew, drawn at random
/new             begin a new conversation
/alone           answer each message by itself, or, said again, with those before it
/system TEXT     the system message of the conversation; without TEXT none
/schema FILE     answer in JSON that holds to this schema; `/schema off` ends it
/tools FILE      functions that the model may call, in OpenAI's JSON; `/tools off` ends it
/save FILE       write the conversation, as .md or .json
/help            this list
An empty line or Ctrl-D ends; Ctrl-C stops an answer and keeps what came."""
_LEAST = 0.7  # temperature of another try: the greedy one is known


class Terminal:
    """A model that is talked to: `longest` tokens are the most of one answer.

    `alone`: each message is answered by itself, as the model was judged. What answers take is kept
    under `name` in the `ledger`, if there is one.
    """

    help = HELP

    def __init__(
        self,
        engine: Engine,
        form: ChatFormat,
        console: Console,
        longest: int,
        system: str | None,
        *,
        alone: bool = False,
        name: str = "",
        ledger: Ledger | None = None,
    ) -> None:
        self.alone, self.name, self.ledger = alone, name, ledger
        self.meter = meter().start()
        self.engine, self.form, self.console, self.longest = engine, form, console, longest
        self.messages: list[dict[str, Any]] = []
        self._system(system or "")
        self.schema: dict[str, Any] | None = None
        self.tools: list[dict[str, Any]] = []
        self._tries = 0

    def run(self) -> None:
        """Talk until an empty line, Ctrl-D or Ctrl-C."""
        with suppress(ImportError):  # arrow keys and history, where Python has it
            import readline  # noqa: F401  # pyright: ignore[reportUnusedImport]
        while True:
            try:
                said = self.console.input("[bold]you[/bold]    ").strip()
            except (EOFError, KeyboardInterrupt):
                self.console.print()
                return
            if not said:
                return
            try:
                self.take(said)
            except FlyweightError as error:
                self.console.print(f"[dim]{_escaped(str(error))}[/dim]")

    def take_once(self, prompt: str) -> None:
        """Answer this and nothing else, whatever it begins with."""
        self.messages.append({"role": "user", "content": prompt})
        self._answer()

    def take(self, said: str) -> None:
        """A line that was typed: a command, or something that is said."""
        name, _, rest = said.partition(" ")
        commands = self._commands()
        if name in commands:
            commands[name](rest.strip())
            return
        if name.startswith("/") and name[1:].isalpha():
            raise OptionError(f"{name} is no command; /help lists them.")
        self._tries = 0
        self.messages.append({"role": "user", "content": said})
        try:
            self._answer()
        except FlyweightError:  # what could not be answered is not said
            if self.messages[-1]["role"] == "user":
                self.messages.pop()
            raise

    def _commands(self) -> dict[str, Callable[[str], None]]:
        """What each command does with the words that follow it."""
        return {
            "/retry": self._retry,
            "/new": self._new,
            "/alone": self._set_alone,
            "/system": self._system,
            "/schema": self._set_schema,
            "/tools": self._set_tools,
            "/save": self._save,
            "/help": lambda _: self.console.print(self.help, markup=False),
        }

    def _answer(self) -> None:
        """Answer what was said, and go on while tools are called and their results given."""
        while True:
            calls = self._one_answer()
            if not calls:
                return
            for place, call in enumerate(calls):
                self.messages.append(self._result(place, call))

    def _one_answer(self) -> list[Call]:
        tools = Tools(self.form, call_form(self.form), self.tools) if self.tools else None
        messages = self._sent()
        prompt = tools.prompt(messages) if tools else self.form.prompt(messages)
        room = min(self.engine.context - len(prompt), self.longest)
        if room < 1:
            raise OptionError(
                f"the conversation is longer than the {self.engine.context:,} tokens that fit: "
                "/new begins another."
            )
        if tools:
            constraint = tools.constraint("auto", parallel=True, otherwise=self.schema)
        else:
            constraint = Constraint.json_schema(self.schema) if self.schema else None
        texts, began, first = [], time.perf_counter(), 0.0

        def show(piece: Piece) -> None:
            nonlocal first
            first = first or (time.perf_counter() if piece.text else 0.0)
            texts.append(piece.text)
            if piece.text:
                account.wrote()
            else:
                account.reused(piece.reused)
                account.whole(piece.read, 0)
            self.console.print(harmless(piece.text), end="", markup=False)

        self.console.print("[bold]model[/bold]  ", end="")
        note, took = "stopped", ""
        account = self.meter.begin(len(prompt))
        try:
            with suppress(KeyboardInterrupt):
                told = self.engine.stream(
                    prompt,
                    room,
                    show,
                    temperature=_LEAST if self._tries else 0.0,
                    seed=self._tries,
                    constraint=constraint,
                )
                account.whole(told.prompt_tokens, told.written)
                account.reused(len(prompt) - told.prompt_tokens)
                note = _speed(told, first - began)
        finally:
            took = self._took(account)
        self.console.print(f"\n[dim]       {note}; {took}[/dim]")
        text, calls = tools.parse("".join(texts)) if tools else ("".join(texts), [])
        self.messages.append(_turn(text, calls))
        return calls

    def _took(self, account: Account) -> str:
        """What an answer took, in words; it is kept in the ledger, where there is one."""
        account.end()
        joules = self.meter.boundaries(account.taken)
        if self.ledger is not None:
            self.ledger.keep(
                entry(
                    "answer", self.name, joules, constants().version,
                    read=account.tokens_read, reused=account.tokens_reused,
                    written=account.tokens_written, seconds=account.taken.on / 1e9,
                )
            )  # fmt: skip
        return str(said(joules.facility, JOULES))

    def _sent(self) -> list[dict[str, Any]]:
        """The messages that the model is given."""
        if not self.alone:
            return self._told(self.messages)
        system = [each for each in self.messages[:1] if each["role"] == "system"]
        users = [i for i, each in enumerate(self.messages) if each["role"] == "user"]
        return self._told([*system, *self.messages[users[-1] :]])

    def _told(self, messages: list[dict[str, Any]]) -> list[dict[str, Any]]:
        """A conversation with all that it is about, as templates take it."""
        return messages

    def _result(self, place: int, call: Call) -> dict[str, Any]:
        """What a person gives as the result of a call, or that it was declined."""
        told = harmless(f"{call.name}({call.arguments})")
        self.console.print(f"       calls {told}", markup=False)
        self.console.print(
            "[dim]       Nothing is run: type its result; an empty line declines.[/dim]"
        )
        try:
            result = self.console.input("[bold]result[/bold] ").strip()
        except (EOFError, KeyboardInterrupt):
            result = ""
        content = result or "The person declined this call."
        return {"role": "tool", "tool_call_id": f"call_{place}", "content": content}

    def _retry(self, _: str) -> None:
        while self.messages and self.messages[-1]["role"] not in ("user", "system"):
            self.messages.pop()
        if not self.messages or self.messages[-1]["role"] != "user":
            raise OptionError("nothing was said yet that could be answered anew.")
        self._tries += 1
        self._answer()

    def _new(self, _: str) -> None:
        self.messages = [each for each in self.messages[:1] if each["role"] == "system"]
        self.console.print("[dim]       A new conversation.[/dim]")

    def _system(self, text: str) -> None:
        self.messages = [each for each in self.messages if each["role"] != "system"]
        if text:
            self.messages.insert(0, {"role": "system", "content": text})

    def _set_alone(self, _: str) -> None:
        self.alone = not self.alone
        told = "by itself" if self.alone else "with those before it"
        self.console.print(f"[dim]       Each message is answered {told}.[/dim]")

    def _set_schema(self, file: str) -> None:
        self.schema = None if file == "off" else _json(file, dict)
        if self.schema is not None:
            try:
                Constraint.json_schema(self.schema)
            except OptionError:
                self.schema = None
                raise

    def _set_tools(self, file: str) -> None:
        given = [] if file == "off" else _json(file, list)
        for tool in given:
            function = tool.get("function") if isinstance(tool, Mapping) else None
            if not (
                isinstance(function, Mapping)
                and isinstance(function.get("name"), str)
                and isinstance(function.get("parameters", {}), Mapping)
            ):
                raise OptionError(f'{file}: a tool is {{"type": "function", "function": …}}.')
        if given:
            Tools(self.form, call_form(self.form), given).constraint("auto", parallel=True)
        self.tools = given

    def _save(self, file: str) -> None:
        if not file:
            raise OptionError("/save FILE: say where, as .md or .json.")
        path = path_of(file)
        if not path.parent.is_dir():
            raise FolderError(f"{path.parent} is no folder. Make it, or choose another.")
        told = self._told(self.messages)
        if path.suffix == ".json":
            text = json.dumps({"messages": told}, ensure_ascii=False, indent=2) + "\n"
        else:
            text = "\n\n".join(map(_markdown, told)) + "\n"
        with disk_errors(path):
            beside = path.with_name(f".{path.name}.new")
            beside.write_text(text, encoding="utf-8")
            beside.replace(path)
        self.console.print(f"[dim]       Written to {_escaped(str(path))}.[/dim]")


def harmless(text: str) -> str:
    """A text without what would command a terminal."""
    return "".join(each for each in text if each.isprintable() or each in "\n\t")


def _speed(told: Streamed, first: float) -> str:
    """How an answer came, in words; its first text after so many seconds."""
    speed = told.written / max(told.seconds, 1e-9)
    end = "" if told.stopped else "; cut off where the room ends"
    return f"{told.written} tokens, {speed:,.0f} a second, first after {first:.2f} s{end}"


def _turn(text: str, calls: Sequence[Call]) -> dict[str, Any]:
    turn: dict[str, Any] = {"role": "assistant", "content": text}
    if calls:
        turn["tool_calls"] = [
            {
                "id": f"call_{place}",
                "type": "function",
                "function": {"name": call.name, "arguments": call.arguments},
            }
            for place, call in enumerate(calls)
        ]
    return turn


def _markdown(message: Mapping[str, Any]) -> str:
    calls = [
        f"calls `{call['function']['name']}({call['function']['arguments']})`"
        for call in message.get("tool_calls", [])
    ]
    content = message["content"]
    if isinstance(content, list):  # a picture with its words
        content = "\n\n".join(part.get("text", "(a picture)") for part in content)
    said = [content, *calls]
    return f"**{message['role']}**\n\n" + "\n\n".join(filter(None, said))


def path_of(file: str) -> Path:
    """A path as it is typed; OptionError for the home of somebody unknown."""
    try:
        return Path(file).expanduser()
    except RuntimeError:  # of somebody whom this machine does not know
        raise OptionError(f"{file}: there is no such home. Give the whole path.") from None


def _json(file: str, kind: type) -> Any:
    try:
        found = json.loads(path_of(file).read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        reason = getattr(error, "strerror", None) or error
        raise OptionError(f"{file or 'no file'}: cannot be read as JSON ({reason}).") from None
    if not isinstance(found, kind):
        raise OptionError(f"{file}: holds no {'object' if kind is dict else 'list'}.")
    return found


def _escaped(text: str) -> str:
    from rich.markup import escape

    return escape(text)


__all__ = ["HELP", "Terminal", "harmless", "path_of"]
