"""Chat templates, run as what they are: programs that came with a model, not trusted in anything.

Jinja's immutable sandbox keeps them from Python; here they are kept from time and memory as well.
The names that they may use are those of transformers' `apply_chat_template`.
"""

from __future__ import annotations

import ctypes
import json
import threading
from collections.abc import Callable
from datetime import datetime
from typing import Any, TypeVar

import jinja2
from jinja2 import nodes
from jinja2.ext import Extension, loopcontrols
from jinja2.sandbox import ImmutableSandboxedEnvironment

from flyweight.errors import OptionError

T = TypeVar("T")
SECONDS = 2.0  # that a template may run
LONGEST = 2**24  # characters of a text that it makes


class TemplateFault(OptionError):
    """A chat template is wrong, refuses the conversation, or takes too long."""


class Template:
    """A compiled chat template. Raises TemplateFault for one that cannot be compiled."""

    def __init__(self, source: str) -> None:
        try:
            self._template = _Environment().from_string(source)
        except (jinja2.TemplateError, RecursionError) as error:
            raise TemplateFault(f"the chat template is wrong: {_first_line(error)}") from error

    def render(self, values: dict[str, Any]) -> str:
        """What it makes of the values. Raises TemplateFault where it refuses, fails, or goes on."""
        try:
            return within(SECONDS, lambda: self._joined(values))
        except jinja2.TemplateError as error:
            raise TemplateFault(
                f"the chat template refuses this conversation: {_first_line(error)}"
            ) from error
        except _TooLong as error:
            raise TemplateFault(
                f"the chat template took more than {SECONDS:.0f} seconds or made more than "
                f"{LONGEST:,} characters of this conversation, and was ended"
            ) from error
        except Exception as error:  # it is a program: whatever it does wrong
            raise TemplateFault(
                f"the chat template fails on this conversation: {_first_line(error)}"
            ) from error

    def _joined(self, values: dict[str, Any]) -> str:
        pieces, length = [], 0
        for piece in self._template.generate(values):
            length += len(piece)
            if length > LONGEST:
                raise _TooLong
            pieces.append(piece)
        return "".join(pieces)


class _TooLong(BaseException):  # so that no `except Exception` on the way holds it up
    pass


def within(seconds: float, work: Callable[[], T]) -> T:
    """What `work` gives; _TooLong is raised in it, between two steps of Python, once time is up."""
    thread, lock, done = threading.get_ident(), threading.Lock(), False

    def end() -> None:
        with lock:
            if not done:
                ctypes.pythonapi.PyThreadState_SetAsyncExc(
                    ctypes.c_ulong(thread), ctypes.py_object(_TooLong)
                )

    clock = threading.Timer(seconds, end)
    clock.daemon = True
    clock.start()
    try:
        found = work()
        with lock:
            done = True
        return found
    finally:
        done = True
        clock.cancel()


class _Environment(ImmutableSandboxedEnvironment):
    """The sandbox, with operators that make nothing huge."""

    intercepted_binops = frozenset({"*", "**", "+", "%"})

    def __init__(self) -> None:
        super().__init__(
            trim_blocks=True, lstrip_blocks=True, extensions=[_Generation, loopcontrols]
        )
        self.filters["tojson"] = _to_json
        self.globals["raise_exception"] = _refuse
        self.globals["strftime_now"] = lambda form: datetime.now().strftime(form)  # noqa: DTZ005

    def call_binop(self, context: Any, operator: str, left: Any, right: Any) -> Any:
        """Jinja's call for each operator."""
        sizes = [len(each) for each in (left, right) if isinstance(each, str | list | tuple)]
        numbers = [abs(each) for each in (left, right) if isinstance(each, int)]
        if operator == "**" and max(numbers, default=0) > 1000:
            raise _TooLong
        if operator == "*" and sizes and sizes[0] * max(numbers, default=0) > LONGEST:
            raise _TooLong
        if operator == "%" and isinstance(left, str) and len(left) > 1000:
            raise _TooLong
        if operator == "+" and sum(sizes) > LONGEST:
            raise _TooLong
        return super().call_binop(context, operator, left, right)


class _Generation(Extension):
    """`{% generation %}`: marks what the assistant says, for training; here it is only its body."""

    tags = {"generation"}  # noqa: RUF012 (jinja's)

    def parse(self, parser: Any) -> Any:
        """Jinja's call."""
        line = next(parser.stream).lineno
        body = parser.parse_statements(("name:endgeneration",), drop_needle=True)
        return nodes.Scope(body, lineno=line)


def _to_json(
    value: Any,
    ensure_ascii: bool = False,
    indent: int | None = None,
    separators: tuple[str, str] | None = None,
    sort_keys: bool = False,
) -> str:
    """Without jinja's escapes of HTML, as in transformers."""
    return json.dumps(
        value,
        ensure_ascii=ensure_ascii,
        indent=indent,
        separators=separators,
        sort_keys=sort_keys,
    )


def _refuse(message: str) -> str:
    raise jinja2.TemplateError(str(message)[:300])


def _first_line(error: Exception) -> str:
    lines = str(error).splitlines() or [type(error).__name__]
    return lines[0][:300]


__all__ = ["Template", "TemplateFault", "within"]
