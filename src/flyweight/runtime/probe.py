"""A file that nobody vouches for, opened in a child process first: what it breaks is not ours."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

from flyweight.errors import EngineError
from flyweight.runtime.child import answer_parent, run_child

SECONDS = 120.0  # and 10 more for each GB
TOKENS = 4


def probe(gguf: Path) -> None:
    """Load a GGUF file in a child and write a few tokens. EngineError where that goes wrong."""
    seconds = SECONDS + 10 * gguf.stat().st_size / 1e9
    run_child(__name__, gguf, {"gguf": str(gguf)}, seconds, lambda: None)


def _probe_here(job: dict[str, Any]) -> dict[str, Any]:
    from flyweight.runtime.llama import LlamaEngine

    gguf = Path(job["gguf"])
    with LlamaEngine(gguf, context=256, threads=1) as engine:
        said = engine.generate([0, 0], TOKENS, top=1)
    if not all(math.isfinite(one) and one <= 0 for best in said.top for _, one in best):
        raise EngineError(f"{gguf}: its probabilities are not finite; its weights are damaged")
    return {}


if __name__ == "__main__":
    answer_parent(_probe_here)

__all__ = ["probe"]
