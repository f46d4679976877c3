"""Chat templates, run as what they are: programs that came with a model, not trusted in anything.

Jinja's immutable sandbox keeps them from Python; here they are kept from time and memory as well.
The names that they may use are those of transformers' `apply_chat_template`.
"""

from __future__ import annotations

import ctypes
import json
import re
import threading
from collections.abc import Callable, Iterable
from datetime import datetime
from functools import wraps
from itertools import islice
from typing import Any, TypeVar

import jinja2
from jinja2 import nodes
from jinja2.compiler import CodeGenerator
from jinja2.ext import Extension, loopcontrols
from jinja2.sandbox import ImmutableSandboxedEnvironment

from flyweight.errors import OptionError

T = TypeVar("T")
SECONDS = 2.0  # that a template may run
LONGEST = 2**24  # characters of a text that it makes
_ENDED = (
    f"took more than {SECONDS:.0f} seconds or made more than {LONGEST:,} characters, and was ended"
)
_DEEPEST = 16  # spaces of an indent of JSON


class TemplateFault(OptionError):
    """A chat template is wrong, refuses the conversation, or takes too long."""


class Template:
    """A compiled chat template. Raises TemplateFault for one that cannot be compiled."""

    def __init__(self, source: str) -> None:
        try:  # what is constant in it is worked out now
            self._template = within(SECONDS, lambda: _Environment().from_string(source))
        except _TooLong as error:
            raise TemplateFault(f"the chat template {_ENDED}") from error
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
            raise TemplateFault(f"the chat template {_ENDED}") from error
        except Exception as error:  # it is a program: whatever it does wrong
            raise TemplateFault(
                f"the chat template fails on this conversation: {_first_line(error)}"
            ) from error

    def _joined(self, values: dict[str, Any]) -> str:
        return _Environment.concat(self._template.generate(values))


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
        with lock:
            done = True
        clock.cancel()
        # one that was set and has not come yet is taken back
        ctypes.pythonapi.PyThreadState_SetAsyncExc(ctypes.c_ulong(thread), None)


class _Code(CodeGenerator):
    """Jinja's, with `~` joined by the environment, which keeps it short."""

    def visit_Concat(self, node: Any, frame: Any) -> None:  # noqa: N802 (jinja's)
        """Jinja's call."""
        self.write("environment.concat((")
        for each in node.nodes:
            self.write("str(")
            self.visit(each, frame)
            self.write("), ")
        self.write("))")


class _Environment(ImmutableSandboxedEnvironment):
    """The sandbox, in which nothing that is made is huge."""

    intercepted_binops = frozenset({"+", "-", "*", "/", "//", "%", "**"})
    code_generator_class = _Code

    def __init__(self) -> None:
        super().__init__(
            trim_blocks=True, lstrip_blocks=True, extensions=[_Generation, loopcontrols]
        )
        self.filters = {name: _kept_short(each) for name, each in self.filters.items()}
        self.filters["tojson"] = _to_json
        self.globals["raise_exception"] = _refuse
        self.globals["strftime_now"] = lambda form: datetime.now().strftime(form)  # noqa: DTZ005

    @staticmethod
    def concat(parts: Iterable[str]) -> str:
        """Jinja's call for what blocks, macros and `~` make."""
        pieces, length = [], 0
        for part in parts:
            length += len(part)
            if length > LONGEST:
                raise _TooLong
            pieces.append(part)
        return "".join(pieces)

    def call_binop(self, context: Any, operator: str, left: Any, right: Any) -> Any:
        """Jinja's call for each operator."""
        if operator == "*":
            _check_product(left, right)
        elif operator == "%" and isinstance(left, str):
            _check_format(left)
        elif operator == "**":
            _check_numbers((left, right), 1000)
        _check_numbers((left, right), 10**300)
        return _short(super().call_binop(context, operator, left, right))

    def call(self, context: Any, obj: Any, *given: Any, **named: Any) -> Any:  # pyright: ignore
        """Jinja's call for each call."""
        _check_numbers((*given, *named.values()), LONGEST)
        own = getattr(obj, "__self__", None)
        if isinstance(own, str):
            if obj.__name__ in ("format", "format_map"):
                _check_format(own)
            if obj.__name__ in ("replace", "join", "expandtabs", "translate"):
                sizes = [_size(each) for each in (*given, *named.values())]
                _check_size(max(1, len(own)) * max(1, *sizes, 1))
        return _short(super().call(context, obj, *given, **named))


def _kept_short(filter_: Callable[..., Any]) -> Callable[..., Any]:
    """A filter of jinja's that refuses huge numbers, and texts that it would make huge."""

    @wraps(filter_)  # with jinja's marks of what it is passed first
    def kept(*given: Any, **named: Any) -> Any:
        values = (*given, *named.values())
        _check_numbers(values, LONGEST)
        if filter_.__name__ == "do_format":
            _check_format(str(next((each for each in given if isinstance(each, str)), "")))
        if filter_.__name__ == "do_join":  # of what comes one by one, too
            given = tuple(_listed(each) for each in given)
            items = next((each for each in given if isinstance(each, list)), [])
            between = max((len(each) for each in values if isinstance(each, str)), default=0)
            _check_size(_size(items) + between * len(items))
        if filter_.__name__ in ("do_replace", "do_indent", "do_wordwrap"):
            texts = sorted((_size(each) for each in values), reverse=True)
            _check_size(texts[0] * max(1, *texts[1:2], 1))
        return _short(filter_(*given, **named))

    return kept


def _listed(value: Any) -> Any:
    """What can be gone through as a list, anything else as it is."""
    if isinstance(value, str | dict) or not hasattr(value, "__iter__"):
        return value
    found = list(islice(value, LONGEST + 1))
    _check_size(len(found))
    return found


def _size(value: Any) -> int:
    if isinstance(value, str):
        return len(value)
    if isinstance(value, list | tuple):
        return sum(len(each) if isinstance(each, str) else 1 for each in value)
    return value if isinstance(value, int) and 0 < value < LONGEST else 1


def _check_size(size: int) -> None:
    if size > LONGEST:
        raise _TooLong


def _check_product(left: Any, right: Any) -> None:
    for one, other in ((left, right), (right, left)):
        if isinstance(one, str | list | tuple) and isinstance(other, int):
            _check_size(len(one) * abs(other))


def _check_numbers(values: Iterable[Any], most: int) -> None:
    for each in values:
        if isinstance(each, int) and abs(each) > most:
            raise _TooLong


def _check_format(text: str) -> None:
    """A width in a format is a number, too."""
    if re.search(r"\d{7,}|%[-+ #0]*\*|%[-+ #0\d]*\.\*", text) or len(text) > LONGEST:
        raise _TooLong


def _short(value: T) -> T:
    if isinstance(value, str | list | tuple):
        _check_size(len(value))
    return value


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
    _check_numbers((indent,), _DEEPEST)
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
