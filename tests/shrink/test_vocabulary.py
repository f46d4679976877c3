"""What stays, against Hugging Face's own encoders, on models drawn at random."""

from __future__ import annotations

import json
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from token_zoo import KINDS, TEXTS, byte_level, fallback, unigram, word_piece
from tokenizers import Tokenizer, models
from transformers import PreTrainedTokenizerFast

from flyweight.errors import OptionError, TeacherError
from flyweight.shrink.retoken import cut_description, rebuild_tokenizer
from flyweight.shrink.subwords import BYTES, subwords_of
from flyweight.shrink.token_ids import named_ids, renumber_config
from flyweight.shrink.vocabulary import count_tokens, plan_vocabulary, template_texts

WORDS = st.text("abcd", min_size=1, max_size=10)
TOKENS = st.lists(st.text("abc", min_size=2, max_size=5), min_size=1, max_size=20, unique=True)


@st.composite
def bpe_models(draw: st.DrawFn, letters: str = "abcd", **settings: Any) -> models.BPE:
    """Tokens made of tokens, merged in any order: far wilder than what training gives."""
    vocab = list(letters)
    for _ in range(draw(st.integers(2, 20))):
        made = draw(st.sampled_from(vocab)) + draw(st.sampled_from(vocab))
        vocab += [made] * (made not in vocab and len(made) <= 8)
    splits = [
        (token[:cut], token[cut:])
        for token in vocab
        for cut in range(1, len(token))
        if token[:cut] in vocab and token[cut:] in vocab
    ]
    merges = draw(st.permutations(splits))
    ids = {token: i for i, token in enumerate([*BYTES, *draw(st.permutations(vocab))])}
    return models.BPE(ids, merges[draw(st.integers(0, 2)) :], **settings)


@st.composite
def word_piece_models(draw: st.DrawFn) -> models.WordPiece:
    """Every character of a token has a row of its own, as in trained vocabularies; d none."""
    starts, inner = draw(TOKENS), draw(TOKENS)
    vocab = ["[UNK]", *"abc", *starts, *(f"##{token}" for token in [*"abc", *inner])]
    return models.WordPiece({token: i for i, token in enumerate(vocab)}, unk_token="[UNK]")


@st.composite
def unigram_models(draw: st.DrawFn) -> models.Unigram:
    """Coarse scores, so that many paths are equally good; d is read only within other pieces."""
    tokens = [*"abc", *draw(st.lists(st.text("abcd", min_size=2, max_size=5), unique=True))]
    scores = draw(st.lists(st.integers(-6, -1), min_size=len(tokens), max_size=len(tokens)))
    pieces = [(token, 5.0 * score) for token, score in zip(tokens, scores, strict=True)]
    return models.Unigram([*pieces, ("<unk>", 0.0)], len(pieces))


MODELS = {
    "BPE": bpe_models(),
    "BPE that skips merges": bpe_models(ignore_merges=True),
    "BPE with bytes": bpe_models("aöžß", byte_fallback=True),  # characters may go, but ASCII's
    "WordPiece": word_piece_models(),
    "Unigram": unigram_models(),
}


@pytest.mark.parametrize("kind", MODELS)
@settings(max_examples=150, deadline=None)
@given(data=st.data())
def test_a_text_whose_tokens_stay_is_split_as_before(kind: str, data: st.DataObject) -> None:
    old = Tokenizer(data.draw(MODELS[kind]))
    texts = data.draw(st.lists(WORDS, min_size=1, max_size=20))
    if kind == "BPE with bytes":
        texts = [text.translate(str.maketrans("bcd", "öžß")) for text in texts]
    described = json.loads(old.to_str())
    subwords = subwords_of(described)
    used = {i for text in texts[: data.draw(st.integers(0, 4))] for i in old.encode(text).ids}
    keep = sorted({each for i in subwords.always() | used for each in subwords.needs(i)})
    place = {i: new for new, i in enumerate(keep)}
    new = Tokenizer.from_str(json.dumps(cut_description(described, place)))
    for text in texts:
        ids = old.encode(text).ids
        if set(ids) <= set(keep):
            assert [keep[i] for i in new.encode(text).ids] == ids, text


