"""What a token is in bytes, as the tokenizer in a GGUF file has it."""

from __future__ import annotations

import re
from functools import cache
from typing import Any

_PRE = "tokenizer.ggml."
_NORMAL, _BYTE = 1, 6  # ggml's numbers of types of tokens


def token_bytes(keys: dict[str, Any], token: int) -> bytes:
    """The bytes of a token by its id; `keys` are the header's. b"" for an id that is none."""
    tokens, types = keys.get(f"{_PRE}tokens", []), keys.get(f"{_PRE}token_type", [])
    if not 0 <= token < len(tokens):
        return b""
    text, kind = tokens[token], types[token] if token < len(types) else _NORMAL
    if kind not in (_NORMAL, _BYTE):  # special, or added: written as it is
        return text.encode()
    if keys.get(f"{_PRE}model") == "gpt2":
        return bytes(_alphabet().get(letter, 63) for letter in text)
    byte = re.fullmatch(r"<0x([0-9A-Fa-f]{2})>", text)
    return bytes([int(byte[1], 16)]) if byte else text.replace("\u2581", " ").encode()


@cache
def _alphabet() -> dict[str, int]:
    """The letters that byte-level BPE writes bytes as: printable ones as themselves (GPT-2)."""
    plain = [*range(ord("!"), ord("~") + 1), *range(0xA1, 0xAC + 1), *range(0xAE, 0xFF + 1)]
    others = [byte for byte in range(256) if byte not in plain]
    return {chr(byte): byte for byte in plain} | {
        chr(256 + place): byte for place, byte in enumerate(others)
    }


__all__ = ["token_bytes"]
