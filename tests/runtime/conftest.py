"""The tiny model's files, written once."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from flyweight.anatomy.gguf import LLAMA
from flyweight.runtime.gguf import write_gguf
from flyweight.runtime.llama import Generation
from flyweight.runtime.parity import NEAR_TIE_NATS


@pytest.fixture(scope="session")
def tiny_files(tiny_llama: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[int, Path]:
    """The tiny Llama at 16, 8, 5 and 4 bits."""
    folder = tmp_path_factory.mktemp("files")
    files = {bits: folder / f"{bits}.gguf" for bits in (16, 8, 5, 4)}
    for bits, path in files.items():
        write_gguf(tiny_llama, path, bits, LLAMA)
    return files


@pytest.fixture(scope="session")
def alike() -> Callable[[Generation, list[int]], bool]:
    """Whether ids equal an answer made with top=2, or part from it where its two best are near.

    Several streams are computed together, in another order of sums than one alone.
    """

    def compare(answer: Generation, ids: list[int]) -> bool:
        for likeliest, one, other in zip(answer.top, answer.ids, ids, strict=False):
            if one != other:  # nothing is known of a token that ends within a character
                return not likeliest or likeliest[0][1] - likeliest[1][1] <= NEAR_TIE_NATS
        return len(answer.ids) == len(ids)

    return compare


@pytest.fixture(scope="session")
def prompts() -> list[list[int]]:
    """Forty prompts of token ids, 3 to 22 long."""
    return [[0, 4, *range(20 + i, 21 + i + i % 20), 5] for i in range(40)]
