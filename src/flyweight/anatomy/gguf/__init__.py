"""How each family is written in GGUF: tensor names, metadata, and what is changed on the way.

Each file has one group of families; map.py says what a map is made of.
"""

from __future__ import annotations

from flyweight.anatomy.gguf.gemma import GEMMA2, GEMMA3
from flyweight.anatomy.gguf.llama import GRANITE, LLAMA, PHI3, QWEN2
from flyweight.anatomy.gguf.map import GgufMap, Part, interleave
from flyweight.anatomy.gguf.mixture import MIXTRAL, QWEN3_MOE
from flyweight.anatomy.gguf.olmo2 import OLMO2
from flyweight.anatomy.gguf.qwen import QWEN3
from flyweight.anatomy.gguf.stablelm import STABLELM

__all__ = [
    "GEMMA2",
    "GEMMA3",
    "GRANITE",
    "LLAMA",
    "MIXTRAL",
    "OLMO2",
    "PHI3",
    "QWEN2",
    "QWEN3",
    "QWEN3_MOE",
    "STABLELM",
    "GgufMap",
    "Part",
    "interleave",
]
