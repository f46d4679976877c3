"""How right an answer is: each score compares what was said with what was wanted, 0 to 1."""

from __future__ import annotations

import functools
import hashlib
import importlib
import inspect
import json
import math
import re
import string
import sys
import unicodedata
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NoReturn, cast

import numpy as np

from flyweight.errors import OptionError
from flyweight.tasks.macro import macro_f1_parts

Compare = Callable[[str, str], float]
Whole = Callable[[Sequence[str], Sequence[str]], np.ndarray]

_MINUS = "\N{MINUS SIGN}"


@dataclass(frozen=True)
class Scorer:
    """A way to judge answers; call it with (said, wanted) for a score from 0 to 1."""

    name: str
    compare: Compare = field(repr=False)
    binary: bool = False  # 0 or 1, nothing between
    lower_is_better: bool = False
    needs_generation: bool = True  # False: the model is asked for probabilities, not for text
    teacher_forced: bool = False  # the argmax at each token of the answer decides it as well
    whole: Whole | None = field(default=None, repr=False)  # what an item counts depends on others

    def __call__(self, said: str, wanted: str) -> float:
        return self.compare(said, wanted)

    def scores(self, said: Sequence[str], wanted: Sequence[str]) -> np.ndarray:
        """float [n], whose mean is the score of all these answers together."""
        if self.whole is not None:
            return self.whole(said, wanted)
        return np.array([self(*pair) for pair in zip(said, wanted, strict=True)], dtype=float)

    def source_sha256(self) -> str:
        """A hex name for the code of a user's own score; empty for one of ours."""
        if ":" not in self.name:
            return ""
        try:
            function = inspect.unwrap(self.compare)
            source = inspect.getsource(inspect.getmodule(function) or function)
        except (OSError, TypeError):
            return ""
        return hashlib.sha256(source.encode()).hexdigest()


def scorer(name: str) -> Scorer:
    """The score of that name, or a user's own as module:function; OptionError if there is none."""
    if name in _SCORERS:
        return _SCORERS[name]
    if ":" in name:
        return Scorer(name, _checked(name, _imported(name)))
    raise OptionError(
        f"--score {name}: no such score. Use one of {', '.join(_SCORERS)}, or module:function."
    )


def exact(said: str, wanted: str) -> float:
    """1 if both are the same text, but for white space around them."""
    return float(said.strip() == wanted.strip())


def choice(said: str, wanted: str) -> float:
    """1 if `said` begins with the wanted option, whatever its case and punctuation.

    "B", "(b)" and "B. because" all say "B"; a wanted "B) Paris" is the option B. One option must
    not begin with the words of another: `exact` is the score for such labels.
    """
    words, option = _words(said), _words(wanted)
    if not option:  # nothing but punctuation
        return exact(said, wanted)
    if _MARKED_OPTION.match(wanted):
        option = option[:1]
    return float(words[: len(option)] == option)


_MARKED_OPTION = re.compile(r"\s*(\(\s*\w{1,2}\s*\)|\w{1,2}\s*[.):](?!\w))")


def _words(text: str) -> list[str]:
    """The words in lower case; punctuation parts them, but for signs and points of numbers."""
    text = text.casefold().replace(_MINUS, "-")
    kept = [
        c if unicodedata.category(c)[0] not in "PS" or _in_number(text, i) else " "
        for i, c in enumerate(text)
    ]
    return "".join(kept).split()


def _in_number(text: str, i: int) -> bool:
    before, after = text[i - 1 : i], text[i + 1 : i + 2]
    if text[i] in "+-":
        return after.isdigit() and not before.isalnum()
    return text[i] == "." and after.isdigit() and before.isdigit()


def json_fields(said: str, wanted: str) -> float:
    """The share of fields that are equal, over those that either has; nested fields count singly.

    Lists and plain values compare whole, key order and 1 against 1.0 do not matter. What is said
    must parse, or it scores 0; where a wanted answer is not JSON, it must be said as it stands.
    """
    try:
        return _equal_share(said, wanted)
    except RecursionError:  # nested so deeply that it is noise
        return exact(said, wanted)


def _equal_share(said: str, wanted: str) -> float:
    try:
        expected = json.loads(wanted, parse_constant=_no_constant)
    except ValueError:
        return exact(said, wanted)
    try:
        actual = json.loads(said, parse_constant=_no_constant)
    except ValueError:
        return 0.0
    if not (isinstance(actual, dict) and isinstance(expected, dict)):
        return float(_same(actual, expected))
    left, right = dict(_leaves(actual)), dict(_leaves(expected))
    equal = sum(_same(left[key], right[key]) for key in left.keys() & right.keys())
    return equal / len(left.keys() | right.keys())


def _no_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not JSON")


def _leaves(value: Any, path: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], Any]]:
    if isinstance(value, dict) and value:
        for key, inner in value.items():
            yield from _leaves(inner, (*path, key))
    else:
        yield path, value


def _same(a: Any, b: Any) -> bool:
    """Equality as JSON has it: true is not 1."""
    if isinstance(a, dict) and isinstance(b, dict):
        return a.keys() == b.keys() and all(_same(a[key], b[key]) for key in a)
    if isinstance(a, list) and isinstance(b, list):
        return len(a) == len(b) and all(map(_same, a, b))
    return isinstance(a, bool) == isinstance(b, bool) and a == b


