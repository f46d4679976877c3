"""Every engine: the same answers, the same grammar, the same scores, whatever runs the model."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import AutoModelForCausalLM

from flyweight.anatomy.gguf import LLAMA
from flyweight.errors import EngineError, OptionError
from flyweight.runtime.constraint import Constraint
from flyweight.runtime.engine import Engine, Generation, Piece
from flyweight.runtime.gguf import write_gguf
from flyweight.runtime.llama import LlamaEngine
from flyweight.runtime.torch_engine import TorchEngine

SCHEMA = {
    "type": "object",
    "properties": {"pump": {"type": "integer", "maximum": 99}, "state": {"enum": ["ok", "hot"]}},
    "required": ["pump", "state"],
    "additionalProperties": False,
}


@pytest.fixture(scope="module")
def llama(tiny_files: dict[int, Path]) -> Iterator[Engine]:
    with LlamaEngine(tiny_files[16], context=320, streams=3) as engine:
        yield engine


@pytest.fixture(scope="module")
def in_torch(tiny_llama: Path) -> Iterator[Engine]:
    with TorchEngine(tiny_llama, context=320, streams=3, threads=1) as engine:
        yield engine


@pytest.fixture(params=["llama", "in_torch"])
def engine(request: pytest.FixtureRequest) -> Engine:
    return request.getfixturevalue(request.param)


def test_both_answer_alike_alone_and_in_batches(
    llama: Engine,
    in_torch: Engine,
    prompts: list[list[int]],
    alike: Callable[[Generation, list[int]], bool],
) -> None:
    given = prompts[:9]
    theirs = [llama.generate(prompt, 12, top=2) for prompt in given]
    alone = [in_torch.generate(prompt, 12, top=2) for prompt in given]
    together = in_torch.generate_many(given, 12)
    for one, other, third in zip(theirs, alone, together, strict=True):
        assert alike(one, other.ids)
        assert alike(one, third.ids)
        pairs = zip(one.ids, other.ids, strict=False)
        shared = next((place for place, (a, b) in enumerate(pairs) if a != b), len(other.top))
        for here, there in zip(one.top[:shared], other.top[:shared], strict=False):
            if here:  # not the part of a character
                assert here[0][1] == pytest.approx(there[0][1], abs=0.03)
    assert sum(bool(here) for one in theirs for here in one.top) > 60
    assert sum(a.ids == b.ids for a, b in zip(theirs, alone, strict=True)) > 5
    assert all(answer.seconds > 0 and answer.prompt_seconds > 0 for answer in alone)


def test_a_given_answer_is_scored_as_transformers_scores_it(
    engine: Engine, tiny_llama: Path, prompts: list[list[int]]
) -> None:
    model = AutoModelForCausalLM.from_pretrained(tiny_llama, dtype=torch.float32)
    pairs = [
        (prompt, answer[:5]) for prompt, answer in zip(prompts[:7], prompts[7:14], strict=True)
    ]
    pairs.append((prompts[0], engine.tokenize("½ – 今天", add_special=False)))
    pairs.append((prompts[0], engine.generate(prompts[0], 4).ids))
    done: list[int] = []
    scores = engine.score_many(pairs, on_done=lambda: done.append(1))
    assert len(done) == len(pairs)
    for (prompt, answer), score in zip(pairs, scores, strict=True):
        with torch.inference_mode():
            logits = model(input_ids=torch.tensor([prompt + answer])).logits[
                0, len(prompt) - 1 : -1
            ]
        said = logits.log_softmax(-1)[range(len(answer)), answer]
        assert score.log_probabilities == pytest.approx(said.numpy(), abs=0.05)
        assert score.total == pytest.approx(float(said.sum()), abs=0.2)
    assert scores[-1].greedy
    assert not all(score.greedy for score in scores[:-1])


def test_a_vector_is_the_mean_of_the_last_hidden_states(
    engine: Engine, tiny_llama: Path, prompts: list[list[int]]
) -> None:
    model = AutoModelForCausalLM.from_pretrained(tiny_llama, dtype=torch.float32)
    with torch.inference_mode():
        hidden = model.base_model(input_ids=torch.tensor([prompts[0]])).last_hidden_state[0].mean(0)
    vector = engine.embed(prompts[0])
    assert np.linalg.norm(vector) == pytest.approx(1, abs=1e-5)
    assert vector @ (hidden / hidden.norm()).numpy() > 0.999


@pytest.mark.parametrize(
    ("constraint", "allowed"),
    [
        (Constraint.regex(r"[0-9]{2}/[a-f]+x"), lambda text: re.fullmatch(r"\d\d/[a-f]+x", text)),
        (
            Constraint.lark('start: "ok" | "hot" MARK\nMARK: /!{1,3}/'),
            lambda text: re.fullmatch(r"ok|hot!{1,3}", text),
        ),
        (Constraint.json_schema(SCHEMA), lambda text: set(json.loads(text)) == {"pump", "state"}),
    ],
    ids=["regex", "lark", "schema"],
)
def test_a_grammar_is_kept_and_is_the_same_one_in_both(
    llama: Engine,
    in_torch: Engine,
    prompts: list[list[int]],
    constraint: Constraint,
    allowed: Callable[[str], object],
) -> None:
    for place, prompt in enumerate(prompts[:6]):
        for engine, other in ((llama, in_torch), (in_torch, llama)):
            said = engine.generate(prompt, 60, constraint=constraint, temperature=1.0, seed=place)
            if said.stop_id is not None:  # else the limit came first
                assert allowed(said.text)
            ids = [*said.ids, *([] if said.stop_id is None else [said.stop_id])]
            forced = Constraint.tokens(said.ids)
            assert other.generate(prompt, len(ids) + 1, constraint=forced).ids == said.ids


def test_what_no_engine_can_take_is_refused_before_it_runs() -> None:
    for wrong in (
        lambda: Constraint.json_schema({"type": "nosuch"}),
        lambda: Constraint.json_schema("{"),
        lambda: Constraint.json_schema("[1]"),
        lambda: Constraint.json_schema({"x-guidance": 3}),
        lambda: Constraint.json_schema("[" * 100_000),
        lambda: Constraint.regex("(("),
        lambda: Constraint.regex("a(?=b)"),
        lambda: Constraint.lark('start: "a" | ('),
        lambda: Constraint.lark('begin: "a"'),
    ):
        with pytest.raises(OptionError) as raised:
            wrong()
        assert "\n" not in str(raised.value)


def test_what_was_read_is_not_read_again(engine: Engine, prompts: list[list[int]]) -> None:
    first = [*prompts[0], *range(20, 200)]
    engine.generate(first, 4, reuse=True)
    longer = [*first, *prompts[1]]
    again = engine.generate(longer, 8, reuse=True)
    assert again.prompt_tokens <= len(prompts[1]) + 1
    assert again.ids == engine.generate(longer, 8).ids
    other = [*first[:100], *prompts[2]]
    parted = engine.generate(other, 8, reuse=True)
    assert parted.ids == engine.generate(other, 8).ids


def test_a_text_ends_the_answer_before_it(engine: Engine, prompts: list[list[int]]) -> None:
    whole = engine.generate(prompts[0], 16).text
    stop = whole[4:6]
    said = engine.generate(prompts[0], 16, stop=[stop])
    assert said.text == whole.partition(stop)[0]
    assert said.stop_id is None
    alone = [engine.generate(prompt, 16, stop=["a", "e"]) for prompt in prompts[:6]]
    for one, other in zip(
        alone, engine.generate_many(prompts[:6], 16, stop=["a", "e"]), strict=True
    ):
        assert (one.text, one.stop_id) == (other.text, other.stop_id)
    for wrong in ({"stop": [""]}, {"top": -1}, {"temperature": float("nan")}):
        with pytest.raises(OptionError):
            engine.generate(prompts[0], 4, **wrong)


def test_text_comes_in_whole_characters(engine: Engine, prompts: list[list[int]]) -> None:
    for prompt in prompts[:6]:
        pieces: list[Piece] = []
        streamed = engine.stream(prompt, 10, pieces.append, reuse=False)
        assert "".join(piece.text for piece in pieces) == streamed.text
        assert streamed.written == 10
        assert engine.generate(prompt, 10).text.removeprefix(streamed.text).strip("\ufffd") == ""
    with pytest.raises(ZeroDivisionError):
        engine.stream(prompts[0], 4, lambda piece: 1 / 0)
    assert engine.count_tokens("12 bar") == len(engine.tokenize("12 bar", add_special=False))


def test_a_stream_is_answered_as_if_it_was_asked_for_at_once(
    engine: Engine, prompts: list[list[int]]
) -> None:
    for prompt in prompts[:4]:
        pieces: list[Piece] = []
        wish = {"temperature": 0.8, "seed": 3, "top": 2}
        whole = engine.generate(prompt, 12, **wish)
        said = engine.stream(prompt, 12, pieces.append, reuse=False, **wish)
        assert whole.text.removeprefix(said.text).strip("\ufffd") == ""
        assert said.written == whole.written
        told = [each for piece in pieces for each in piece.told]
        assert len(told) >= len(whole.ids) // 2
        places = list(zip(whole.ids, whole.top, strict=False))
        for each in told:
            best = [top[0] for i, top in places if i == each.id and top]
            assert not best or each.top[0] in [pytest.approx(one, abs=0.02) for one in best]
            assert each.log_probability <= each.top[0][1] + 1e-6


def test_a_text_that_stops_is_never_given_on(engine: Engine, prompts: list[list[int]]) -> None:
    for prompt in prompts[:6]:
        whole = engine.generate(prompt, 16).text
        stop = re.findall(r"[ -~]{2}", whole)[-1]
        pieces: list[Piece] = []
        said = engine.stream(prompt, 16, pieces.append, reuse=False, stop=["nowhere", stop])
        assert said.stopped
        assert "".join(piece.text for piece in pieces) == said.text == whole.partition(stop)[0]


def test_the_likeliest_few_are_drawn_from(engine: Engine, prompts: list[list[int]]) -> None:
    greedy = engine.generate(prompts[0], 12)
    drawn = engine.generate(prompts[0], 12, temperature=2.0, top_p=1e-6, seed=5)
    assert drawn.ids == greedy.ids
    top = engine.generate(prompts[0], 1, top=600).top[0]
    allowed, mass = set(), 0.0
    for i, log_probability in top:
        if mass >= 0.3:
            break
        allowed.add(i)
        mass += float(np.exp(log_probability))
    found = {
        engine.generate(prompts[0], 1, temperature=1.0, top_p=0.3, seed=seed).ids[0]
        for seed in range(40)
    }
    assert len(found) > 1
    assert found <= allowed
    for wrong in (0.0, 1.1, float("nan")):
        with pytest.raises(OptionError, match="top_p"):
            engine.generate(prompts[0], 1, top_p=wrong)


def test_what_does_not_fit_is_refused_and_the_engine_goes_on(engine: Engine) -> None:
    with pytest.raises(EngineError, match="a prompt of 315 tokens and an answer of 10"):
        engine.generate([7] * 315, 10)
    with pytest.raises(OptionError, match="at least one token"):
        engine.score([7], [])
    with pytest.raises(OptionError, match="at least one token"):
        engine.embed([])
    assert len(engine.generate([7, 8, 9], 4).ids) == 4


def test_a_state_is_taken_up_where_it_was_left(
    tiny_files: dict[int, Path], prompts: list[list[int]], tmp_path: Path
) -> None:
    long = [*prompts[0], *range(20, 200)]
    file = tmp_path / "state"
    with LlamaEngine(tiny_files[16], context=320) as engine:
        wanted = engine.generate(long, 8, reuse=True)
        engine.save_state(file)
    with LlamaEngine(tiny_files[16], context=320) as engine:
        engine.load_state(file)
        again = engine.generate(long, 8, reuse=True)
        assert (again.ids, again.prompt_tokens) == (wanted.ids, 1)
        good = file.read_bytes()
        for name, content in {
            "cut": good[: len(good) // 2],
            "changed": good[:-9] + bytes([good[-9] ^ 1]) + good[-8:],
            "empty": b"",
            "other": b"GGUF" + good,
        }.items():
            (tmp_path / name).write_bytes(content)
            with pytest.raises(EngineError, match=f"{name}: is no saved state"):
                engine.load_state(tmp_path / name)
        assert engine.generate(long, 8, reuse=True).ids == wanted.ids
    with (
        LlamaEngine(tiny_files[8], context=320) as other,
        pytest.raises(EngineError, match="another model"),
    ):
        other.load_state(file)


def test_keys_and_values_in_8_bits_say_nearly_the_same(
    make_llama: Callable[..., Path],
    tiny_files: dict[int, Path],
    prompts: list[list[int]],
    tmp_path: Path,
) -> None:
    folder = make_llama(tmp_path / "model", hidden_size=128)  # heads of 32 dimensions
    write_gguf(folder, tmp_path / "model.gguf", 16, LLAMA)
    pair = (prompts[30], prompts[7][:5])
    with LlamaEngine(tmp_path / "model.gguf", context=320) as engine:
        wanted = engine.score(*pair).log_probabilities
    with LlamaEngine(tmp_path / "model.gguf", context=320, kv_bits=8) as engine:
        near = engine.score(*pair).log_probabilities
    assert near == pytest.approx(wanted, abs=0.3)
    assert (near != wanted).any()
    with pytest.raises(OptionError, match="kv_bits is 5"):
        LlamaEngine(tiny_files[16], kv_bits=5)


def test_in_16_bits_only_the_weights_are_rounded(tiny_llama: Path) -> None:
    engine = TorchEngine(tiny_llama, context=64, threads=1, dtype="bfloat16")
    assert {weight.dtype for weight in engine._model.parameters()} == {torch.bfloat16}
    wanted = AutoModelForCausalLM.from_pretrained(tiny_llama, dtype=torch.bfloat16)
    for (name, turn), (_, given) in zip(
        engine._model.named_buffers(), wanted.named_buffers(), strict=True
    ):
        assert turn.dtype == torch.float32, name  # RoPE's frequencies
        assert torch.equal(turn, given)
