"""What the routes share: a model for a request, its answers, and what is counted of them."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Sequence
from contextlib import aclosing, asynccontextmanager, suppress
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import quote

import numpy as np
from fastapi import Request as HttpRequest
from starlette.responses import JSONResponse, Response
from starlette.types import Receive, Scope, Send

from flyweight.card import Card
from flyweight.energy.budget import Budget
from flyweight.energy.ledger import Ledger
from flyweight.errors import FlyweightError
from flyweight.serve.answering import Answer, begun
from flyweight.serve.chat import event, usage_of
from flyweight.serve.faults import Fault
from flyweight.serve.keys import Keys
from flyweight.serve.loaded import Loaded, Settings
from flyweight.serve.metering import Metering
from flyweight.serve.metrics import Metrics
from flyweight.serve.prepare import Prepared
from flyweight.serve.shelf import Book, Shelf
from flyweight.sticker_card import Boundaries

T = TypeVar("T")
Whole = Callable[[Loaded, Prepared, Sequence[Answer]], Awaitable[dict[str, Any]]]
Events = Callable[[Loaded, Prepared, Sequence[Answer]], AsyncGenerator[bytes]]
EXAMPLES = 3  # prompts that the page offers
SWEEP_SECONDS = 5.0
PATIENCE = 60.0  # seconds that a client may be behind the end of its answer


class Service:
    """The models of a service and how their answers are asked for; `seconds` is for one answer."""

    def __init__(
        self,
        models: dict[str, Path],
        settings: Settings,
        keys: Keys | None,
        seconds: float,
        ledger: Ledger | None = None,
        budget: Budget | None = None,
    ) -> None:
        self.metrics, self.keys, self.seconds = Metrics(), keys, seconds
        self.metering = Metering(self.metrics, ledger, budget)
        self.shelf = Shelf(models, settings, self._on_load)
        for name in self.shelf.books:
            self._on_load(name, False)
        self.draining = False

    def _on_load(self, name: str, there: bool) -> None:
        self.metrics.loaded.labels(name).set(int(there))

    def gauge(self) -> None:
        """Set what is not counted as it happens."""
        self.metering.gauge()
        for book in self.shelf.books.values():
            line = book.loaded.line if book.loaded else None
            self.metrics.active.labels(book.name).set(line.active if line else 0)
            self.metrics.waiting.labels(book.name).set(line.waiting if line else 0)

    def check(self) -> None:
        """Fault 503 where the service is ending, 429 where no model has room for one more."""
        if self.draining:
            raise Fault(503, "The service is ending.", code="draining", retry=5)
        self.metering.check()
        lines = [book.loaded.line for book in self.shelf.books.values() if book.loaded]
        if len(lines) == len(self.shelf.books) and all(line.full for line in lines):
            lines[0].check()

    async def sweep(self) -> None:
        """Put away idle models, for ever."""
        while True:
            await asyncio.sleep(min(SWEEP_SECONDS, self.shelf.settings.idle))
            await asyncio.to_thread(self.metering.sweep)
            await self.shelf.sweep()

    async def answer(
        self,
        http: HttpRequest,
        model: str | None,
        stream: bool,
        prepare: Callable[[Loaded], Prepared],
        whole: Whole,
        events: Events,
    ) -> Response:
        """The response to a request, whole or as events. Raises what fails before it begins."""
        told = self._events(http, model, prepare, whole, events, stream)
        first = await unless_gone(http, anext(told))
        if not stream:
            async with aclosing(told):
                return Response(first, media_type="application/json")
        return EventStream(first, told, self.seconds + PATIENCE)

    async def _events(
        self,
        http: HttpRequest,
        model: str | None,
        prepare: Callable[[Loaded], Prepared],
        whole: Whole,
        events: Events,
        stream: bool,
    ) -> AsyncGenerator[bytes]:
        """The events of an answer, or its whole body as the only one; the model stays meanwhile."""
        arrived = asyncio.get_running_loop().time()
        async with self.shelf.use(model) as loaded:
            loaded.line.check()  # before any work
            try:
                prepared = await asyncio.to_thread(prepare, loaded)
            except FlyweightError as error:
                raise Fault(500, f"The engine failed: {error}", code="engine_failed") from error
            key = http.scope.get("key", "")
            answers = await begun(loaded, prepared.jobs, self.seconds, self.metering, key)
            try:
                if stream:
                    async with aclosing(events(loaded, prepared, answers)) as given:
                        async for each in given:
                            yield each
                else:
                    yield JSONResponse(await whole(loaded, prepared, answers)).body  # type: ignore[misc]
            finally:
                for each in answers:
                    each.end()
                self._count(http, loaded, answers, arrived)

    def _count(
        self, http: HttpRequest, loaded: Loaded, answers: Sequence[Answer], arrived: float
    ) -> None:
        first = [answer.first for answer in answers if answer.first is not None]
        if first:
            self.metrics.first.labels(loaded.name).observe(min(first) - arrived)
        now = asyncio.get_running_loop().time()
        self.metrics.whole.labels(loaded.name).observe(now - arrived)
        if all(hasattr(answer, "said") for answer in answers):
            usage = usage_of(answers)
            self.count_tokens(
                http,
                loaded,
                usage["prompt_tokens"],
                usage["prompt_tokens_details"]["cached_tokens"],
                usage["completion_tokens"],
            )
        else:  # who leaves in the middle has had what was written
            read = sum({id(each.job.prompt): len(each.job.prompt) for each in answers}.values())
            self.count_tokens(http, loaded, read, 0, sum(each.taken for each in answers))

    def count_tokens(
        self, http: HttpRequest, loaded: Loaded, read: int, cached: int, written: int
    ) -> None:
        """Tokens that a request took, for the metrics and its key."""
        for kind, tokens in (("read", read - cached), ("reused", cached), ("written", written)):
            self.metrics.tokens.labels(loaded.name, kind).inc(tokens)
        if self.keys is not None and "key" in http.scope:
            self.keys.count(http.scope["key"], read + written)

    def metered_embed(
        self, loaded: Loaded, http: HttpRequest, took: list[Boundaries]
    ) -> Callable[[Sequence[int]], np.ndarray]:
        """`Loaded.embed`, metered for a request; what each text took is added to `took`."""

        def embed(ids: Sequence[int]) -> np.ndarray:
            account = self.metering.begin(len(ids), loaded.bytes)
            try:
                vector = loaded.embed(ids)
                account.whole(len(ids), 0)
                return vector
            finally:
                took.append(self.metering.end(account, loaded.name, http.scope.get("key", "")))

        return embed

    @asynccontextmanager
    async def in_time(self) -> AsyncIterator[None]:
        """Fault 504 where what is within takes longer than an answer may."""
        try:
            async with asyncio.timeout(self.seconds):
                yield
        except TimeoutError:
            raise Fault(504, f"It took more than {self.seconds:g} seconds.") from None

    def describe(self, book: Book) -> dict[str, Any]:
        """A model as `/v1/models` lists it; what is ours stands under `flyweight`."""
        card = book.found.card
        told: dict[str, Any] = {
            "bytes": book.sizes.bytes,
            "bits": book.found.bits,
            "parameters": None,
            "context": book.context,
            "loaded": book.loaded is not None,
            "can": _can(book),
            "teacher": None,
            "bytes_ratio": None,
            "verdict": None,
            "sticker": f"/v1/models/{quote(book.name)}/sticker.svg" if book.sticker else None,
        }  # and more, where there is a card
        if card is not None:
            score = card.scores.student.test
            told |= {
                "parameters": card.parameters,
                "teacher": card.teacher.name,
                "bytes_ratio": book.found.gguf.stat().st_size / card.teacher.bytes,
                "task": card.task.name,
                "system": card.task.system,
                "one_turn": card.task.one_turn,
                "examples": _examples(card),
                "verdict": {"word": card.verdict.word, "sentence": card.verdict.sentence},
                "score": {
                    "name": card.task.score,
                    "value": score.mean,
                    "low": score.low,
                    "high": score.high,
                },
            }
        return {
            "id": book.name,
            "object": "model",
            "created": book.since,
            "owned_by": "flyweight",
            "flyweight": told,
        }


def _can(book: Book) -> list[str]:
    """What a model can be asked for."""
    chats = ["chat", "tools", "json_schema"] if book.chats else []
    return [*chats, "completions", "images" if book.sees else "embeddings"]


class EventStream(Response):
    """Server-sent events: a first one that is there, and those that follow.

    A fault in mid-stream becomes the last event. When the client goes, or takes longer than
    `seconds`, the events end.
    """

    media_type = "text/event-stream"

    def __init__(self, first: bytes, events: AsyncGenerator[bytes], seconds: float) -> None:
        super().__init__(headers={"Cache-Control": "no-store", "X-Accel-Buffering": "no"})
        self.first, self.events, self.seconds = first, events, seconds

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """ASGI's call."""
        headers = [each for each in self.raw_headers if each[0] != b"content-length"]
        async with aclosing(self.events):
            await send({"type": "http.response.start", "status": 200, "headers": headers})
            await self._until_done(receive, send)

    async def _until_done(self, receive: Receive, send: Send) -> None:
        sending = asyncio.create_task(self._send(send))
        gone = asyncio.create_task(_until_gone(receive))
        try:
            async with asyncio.timeout(self.seconds):
                await asyncio.wait({sending, gone}, return_when=asyncio.FIRST_COMPLETED)
        except TimeoutError:
            pass
        finally:
            for task in (sending, gone):
                task.cancel()
            await asyncio.gather(sending, gone, return_exceptions=True)
        if sending.done() and not sending.cancelled() and sending.exception():
            raise sending.exception()  # type: ignore[misc]

    async def _send(self, send: Send) -> None:
        await _body(send, self.first)
        try:
            async for each in self.events:
                await _body(send, each)
        except Fault as fault:
            await _body(send, event(fault.body))
        await send({"type": "http.response.body", "body": b"", "more_body": False})


async def _body(send: Send, part: bytes) -> None:
    await send({"type": "http.response.body", "body": part, "more_body": True})


async def _until_gone(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass


async def unless_gone(http: HttpRequest, work: Awaitable[T]) -> T:
    """What `work` gives; it is cancelled when the client goes."""
    working = asyncio.ensure_future(work)
    gone = asyncio.create_task(_until_gone(http.receive))
    try:
        await asyncio.wait({working, gone}, return_when=asyncio.FIRST_COMPLETED)
        if not working.done():
            raise Fault(499, "The client went away.", code="client_gone")
        return working.result()
    finally:
        for task in (working, gone):
            if not task.done():
                task.cancel()
        with suppress(asyncio.CancelledError):
            await gone


def _examples(card: Card) -> list[str]:
    """Prompts that it answered well; those about pictures are nothing without them."""
    if card.sees:
        return []
    return [each.prompt for each in card.answers if each.student_score][:EXAMPLES]


__all__ = ["EventStream", "Service", "unless_gone"]
