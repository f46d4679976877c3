"""Smaller tokenizers as a user meets them: saved, loaded, in a model, in llama.cpp."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import Any

import pytest
import torch
from token_zoo import KINDS, TEXTS, byte_level, classes, fallback, word_piece
from tokenizers import Tokenizer, models
from transformers import AutoTokenizer, BertTokenizer, PreTrainedTokenizerFast

import flyweight.demo
from flyweight.anatomy import family_of
from flyweight.anatomy.gguf import LLAMA
from flyweight.checkpoint import open_checkpoint, save_checkpoint
from flyweight.demo import jobs
from flyweight.errors import OptionError, TeacherError
from flyweight.runtime.gguf import write_gguf
from flyweight.runtime.pack import NEUTRAL
from flyweight.runtime.parity import check_tokenizer
from flyweight.shrink.coverage import coverage
from flyweight.shrink.cut import cut_model
from flyweight.shrink.keep import keep_all
from flyweight.shrink.retoken import rebuild_tokenizer
from flyweight.shrink.token_ids import named_ids, renumber_config
from flyweight.shrink.vocabulary import plan_vocabulary
from zoo import build

TEACHER = Path(flyweight.demo.__file__).parent / "teacher"
CHAT = "{% for m in messages %}{{ bos_token + m['content'] + eos_token }}{% endfor %}"
CLASSES = {type(tokenizer).__name__: tokenizer for tokenizer in classes()}


def halves(texts: Sequence[str]) -> list[str]:
    """Texts of the same words that the tokenizers were not trained on as such."""
    words = [text.split() for text in texts]
    return [" ".join(a[: len(a) // 2] + b[len(b) // 2 :]) for a in words for b in words]


def cut(model: Any, keep: torch.Tensor) -> Any:
    family = family_of(model.config)
    everything = keep_all(family.shape_of(model.config))
    return cut_model(model, family, replace(everything, vocabulary=keep))


@pytest.mark.parametrize("name", [*KINDS, *CLASSES])
def test_loaded_again_it_splits_as_before(name: str, tmp_path: Path) -> None:
    old = CLASSES[name] if name in CLASSES else KINDS[name]()
    old.chat_template = CHAT
    if old.bos_token is None:
        old.chat_template = CHAT.replace("bos", "cls").replace("eos", "sep")
    chat = [{"role": "user", "content": TEXTS[1]}]
    was = old.apply_chat_template(chat, return_dict=False)
    keep = plan_vocabulary(old, [was, *(old(text)["input_ids"] for text in TEXTS[:4])]).keep
    rebuild_tokenizer(old, keep).save_pretrained(tmp_path)
    new = AutoTokenizer.from_pretrained(tmp_path)
    assert type(new) is type(old)
    assert len(new) == len(keep) < len(old)
    assert new.special_tokens_map == old.special_tokens_map
    assert [str(token) for token in new.added_tokens_decoder.values()] == [
        str(token) for token in old.added_tokens_decoder.values()
    ]
    texts = [*TEXTS, *halves(TEXTS), "pump 12 and pump 12", f"{old.pad_token} the valve"]
    checked = 0
    for text in texts:
        ids = old(text)["input_ids"]
        if set(ids) <= set(keep.tolist()):
            checked += 1
            assert keep[new(text)["input_ids"]].tolist() == ids, text
            assert new.decode(new(text)["input_ids"]) == old.decode(ids)
    assert checked >= 10
    pair, batch = ("the pump", "the valve"), ["the pump is hot", "the"]
    assert keep[new(*pair)["input_ids"]].tolist() == old(*pair)["input_ids"]
    padded = new(batch, padding=True)["input_ids"]
    assert keep[torch.tensor(padded)].tolist() == old(batch, padding=True)["input_ids"]
    assert keep[new.apply_chat_template(chat, return_dict=False)].tolist() == was


def test_what_stays_is_checked() -> None:
    tokenizer = byte_level()
    keep = plan_vocabulary(tokenizer, []).keep
    with pytest.raises(OptionError, match="in ascending order"):
        rebuild_tokenizer(tokenizer, keep.flip(0))
    with pytest.raises(OptionError, match=r"keep lacks token 0 and 9 others"):
        rebuild_tokenizer(tokenizer, keep[10:])
    gaps = Tokenizer(models.BPE({"a": 0, "b": 1, "ab": 3}, [("a", "b")]))
    gapped = PreTrainedTokenizerFast(tokenizer_object=gaps, eos_token="</s>")  # counted to be 3 too
    with pytest.raises(TeacherError, match=r"two tokens .* share an id"):
        rebuild_tokenizer(gapped, torch.tensor([0, 1, 3]))


def test_a_class_that_reads_something_else_is_refused() -> None:
    vocab = word_piece().get_vocab()
    changed = BertTokenizer(vocab=vocab)
    described = changed.backend_tokenizer.normalizer
    described.lowercase = False  # BertTokenizer makes its normaliser anew from its own settings
    changed.backend_tokenizer.normalizer = described
    with pytest.raises(TeacherError, match="does not read the normalizer"):
        rebuild_tokenizer(changed, plan_vocabulary(changed, []).keep)


def test_settings_of_the_library_itself_are_renumbered() -> None:
    for old in (byte_level(), word_piece()):
        old(["the pump", "the"], padding=True)  # transformers leaves it switched on within
        keep = plan_vocabulary(old, []).keep
        padding = rebuild_tokenizer(old, keep).backend_tokenizer.padding
        assert (padding["pad_token"], keep[padding["pad_id"]]) == (old.pad_token, old.pad_token_id)


def test_an_added_token_without_a_row_stays_without_one() -> None:
    """Gemma 3's text models have one for pictures, which no row belongs to."""
    old = fallback()
    rows = len(old)
    old.add_tokens(["<picture>"], special_tokens=True)
    vocabulary = plan_vocabulary(old, [old(TEXTS[0])["input_ids"]], rows=rows)
    new = rebuild_tokenizer(old, vocabulary.keep, rows=rows)
    assert new.convert_tokens_to_ids("<picture>") == len(vocabulary)
    assert vocabulary.keep[new(TEXTS[0])["input_ids"]].tolist() == old(TEXTS[0])["input_ids"]


