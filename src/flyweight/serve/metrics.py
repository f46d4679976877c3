"""What a service does, in Prometheus' words."""

from __future__ import annotations

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.exposition import CONTENT_TYPE_LATEST

_SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 300)


class Metrics:
    """Counters of one service, in a registry of their own."""

    kind = CONTENT_TYPE_LATEST

    def __init__(self) -> None:
        self._registry = CollectorRegistry()
        made = {"registry": self._registry, "namespace": "flyweight"}
        self.requests = Counter(
            "requests", "Requests by path and status.", ["path", "status"], **made
        )
        self.tokens = Counter(
            "tokens", "Tokens by model: read, reused of earlier prompts, written.",
            ["model", "kind"], **made,
        )  # fmt: skip
        self.first = Histogram(
            "first_token_seconds", "From a request's arrival to the first text of its answer.",
            ["model"], buckets=_SECONDS, **made,
        )  # fmt: skip
        self.whole = Histogram(
            "answer_seconds", "From a request's arrival to the end of its answer.",
            ["model"], buckets=_SECONDS, **made,
        )  # fmt: skip
        self.joules = Counter(
            "joules", "Energy of answers at the chip, by model: of prompts read, of text written.",
            ["model", "kind"], **made,
        )  # fmt: skip
        self.chip = Gauge(
            "chip_joules", "Energy of the chip since the start: answers, idle, unattributed.",
            ["part"], **made,
        )  # fmt: skip
        self.unkept = Gauge("ledger_pending", "Lines that the ledger could not take yet.", **made)
        self.active = Gauge("answers_active", "Answers being written.", ["model"], **made)
        self.waiting = Gauge("answers_waiting", "Answers that wait.", ["model"], **made)
        self.loaded = Gauge("model_loaded", "1: the model is in memory.", ["model"], **made)

    def text(self) -> bytes:
        """All of it, as Prometheus reads it."""
        return generate_latest(self._registry)


__all__ = ["Metrics"]
