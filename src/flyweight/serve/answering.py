"""One answer: asked of an engine in a thread, given on in the event loop, ended when nobody waits.

A small model writes a token in less time than it takes to send one: after the first, what comes
within GATHERED seconds is given on as one piece, which nobody sees, and which leaves the processor
to the engine. The stream is free for the next as soon as the engine is done, however slowly the
client reads.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from flyweight.errors import FlyweightError
from flyweight.runtime.constraint import Constraint
from flyweight.runtime.engine import Piece, Streamed
from flyweight.serve.faults import Fault
from flyweight.serve.loaded import Loaded
from flyweight.serve.metering import Metering
from flyweight.sticker_card import Boundaries

GATHERED = 0.015  # seconds: 60 times a second is as smooth as a screen


@dataclass(frozen=True)
class Job:
    """What an engine is asked; see `Engine.stream`."""

    prompt: Sequence[int]
    max_tokens: int
    stop: Sequence[str] = ()
    top: int = 0
    temperature: float = 0.0
    top_p: float = 1.0
    seed: int = 0
    constraint: Constraint | None = None
    image: Any = None  # the picture that it is about, if there is one


class _Gone(Exception):
    """Nobody waits for the answer any more."""


class Answer:
    """An answer that is being written. Iterate over its pieces; `said` is what it came to.

    `seconds` is how long it may take from `begin`, waiting for a stream included. Faults: 429 where
    too many wait, 504 when time is up, 500 where the engine fails.
    """

    said: Streamed

    def __init__(
        self, loaded: Loaded, job: Job, seconds: float, metering: Metering, key: str = ""
    ) -> None:
        self.loaded, self.job, self.seconds = loaded, job, seconds
        self.metering, self.key = metering, key
        self.joules: Boundaries | None = None  # once it is over
        self.first: float | None = None  # seconds of the event loop's clock: the first text
        self._pieces: deque[Piece] = deque()
        self._news, self._over = asyncio.Event(), asyncio.Event()
        self._signalled = self._gone = self._late = False
        self._work: asyncio.Future[Streamed] | None = None
        self.beginning: asyncio.Task[None] | None = None
        self.taken = 0  # tokens that were written, as far as is known before it is over
        self._loop = asyncio.get_running_loop()

    async def begin(self) -> None:
        """Wait for a stream, and have the engine begin."""
        self.begun = self._loop.time()
        line = self.loaded.line
        try:
            async with asyncio.timeout(self.seconds):
                since = await line.enter()
        except TimeoutError:
            raise self._too_late() from None
        work = self._loop.run_in_executor(self.loaded.threads, self._write)
        self._work = work

        def done(finished: asyncio.Future[Streamed]) -> None:
            line.leave(since)
            self._clock.cancel()
            self._news.set()
            self._over.set()
            if not finished.cancelled():
                finished.exception()  # seen, if nobody waits for it any more

        left = self.begun + self.seconds - self._loop.time()
        self._clock = self._loop.call_later(max(0.0, left), self._expire)
        work.add_done_callback(done)

    def _write(self) -> Streamed:
        """In a thread of the model: the answer, metered to its end however it ends."""
        prompt = len(self.job.prompt)
        self._account = account = self.metering.begin(prompt, self.loaded.bytes)
        try:
            said = self._stream()
            account.whole(said.prompt_tokens, said.written)
            account.reused(prompt - said.prompt_tokens)
            return said
        finally:
            self.joules = self.metering.end(account, self.loaded.name, self.key)

    def _stream(self) -> Streamed:
        job = self.job
        self.loaded.show(job.image)
        return self.loaded.engine.stream(
            job.prompt,
            job.max_tokens,
            self._take,
            stop=job.stop,
            top=job.top,
            temperature=job.temperature,
            top_p=job.top_p,
            seed=job.seed,
            constraint=job.constraint,
        )

    def _take(self, piece: Piece) -> None:
        """In the engine's thread: a piece for the loop."""
        if self._gone:
            raise _Gone
        self._account.reused(piece.reused)
        if piece.read:
            self._account.whole(piece.read, 0)
        if piece.text or piece.told:
            self._account.wrote()
            self.taken += 1
            self._pieces.append(piece)
            if not self._signalled:
                self._signalled = True
                self._loop.call_soon_threadsafe(self._news.set)

    async def __aiter__(self) -> AsyncIterator[Piece]:
        assert self._work is not None, "begin comes first"
        try:
            while not (self._work.done() and not self._pieces):
                await self._news.wait()
                self._news.clear()
                self._signalled = False  # before the pieces are taken: none is overlooked
                if self._late:
                    raise self._too_late()
                piece = self._drained()
                if piece is not None:
                    self.first = self.first or self._loop.time()
                    yield piece
                    await self._gather()
            if self._late:
                raise self._too_late()
            self.said = self._result(self._work)
        finally:
            self.end()

    async def _gather(self) -> None:
        """Let pieces come together for a moment, or until the answer is over."""
        with suppress(TimeoutError):
            async with asyncio.timeout(GATHERED):
                await self._over.wait()

    def end(self) -> None:
        """Nobody waits any more: the engine stops at its next token."""
        self._gone = True
        if self.beginning is not None:
            self.beginning.cancel()

    def _drained(self) -> Piece | None:
        """All that has come, as one piece."""
        pieces = [self._pieces.popleft() for _ in range(len(self._pieces))]
        return joined(pieces) if pieces else None

    def _result(self, work: asyncio.Future[Streamed]) -> Streamed:
        try:
            return work.result()
        except FlyweightError as error:
            raise Fault(500, f"The engine failed: {error}", code="engine_failed") from error

    def _expire(self) -> None:
        self._late = self._gone = True
        self._news.set()
        self._over.set()

    def _too_late(self) -> Fault:
        return Fault(
            504,
            f"The answer took more than the {self.seconds:g} seconds that one may take. Ask for "
            "fewer tokens, or try when less is going on.",
            code="deadline_exceeded",
        )


