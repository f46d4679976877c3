"""The shelf: models come when asked for, go when nobody asks, and stay within the budget."""

from __future__ import annotations

import asyncio
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from flyweight.anatomy.gguf import LLAMA
from flyweight.errors import EngineError, OptionError
from flyweight.folder import GGUF_NAMES
from flyweight.runtime.gguf import write_gguf
from flyweight.serve.faults import Fault
from flyweight.serve.loaded import Settings
from flyweight.serve.run import Address, names_of, run
from flyweight.serve.shelf import Shelf

SMALL = Settings(context=256, streams=1)


@pytest.fixture(scope="module")
def models(make_llama: Callable[..., Path], tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Three packed folders of the same size."""
    root = tmp_path_factory.mktemp("shelf")
    first = make_llama(root / "one")
    write_gguf(first, first / GGUF_NAMES[16], 16, LLAMA)
    for name in ("two", "three"):
        shutil.copytree(first, root / name)
    return [root / name for name in ("one", "two", "three")]


def test_the_least_lately_used_makes_room(models: list[Path]) -> None:
    needs = Shelf(names_of(models), SMALL).books["one"].sizes.memory(256, 1)
    seen: list[tuple[str, bool]] = []

    async def run() -> None:
        settings = Settings(context=256, streams=1, memory=round(2.5 * needs), patience=0.2)
        shelf = Shelf(names_of(models), settings, lambda name, there: seen.append((name, there)))
        for name in ("one", "two", "one", "three"):
            async with shelf.use(name) as loaded:
                assert loaded.engine.generate([4, 5, 6], 2).written == 2
        assert [name for name, book in shelf.books.items() if book.loaded] == ["one", "three"]
        async with shelf.use("one"), shelf.use("three"):
            with pytest.raises(Fault, match="no memory for two") as raised:
                async with shelf.use("two"):
                    pass
            assert raised.value.status == 503
            assert raised.value.retry
        async with shelf.use("two"):
            pass
        await shelf.close()
        assert not any(book.loaded for book in shelf.books.values())

    asyncio.run(run())
    assert seen[:4] == [("one", True), ("two", True), ("two", False), ("three", True)]


def test_two_that_do_not_fit_together_are_both_served(models: list[Path]) -> None:
    needs = Shelf(names_of(models), SMALL).books["one"].sizes.memory(256, 1)

    async def run() -> list[int]:
        settings = Settings(context=256, streams=1, memory=round(1.5 * needs))
        shelf = Shelf(names_of(models[:2]), settings)

        async def use(name: str) -> int:
            async with shelf.use(name) as loaded:
                return loaded.engine.generate([4, 5, 6], 2).written

        written = await asyncio.gather(*(use(name) for name in ("one", "two") * 3))
        await shelf.close()
        return written

    assert asyncio.run(run()) == [2] * 6


def test_who_comes_at_once_waits_for_one_load(models: list[Path]) -> None:
    loads: list[str] = []

    async def run() -> None:
        shelf = Shelf(names_of(models[:1]), SMALL, lambda name, there: loads.append(name))

        async def use() -> int:
            async with shelf.use(None) as loaded:
                return id(loaded)

        tasks = [asyncio.create_task(use()) for _ in range(8)]
        await asyncio.sleep(0.01)
        tasks[0].cancel()  # who began it goes: the others have it all the same
        found = await asyncio.gather(*tasks, return_exceptions=True)
        assert isinstance(found[0], asyncio.CancelledError)
        assert len(set(found[1:])) == 1
        await shelf.close()

    asyncio.run(run())
    assert loads == ["one", "one"]  # there, and away


def test_what_nobody_uses_is_put_away(models: list[Path]) -> None:
    async def run() -> None:
        shelf = Shelf(names_of(models[:1]), Settings(context=256, streams=1, idle=0.2))
        async with shelf.use("one"):
            await asyncio.sleep(0.3)
            await shelf.sweep()
            assert shelf.books["one"].loaded  # it is in use
        await shelf.sweep()
        assert shelf.books["one"].loaded  # it was, a moment ago
        await asyncio.sleep(0.3)
        await shelf.sweep()
        assert not shelf.books["one"].loaded

    asyncio.run(run())


def test_what_cannot_be_is_refused_at_the_start(models: list[Path], tmp_path: Path) -> None:
    with pytest.raises(OptionError, match=r"budget is 0\.00 GB"):
        Shelf(names_of(models), Settings(memory=1000))
    with pytest.raises(OptionError, match="was made for 512 tokens"):
        Shelf(names_of(models), Settings(context=100_000))
    twin = tmp_path / "one"
    shutil.copytree(models[0], twin)
    with pytest.raises(OptionError, match="would both be called one"):
        names_of([models[0], twin])
    for port in (-1, 2**16, 99_999):
        with pytest.raises(OptionError, match="--port is"):
            run([models[0]], Address("127.0.0.1", port), SMALL, 1.0)
    damaged = tmp_path / "damaged.gguf"
    damaged.write_bytes((models[0] / GGUF_NAMES[16]).read_bytes()[:5000])
    with pytest.raises(EngineError):
        Shelf(names_of([damaged]), SMALL)


def test_a_file_that_is_damaged_later_is_told(models: list[Path], tmp_path: Path) -> None:
    shutil.copytree(models[0], tmp_path / "later")

    async def run() -> None:
        shelf = Shelf(names_of([tmp_path / "later"]), SMALL)
        file = tmp_path / "later" / GGUF_NAMES[16]
        file.write_bytes(file.read_bytes()[:5000])
        for _ in range(2):
            with pytest.raises(Fault, match="cannot be loaded") as raised:
                async with shelf.use(None):
                    pass
            assert raised.value.status == 503

    asyncio.run(run())
