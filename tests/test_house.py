"""The rules of the house, read from the source."""

from __future__ import annotations

import ast
import re
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path

import flyweight

SOURCE = Path(flyweight.__file__).parent
TREES = {
    path.relative_to(SOURCE).as_posix(): ast.parse(path.read_text(encoding="utf-8"))
    for path in sorted(SOURCE.rglob("*.py"))
}
LONGEST_FILE = 350
LONGEST_FUNCTION = 60
CLEAR_BY_ITSELF = 6  # lines: a public function this short may stand without a docstring

Definition = ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef


def lines(node: Definition) -> int:
    return (node.end_lineno or node.lineno) - node.lineno + 1


def body_lines(node: ast.FunctionDef | ast.AsyncFunctionDef) -> int:
    """Lines of what a function does, without its signature and docstring."""
    body = node.body[1:] if ast.get_docstring(node) else node.body
    return (body[-1].end_lineno or 0) - body[0].lineno + 1 if body else 0


def public(node: ast.Module | ast.ClassDef, inside: str = "") -> Iterator[tuple[str, Definition]]:
    """Public definitions of a module and of its public classes, with their dotted names."""
    for child in node.body:
        if isinstance(child, Definition) and not child.name.startswith("_"):
            yield inside + child.name, child
            if isinstance(child, ast.ClassDef):
                yield from public(child, f"{inside}{child.name}.")


def test_what_the_package_promises_is_there() -> None:
    assert all(hasattr(flyweight, name) for name in flyweight.__all__)
    assert set(flyweight.VERBS) <= set(flyweight.__all__) <= set(dir(flyweight))


def test_type_checkers_see_the_verbs_where_they_are() -> None:
    [block] = [
        node
        for node in TREES["__init__.py"].body
        if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING"
    ]
    imported = {
        name.name: node.module
        for node in block.body
        if isinstance(node, ast.ImportFrom)
        for name in node.names
    }
    assert imported == flyweight.VERBS


def test_a_module_promises_only_what_it_has() -> None:
    for path in TREES.keys() - {"__init__.py"}:  # whose verbs are found when they are used
        promised, bound = names(TREES[path])
        assert set(promised) <= bound, path
        assert len(set(promised)) == len(promised), path


def names(module: ast.Module) -> tuple[list[str], set[str]]:
    """What stands in `__all__`, and every name that the module binds at its top level."""
    promised: list[str] = []
    bound: set[str] = set()
    for node in module.body:
        if isinstance(node, Definition):
            bound.add(node.name)
        elif isinstance(node, ast.Import | ast.ImportFrom):
            bound |= {(each.asname or each.name).split(".")[0] for each in node.names}
        elif isinstance(node, ast.Assign | ast.AnnAssign):
            targets = node.targets if isinstance(node, ast.Assign) else [node.target]
            bound |= {each.id for each in targets if isinstance(each, ast.Name)}
            if ast.unparse(targets[0]) == "__all__" and node.value:
                promised = ast.literal_eval(node.value)
    return promised, bound


def test_every_file_can_be_read_in_one_sitting() -> None:
    lengths = {path: len((SOURCE / path).read_text().splitlines()) for path in TREES}
    assert {path: n for path, n in lengths.items() if n > LONGEST_FILE} == {}


def test_every_function_does_one_thing() -> None:
    lengths = {
        f"{path}:{node.lineno} {node.name}": body_lines(node)
        for path, tree in TREES.items()
        for node in ast.walk(tree)
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
    }
    assert {name: n for name, n in lengths.items() if n > LONGEST_FUNCTION} == {}


def test_what_is_public_is_documented() -> None:
    classes = {
        node.name: node
        for tree in TREES.values()
        for node in tree.body
        if isinstance(node, ast.ClassDef)
    }
    told = {  # what a class that stands above says of its methods
        f"{heir.name}.{method.name}"
        for heir in classes.values()
        for base in heir.bases
        for name, method in public(classes.get(ast.unparse(base), ast.Module([])))
        if ast.get_docstring(method) and "." not in name
    }
    silent = [
        f"{path}:{node.lineno} {name}"
        for path, tree in TREES.items()
        for name, node in public(tree)
        if ast.get_docstring(node) is None
        and name not in told
        and (isinstance(node, ast.ClassDef) or lines(node) > CLEAR_BY_ITSELF)
    ]
    silent += [path for path, tree in TREES.items() if tree.body and not ast.get_docstring(tree)]
    assert silent == []


def test_what_is_imported_is_declared() -> None:
    project = tomllib.loads((SOURCE.parents[1] / "pyproject.toml").read_text())["project"]
    extras = project["optional-dependencies"]
    wanted = [*project["dependencies"], *(each for extra in extras.values() for each in extra)]
    declared = {re.split(r"[\[<>=~! ]", each)[0].replace("-", "_").lower() for each in wanted}
    declared = {{"nvidia_ml_py": "pynvml", "pillow": "PIL"}.get(each, each) for each in declared}
    imported = {
        name.split(".")[0]
        for tree in TREES.values()
        for node in ast.walk(tree)
        for name in imports(node)
    }
    assert imported - declared - sys.stdlib_module_names - {"flyweight"} == set()


def imports(node: ast.AST) -> list[str]:
    """The modules that a statement imports, by their full names."""
    if isinstance(node, ast.Import):
        return [each.name for each in node.names]
    return [node.module or ""] if isinstance(node, ast.ImportFrom) else []


def test_there_is_one_trainer() -> None:
    importers = set()
    for path, tree in TREES.items():
        for node in ast.walk(tree):
            of_transformers = isinstance(node, ast.ImportFrom) and (node.module or "").startswith(
                "transformers"
            )
            if of_transformers and any("Trainer" in each.name for each in node.names):
                importers.add(path)
            if isinstance(node, ast.Attribute) and node.attr in {"Trainer", "Seq2SeqTrainer"}:
                importers.add(path)
    assert importers == {"distill/trainer.py"}
