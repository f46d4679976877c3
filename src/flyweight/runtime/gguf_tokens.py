"""The tokenizer that a GGUF file holds, as transformers' own library has it.

For engines whose own tokenizer is another one: what tokenizer_gguf.py wrote is read back, so that
text is split as in training.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from gguf import TokenType

from flyweight.errors import EngineError
from flyweight.runtime.gguf_header import GgufHeader
from flyweight.runtime.tokenizer_gguf import KNOWN

_ENDS = ("eos", "eot", "eom")  # what ends an answer, by the names of its keys
_PRE = "tokenizer.ggml."


class GgufTokens:
    """Byte-level BPE as a header tells it. Raises EngineError for another kind of tokenizer."""

    def __init__(self, header: GgufHeader) -> None:
        from tokenizers import AddedToken, Tokenizer, decoders, models

        keys = header.keys
        names = {name: steps for steps, name in KNOWN.items()}
        steps = names.get(keys.get(f"{_PRE}pre", ""))
        if keys.get(f"{_PRE}model") != "gpt2" or steps is None:
            raise EngineError(
                f"the file's tokenizer ({keys.get(f'{_PRE}model')}, {keys.get(f'{_PRE}pre')}) is "
                "not one that can be read back; run it in llama.cpp"
            )
        tokens, types = keys[f"{_PRE}tokens"], keys[f"{_PRE}token_type"]
        unused = {place for place, kind in enumerate(types) if kind == TokenType.UNUSED}
        vocabulary = {token: i for i, token in enumerate(tokens) if i not in unused}
        merges = [tuple(merge.split(" ")) for merge in keys.get(f"{_PRE}merges", [])]
        self._tokenizer: Any = Tokenizer(models.BPE(vocabulary, merges, ignore_merges=steps[1]))
        self._tokenizer.pre_tokenizer = _pre_tokenizer(steps[0])
        self._tokenizer.decoder = decoders.ByteLevel()
        for kind, special in ((TokenType.CONTROL, True), (TokenType.USER_DEFINED, False)):
            added = [token for token, its in zip(tokens, types, strict=True) if its == kind]
            add = self._tokenizer.add_special_tokens if special else self._tokenizer.add_tokens
            add([AddedToken(token, special=special, normalized=False) for token in added])
        self._before = around(keys, "bos")
        self._after = around(keys, "eos")
        ends = (keys.get(f"{_PRE}{name}_token_id") for name in _ENDS)
        self.ends = frozenset(int(end) for end in ends if end is not None)
        self.size = len(tokens)

    def encode(self, text: str, *, add_special: bool = True) -> list[int]:
        """The ids of a text, with what the tokenizer puts around it where `add_special`."""
        ids = self._tokenizer.encode(text, add_special_tokens=False).ids
        return [*self._before, *ids, *self._after] if add_special else ids

    def decode(self, ids: Sequence[int]) -> str:
        """The text of ids, special tokens left out; half a character is U+FFFD."""
        return self._tokenizer.decode(list(ids), skip_special_tokens=True)


def around(keys: dict[str, Any], name: str) -> list[int]:
    """The token that a tokenizer puts before ("bos") or after ("eos") a text, if it does."""
    wanted = keys.get(f"{_PRE}add_{name}_token")
    return [int(keys[f"{_PRE}{name}_token_id"])] if wanted else []


def _pre_tokenizer(steps: Sequence[str]) -> Any:
    """The splits of tokenizer_gguf.KNOWN, then bytes."""
    from tokenizers import Regex, pre_tokenizers

    made = []
    for step in steps:
        if step == "digits":
            made.append(pre_tokenizers.Digits(individual_digits=True))
        elif step != "words":
            made.append(pre_tokenizers.Split(Regex(step), behavior="isolated"))
    by_words = "words" in steps
    made.append(pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=by_words))
    return pre_tokenizers.Sequence(made)


__all__ = ["GgufTokens", "around"]
