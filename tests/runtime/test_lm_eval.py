"""The engines as models of lm-eval, held against its own Hugging Face back end."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from flyweight.anatomy.gguf import LLAMA
from flyweight.errors import OptionError
from flyweight.runtime.gguf import write_gguf

pytest.importorskip("lm_eval")

from lm_eval.api.instance import Instance
from lm_eval.models.huggingface import HFLM

from flyweight.runtime.lm_eval_model import EngineModel

TEXTS = (
    ("the pump is", " hot"),
    ("the pump is ", "cold and the valve is open"),
    ("", "a valve"),
    ("12 bar, ", "naïve ½"),
    ("what", "? it's 7 o'clock"),
)
LONG = "the pump at the valve is hot and the bar is low, " * 30  # more than the context


@pytest.fixture(scope="module")
def packed(make_llama: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = make_llama(tmp_path_factory.mktemp("packed") / "model", max_position_embeddings=128)
    write_gguf(folder, folder / "model-f16.gguf", 16, LLAMA)
    return folder


@pytest.fixture(scope="module")
def reference(packed: Path) -> HFLM:
    return HFLM(pretrained=str(packed), dtype="float32", device="cpu", batch_size=4)


@pytest.fixture(params=["torch", "llama.cpp"])
def model(request: pytest.FixtureRequest, packed: Path) -> Iterator[EngineModel]:
    with EngineModel.opened(packed, engine=request.param, streams=3) as opened:
        yield opened


def requests(kind: Any, *arguments: tuple[Any, ...]) -> list[Instance]:
    return [
        Instance(request_type=kind, doc={}, arguments=each, idx=place)
        for place, each in enumerate(arguments)
    ]


def test_likelihoods_and_choices_are_those_of_its_own_back_end(
    model: EngineModel, reference: HFLM
) -> None:
    wanted = reference.loglikelihood(requests("loglikelihood", *TEXTS), disable_tqdm=True)
    found = model.loglikelihood(requests("loglikelihood", *TEXTS), disable_tqdm=True)
    near = 1e-3 if model.engine.name == "torch" else 0.3  # sums over up to 26 tokens at 16 bits
    for (here, greedy), (there, also) in zip(found, wanted, strict=True):
        assert here == pytest.approx(there, abs=near)
        assert greedy == also
    texts = requests("loglikelihood_rolling", *((text + text,) for _, text in TEXTS))
    rolled = model.loglikelihood_rolling(texts, disable_tqdm=True)
    assert rolled == pytest.approx(
        reference.loglikelihood_rolling(texts, disable_tqdm=True), abs=near * 2
    )


def test_greedy_answers_end_where_its_own_end(model: EngineModel, reference: HFLM) -> None:
    whole = requests("generate_until", ("the pump is", {"until": [], "max_gen_toks": 9}))
    [text] = reference.generate_until(whole, disable_tqdm=True)
    assert model.generate_until(whole, disable_tqdm=True) == [text]
    cut = requests("generate_until", ("the pump is", {"until": [text[2:4]], "max_gen_toks": 9}))
    assert model.generate_until(cut, disable_tqdm=True) == [text.partition(text[2:4])[0]]


def test_what_is_too_long_loses_its_beginning(model: EngineModel, reference: HFLM) -> None:
    long = requests("loglikelihood", (LONG, "hot"), ("a", LONG))
    found = model.loglikelihood(long, disable_tqdm=True)
    assert len(found) == 2
    [rolled] = model.loglikelihood_rolling(requests("r", (LONG,)), disable_tqdm=True)
    ids = model.tok_encode(LONG)
    assert rolled / len(ids) == pytest.approx(
        reference.loglikelihood_rolling(requests("r", (LONG,)), disable_tqdm=True)[0] / len(ids),
        abs=0.05,  # another place to cut
    )


def test_an_engine_that_cannot_score_is_refused(packed: Path) -> None:
    with (
        pytest.raises(OptionError, match="not one of"),
        EngineModel.opened(packed, engine="other"),
    ):
        pass
