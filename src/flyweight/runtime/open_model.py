"""Opening a model folder, or a lone GGUF file, in an engine: only what is whole and fits is loaded.

A file that `card.json` names must have the hash that stands there. One that nobody vouches for is
loaded in a child process first. The memory of the context is foretold before any is taken.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from flyweight.card import Card
from flyweight.errors import EngineError, FolderError, OptionError, reason_of
from flyweight.folder import CARD, GGUF_NAMES, ONNX_NAMES, read_card, sha256_of
from flyweight.runtime.choice import ENGINES, Work, winner
from flyweight.runtime.engine import Capability, Engine
from flyweight.runtime.gguf_header import read_header
from flyweight.runtime.memory import check_memory, sizes_of
from flyweight.runtime.probe import probe

STANDARD = "llama.cpp"
KV_BITS = 16
USUAL_CONTEXT = 4096  # tokens, where none is asked for and the model was made for more


@dataclass(frozen=True)
class Found:
    """A model's GGUF file, its hash, and its folder and that folder's card where there are such."""

    gguf: Path
    sha256: str
    folder: Path | None = None
    bits: int | None = None
    card: Card | None = None

    def tokenizer(self) -> Any:
        """The folder's, in transformers; OptionError for a lone file."""
        if self.folder is None:
            raise OptionError(f"{self.gguf}: this needs a folder with a tokenizer, not one file")
        from flyweight.checkpoint import open_checkpoint

        return open_checkpoint(self.folder).tokenizer()


def find_model(model: Path, bits: int | None = None) -> Found:
    """The file of a folder at `bits` (the card's choice, or the smallest, if None), proven whole.

    Raises FolderError without a GGUF file, OptionError for bits that are not there, EngineError for
    a file that is damaged, is not what the card says, or has another tokenizer than the folder.
    """
    model = Path(model)
    if model.is_file():
        if bits is not None:
            raise OptionError(f"--bits is for folders: {model} is one file.")
        probe_header(model)
        return Found(model, sha256_of(model))
    if not model.is_dir():
        raise FolderError(f"{model}: there is no such file or folder. Give a packed model folder.")
    card = read_card(model) if (model / CARD).exists() else None
    there = {width: model / name for width, name in GGUF_NAMES.items() if (model / name).exists()}
    if not there:
        if any((model / name).exists() for name in ONNX_NAMES.values()):
            raise FolderError(
                f"{model} classifies: it gives labels and writes nothing. Score it: flyweight eval "
                f"{model} --task FILE; run it from Python: transformers.pipeline("
                f'"text-classification", "{model}").'
            )
        raise FolderError(f"{model} has no GGUF file. Make them: flyweight pack {model}")
    if bits is None:
        bits = card.bits if card is not None and card.bits in there else min(there)
    if bits not in there:
        raise OptionError(f"--bits is {bits}: {model} has {', '.join(map(str, there))}.")
    gguf = there[bits]
    entry = card.files.get(gguf.name) if card is not None else None
    sha256 = sha256_of(gguf)
    if entry is None:
        probe_header(gguf)
    elif sha256 != entry.sha256:
        raise EngineError(f"{gguf}: is not the file that {CARD} names; download or pack it again")
    _check_tokens(gguf, model)
    return Found(gguf, sha256, model, bits, card)


def probe_header(gguf: Path) -> None:
    """Read the header here, where a lie cannot do harm, then load the file in a child."""
    sizes_of(gguf)
    probe(gguf)


def _check_tokens(gguf: Path, folder: Path) -> None:
    """EngineError unless the file's tokens are those of the folder's tokenizer."""
    told = read_header(gguf).keys.get("tokenizer.ggml.tokens", [])
    differing = [
        number
        for number, token in _tokens(folder).items()
        if number >= len(told) or told[number] != token
    ]
    if differing:
        raise EngineError(
            f"{gguf}: {len(differing):,} of its tokens are not the tokenizer's, the first "
            f"{min(differing)}; pack the folder again"
        )


def _tokens(folder: Path) -> dict[int, str]:
    """The tokens of a folder's tokenizer, by their ids."""
    file = folder / "tokenizer.json"
    if not file.exists():  # of another kind, which transformers reads
        from flyweight.checkpoint import open_checkpoint

        vocabulary = open_checkpoint(folder).tokenizer().get_vocab()
    else:
        from tokenizers import Tokenizer

        try:
            vocabulary = Tokenizer.from_file(str(file)).get_vocab(with_added_tokens=True)
        except Exception as error:  # the library raises nothing narrower
            raise FolderError(
                f"{file}: cannot be read ({reason_of(error)}); take it from its source"
            ) from None
    return {number: token for token, number in vocabulary.items()}


def open_model(
    model: Path,
    *,
    bits: int | None = None,
    engine: str | None = None,
    work: Work = "stream",
    needs: Collection[Capability] = (),
    context: int | None = None,
    streams: int = 1,
    threads: int | None = None,
    kv_bits: int = 16,
    cache_bytes: int = 0,
) -> tuple[Engine, Found]:
    """A model in an engine by name, or in the one found fastest for `work`, and what was opened.

    That is what `flyweight engines` remembers; llama.cpp where it remembers nothing, or where the
    fastest cannot do all that is needed. `context` None is what the model was made for,
    USUAL_CONTEXT at most; no more is ever given. `kv_bits` and `cache_bytes` are llama.cpp's.
    Raises what `find_model` does, OptionError for an unknown engine, and EngineError, with the
    context that would fit, for one that does not fit into memory.
    """
    if engine is not None and engine not in ENGINES:
        raise OptionError(f"the engine {engine!r} is not one of {', '.join(ENGINES)}")
    found = find_model(model, bits)
    sizes = sizes_of(found.gguf)
    if context is None:
        context = min(sizes.context, USUAL_CONTEXT)
    if context > sizes.context:
        raise OptionError(
            f"{found.gguf}: was made for {sizes.context:,} tokens, not for {context:,}; ask for "
            "fewer"
        )
    check_memory(found.gguf, sizes, context, streams, kv_bits)
    lengths = {"context": context, "streams": streams, "threads": threads}
    kind = ENGINES[engine or winner(found.sha256, work) or STANDARD]
    source = found.gguf if kind.opens == "gguf" else found.folder
    plain = kv_bits == KV_BITS and not cache_bytes
    if engine is None and not (plain and source and set(needs) <= kind.engine().can):
        kind, source = ENGINES[STANDARD], found.gguf
    if source is None:
        raise OptionError(f"{model}: {engine} needs a folder, not one file")
    if kind is ENGINES[STANDARD]:
        lengths |= {"kv_bits": kv_bits, "cache_bytes": cache_bytes}
    return kind.open(source, **lengths), found


__all__ = ["USUAL_CONTEXT", "Found", "find_model", "open_model"]
