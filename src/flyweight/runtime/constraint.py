"""What an answer may look like: a JSON schema, a regular expression, or a grammar.

All three become one grammar in llguidance's Lark, which is part of llama.cpp's engine and a package
for torch: both accept exactly the same answers. Whitespace in JSON is what the grammar would leave
open: a small model can write it for ever, so that here it is as `json.dumps` writes it.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from flyweight.errors import OptionError

MOST_FORCED = 10_000  # bytes that a constraint may leave no choice about at its beginning
_BY_IDS = re.compile(r"start:( <\[\d+\]>)*")  # what `tokens` makes
AS_DUMPS = {"item_separator": ", ", "key_separator": ": ", "whitespace_flexible": False}


@dataclass(frozen=True)
class Constraint:
    """A grammar in llguidance's Lark; made by `json_schema`, `regex`, `lark` or `tokens`."""

    grammar: str

    def __post_init__(self) -> None:
        from llguidance import LLMatcher

        wrong = LLMatcher.validate_grammar(LLMatcher.grammar_from_lark(self.grammar))
        if wrong:
            first = next(line for line in wrong.splitlines() if line.strip())
            raise OptionError(f"the constraint cannot be used: {first.strip()[:300]}")
        matcher = _matcher(self.grammar)
        if matcher is not None and len(matcher.compute_ff_bytes()) > MOST_FORCED:
            raise OptionError(
                f"the constraint cannot be used: it forces more than {MOST_FORCED:,} bytes, as a "
                "schema does that requires itself"
            )

    def allows(self, text: str, *, whole: bool) -> bool:
        """Whether an answer, or the beginning of one, holds to it; special tokens left out.

        Engines give a grammar up that grows too much while they write, and say nothing.
        """
        matcher = _matcher(self.grammar)
        if matcher is None:  # it speaks of tokens by their names
            return True
        raw = list((text if whole else text.rstrip("\ufffd")).encode())
        return matcher.try_consume_tokens(raw) == len(raw) and (not whole or matcher.is_accepting())

    @classmethod
    def json_schema(cls, schema: Mapping[str, Any] | str) -> Constraint:
        """JSON that a schema allows, `{}` for any. OptionError for one that is not understood."""
        try:
            schema = json.loads(schema) if isinstance(schema, str) else schema
            if not isinstance(schema, Mapping):
                raise ValueError('a schema is an object, such as {"type": "integer"}')
            told = {**schema, "x-guidance": AS_DUMPS | dict(schema.get("x-guidance", {}))}
            text = as_text(told)
        except (ValueError, TypeError, RecursionError) as error:
            raise OptionError(f"the JSON schema cannot be used: {error}") from error
        return cls(f"start: %json {text}")

    @classmethod
    def regex(cls, pattern: str) -> Constraint:
        """Answers that match as a whole, in the syntax of Rust's regex, without look-around."""
        return cls(f"start: /{_one_line(pattern)}/")

    @classmethod
    def lark(cls, grammar: str) -> Constraint:
        """Answers that llguidance's Lark accepts; the first rule is `start`."""
        return cls(grammar)

    @classmethod
    def tokens(cls, ids: Sequence[int]) -> Constraint:
        """Exactly these tokens, by their ids."""
        return cls("start: " + " ".join(f"<[{i}]>" for i in ids))


def _matcher(grammar: str) -> Any:
    """What reads answers byte by byte, at the beginning; None for what is not known to bytes."""
    if _BY_IDS.fullmatch(grammar):
        return None
    found = _compiled(re.sub(r"<\[\d+\]>", '""', grammar))
    return None if found.is_error() else found.deep_copy()


@lru_cache(maxsize=64)  # a grammar comes with every request of a program
def _compiled(grammar: str) -> Any:
    from llguidance import LLMatcher, LLTokenizer

    return LLMatcher(LLTokenizer("byte"), LLMatcher.grammar_from_lark(grammar), log_level=0)


def as_text(value: Any) -> str:
    """The JSON of a value, in which nothing looks like a token's id in Lark."""
    return json.dumps(value).replace("<[", "\\u003c[")


def _one_line(pattern: str) -> str:
    """The pattern as it stands between slashes: those and ends of lines escaped, once."""

    def escaped(found: re.Match[str]) -> str:
        changed = {"/": r"\/", "\n": r"\n", "\\\n": r"\n", "<[": r"\x3c[", "\\<": r"\x3c"}
        return changed.get(found[0], found[0])

    # "<[" would look like the id of a token
    return re.sub(r"\\.|<\[|/|\n", escaped, pattern, flags=re.DOTALL)


__all__ = ["AS_DUMPS", "Constraint", "as_text"]