@pytest.mark.parametrize("family", ["llama", "qwen2", "gemma2", "modernbert", "bert"])
@torch.inference_mode()
def test_a_model_says_the_same_of_the_tokens_that_stay(family: str) -> None:
    """What goes into its first block is the same, and so is what leaves its last, bit for bit."""
    tokenizer = word_piece() if family == "bert" else byte_level()
    model = build(family, vocab_size=len(tokenizer) + 11)
    ids = [tokenizer(text)["input_ids"] for text in TEXTS[:3]]
    named = named_ids(model.config)
    keep = plan_vocabulary(tokenizer, ids, rows=model.config.vocab_size, named=named).keep
    new = rebuild_tokenizer(tokenizer, keep)
    small = cut(model, keep)
    small.config = renumber_config(small.config, keep)
    assert named_ids(small.config) == {keep.tolist().index(i) for i in named}
    for text, was in zip(TEXTS, ids, strict=False):
        now = torch.tensor([new(text)["input_ids"]])
        before, after = (
            model(torch.tensor([was]), output_hidden_states=True),
            small(now, output_hidden_states=True),
        )
        assert torch.equal(before.hidden_states[-1], after.hidden_states[-1])
        if "bert" in family:
            assert torch.equal(before.logits, after.logits)
            continue
        head = small.get_output_embeddings().weight
        assert torch.equal(head, model.get_output_embeddings().weight[keep])
        # a matrix product may add up in another order when it has other sizes
        torch.testing.assert_close(after.logits, before.logits[..., keep], rtol=0, atol=1e-5)


@pytest.fixture(scope="module")
def cut_teacher(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, torch.Tensor]:
    """The embedded teacher with the tokens of 400 lessons, and their old ids."""
    checkpoint = open_checkpoint(TEACHER)
    tokenizer, model = checkpoint.tokenizer(), checkpoint.model()
    said = [message["content"] for lesson in islice(jobs.lessons(1), 400) for message in lesson]
    keep = plan_vocabulary(
        tokenizer,
        [tokenizer(text)["input_ids"] for text in said],
        rows=checkpoint.shape.vocabulary,
        named=named_ids(model.config, model.generation_config),
    ).keep
    small = cut(model, keep)
    small.config = renumber_config(small.config, keep)
    small.generation_config = renumber_config(model.generation_config, keep)
    folder = tmp_path_factory.mktemp("vocabulary")
    save_checkpoint(small, rebuild_tokenizer(tokenizer, keep), folder)
    return folder, keep