def contains(said: str, wanted: str) -> float:
    """1 if the wanted text stands somewhere in `said`, whatever the case and the white space."""
    text, part = (" ".join(value.casefold().split()) for value in (said, wanted))
    return float(part in text if part else not text)


def numeric(said: str, wanted: str) -> float:
    """1 if the last number in `said` is the wanted one, within a millionth of it.

    1,234 is one number; a percent sign is a unit, so 18% is 18 and not 0.18; digits inside a
    word (P3) are no number. A wanted answer without a number must be said as it stands.
    """
    expected = _last_number(wanted)
    if expected is None:
        return exact(said, wanted)
    actual = _last_number(said)
    return float(actual is not None and math.isclose(actual, expected, rel_tol=1e-6))


_NUMBER = re.compile(
    r"(?P<sign>(?<!\w)[-+])?[$€£¥]?"
    r"(?P<digits>(?<!\w)(?:[0-9]{1,3}(?:,[0-9]{3})+(?![0-9])|[0-9]+)(?:\.[0-9]+)?"
    r"|(?<![\w.])\.[0-9]+)"
    r"(?P<power>e[-+]?[0-9]+)?",
    re.IGNORECASE,
)


def _last_number(text: str) -> float | None:
    found = list(_NUMBER.finditer(text.replace(_MINUS, "-")))
    if not found:
        return None
    sign, digits, power = (part or "" for part in found[-1].group("sign", "digits", "power"))
    return float(sign + digits.replace(",", "") + power)


def f1(said: str, wanted: str) -> float:
    """The harmonic mean of token precision and recall, as SQuAD defines it (arXiv:1606.05250)."""
    words, expected = _squad_words(said), _squad_words(wanted)
    common = sum((Counter(words) & Counter(expected)).values())
    if not words or not expected:
        return float(words == expected)
    return 2 * common / (len(words) + len(expected))


def _squad_words(text: str) -> list[str]:
    bare = text.lower().translate(_PUNCTUATION)
    return re.sub(r"\b(a|an|the)\b", " ", bare).split()


_PUNCTUATION = str.maketrans("", "", string.punctuation)


def _no_text(said: str, wanted: str) -> NoReturn:
    raise OptionError(
        "--score likelihood compares no answers: it is the bits per byte that a model needs for "
        "the text. Use another score for answers."
    )


_SCORERS = {
    made.name: made
    for made in (
        Scorer("exact", exact, binary=True, teacher_forced=True),
        Scorer("choice", choice, binary=True),
        Scorer("json", json_fields),
        Scorer("contains", contains, binary=True),
        Scorer("numeric", numeric, binary=True),
        Scorer("f1", f1),
        Scorer("likelihood", _no_text, lower_is_better=True, needs_generation=False),
        Scorer("accuracy", exact, binary=True, teacher_forced=True),  # as classifiers call it
        Scorer("macro-f1", exact, whole=macro_f1_parts),
    )
}


def _imported(name: str) -> Compare:
    """The function that module:function names, from the working folder or the Python path."""
    module_name, _, function_name = name.partition(":")
    if not all(part.isidentifier() for part in (*module_name.split("."), function_name)):
        _refuse(name, "not of the form module:function", "For example: my_score:compare")
    try:
        with _working_folder_first():
            module = importlib.import_module(module_name)
    except (Exception, SystemExit) as error:
        if isinstance(error, ModuleNotFoundError) and error.name == module_name:
            where = f"no module {module_name} in {Path.cwd()} or on the Python path"
            _refuse(name, where, "Run in the folder that holds it")
        _refuse(name, f"importing {module_name} failed ({_one_line(error)})", "Mend it")
    function = getattr(module, function_name, None)
    if not callable(function):
        where = getattr(module, "__file__", None) or module_name
        _refuse(name, f"no function {function_name} in {where}", "Give the name of one")
    try:  # better now than after an hour
        inspect.signature(function).bind("said", "wanted")
    except TypeError as error:
        _refuse(name, f"it cannot be called ({error})", "It must take (said, wanted)")
    except ValueError:
        pass  # a builtin that does not say what it takes
    return cast(Compare, function)


@contextmanager
def _working_folder_first() -> Iterator[None]:
    folder = str(Path.cwd())
    sys.path.insert(0, folder)
    importlib.invalidate_caches()
    try:
        yield
    finally:
        if folder in sys.path:
            sys.path.remove(folder)


def _checked(name: str, function: Compare) -> Compare:
    """The user's function, held to its contract: (said, wanted) -> a number from 0 to 1."""

    @functools.wraps(function)
    def compare(said: str, wanted: str) -> float:
        try:
            value: Any = function(said, wanted)
            number = float(value) if hasattr(value, "__float__") else math.nan
        except Exception as error:
            _refuse(name, f"it failed on an answer ({_one_line(error)})", "Mend the function")
        if not 0 <= number <= 1:
            gave = " ".join(repr(value).split())[:80]
            _refuse(name, f"it gave {gave}", "It must give a number from 0 to 1")
        return number

    return compare


def _refuse(name: str, what: str, remedy: str) -> NoReturn:
    raise OptionError(f"--score {name}: {what}. {remedy}.")


def _one_line(error: BaseException) -> str:
    return " ".join(f"{type(error).__name__}: {error}".split())
