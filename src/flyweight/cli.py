"""The command line: one command per verb, made from the verb's signature and docstring; no logic.

What a function takes by position is an argument, what it takes by keyword is an option. The help
of a command is the docstring up to its first section, the help of a parameter stands under `Args:`.
"""

from __future__ import annotations

import inspect
import re
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from types import UnionType
from typing import Annotated, Any, cast, get_args, get_origin

import typer

import flyweight
from flyweight.errors import FlyweightError, was_interrupted

INTERRUPTED = 130  # as shells report a process that Ctrl-C ended

# What typer raises on a wrong call. Its home differs with typer's version, its child's does not.
_UsageError = cast(type[typer.BadParameter], typer.BadParameter.__base__)

_SECTION = re.compile(r"^(Args|Returns|Yields|Raises|Examples?|Notes?|Source):\s*$", re.MULTILINE)
_ARGUMENT = re.compile(r"^ {4}(\w+)(?: \([^)]*\))?:\s*", re.MULTILINE)


def main() -> None:
    """Run the command line on this process's arguments; exits with 0, 2 (bad input) or 130."""
    try:
        sys.exit(application()(standalone_mode=False))
    except _UsageError as error:
        call = error.ctx.command_path if error.ctx else "flyweight"
        _complain(f"{error.format_message()} (see {call} --help)")
        sys.exit(error.exit_code)


def application() -> typer.Typer:
    """The whole command line; loads the verbs' modules, which are light."""
    app = typer.Typer(
        name="flyweight",
        help="The smallest model that does the job, with proof that it does.",
        add_completion=False,
        pretty_exceptions_enable=False,
        rich_markup_mode="markdown",
        context_settings={"help_option_names": ["-h", "--help"]},
    )
    app.callback(invoke_without_command=True)(_root)
    for verb in flyweight.VERBS:
        function = getattr(flyweight, verb)
        app.command(verb.replace("_", "-"), help=description(function))(command(function))
    return app


def command(function: Callable[..., Any]) -> Callable[..., None]:
    """A verb as typer wants it: the same parameters, annotated; its errors as exit statuses."""
    signature = inspect.signature(function, eval_str=True)
    helps = argument_help(function)

    def run(**parameters: Any) -> None:
        with one_line_errors():
            function(**parameters)

    declared = [_declare(each, helps.get(each.name, "")) for each in signature.parameters.values()]
    run.__signature__ = inspect.Signature(declared)  # type: ignore[attr-defined]
    return run


def description(function: Callable[..., Any]) -> str:
    """The docstring up to its first section."""
    return _SECTION.split(inspect.getdoc(function) or "")[0].strip()


def argument_help(function: Callable[..., Any]) -> dict[str, str]:
    """What the docstring says under `Args:` about each parameter, as one line each."""
    sections = _SECTION.split(inspect.getdoc(function) or "")
    named = dict(zip(sections[1::2], sections[2::2], strict=True))
    pieces = _ARGUMENT.split(named.get("Args", ""))
    return {
        name: " ".join(text.split()) for name, text in zip(pieces[1::2], pieces[2::2], strict=True)
    }


@contextmanager
def one_line_errors() -> Iterator[None]:
    """Errors of the tree end with one line on stderr and their exit status, Ctrl-C with 130."""
    try:
        yield
    except BaseException as error:
        if was_interrupted(error):
            _complain("interrupted")
            raise typer.Exit(INTERRUPTED) from error
        if isinstance(error, FlyweightError):
            _complain(str(error))
            raise typer.Exit(error.exit_status) from error
        raise


def _complain(message: str) -> None:
    print("flyweight:", " ".join(message.splitlines()), file=sys.stderr)


def _declare(parameter: inspect.Parameter, text: str) -> inspect.Parameter:
    """The parameter with typer's annotation; keyword-only, so that defaults may precede others."""
    by_keyword = parameter.kind is inspect.Parameter.KEYWORD_ONLY
    if by_keyword:
        information = typer.Option(help=text)
    else:
        information = typer.Argument(help=text, metavar=parameter.name.upper())
    annotation = Annotated[_typer_type(parameter.annotation), information]
    return parameter.replace(kind=inspect.Parameter.KEYWORD_ONLY, annotation=annotation)


def _typer_type(annotation: Any) -> Any:
    """`Sequence[int]` and `tuple[int, ...]` as the `list[int]` that typer can repeat.

    So is `Path | Sequence[Path]`, of which a shell can say only the latter.
    """
    if isinstance(annotation, UnionType):
        several = [each for each in get_args(annotation) if get_origin(each) is Sequence]
        annotation = several[0] if several else annotation
    members = get_args(annotation)
    if get_origin(annotation) is Sequence or (
        get_origin(annotation) is tuple and members[1:] == (Ellipsis,)
    ):
        return list[members[0]]
    return annotation


def _root(
    context: typer.Context,
    version: Annotated[bool, typer.Option("--version", help="Print the version and stop.")] = False,
) -> None:
    if version:
        typer.echo(f"flyweight {flyweight.__version__}")
    elif context.invoked_subcommand is None:
        typer.echo(context.get_help())
