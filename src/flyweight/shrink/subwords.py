"""The three kinds of tokenizer models: which tokens must stay, and the model of those that do.

Each one promises that a text whose tokens all stay is split into the same tokens. Why it holds, for
the algorithms of Hugging Face's tokenizers (models/{bpe,wordpiece,unigram}):

BPE applies the merge of lowest rank, leftmost first, and no symbol is ever split again. So nothing
that happened outside a final token touched what happened inside, and all symbols that a text goes
through are those that its final tokens, each spelled alone, go through. Where these stay, so do
their merges, in their order; a merge that went could not have been applied, since its product would
be a part of some final token.

WordPiece takes the longest token that fits, again and again. The longest is still there, and the
longer ones that went did not fit. A word that has no tokens stays unknown as long as every
character within a token has a row of its own too, as trained vocabularies have it; where one has
not, the student may read a word that the teacher could not.

Unigram takes the path of the highest score, of equal ones that with the longest last token. That
path is still there, with fewer rivals. Single characters and the piece of the lowest score must
stay: where one is missing, an unknown piece stands, and its score hangs on the lowest.
"""

from __future__ import annotations

from collections.abc import Mapping
from itertools import pairwise
from typing import Any, Protocol

from flyweight.errors import TeacherError

BYTES = [f"<0x{byte:02X}>" for byte in range(256)]
SPACE = "▁"  # how SentencePiece writes a space


class Subwords(Protocol):
    """The model inside a tokenizer.json."""

    def always(self) -> set[int]:
        """Ids that stay whatever the data say, so that any text can still be encoded."""
        ...

    def needs(self, token: int) -> set[int]:
        """The token, and all those that it is made from on the way."""
        ...

    def cut(self, place: Mapping[int, int]) -> dict[str, Any]:
        """The model of those tokens that have a place, their new id."""
        ...


class Bpe:
    """Byte pair encoding, of bytes or of characters with bytes to fall back to."""

    def __init__(self, model: dict[str, Any]) -> None:
        unusual = ("dropout", "continuing_subword_prefix", "end_of_word_suffix")
        for setting in unusual:
            if model.get(setting):
                raise TeacherError(
                    f"the tokenizer's BPE has a {setting} ({model[setting]!r}), so its vocabulary "
                    "cannot be cut. Leave the vocabulary whole."
                )
        self.model = model
        self.ids: dict[str, int] = model["vocab"]
        self.tokens = {i: token for token, i in self.ids.items()}
        self.ranks = {(a, b): rank for rank, (a, b) in enumerate(model["merges"])}

    def always(self) -> set[int]:
        """Bytes and characters; the unknown token; one merge, since a GGUF needs one.

        Where all bytes are there to fall back to, only the characters of ASCII: large vocabularies
        have many thousand others, and a text that holds one is still encoded.
        """
        falls_back = bool(self.model.get("byte_fallback"))
        stays = {self.ids[token] for token in BYTES if falls_back and token in self.ids}
        characters = [token for token in self.ids if len(token) == 1]
        if len(stays) == len(BYTES):
            characters = [token for token in characters if token.isascii() or token == SPACE]
        stays |= {self.ids[token] for token in characters}
        if self.model.get("unk_token") in self.ids:
            stays.add(self.ids[self.model["unk_token"]])
        known = set(characters)
        first = next((a + b for a, b in self.ranks if a in known and b in known), None)
        return stays if first is None else stays | {self.ids[first]}

    def needs(self, token: int) -> set[int]:
        """What the merges make of its characters until it stands there; itself, if they never do.

        Such a token is only written where whole words skip the merges (`ignore_merges`).
        """
        word = self.tokens.get(token, "")
        symbols = list(word)
        formed = set(symbols)
        while pairs := [pair for pair in pairwise(symbols) if pair in self.ranks]:
            best = min(pairs, key=self.ranks.__getitem__)
            at = next(i for i, pair in enumerate(pairwise(symbols)) if pair == best)
            symbols[at : at + 2] = [best[0] + best[1]]
            formed.add(symbols[at])
        reached = symbols == [word] and formed <= self.ids.keys()
        return {token} | ({self.ids[symbol] for symbol in formed} if reached else set())

    def cut(self, place: Mapping[int, int]) -> dict[str, Any]:
        """Its merges are those whose parts and product all stay, in their order."""
        vocab = {token: place[i] for token, i in self.ids.items() if i in place}
        merges = [[a, b] for a, b in self.ranks if a in vocab and b in vocab and a + b in vocab]
        return self.model | {"vocab": vocab, "merges": merges}


class WordPiece:
    """The longest token that fits, from left to right; what continues a word has a prefix."""

    def __init__(self, model: dict[str, Any]) -> None:
        self.model = model
        self.ids: dict[str, int] = model["vocab"]

    def always(self) -> set[int]:
        """Every character, at the start of a word and within; the unknown token."""
        prefix = self.model["continuing_subword_prefix"]
        single = {i for token, i in self.ids.items() if len(token.removeprefix(prefix)) == 1}
        return single | {
            self.ids[token] for token in (self.model["unk_token"],) if token in self.ids
        }

    def needs(self, token: int) -> set[int]:
        """Itself: no token is made from others."""
        return {token}

    def cut(self, place: Mapping[int, int]) -> dict[str, Any]:
        vocab = {token: place[i] for token, i in self.ids.items() if i in place}
        return self.model | {"vocab": vocab}


class Unigram:
    """The likeliest path of pieces; a piece's id is its place in the list."""

    def __init__(self, model: dict[str, Any]) -> None:
        self.model = model
        self.pieces: list[tuple[str, float]] = model["vocab"]

    def always(self) -> set[int]:
        """Characters, bytes to fall back to, the unknown piece, a piece of the lowest score."""
        stays = {i for i, (piece, _) in enumerate(self.pieces) if len(piece) == 1}
        if self.model.get("byte_fallback"):
            names = set(BYTES)
            stays |= {i for i, (piece, _) in enumerate(self.pieces) if piece in names}
        if self.model["unk_id"] is not None:
            stays.add(self.model["unk_id"])
        scores = [score for _, score in self.pieces]
        return stays | {scores.index(min(scores))}

    def needs(self, token: int) -> set[int]:
        """Itself: no piece is made from others."""
        return {token}

    def cut(self, place: Mapping[int, int]) -> dict[str, Any]:
        """Its scores are kept."""
        unknown = self.model["unk_id"]
        vocab = [piece for i, piece in enumerate(self.pieces) if i in place]
        return self.model | {
            "vocab": vocab,
            "unk_id": None if unknown is None else place[unknown],
        }


KINDS = {"BPE": Bpe, "WordPiece": WordPiece, "Unigram": Unigram}


def subwords_of(described: Mapping[str, Any]) -> Subwords:
    """The model of a tokenizer.json; TeacherError for a kind that cannot be cut."""
    kind = described["model"].get("type")
    if kind not in KINDS:
        raise TeacherError(
            f"the tokenizer is a {kind} model; a vocabulary can be cut of {', '.join(KINDS)}. "
            "Leave the vocabulary whole."
        )
    return KINDS[kind](described["model"])
