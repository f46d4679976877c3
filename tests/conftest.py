"""What many tests need: a tiny model and its tokenizer, made here, the same every time."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tiny import tiny_tokenizer


@pytest.fixture(scope="session", autouse=True)
def cache_of_its_own(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """What teachers say is kept apart from the user's."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("FLYWEIGHT_CACHE", str(tmp_path_factory.mktemp("cache")))
        yield


def save_tiny_llama(folder: Path, **changes: Any) -> Path:
    """A random Llama in bf16 with its tokenizer, as a Hugging Face folder.

    Weights are drawn wide, so that the choice among the tokens is decided by far more than what
    rounding in an engine can move.
    """
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    settings: dict[str, Any] = {
        "vocab_size": 304,  # four more than the tokenizer has, as padded vocabularies are
        "hidden_size": 64,
        "intermediate_size": 128,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "max_position_embeddings": 512,
        "initializer_range": 0.2,
        "tie_word_embeddings": False,
        "bos_token_id": 0,
        "eos_token_id": 1,
        "pad_token_id": 2,
    }
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = LlamaForCausalLM(LlamaConfig(**{**settings, **changes})).to(torch.bfloat16)
    model.save_pretrained(folder)
    tiny_tokenizer().save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def make_llama() -> Callable[..., Path]:
    """The function that saves a tiny Llama into a folder, with changes to its config."""
    return save_tiny_llama


@pytest.fixture(scope="session")
def tiny_llama(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a tiny random Llama; tests that write into a model copy it first."""
    return save_tiny_llama(tmp_path_factory.mktemp("tiny") / "llama")


def build_small_model(tied: bool = True, seed: int = 0, **changes: Any) -> Any:
    """A random Llama in fp32, in eval mode; heads x head_dim is not the hidden size.

    Norm weights are spread around 1, since those of a fresh model hide every mistake with them.
    """
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    settings: dict[str, Any] = {
        "vocab_size": 80,
        "hidden_size": 64,
        "intermediate_size": 96,
        "num_hidden_layers": 4,
        "num_attention_heads": 8,
        "num_key_value_heads": 4,
        "head_dim": 16,
        "max_position_embeddings": 128,
        "initializer_range": 0.2,
        "tie_word_embeddings": tied,
        "bos_token_id": 0,
        "eos_token_id": 1,
        "pad_token_id": 2,
    }
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        model = LlamaForCausalLM(LlamaConfig(**{**settings, **changes})).float()
        for name, parameter in model.named_parameters():
            if "norm" in name:
                torch.nn.init.uniform_(parameter, 0.5, 1.5)
    return model.eval()


@pytest.fixture(scope="session")
def small_model() -> Callable[..., Any]:
    """The function that builds a small random Llama: `tied`, `seed`, and changes to its config."""
    return build_small_model


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder of real data, from FLYWEIGHT_SHARED (default ../shared); skips without it."""
    beside = Path(__file__).parents[2] / "shared"
    folder = Path(os.environ.get("FLYWEIGHT_SHARED", beside))
    if not (folder / "data").is_dir():
        pytest.skip(f"needs the real data: no folder data in {folder} (set FLYWEIGHT_SHARED)")
    return folder