@torch.inference_mode()
def test_the_teacher_answers_as_before(cut_teacher: tuple[Path, torch.Tensor]) -> None:
    folder, keep = cut_teacher
    old, new = open_checkpoint(TEACHER), open_checkpoint(folder)
    assert new.shape.vocabulary == len(keep) < old.shape.vocabulary
    old_tokens, new_tokens, teacher, student = (
        old.tokenizer(), new.tokenizer(), old.model(), new.model()
    )  # fmt: skip
    checked = 0
    for lesson in islice(jobs.lessons(2), 40):
        was = old_tokens.apply_chat_template(lesson, return_dict=False)
        if not set(was) <= set(keep.tolist()):
            continue
        checked += 1
        now = new_tokens.apply_chat_template(lesson, return_dict=False)
        assert keep[now].tolist() == was
        before = teacher(torch.tensor([was])).logits[..., keep]
        torch.testing.assert_close(student(torch.tensor([now])).logits, before, rtol=0, atol=1e-4)
    assert checked >= 10


def test_llama_cpp_splits_like_the_smaller_tokenizer(
    cut_teacher: tuple[Path, torch.Tensor], tmp_path: Path
) -> None:
    folder, _ = cut_teacher
    write_gguf(folder, tmp_path / "model.gguf", 16, LLAMA)
    texts = [*NEUTRAL, *(lesson[1]["content"] for lesson in islice(jobs.lessons(3), 40))]
    assert check_tokenizer(folder, tmp_path / "model.gguf", texts) == len(texts)


def test_without_any_data_one_merge_stays_since_llama_cpp_needs_one(
    make_llama: Callable[..., Path], tmp_path: Path
) -> None:
    old = byte_level()
    keep = plan_vocabulary(old, []).keep
    folder = make_llama(tmp_path / "model", vocab_size=len(keep))
    rebuild_tokenizer(old, keep).save_pretrained(folder)
    write_gguf(folder, tmp_path / "model.gguf", 16, LLAMA)
    assert check_tokenizer(folder, tmp_path / "model.gguf", NEUTRAL) == len(NEUTRAL)


def test_coverage_counts_what_is_lost() -> None:
    old = byte_level()
    keep = plan_vocabulary(old, [old(TEXTS[0])["input_ids"]]).keep
    report = coverage(old, rebuild_tokenizer(old, keep), keep, TEXTS)
    assert (report.texts, report.same, report.unreadable) == (len(TEXTS), 1, 0)
    assert report.before == sum(
        len(old(text, add_special_tokens=False).input_ids) for text in TEXTS
    )
    assert report.after > report.before
    assert report.worst[0].after / report.worst[0].before > 1 + report.growth
    assert str(report).startswith("1 of 6 texts (16.7%) are split into the same tokens;")
    whole = coverage(old, old, torch.arange(len(old)), TEXTS)
    assert (whole.share, whole.growth, whole.worst, whole.lost) == (1.0, 0.0, (), ())


def test_real_questions_are_split_as_before(shared: Path) -> None:
    """Banking77: the vocabulary of 1,500 train questions, tried on 600 test questions."""
    import csv

    def read(name: str, most: int) -> list[str]:
        with (shared / "data" / "banking77" / name).open(encoding="utf-8") as file:
            return [row["text"] for row in islice(csv.DictReader(file), most)]

    train, test = read("train.csv", 1500), read("test.csv", 600)
    for kind in ("BPE that skips merges", "WordPiece", "Unigram"):
        old = KINDS[kind](read("train.csv", 2000), 1500)
        keep = plan_vocabulary(old, old(train)["input_ids"]).keep
        new = rebuild_tokenizer(old, keep)
        kept, held = set(keep.tolist()), 0
        for text in test:
            ids = old(text)["input_ids"]
            if set(ids) <= kept:
                held += 1
                assert keep[new(text)["input_ids"]].tolist() == ids, (kind, text)
        report = coverage(old, new, keep, test)
        assert len(keep) < len(old)
        assert held == report.same >= 300