async def begun(
    loaded: Loaded, jobs: Sequence[Job], seconds: float, metering: Metering, key: str = ""
) -> list[Answer]:
    """Answers to all jobs, in the line together, the first begun; Fault 429 without room."""
    line = loaded.line
    if len(jobs) > line.streams + line.places:
        raise Fault(400, f"{len(jobs)} answers are more than ever have room here.", param="n")
    line.check(len(jobs))
    answers = [Answer(loaded, job, seconds, metering, key) for job in jobs]
    for answer in answers:
        answer.beginning = asyncio.create_task(answer.begin())
    try:
        await _begun(answers[0])
    except BaseException:
        for answer in answers:
            answer.end()
        raise
    return answers


async def _begun(answer: Answer) -> None:
    """Wait until an answer has begun."""
    assert answer.beginning is not None
    await answer.beginning


async def merged(answers: Sequence[Answer]) -> AsyncIterator[tuple[int, Piece | None]]:
    """The pieces of answers that `begun` gave, as they come, with their places; None: done."""
    if len(answers) == 1:
        async for piece in answers[0]:
            yield 0, piece
        yield 0, None
        return
    pieces: asyncio.Queue[tuple[int, Piece | Exception | None]] = asyncio.Queue()

    async def collect(place: int, answer: Answer) -> None:
        try:
            await _begun(answer)
            async for piece in answer:
                pieces.put_nowait((place, piece))
            pieces.put_nowait((place, None))
        except Exception as error:
            pieces.put_nowait((place, error))

    tasks = [asyncio.create_task(collect(*each)) for each in enumerate(answers)]
    try:
        left = len(answers)
        while left:
            place, piece = await pieces.get()
            if isinstance(piece, Exception):
                raise piece
            left -= piece is None
            yield place, piece
    finally:
        for task, answer in zip(tasks, answers, strict=True):
            task.cancel()
            answer.end()


async def collected(answers: Sequence[Answer]) -> list[Piece]:
    """What answers that `begun` gave say, each as one piece."""
    found: list[list[Piece]] = [[] for _ in answers]
    async for place, piece in merged(answers):
        if piece is not None:
            found[place].append(piece)
    return [joined(pieces) for pieces in found]


def joined(pieces: Sequence[Piece]) -> Piece:
    """Pieces that follow each other, as one."""
    told = tuple(each for piece in pieces for each in piece.told)
    return Piece("".join(piece.text for piece in pieces), told)


__all__ = ["Answer", "Job", "begun", "collected", "merged"]
