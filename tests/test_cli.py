"""The command line against the functions that it is made from, and against the shell."""

from __future__ import annotations

import inspect
import runpy
import subprocess
import sys
import tomllib
from importlib import import_module
from pathlib import Path
from typing import Any, NoReturn

import pytest
import typer
from typer.testing import CliRunner

import flyweight
from flyweight import cli
from flyweight.errors import OptionError

ROOT = Path(__file__).parents[1]
HEAVY = {"torch", "transformers", "datasets", "matplotlib", "scipy", "xllamacpp"}


def parsed(verb: str) -> list[Any]:
    """The command's parameters as the shell's parser has them, without --help."""
    group: Any = typer.main.get_command(cli.application())
    return [each for each in group.commands[verb.replace("_", "-")].params if each.name != "help"]


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "flyweight", *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=False)


@pytest.mark.parametrize("verb", flyweight.VERBS)
def test_a_command_has_the_names_and_defaults_of_its_function(verb: str) -> None:
    signature = inspect.signature(getattr(flyweight, verb))
    of_function = [
        (name, each.kind is each.KEYWORD_ONLY, each.default is each.empty, given(each.default))
        for name, each in signature.parameters.items()
    ]
    of_command = [
        (each.name, each.param_type_name == "option", each.required, given(each.default))
        for each in parsed(verb)
    ]
    assert of_command == of_function


def given(default: Any) -> Any:
    """A default in the form that both sides share: no default is None, a tuple is a list."""
    if default is inspect.Parameter.empty:
        return None
    return list(default) if isinstance(default, tuple) else default


@pytest.mark.parametrize("verb", flyweight.VERBS)
def test_every_parameter_is_explained_and_nothing_else(verb: str) -> None:
    function = getattr(flyweight, verb)
    assert cli.argument_help(function).keys() == inspect.signature(function).parameters.keys()
    assert all(cli.argument_help(function).values())
    assert cli.description(function)


@pytest.mark.parametrize("verb", flyweight.VERBS)
def test_a_verb_is_reached_under_its_name_although_a_package_bears_it_too(verb: str) -> None:
    module = import_module(flyweight.VERBS[verb])
    assert getattr(flyweight, verb) is getattr(module, verb)


@pytest.mark.parametrize(
    "use",
    [
        "",
        "flyweight.cli.application()",
        "sys.argv[1:] = ['--help']; flyweight.cli.main()",
        "sys.argv[1:] = ['make', '--help']; flyweight.cli.main()",
    ],
    ids=["import", "build", "help", "help-of-make"],
)
def test_nothing_heavy_is_loaded_before_a_verb_is_used(use: str) -> None:
    at_exit = f"lambda: print(*sorted({HEAVY!r} & sys.modules.keys()), file=sys.stderr)"
    code = f"import atexit, sys; atexit.register({at_exit})\nimport flyweight.cli\n{use}"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stderr.split() == []


def test_version_is_that_of_the_project_file() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert run("--version").stdout.split() == [project["name"], project["version"]]


def test_without_a_command_it_prints_help_and_succeeds() -> None:
    done = run()
    assert done.returncode == 0
    assert all(verb.replace("_", "-") in done.stdout for verb in flyweight.VERBS)


@pytest.mark.parametrize(
    ("arguments", "wrong"),
    [
        (["make", "--no-such-option"], "--no-such-option"),
        (["make", "teacher", "--task", "t", "--bar", "high"], "--bar"),
        (["make", "teacher"], "--task"),
        (["pack", "one", "another"], "another"),
        (["no-such-verb"], "no-such-verb"),
    ],
)
def test_a_wrong_call_is_one_line_that_names_it_and_status_2(
    arguments: list[str], wrong: str
) -> None:
    done = run(*arguments)
    assert (done.returncode, done.stdout) == (2, "")
    [line] = done.stderr.splitlines()
    assert line.startswith("flyweight: ")
    assert wrong in line


def test_bad_input_is_one_line_and_status_2(tmp_path: Path) -> None:
    out = tmp_path / "out"
    done = run("make", str(tmp_path / "absent"), "--task", str(tmp_path / "t"), "--out", str(out))
    assert done.returncode == 2
    assert done.stdout == ""
    assert done.stderr.startswith("flyweight: ")
    assert len(done.stderr.splitlines()) == 1
    assert not out.exists()


def fails_over_two_lines(*, bar: float = 0.5) -> NoReturn:
    """Refuse."""
    raise OptionError(f"--bar {bar} is out of range;\ngive one between 0 and 1")


def is_interrupted() -> NoReturn:
    """Be stopped by the person."""
    raise KeyboardInterrupt


def is_interrupted_where_tidying_up_then_fails() -> None:
    """Be stopped within a library whose clean-up supposes that its beginning was reached."""
    try:
        is_interrupted()
        kept = 1
    finally:
        print(kept)


@pytest.mark.parametrize(
    ("verb", "arguments", "status", "line"),
    [
        (
            fails_over_two_lines,
            ["--bar", "7"],
            2,
            "flyweight: --bar 7.0 is out of range; give one between 0 and 1\n",
        ),
        (is_interrupted, [], 130, "flyweight: interrupted\n"),
        (is_interrupted_where_tidying_up_then_fails, [], 130, "flyweight: interrupted\n"),
    ],
)
def test_an_error_becomes_one_line_and_its_status(
    verb: Any, arguments: list[str], status: int, line: str
) -> None:
    app = typer.Typer()
    app.command()(cli.command(verb))
    result = CliRunner().invoke(app, arguments)
    assert (result.exit_code, result.stderr) == (status, line)


def documented(text: str, times: int = 1) -> None:
    """Say a text: as often
    as wanted.

    It may take a while (Args: none of it).

    Args:
        text: what to say, over
            two lines: as here
        times (int): how often

    Returns:
        nothing: at all
    """


def test_help_is_the_docstring_up_to_its_sections() -> None:
    assert cli.argument_help(documented) == {
        "text": "what to say, over two lines: as here",
        "times": "how often",
    }
    assert cli.description(documented).startswith("Say a text")
    assert cli.description(documented).endswith("(Args: none of it).")


def test_the_generated_reference_is_current() -> None:
    generate = runpy.run_path(str(ROOT / "docs" / "generate.py"))
    for page, text in generate["pages"]().items():
        assert page.read_text(encoding="utf-8") == text, f"run `make docs`: {page.name}"
