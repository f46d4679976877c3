"""The line: never more answers than streams, nobody overtaken, and none lost when people go."""

from __future__ import annotations

import asyncio
import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from flyweight.serve.faults import Fault
from flyweight.serve.line import Line


@settings(deadline=None, max_examples=60)
@given(
    streams=st.integers(1, 4),
    places=st.integers(0, 6),
    clients=st.integers(1, 40),
    seed=st.integers(0, 2**32),
)
def test_whoever_comes_and_goes_the_line_holds(
    streams: int, places: int, clients: int, seed: int
) -> None:
    draw = random.Random(seed)
    entered: list[int] = []
    most = refused = 0

    async def client(line: Line, number: int) -> None:
        nonlocal most, refused
        await asyncio.sleep(draw.random() * 0.004)
        try:
            since = await line.enter()
        except Fault as fault:
            refused += fault.status == 429 and (fault.retry or 0) > 0
            return
        entered.append(number)
        most = max(most, line.active)
        try:
            await asyncio.sleep(draw.random() * 0.004)
        finally:
            line.leave(since)

    async def run() -> Line:
        line = Line(streams, places)
        tasks = [asyncio.create_task(client(line, number)) for number in range(clients)]
        for task in draw.sample(tasks, clients // 3):
            asyncio.get_running_loop().call_later(draw.random() * 0.006, task.cancel)
        await asyncio.gather(*tasks, return_exceptions=True)
        return line

    line = asyncio.run(run())
    assert (line.active, line.waiting) == (0, 0)
    assert most <= streams
    assert refused + len(entered) >= clients - clients // 3  # those who did not go
    if clients <= places + streams:
        assert refused == 0


def test_those_who_wait_are_answered_in_their_order() -> None:
    async def run() -> list[int]:
        line, order = Line(1, 10), []
        first = await line.enter()

        async def wait(number: int) -> None:
            since = await line.enter()
            order.append(number)
            line.leave(since)

        tasks = []
        for number in range(8):
            tasks.append(asyncio.create_task(wait(number)))
            await asyncio.sleep(0)
        tasks[3].cancel()
        line.leave(first)
        await asyncio.gather(*tasks, return_exceptions=True)
        return order

    assert asyncio.run(run()) == [0, 1, 2, 4, 5, 6, 7]


def test_several_answers_need_room_for_all() -> None:
    async def run() -> None:
        line = Line(2, 3)
        line.check(5)
        with pytest.raises(Fault):
            line.check(6)
        since = [await line.enter() for _ in range(2)]
        line.check(3)
        with pytest.raises(Fault):
            line.check(4)
        for each in since:
            line.leave(each)

    asyncio.run(run())
