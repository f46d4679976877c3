"""Small tokenizers of every kind, trained here, and those of transformers' own classes."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from tokenizers import (
    Regex,
    Tokenizer,
    decoders,
    models,
    normalizers,
    pre_tokenizers,
    processors,
    trainers,
)
from transformers import BertTokenizer, GemmaTokenizer, LlamaTokenizer, PreTrainedTokenizerFast

QWEN2_PATTERN = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}"
    r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
SPECIAL = ["<unk>", "<s>", "</s>", "<pad>"]
BYTES = [f"<0x{byte:02X}>" for byte in range(256)]
TEXTS = [
    "the pump is leaking oil near the valve, please send somebody today",
    "the valve is open and the pressure is 3.2 bar; the motor of pump 12 is hot",
    "it's the third time that they're reporting this fault, we'll look at it",
    "die Pumpe verliert Öl, bitte schicken Sie heute jemanden zum Ventil",
    "le moteur chauffe et la vanne reste fermée depuis ce matin",
    "reporting pressures, pumping, pumps, pumped, leaks, leaked, valves, opening, opened",
]


def byte_level(texts: Sequence[str] = TEXTS, size: int = 400, **settings: Any) -> Any:
    """Llama 3's and Qwen's kind: BPE over bytes, with the start put before every text."""
    tokenizer = Tokenizer(models.BPE(**settings))
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(QWEN2_PATTERN), behavior="isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=size,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    return fast(tokenizer)


def fallback(texts: Sequence[str] = TEXTS, size: int = 500) -> Any:
    """Llama 2's and Gemma's kind: BPE over characters, whole texts at once, bytes to fall back to.

    As converted from SentencePiece, every way of putting a token together is a merge.
    """
    tokenizer = Tokenizer(models.BPE(unk_token="<unk>", byte_fallback=True, fuse_unk=True))
    tokenizer.normalizer = normalizers.Replace(" ", "▁")
    tokenizer.pre_tokenizer = pre_tokenizers.Split("▁", behavior="merged_with_next")
    trainer = trainers.BpeTrainer(
        vocab_size=size, special_tokens=[*SPECIAL, *BYTES], show_progress=False
    )
    tokenizer.train_from_iterator(texts, trainer)
    tokenizer.pre_tokenizer = None
    vocab = tokenizer.get_vocab()
    byte_fallback = models.BPE(
        vocab, all_merges(vocab), unk_token="<unk>", byte_fallback=True, fuse_unk=True
    )
    rebuilt = Tokenizer(byte_fallback)
    rebuilt.normalizer = tokenizer.normalizer
    rebuilt.decoder = decoders.Sequence(
        [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse()]
    )
    return fast(rebuilt)


def all_merges(vocab: dict[str, int]) -> list[tuple[str, str]]:
    """Every split of every token into two tokens, in the order of the products' ids."""
    ordered = sorted(vocab, key=vocab.__getitem__)
    return [
        (token[:cut], token[cut:])
        for token in ordered
        if token not in SPECIAL and token not in BYTES
        for cut in range(1, len(token))
        if token[:cut] in vocab and token[cut:] in vocab
    ]


def word_piece(texts: Sequence[str] = TEXTS, size: int = 200) -> Any:
    """BERT's kind."""
    tokenizer = Tokenizer(models.WordPiece(unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.BertNormalizer(lowercase=True)
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.decoder = decoders.WordPiece()
    special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    trainer = trainers.WordPieceTrainer(
        vocab_size=size, special_tokens=special, show_progress=False
    )
    tokenizer.train_from_iterator(texts, trainer)
    vocab = {
        token: len(tokenizer.get_vocab()) - 1 - i for token, i in tokenizer.get_vocab().items()
    }
    tokenizer.model = models.WordPiece(vocab, unk_token="[UNK]")  # special tokens come last
    tokenizer = _anew(tokenizer, special)
    tokenizer.post_processor = processors.BertProcessing(
        ("[SEP]", vocab["[SEP]"]), ("[CLS]", vocab["[CLS]"])
    )
    names = dict(zip(("pad", "unk", "cls", "sep", "mask"), special, strict=True))
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, **{f"{name}_token": token for name, token in names.items()}
    )


def unigram(texts: Sequence[str] = TEXTS, size: int = 200, byte_fallback: bool = False) -> Any:
    """T5's and XLM-R's kind."""
    tokenizer = Tokenizer(models.Unigram())
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
    tokenizer.decoder = decoders.Metaspace()
    trainer = trainers.UnigramTrainer(
        vocab_size=size, special_tokens=SPECIAL, unk_token="<unk>", show_progress=False
    )
    tokenizer.train_from_iterator(texts, trainer)
    pieces = json.loads(tokenizer.to_str())["model"]["vocab"]
    pieces[4:4] = [(name, 0.0) for name in BYTES] if byte_fallback else []
    backwards = [(piece, score) for piece, score in reversed(pieces)]  # special tokens come last
    tokenizer.model = models.Unigram(backwards, len(pieces) - 1, byte_fallback=byte_fallback)
    return fast(_anew(tokenizer, SPECIAL))


def _anew(tokenizer: Any, special: Sequence[str]) -> Any:
    """With the ids that its special tokens now have in its model."""
    described = json.loads(tokenizer.to_str()) | {"added_tokens": []}
    made = Tokenizer.from_str(json.dumps(described))
    made.add_special_tokens(list(special))
    return made


def fast(tokenizer: Any) -> Any:
    """With Llama's special tokens, the start put before every text, and one that is not special."""
    named = dict(zip(("unk", "bos", "eos", "pad"), SPECIAL, strict=True))
    wrapped = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, **{f"{name}_token": token for name, token in named.items()}
    )
    wrapped.add_tokens(["pump 12"])
    start = ("<s>", wrapped.bos_token_id)
    wrapped.backend_tokenizer.post_processor = processors.TemplateProcessing(
        single="<s> $A", pair="<s> $A <s> $B", special_tokens=[start]
    )
    return wrapped


KINDS: dict[str, Callable[..., Any]] = {
    "byte-level BPE": byte_level,
    "BPE that skips merges": lambda *args, **named: byte_level(*args, **named, ignore_merges=True),
    "BPE with bytes": fallback,
    "WordPiece": word_piece,
    "Unigram": unigram,
    "Unigram with bytes": lambda *args, **named: unigram(*args, **named, byte_fallback=True),
}


def classes() -> Iterator[Any]:
    """Tokenizers of classes that build much of themselves when they are loaded."""
    vocab = fallback().get_vocab()
    model = {token: i for token, i in vocab.items() if token != "pump 12"}
    yield LlamaTokenizer(
        vocab=model, merges=all_merges(model), add_bos_token=True, pad_token="<pad>"
    )
    yield GemmaTokenizer(
        vocab=model,
        merges=all_merges(model),
        bos_token="<s>",
        eos_token="</s>",
        pad_token="<pad>",
        mask_token="<unk>",
    )
    yield BertTokenizer(vocab=word_piece().get_vocab())
