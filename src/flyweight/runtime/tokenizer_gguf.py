"""A byte-level BPE tokenizer as GGUF metadata, for llama.cpp to split text the same way.

llama.cpp does not read the pre-tokenizer from the file: it knows a number of them by name, so the
one in tokenizer.json has to be recognised. What is not recognised is refused, never guessed.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from gguf import TokenType

from flyweight.errors import EngineError

_LETTERS_AND_SPACES = r" ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
_CONTRACTIONS = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)"
_WORD = r"[^\r\n\p{L}\p{N}]?\p{L}+"
_CASED = (
    r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+",
    r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*",
)
_CASED_SPACES = r" ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+"
_LLAMA3 = rf"{_CONTRACTIONS}|{_WORD}|\p{{N}}{{1,3}}|{_LETTERS_AND_SPACES}"

# (steps before the bytes, whether whole words skip the merges) -> llama.cpp's name.
# A step is a Split's pattern, "digits" (one by one) or "words" (ByteLevel's own pattern, GPT-2's).
KNOWN: dict[tuple[tuple[str, ...], bool], str] = {
    (("words",), False): "gpt-2",
    (("digits", "words"), False): "smollm",
    ((rf"{_CONTRACTIONS}|{_WORD}|\p{{N}}|{_LETTERS_AND_SPACES}",), False): "qwen2",
    ((_LLAMA3,), True): "llama-bpe",
    ((_LLAMA3,), False): "smaug-bpe",
    (
        (
            rf"{_CASED[0]}{_CONTRACTIONS}?|{_CASED[1]}{_CONTRACTIONS}?|\p{{N}}{{1,3}}|{_CASED_SPACES}",
        ),
        False,
    ): "gpt-4o",
    ((rf"{_CASED[0]}|{_CASED[1]}|\p{{N}}|{_CASED_SPACES}",), True): "tekken",
}


def pre_tokenizer_name(described: dict[str, Any]) -> str:
    """llama.cpp's name for the pre-tokenizer of a tokenizer.json. Raises EngineError if unknown."""
    model = described["model"]
    if model.get("type") != "BPE" or model.get("byte_fallback"):
        raise EngineError("the tokenizer is not byte-level BPE, all that GGUF export knows")
    if (described.get("normalizer") or {"type": "NFC"})["type"] != "NFC":
        raise EngineError(f"llama.cpp has no {described['normalizer']['type']} text normalizer")
    steps = tuple(_steps(described.get("pre_tokenizer") or {}))
    name = KNOWN.get((steps, bool(model.get("ignore_merges"))))
    if name is None:
        raise EngineError(
            f"llama.cpp knows no pre-tokenizer with the steps {list(steps)}; known are "
            f"{', '.join(sorted(KNOWN.values()))}: retrain the tokenizer with one of those"
        )
    return name


def _steps(pre: dict[str, Any]) -> list[str]:
    """The splits that a pre-tokenizer makes, in order, as KNOWN writes them."""
    kind = pre.get("type")
    if kind == "Sequence":
        return [step for inner in pre["pretokenizers"] for step in _steps(inner)]
    if kind == "ByteLevel" and not pre["add_prefix_space"]:
        return ["words"] if pre.get("use_regex", True) else []
    if kind == "Digits" and pre["individual_digits"]:
        return ["digits"]
    # inverted, Removed keeps the matches; the known patterns match all of a text, so it is the same
    splits = (pre.get("behavior"), pre.get("invert")) in (("Isolated", False), ("Removed", True))
    if kind == "Split" and splits and "Regex" in pre["pattern"]:
        return [pre["pattern"]["Regex"]]
    return [json.dumps(pre, sort_keys=True)]


def tokenizer_metadata(checkpoint: Path, vocab_size: int) -> dict[str, Any]:
    """The `tokenizer.*` keys of a checkpoint's tokenizer, padded to `vocab_size` tokens."""
    from transformers import AutoTokenizer

    try:
        described = json.loads((checkpoint / "tokenizer.json").read_text(encoding="utf-8"))
        tokenizer = AutoTokenizer.from_pretrained(checkpoint, local_files_only=True)
    except (OSError, ValueError) as error:
        raise EngineError(f"{checkpoint / 'tokenizer.json'}: cannot be read: {error}") from error
    tokens, types = _vocabulary(described, vocab_size, checkpoint)
    keys: dict[str, Any] = {
        "tokenizer.ggml.model": "gpt2",
        "tokenizer.ggml.pre": pre_tokenizer_name(described),
        "tokenizer.ggml.tokens": tokens,
        "tokenizer.ggml.token_type": types,
        "tokenizer.ggml.merges": [
            merge if isinstance(merge, str) else " ".join(merge)
            for merge in described["model"]["merges"]
        ],
    }
    return keys | _special_tokens(tokenizer)


def _vocabulary(
    described: dict[str, Any], vocab_size: int, checkpoint: Path
) -> tuple[list[str], list[int]]:
    tokens = [f"[PAD{i}]" for i in range(vocab_size)]
    types = [int(TokenType.UNUSED)] * vocab_size
    entries = [(i, token, TokenType.NORMAL) for token, i in described["model"]["vocab"].items()]
    for added in described["added_tokens"]:
        kind = TokenType.CONTROL if added["special"] else TokenType.USER_DEFINED
        entries.append((added["id"], added["content"], kind))
    for i, token, kind in entries:
        if i >= vocab_size:
            raise EngineError(
                f"{checkpoint}: token {token!r} has id {i}, but config.json says vocab_size "
                f"{vocab_size}; tokenizer and weights do not belong together"
            )
        tokens[i], types[i] = token, int(kind)
    return tokens, types


def _special_tokens(tokenizer: Any) -> dict[str, Any]:
    named = {
        "bos": tokenizer.bos_token_id,
        "eos": tokenizer.eos_token_id,
        "padding": tokenizer.pad_token_id,
    }
    keys: dict[str, Any] = {
        f"tokenizer.ggml.{name}_token_id": i for name, i in named.items() if i is not None
    }
    around = tokenizer("a")["input_ids"]  # what the tokenizer itself puts around any text
    keys["tokenizer.ggml.add_bos_token"] = named["bos"] is not None and around[0] == named["bos"]
    keys["tokenizer.ggml.add_eos_token"] = named["eos"] is not None and around[-1] == named["eos"]
    if tokenizer.chat_template:
        keys["tokenizer.chat_template"] = tokenizer.chat_template
    return keys


__all__ = ["KNOWN", "pre_tokenizer_name", "tokenizer_metadata"]