def test_a_token_that_no_merge_reaches_needs_nothing() -> None:
    """Llama 3 writes such tokens only where they are whole words."""
    vocab = {token: i for i, token in enumerate(["a", "b", "c", "ab", "bc", "abc"])}
    model = models.BPE(vocab, [("b", "c"), ("a", "b"), ("ab", "c")], ignore_merges=True)
    old = Tokenizer(model)
    assert old.encode("abc").tokens == ["abc"]
    assert old.encode("abca").tokens == ["a", "bc", "a"], "bc comes first, and ab c is never met"
    subwords = subwords_of(json.loads(old.to_str()))
    assert subwords.needs(vocab["abc"]) == {vocab["abc"]}
    assert subwords.needs(vocab["bc"]) == {vocab[token] for token in ("b", "c", "bc")}


def test_a_word_that_was_unknown_may_be_read_where_a_character_has_no_row() -> None:
    """The one exception, which subwords.py states: `c` stands only within another token."""
    vocab = {token: i for i, token in enumerate(["[UNK]", "a", "b", "##b", "ab", "##bc"])}
    described = json.loads(Tokenizer(models.WordPiece(vocab, unk_token="[UNK]")).to_str())
    place = {old: new for new, old in enumerate([0, 1, 2, 3, 5])}
    new = Tokenizer.from_str(json.dumps(cut_description(described, place)))
    assert Tokenizer.from_str(json.dumps(described)).encode("abc").tokens == ["[UNK]"]
    assert new.encode("abc").tokens == ["a", "##bc"]


def test_the_lowest_score_stays_since_unknown_pieces_are_scored_by_it() -> None:
    pieces = [("q", -14.0), ("a", -1.0), ("qa", -1.0), ("ab", -14.0), ("zz", -30.0), ("<unk>", 0.0)]
    old = Tokenizer(models.Unigram(pieces, 5))
    assert old.encode("qab").tokens == ["q", "ab"], "-28; qa and an unknown b come to -1 - 40"
    without = Tokenizer(models.Unigram([*pieces[:4], pieces[5]], 4))
    assert without.encode("qab").tokens == ["qa", "b"], "-1 - 24"
    assert 4 in subwords_of(json.loads(old.to_str())).always()


@pytest.mark.parametrize("kind", KINDS)
def test_the_data_s_tokens_and_what_always_stays_stay(kind: str) -> None:
    tokenizer = KINDS[kind]()
    used = [tokenizer(text)["input_ids"] for text in TEXTS[:2]]
    vocabulary = plan_vocabulary(tokenizer, used, rows=len(tokenizer) + 7)
    kept = set(vocabulary.keep.tolist())
    assert vocabulary.keep.tolist() == sorted(kept)
    assert set(count_tokens(used)) <= kept
    assert set(tokenizer.all_special_ids) | set(tokenizer.added_tokens_decoder) <= kept
    assert len(vocabulary) < len(tokenizer) == vocabulary.rows - 7, "rows without a token go"
    assert vocabulary.saved_bytes(64, tied=False) == (len(tokenizer) + 7 - len(kept)) * 64 * 2 * 2


def test_fewer_rows_keep_what_is_used_most() -> None:
    tokenizer = byte_level()
    counts = count_tokens(tokenizer(text)["input_ids"] for text in TEXTS)
    whole = plan_vocabulary(tokenizer, counts)
    few = plan_vocabulary(tokenizer, counts, most=whole.always + 20)
    assert whole.always <= len(few) <= whole.always + 20 < len(whole)
    subwords = subwords_of(json.loads(tokenizer.backend_tokenizer.to_str()))
    kept = set(few.keep.tolist())
    assert all(subwords.needs(i) <= kept for i in kept), "nothing that a token is made from is lost"
    gone = {i: n for i, n in counts.items() if i not in kept}
    stayed = {i: n for i, n in counts.items() if i in kept - set(range(260))}
    assert max(gone.values()) <= max(stayed.values())
    twice = plan_vocabulary(tokenizer, counts, least=2)
    assert len(twice) < len(whole)


