"""Proof that an exported file is the model it came from: the same answers, the same tokens.

The reference is transformers in fp32 on the checkpoint's own (rounded) weights. Its greedy answer
need not be generated: where its argmax after every prefix of the engine's answer is the engine's
next token, the two answers are equal, and the first place where it is not is where they part.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from flyweight.card import Parity
from flyweight.checkpoint import open_checkpoint
from flyweight.errors import EngineError, ParityError
from flyweight.runtime.llama import Generation, LlamaEngine

NEAR_TIE_NATS = 0.05
NEAR_TIE_SHARE = 0.02  # of the prompts


@dataclass(frozen=True)
class Difference:
    """Where an answer first parts from the reference, and by how many nats it is less likely."""

    prompt: int  # its place in the prompts
    position: int  # in the answer, from 0
    engine_id: int
    reference_id: int
    nats: float  # the reference's log-probability of its own token over that of the engine's


@dataclass(frozen=True)
class ParityReport:
    """How many answers were compared and were equal, and where the others part."""

    prompts: int
    equal: int
    near_ties: list[Difference] = field(default_factory=list)
    differing: list[Difference] = field(default_factory=list)

    @classmethod
    def of(
        cls, prompts: int, parted: Sequence[Difference], tie_nats: float = NEAR_TIE_NATS
    ) -> ParityReport:
        """What was found of so many prompts, of whose answers these parted from the reference."""
        near = [difference for difference in parted if difference.nats <= tie_nats]
        real = [difference for difference in parted if difference.nats > tie_nats]
        return cls(prompts, prompts - len(parted), near, real)

    @property
    def card(self) -> Parity:
        """As the card tells it."""
        ties = [
            f"prompt {tie.prompt + 1}, token {tie.position + 1}: {tie.nats:.3f} nats"
            for tie in self.near_ties
        ]
        return Parity(prompts=self.prompts, equal=self.equal, near_ties=ties)

    def check(self, what: Path, tie_share: float = NEAR_TIE_SHARE) -> None:
        """ParityError if answers of a file or folder are not the reference's; see check_parity."""
        if self.differing:
            worst = max(self.differing, key=lambda difference: difference.nats)
            raise ParityError(
                f"{what}: {len(self.differing)} of {self.prompts} answers differ from transformers "
                f"in fp32, the worst by {worst.nats:.2f} nats (prompt {worst.prompt}, token "
                f"{worst.position}); the export is not faithful, do not use the file"
            )
        allowed = max(1, math.floor(tie_share * self.prompts))
        if len(self.near_ties) > allowed:
            raise ParityError(
                f"{what}: {len(self.near_ties)} of {self.prompts} answers part from transformers "
                f"at near ties, {allowed} allowed; the model is undecided: train it further"
            )


def check_parity(
    checkpoint: Path,
    gguf: Path,
    prompts: Sequence[Sequence[int]],
    max_tokens: int,
    tie_nats: float = NEAR_TIE_NATS,
    tie_share: float = NEAR_TIE_SHARE,
) -> ParityReport:
    """Compare a 16-bit file's greedy answers with fp32 transformers on the same weights.

    Raises ParityError at any difference beyond a near tie (engine's token within `tie_nats` of the
    best), or when near ties are more than `tie_share` of the prompts (one is always allowed).
    """
    report = compare(checkpoint, gguf, prompts, max_tokens, tie_nats)
    report.check(gguf, tie_share)
    return report


def compare(
    checkpoint: Path,
    gguf: Path,
    prompts: Sequence[Sequence[int]],
    max_tokens: int,
    tie_nats: float = NEAR_TIE_NATS,
) -> ParityReport:
    """The comparison behind check_parity, without its verdict."""
    context = max(len(prompt) for prompt in prompts) + max_tokens
    with LlamaEngine(gguf, context=context) as engine:
        answers = [all_ids(engine.generate(prompt, max_tokens)) for prompt in prompts]
    model = _reference(checkpoint)
    parted = []
    for place, (prompt, answer) in enumerate(zip(prompts, answers, strict=True)):
        logits = _logits(model, list(prompt), answer)
        parted += first_difference(place, logits, answer)
    return ParityReport.of(len(prompts), parted, tie_nats)


def all_ids(generation: Generation) -> list[int]:
    """All that was written: the token that ended it is part of what must agree."""
    return generation.ids if generation.stop_id is None else [*generation.ids, generation.stop_id]


def _reference(checkpoint: Path) -> Any:
    """What transformers computes of it, in fp32."""
    return open_checkpoint(checkpoint).frozen()


@torch.inference_mode()
def _logits(model: Any, prompt: list[int], answer: list[int]) -> Tensor:
    """What the reference says before each token of an answer [n, V]."""
    ids = torch.tensor([prompt + answer[:-1]], device=model.device)
    return model(input_ids=ids, logits_to_keep=len(answer)).logits[0].float()


def first_difference(prompt: int, logits: Tensor, answer: Sequence[int]) -> list[Difference]:
    """Where the answer to a prompt first is not what logits [n, V] say is likeliest, if it is."""
    best = logits.argmax(-1).tolist()
    for position, (wanted, said) in enumerate(zip(best, answer, strict=True)):
        if wanted != said:
            gap = float(logits[position, wanted] - logits[position, said])
            return [Difference(prompt, position, said, wanted, gap)]
    return []


def check_tokenizer(checkpoint: Path, gguf: Path, texts: Sequence[str]) -> int:
    """How many texts Hugging Face's tokenizer and llama.cpp split alike: all, or ParityError."""
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(checkpoint, local_files_only=True)
    with LlamaEngine(gguf, context=256) as engine:
        for text in texts:
            ours, theirs = tokenizer(text)["input_ids"], engine.tokenize(text)
            if list(ours) != theirs:
                raise ParityError(
                    f"{gguf}: llama.cpp splits {text[:40]!r} into {theirs[:12]}, the tokenizer "
                    f"into {list(ours)[:12]}; this tokenizer cannot be exported"
                )
    return len(texts)


def check_alive(gguf: Path, prompts: Sequence[Sequence[int]], max_tokens: int = 8) -> int:
    """How many prompts a file answered with finite probabilities: all, or ParityError.

    For 8 and 4 bits, whose answers may rightly differ from the checkpoint's.
    """
    context = max(len(prompt) for prompt in prompts) + max_tokens
    try:
        with LlamaEngine(gguf, context=context) as engine:
            generations = [engine.generate(prompt, max_tokens, top=1) for prompt in prompts]
    except EngineError as error:
        raise ParityError(f"{gguf}: does not run: {error}") from error
    for generation in generations:
        if not all(math.isfinite(p) and p <= 0 for best in generation.top for _, p in best):
            raise ParityError(f"{gguf}: its probabilities are not finite; the weights overflow")
    return len(prompts)


__all__ = [
    "NEAR_TIE_NATS",
    "NEAR_TIE_SHARE",
    "Difference",
    "ParityReport",
    "all_ids",
    "check_alive",
    "check_parity",
    "check_tokenizer",
    "compare",
    "first_difference",
]
