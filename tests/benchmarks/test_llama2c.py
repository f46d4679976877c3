from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch


def load(name: str) -> ModuleType:
    """A benchmark as a module: they are scripts, not a package."""
    path = Path(__file__).parents[2] / "benchmarks" / f"{name}.py"
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def llama2c(shared: Path) -> ModuleType:
    return load("llama2c")


TEXT = "Lily’s 2 “é” cats.\nShe"
# what the package sentencepiece (0.2.1) says of it
GOLDEN = {
    "tok105": [3, 31, 10, 14, 15, 61, 12, 3, 72, 3, 58, 78, 59, 3, 22, 5, 6, 12, 19, 0, 30, 8, 4],
    "tok512": [317, 468, 419, 410, 479, 410, 465, 485, 466, 280, 294, 419, 426, 13, 437, 260],
}


@pytest.mark.parametrize("name", GOLDEN)
def test_ids_are_those_of_sentencepiece(llama2c: Any, shared: Path, name: str) -> None:
    [path] = (shared / "data" / "stories").rglob(f"{name}.model")
    tokenizer = llama2c.convert_tokenizer(path, 256)
    ids = tokenizer(llama2c.as_written(TEXT), add_special_tokens=False)["input_ids"]
    assert ids == GOLDEN[name]
    assert tokenizer.decode(ids) == llama2c.as_written(TEXT)


def test_attention_scores_are_those_of_pairs(llama2c: Any) -> None:
    """RoPE as llama2.c turns it, neighbours together, against halves on moved rows."""
    from transformers.models.llama.modeling_llama import apply_rotary_pos_emb

    wide, dim, length = 16, 32, 5
    generator = torch.Generator().manual_seed(0)
    q, k, x = (
        torch.randn(size, generator=generator) for size in ((wide, dim), (wide, dim), (length, dim))
    )
    angles = torch.arange(length)[:, None] / 10_000 ** (torch.arange(0, wide, 2) / wide)

    def turned(weight: torch.Tensor) -> torch.Tensor:  # run.c: complex numbers of neighbours
        pairs = torch.view_as_complex((x @ weight.T).view(length, -1, 2))
        return torch.view_as_real(pairs * torch.polar(torch.ones_like(angles), angles)).flatten(1)

    mine = [(x @ llama2c.halves(weight, wide).T)[None, None] for weight in (q, k)]
    both = torch.cat([angles, angles], -1)[None]
    ours = apply_rotary_pos_emb(mine[0], mine[1], both.cos(), both.sin())
    wanted = turned(q) @ turned(k).T
    torch.testing.assert_close((ours[0] @ ours[1].transpose(-1, -2))[0, 0], wanted)


def test_the_documented_loss_is_kept(llama2c: Any, tmp_path: Path) -> None:
    folder = llama2c.convert_known("stories260K", tmp_path / "stories")
    nats, count = llama2c.loss(folder, llama2c.stories()[:400], 24)
    assert count == 24 * 512
    assert np.isclose(nats, 1.50, atol=0.1)