def test_what_cannot_be_planned_is_refused() -> None:
    tokenizer = byte_level()
    with pytest.raises(OptionError, match=r"100 rows at the most: \d+ always stay"):
        plan_vocabulary(tokenizer, {}, most=100)
    with pytest.raises(OptionError, match="the data hold token 9999"):
        plan_vocabulary(tokenizer, [[5, 9999]])
    with pytest.raises(OptionError, match="the config names token 500"):
        plan_vocabulary(tokenizer, {}, named={500})
    words = Tokenizer(models.WordLevel({"a": 0, "<unk>": 1}, unk_token="<unk>"))
    with pytest.raises(TeacherError, match="is a WordLevel model"):
        plan_vocabulary(PreTrainedTokenizerFast(tokenizer_object=words), {})
    suffixed = Tokenizer(models.BPE({"a</w>": 0}, [], end_of_word_suffix="</w>"))
    with pytest.raises(TeacherError, match=r"end_of_word_suffix \('</w>'\)"):
        plan_vocabulary(PreTrainedTokenizerFast(tokenizer_object=suffixed), {})
    with pytest.raises(TeacherError, match="not a fast tokenizer"):
        plan_vocabulary(object(), {})


def test_any_text_can_still_be_encoded() -> None:
    """Of characters beyond ASCII the bytes are enough, where there are bytes to fall back to."""
    texts = ["Ärger\twith 東京 🙂", "\x00 naïve ½", TEXTS[3]]
    for make in (byte_level, fallback):
        tokenizer = make()
        described = json.loads(tokenizer.backend_tokenizer.to_str())
        keep = plan_vocabulary(tokenizer, []).keep.tolist()
        cut = cut_description(described, {old: new for new, old in enumerate(keep)})
        new = Tokenizer.from_str(json.dumps(cut))
        for text in texts:
            old_ids = tokenizer.backend_tokenizer.encode(text, add_special_tokens=False).ids
            new_ids = new.encode(text, add_special_tokens=False).ids
            assert new.decode(new_ids) == tokenizer.decode(old_ids) == text
    for make in (word_piece, unigram):
        known = make()
        keep = plan_vocabulary(known, []).keep
        new = rebuild_tokenizer(known, keep)
        for text in [*TEXTS, "zuzaz", *(text[::-1] for text in TEXTS)]:
            was, now = (each(text)["input_ids"] for each in (known, new))
            assert was.count(known.unk_token_id) == now.count(new.unk_token_id)
            assert len(now) >= len(was)


def test_what_the_chat_template_may_write_stays() -> None:
    tokenizer = byte_level([*TEXTS, *["<|system|> <|user|>"] * 9])
    tokenizer.chat_template = (
        "{% for message in messages %}{% generation %}{{ '<|' + message.role + '|>' }}"
        "{% endgeneration %}{% if loop.last %}{% break %}{% endif %}{% endfor %} please send"
    )
    assert set(template_texts(tokenizer.chat_template)) == {"<|", "|>", " please send"}
    kept = set(plan_vocabulary(tokenizer, []).keep.tolist())
    assert set(tokenizer(" please send", add_special_tokens=False)["input_ids"]) <= kept
    assert template_texts("{% unheard of %}") == []


def test_configs_are_renumbered() -> None:
    from transformers import Gemma3Config, GenerationConfig

    keep = torch.tensor([0, 2, 5, 7, 9])
    generation = GenerationConfig(
        bos_token_id=2,
        eos_token_id=[5, 9],
        pad_token_id=-1,
        suppress_tokens=[1, 7],
        bad_words_ids=[[5, 7], [5, 6]],
    )
    assert named_ids(generation) == {2, 5, 9}
    new = renumber_config(generation, keep)
    assert (new.bos_token_id, new.eos_token_id, new.pad_token_id) == (1, [2, 4], -1)
    assert (new.suppress_tokens, new.bad_words_ids) == ([3], [[2, 3]])
    assert generation.eos_token_id == [5, 9], "the original is as it was"
    text: dict[str, Any] = {"bos_token_id": 2, "eos_token_id": 5, "pad_token_id": 0}
    nested = Gemma3Config(
        text_config=text, boi_token_index=7, eoi_token_index=7, image_token_index=9
    )
    changed = renumber_config(nested, keep)
    assert (changed.image_token_index, changed.text_config.eos_token_id) == (4, 2)
    with pytest.raises(OptionError, match="eos_token_id is 6, but token 6 does not stay"):
        renumber_config(GenerationConfig(eos_token_id=6), keep)
    with pytest.raises(OptionError, match="sequence_bias"):
        renumber_config(GenerationConfig(sequence_bias=[[[5], 1.0]]), keep)
