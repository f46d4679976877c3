"""Does a model in the llama2.c format keep its documented loss as a Hugging Face Llama?

The legacy .bin holds seven int32 and fp32 weights; its RoPE turns neighbouring channels, where
Hugging Face turns halves, so that the rows of q and k change places. The head is tied.

The SentencePiece model becomes a byte-level BPE that gives the same ids, since GGUF export knows
no other kind: a piece is spelled in the byte alphabet, a character beyond ASCII is an added token,
a byte piece stands for its byte. Where there are none, `<unk>` is what it was in these stories:
the end of a line; other unknown characters vanish. SentencePiece puts a space before a text and
makes one of several; here the text itself has to be so written (`as_written`).

    python benchmarks/llama2c.py                           # prints losses; seconds on one core
    python3 -m venv benchmarks/.venv-sentencepiece         # and, to compare ids with the real one:
    benchmarks/.venv-sentencepiece/bin/pip install sentencepiece==0.2.1
    python benchmarks/llama2c.py --peer benchmarks/.venv-sentencepiece/bin/python
"""

from __future__ import annotations

import argparse
import json
import os
import re
import struct
import subprocess
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from rich.console import Console
from rich.table import Table
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers, processors
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast
from transformers.convert_slow_tokenizer import bytes_to_unicode

SHARED = Path(os.environ.get("FLYWEIGHT_SHARED", Path(__file__).parents[2] / "shared"))
STORIES = SHARED / "data" / "stories"
SAMPLE = STORIES / "tinystories_sample.txt"
BETWEEN = "<|endoftext|>"

# name -> (weights, tokenizer, documented loss a token: its maker's on other stories, SOURCES.md's)
KNOWN = {
    "babyllama": ("babyllama-tok105/model5000.bin", "babyllama-tok105/tok105.model", "0.737; 0.82"),
    "stories260K": ("stories260K/stories260K.bin", "stories260K/tok512.model", "1.50"),
}
BEGIN, UNKNOWN = "<s>", 0
NORMAL, BYTE = 1, 6  # types of a piece; others are control tokens or `<unk>`
NEVER = "a1"  # a merge that no text needs: the pre-tokenizer parts letters from digits

# ---------------------------------------------------------------- weights


def read_weights(path: Path) -> tuple[LlamaConfig, dict[str, torch.Tensor]]:
    """Config and state of a legacy llama2.c file; the head is tied, RoPE's tables go unread."""
    raw = path.read_bytes()
    dim, mlp, layers, heads, groups, vocabulary, context = struct.unpack("<7i", raw[:28])
    if vocabulary < 0:
        raise SystemExit(f"{path}: has a head of its own, which this converter does not know")
    wide = dim // heads
    numbers = torch.from_numpy(np.frombuffer(raw, dtype="<f4", offset=28).copy())
    sizes = {  # in the order of the file
        "embed_tokens": (vocabulary, dim),
        "input_layernorm": (layers, dim),
        "self_attn.q_proj": (layers, dim, dim),
        "self_attn.k_proj": (layers, groups * wide, dim),
        "self_attn.v_proj": (layers, groups * wide, dim),
        "self_attn.o_proj": (layers, dim, dim),
        "post_attention_layernorm": (layers, dim),
        "mlp.gate_proj": (layers, mlp, dim),
        "mlp.down_proj": (layers, dim, mlp),
        "mlp.up_proj": (layers, mlp, dim),
        "norm": (dim,),
    }
    state, place = {}, 0
    for name, size in sizes.items():
        count = int(np.prod(size))
        weights, place = numbers[place : place + count].view(size), place + count
        if name in ("embed_tokens", "norm"):
            state[f"model.{name}.weight"] = weights
            continue
        for layer, weight in enumerate(weights):
            if name.endswith(("q_proj", "k_proj")):
                weight = halves(weight, wide)
            state[f"model.layers.{layer}.{name}.weight"] = weight
    config = LlamaConfig(
        vocab_size=vocabulary,
        hidden_size=dim,
        intermediate_size=mlp,
        num_hidden_layers=layers,
        num_attention_heads=heads,
        num_key_value_heads=groups,
        head_dim=wide,
        max_position_embeddings=context,
        rms_norm_eps=1e-5,
        tie_word_embeddings=True,
        bos_token_id=1,
        eos_token_id=1,  # these models write the begin of the next story after one
        pad_token_id=None,
    )
    return config, state


