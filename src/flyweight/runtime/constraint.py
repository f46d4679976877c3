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
from typing import Any

from flyweight.errors import OptionError

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

    @classmethod
    def json_schema(cls, schema: Mapping[str, Any] | str) -> Constraint:
        """JSON that a schema allows, `{}` for any. OptionError for one that is not understood."""
        try:
            schema = json.loads(schema) if isinstance(schema, str) else schema
            if not isinstance(schema, Mapping):
                raise ValueError('a schema is an object, such as {"type": "integer"}')
            told = {**schema, "x-guidance": AS_DUMPS | dict(schema.get("x-guidance", {}))}
            text = json.dumps(told)
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


def _one_line(pattern: str) -> str:
    """The pattern as it stands between slashes: those and ends of lines escaped, once."""

    def escaped(found: re.Match[str]) -> str:
        return {"/": r"\/", "\n": r"\n", "\\\n": r"\n"}.get(found[0], found[0])

    return re.sub(r"\\.|/|\n", escaped, pattern, flags=re.DOTALL)


__all__ = ["AS_DUMPS", "Constraint"]
