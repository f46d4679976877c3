"""Which corpora help, by probes at equal tokens that are compared item by item."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from flyweight.distill.gains import changes
from flyweight.distill.probing import Bench, Mix


@dataclass(frozen=True)
class Probe:
    """What a mix did to the dev loss: `loss` in nats a token, relative `change` and interval."""

    corpora: tuple[str, ...]
    share: float
    loss: float
    change: float
    low: float
    high: float

    @property
    def word(self) -> str:
        """What the interval says."""
        if self.high < 0:
            return "helps"
        return "harms" if self.low > 0 else "no measurable gain"


@dataclass(frozen=True)
class Advice:
    """The dev loss of the task `alone` in nats a token, and what each mix did to it."""

    alone: float
    probes: tuple[Probe, ...]
    items: int
    groups: int
    seeds: int
    tokens: int

    @property
    def best(self) -> Probe | None:
        """The mix with the largest gain, of those whose interval shows one."""
        helping = [each for each in self.probes if each.word == "helps"]
        return min(helping, key=lambda each: each.change, default=None)

    @property
    def recommendation(self) -> str:
        """What to do, in words."""
        harm = {each.corpora[0] for each in self.probes if each.word == "harms"}
        harm -= {each.corpora[0] for each in self.probes if each.word == "helps"}
        warning = f" These harm: {', '.join(sorted(harm))}." if harm else ""
        if self.best is None:
            return f"Train on the task alone: no corpus shows a gain.{warning}"
        given = " ".join(f"--corpus {name}" for name in self.best.corpora)
        return f"Mix: {given} --corpus-share {self.best.share:g}.{warning}"

    def facts(self) -> dict[str, Any]:
        """All of it as JSON values."""
        told = asdict(self)
        told["probes"] = [asdict(each) | {"verdict": each.word} for each in self.probes]
        best = self.best
        blend = None if best is None else {"corpora": list(best.corpora), "share": best.share}
        return told | {"blend": blend, "recommendation": self.recommendation}


def advice(bench: Bench, shares: Sequence[float], seeds: Sequence[int]) -> Advice:
    """What each corpus does at each share, and all that help together; intervals hold at once."""

    def probed(mix: Mix) -> np.ndarray:
        return np.stack([bench.probe(mix, seed) for seed in seeds])  # [seeds, n]

    alone = probed(((), 0.0))
    mixes: list[Mix] = [((name,), share) for name in bench.corpora for share in shares]
    losses = {mix: probed(mix) for mix in mixes}
    first = _compared(bench, alone, losses)
    helping = [each for each in first if each.word == "helps"]
    names = tuple(dict.fromkeys(each.corpora[0] for each in helping))
    if len(names) > 1:
        best = min(helping, key=lambda each: each.change)
        losses[names, best.share] = probed((names, best.share))
    return Advice(
        alone=float(alone.mean(0).sum() / bench.dev_tokens),
        probes=tuple(_compared(bench, alone, losses)),
        items=len(bench.dev),
        groups=len(set(bench.groups)),
        seeds=len(seeds),
        tokens=bench.tokens,
    )


def _compared(bench: Bench, alone: np.ndarray, losses: Mapping[Mix, np.ndarray]) -> list[Probe]:
    found = changes(alone, list(losses.values()), bench.groups)
    return [
        Probe(*mix, float(each.mean(0).sum() / bench.dev_tokens), *change)
        for (mix, each), change in zip(losses.items(), found, strict=True)
    ]


__all__ = ["Advice", "Probe", "advice"]