def halves(weight: torch.Tensor, wide: int) -> torch.Tensor:
    """Rows [heads x wide, D] from pairs (0 1)(2 3).. to halves (0 2 ..)(1 3 ..), head by head."""
    rows, dim = weight.shape
    return weight.view(-1, wide // 2, 2, dim).transpose(1, 2).reshape(rows, dim)


# ---------------------------------------------------------------- tokenizer


@dataclass(frozen=True)
class Piece:
    """One entry of a SentencePiece model."""

    text: str
    score: float
    kind: int


def fields(message: bytes) -> Iterator[tuple[int, Any]]:
    """(number, value) of a protobuf message: int, bytes, or float for 32 bits."""
    place = 0

    def varint() -> int:
        nonlocal place
        value = shift = 0
        while True:
            byte = message[place]
            place, value, shift = place + 1, value | (byte & 127) << shift, shift + 7
            if byte < 128:
                return value

    while place < len(message):
        number, wire = divmod(varint(), 8)
        if wire == 0:
            yield number, varint()
            continue
        size = {1: 8, 5: 4}.get(wire) or varint()
        value, place = message[place : place + size], place + size
        yield number, struct.unpack("<f", value)[0] if wire == 5 else value


def read_pieces(path: Path) -> list[Piece]:
    """The pieces of a SentencePiece .model in the order of their ids."""
    pieces = []
    for number, value in fields(path.read_bytes()):
        if number == 1:
            found = dict(fields(value))
            pieces.append(Piece(found[1].decode(), found.get(2, 0.0), found.get(3, NORMAL)))
    return pieces


def spell(pieces: Sequence[Piece]) -> dict[str, int]:
    """Each piece's name in the byte alphabet, with its id; characters beyond ASCII as they are."""
    alphabet = bytes_to_unicode()
    names = [piece.text.replace("▁", alphabet[ord(" ")]) for piece in pieces]
    taken = {name for name, piece in zip(names, pieces, strict=True) if piece.kind == NORMAL}
    for place, piece in enumerate(pieces):
        if piece.kind == BYTE:
            byte = alphabet[int(piece.text[3:5], 16)]
            names[place] = piece.text if byte in taken else byte
    if all(piece.kind != BYTE for piece in pieces):
        names[UNKNOWN] = alphabet[ord("\n")]
    return {name: place for place, name in enumerate(names)}


def merges_of(pieces: Sequence[Piece], names: dict[str, int]) -> list[tuple[str, str]]:
    """All pairs that make a piece, in the order of its score: SentencePiece merges best first."""
    kind = {place: piece.kind for place, piece in enumerate(pieces)}
    normal = {name: place for name, place in names.items() if kind[place] == NORMAL}
    order = sorted(normal, key=lambda name: -pieces[normal[name]].score)
    pairs = ((name[:cut], name[cut:]) for name in order for cut in range(1, len(name)))
    return [pair for pair in pairs if pair[0] in normal and pair[1] in normal]


def convert_tokenizer(path: Path, context: int) -> PreTrainedTokenizerFast:
    """A byte-level BPE tokenizer with the ids of a SentencePiece BPE model."""
    pieces = read_pieces(path)
    names = spell(pieces)
    merges = merges_of(pieces, names)
    if not merges:  # llama.cpp wants at least one: `</s>`, which these models never saw, gives way
        names = {NEVER if name == "</s>" else name: place for name, place in names.items()}
        merges = [(NEVER[0], NEVER[1])]
    tokenizer = Tokenizer(models.BPE(names, merges))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    beyond = [piece.text for piece in pieces if piece.kind == NORMAL and not piece.text.isascii()]
    beyond = [text for text in beyond if text[0] != "▁"]
    tokenizer.add_tokens([AddedToken(text, normalized=False) for text in beyond])
    alphabet = bytes_to_unicode()
    respelled = [  # `é` would be taken for a byte
        decoders.Replace(text, "".join(alphabet[byte] for byte in text.encode()))
        for text in beyond
        if text in alphabet.values()
    ]
    tokenizer.decoder = decoders.Sequence([*respelled, decoders.ByteLevel()])
    tokenizer.add_special_tokens([AddedToken(BEGIN, normalized=False)])
    tokenizer.post_processor = processors.TemplateProcessing(
        single=f"{BEGIN} $A", special_tokens=[(BEGIN, names[BEGIN])]
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        bos_token=BEGIN,
        eos_token=BEGIN,
        clean_up_tokenization_spaces=False,
        model_max_length=context,
    )


def as_written(text: str) -> str:
    """The text as SentencePiece sees it: a space before it, none after, no two together."""
    return " " + re.sub(" +", " ", text).strip(" ")


# ---------------------------------------------------------------- the whole


def convert(weights: Path, tokenizer: Path, out: Path) -> Path:
    """Write a llama2.c checkpoint with its SentencePiece model as a Hugging Face folder."""
    config, state = read_weights(weights)
    model = LlamaForCausalLM(config)
    missing, unexpected = model.load_state_dict(state, strict=False)
    if unexpected or set(missing) - {"lm_head.weight"}:
        raise SystemExit(f"{weights}: {missing} missing, {unexpected} unexpected")
    model.tie_weights()
    model.save_pretrained(out)
    convert_tokenizer(tokenizer, config.max_position_embeddings).save_pretrained(out)
    return out


def convert_known(name: str, out: Path) -> Path:
    """Write one of the KNOWN models as a Hugging Face folder."""
    weights, tokenizer, _ = KNOWN[name]
    return convert(STORIES / weights, STORIES / tokenizer, out)


def stories() -> list[str]:
    """The whole stories of the sample (its ends are cut), stripped as llama2.c does."""
    parts = SAMPLE.read_text(encoding="utf-8").split(BETWEEN)
    return [story for part in parts[:-1] if (story := part.strip())]


def loss(folder: Path, texts: Sequence[str], windows: int) -> tuple[float, int]:
    """Nats a token and how many, in windows of the context over the texts laid end to end."""
    from flyweight.checkpoint import open_checkpoint

    checkpoint = open_checkpoint(folder)
    model, tokenizer, context = checkpoint.model(), checkpoint.tokenizer(), checkpoint.context
    ids = [i for text in texts for i in tokenizer(as_written(text))["input_ids"]]
    rows = torch.tensor(ids[: (len(ids) - 1) // context * context + 1])
    inputs, targets = rows[:-1].view(-1, context), rows[1:].view(-1, context)
    places = torch.arange(min(windows, len(inputs))) * len(inputs) // min(windows, len(inputs))
    inputs, targets = inputs[places], targets[places]  # evenly spread
    total = 0.0
    with torch.inference_mode():
        for x, y in zip(inputs.split(32), targets.split(32), strict=True):
            logits = model(input_ids=x).logits.float()
            total += float(F.cross_entropy(logits.flatten(0, 1), y.flatten(), reduction="sum"))
    return total / targets.numel(), targets.numel()


PEER = """
import json, sys
from sentencepiece import SentencePieceProcessor
read = SentencePieceProcessor(model_file=sys.argv[1])
print(json.dumps(read.encode(json.load(sys.stdin))))
"""


def compare_ids(folder: Path, model: Path, texts: Sequence[str], peer: str) -> str:
    """How many texts get the very ids that SentencePiece gives, and what sets the rest apart."""
    from flyweight.checkpoint import open_checkpoint

    ran = subprocess.run(
        [peer, "-c", PEER, str(model)],
        input=json.dumps(list(texts)),
        capture_output=True,
        text=True,
        check=True,
    )
    tokenizer = open_checkpoint(folder).tokenizer()
    ours = tokenizer([as_written(text) for text in texts], add_special_tokens=False)["input_ids"]
    theirs = json.loads(ran.stdout)
    differ = [text for text, mine, yours in zip(texts, ours, theirs, strict=True) if mine != yours]
    known = tokenizer.get_vocab()
    odd = sorted({char for text in differ for char in text if ord(char) > 126} - known.keys())
    note = f" (else: {''.join(odd)})" if odd else ""
    return f"{len(texts) - len(differ):,} of {len(texts):,}{note}"


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--windows", type=int, default=400, help="of 256 tokens that are read")
    parser.add_argument("--peer", help="a Python with sentencepiece, to compare ids with")
    options = parser.parse_args()
    texts = stories()
    table = Table(title=f"{SAMPLE.name}: nats a token in windows of the context")
    for heading in ("model", "parameters", "tokens", "loss", "documented", "texts with equal ids"):
        table.add_column(heading, justify="left" if heading == "model" else "right")
    with TemporaryDirectory() as scratch:
        for name, (_, tokenizer, documented) in KNOWN.items():
            folder = convert_known(name, Path(scratch) / name)
            nats, count = loss(folder, texts, options.windows)
            parameters = LlamaForCausalLM.from_pretrained(folder).num_parameters()
            equal = "not compared"
            if options.peer:
                equal = compare_ids(folder, STORIES / tokenizer, texts, options.peer)
            cells = (f"{parameters:,}", f"{count:,}", f"{nats:.3f}", documented, equal)
            table.add_row(name, *cells)
    Console(width=110).print(table)


if __name__ == "__main__":
    main()
