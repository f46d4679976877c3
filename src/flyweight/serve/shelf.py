"""The models of a service: loaded when they are asked for, put away when they are not, in a budget.

A model that is in use is never put away. What a model takes is foretold from its file before it is
loaded (runtime/memory.py).
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

from flyweight.errors import FlyweightError, OptionError
from flyweight.folder import STICKER_PICTURES
from flyweight.runtime.gguf_header import read_header
from flyweight.runtime.llama_server import keep_signals
from flyweight.runtime.memory import EYES_KV, Sizes, available_memory, sizes_of
from flyweight.runtime.open_model import USUAL_CONTEXT, Found, find_model, open_model
from flyweight.serve.eyes import chats, find_eyes, open_eyes
from flyweight.serve.faults import Fault
from flyweight.serve.loaded import Loaded, Settings
from flyweight.vision.vision_folder import has_eyes

EMBEDDER = 1.3  # of what one stream takes: its batch is the whole context
KEPT_FREE = 0.1  # of the memory that is free at the start, for everything else


@dataclass
class Book:
    """A model that may be asked for: what is known of it without loading it."""

    name: str
    path: Path
    found: Found
    sizes: Sizes
    context: int
    chats: bool
    since: int  # when its file was written, Unix seconds
    loaded: Loaded | None = None
    loading: asyncio.Task[None] | None = None
    embeds: bool = False
    sees: bool = False  # it takes pictures
    users: int = 0  # requests that use it or wait for it
    used: float = 0.0

    @property
    def sticker(self) -> Path | None:
        """The picture of what its answers cost, if its folder has one."""
        picture = self.found.folder and self.found.folder / STICKER_PICTURES[0]
        return picture if picture and picture.is_file() else None


class Shelf:
    """Models by their names. Raises FlyweightError for one that is not whole.

    `on_load` is told of each that is loaded or put away, with its name and whether it is there.
    """

    def __init__(
        self,
        models: Mapping[str, Path],
        settings: Settings,
        on_load: Callable[[str, bool], object] = lambda name, there: None,
    ) -> None:
        self.settings, self.on_load = settings, on_load
        free = available_memory()
        self.budget = settings.memory or (None if free is None else round(free * (1 - KEPT_FREE)))
        self.books = {name: self._book(name, path) for name, path in models.items()}
        self._room, self._freed = asyncio.Lock(), asyncio.Event()

    def _book(self, name: str, path: Path) -> Book:
        book = self._seeing(name, path) if has_eyes(path) else self._reading(name, path)
        if self.budget is not None and self._needs(book) > self.budget:
            streams, kv_bits = self._kept(book)
            fits = book.sizes.longest(self.budget, streams, kv_bits)
            hint = f"a smaller --context ({fits:,} would fit), " if fits else ""
            hint += "fewer --streams, " if streams > 1 else ""
            raise OptionError(
                f"{path} needs {self._needs(book) / 1e9:.2f} GB for {streams} x "
                f"{book.context:,} tokens, and the budget is {self.budget / 1e9:.2f} GB. Give "
                f"{hint}or more --memory."
            )
        return book

    def _reading(self, name: str, path: Path) -> Book:
        found = find_model(path, self.settings.bits if path.is_dir() else None)
        sizes = sizes_of(found.gguf)
        template = read_header(found.gguf).keys.get("tokenizer.chat_template")
        since = int(found.gguf.stat().st_mtime)
        return Book(name, path, found, sizes, self._context(path, sizes), bool(template), since)

    def _seeing(self, name: str, path: Path) -> Book:
        found, sizes = find_eyes(path, self.settings.bits)
        since = int(found.gguf.stat().st_mtime)
        context = self._context(path, sizes)
        return Book(name, path, found, sizes, context, chats(path), since, sees=True)

    def _context(self, path: Path, sizes: Sizes) -> int:
        context = self.settings.context or min(sizes.context, USUAL_CONTEXT)
        if context > sizes.context:
            raise OptionError(
                f"--context is {context:,}: {path} was made for {sizes.context:,} tokens."
            )
        return context

    def _needs(self, book: Book) -> int:
        needs = book.sizes.memory(book.context, *self._kept(book))
        return needs + (self._embedder(book) if book.embeds else 0)

    def _kept(self, book: Book) -> tuple[int, int]:
        """Conversations that a book keeps at once, and bits of their keys and values."""
        return (1, EYES_KV) if book.sees else (self.settings.streams, self.settings.kv_bits)

    def _embedder(self, book: Book) -> int:
        """Bytes of the second server that gives vectors, which reads a whole context in a pass."""
        return round(EMBEDDER * book.sizes.memory(book.context))

    async def reserve_embedder(self, loaded: Loaded) -> None:
        """Make room for what gives vectors, before it is opened. Fault 503 where there is none."""
        if "embed" not in loaded.engine.can:
            raise Fault(400, f"The model {loaded.name} gives no vectors.", param="model")
        book = self.books[loaded.name]
        if not book.embeds:
            async with self._room:
                await self._make_room(book, self._embedder(book))
                book.embeds = True

    def book(self, name: str | None) -> Book:
        """The model of this name; None is the one that there is. Fault 404 for another."""
        if name is None and len(self.books) == 1:
            return next(iter(self.books.values()))
        if name is None:
            raise Fault(400, f"Say which model: {_listed(self.books)}.", param="model")
        if name not in self.books:
            shown = name if len(name) <= 80 else f"{name[:77]}..."
            raise Fault(
                404,
                f"There is no model {shown!r} here. There is: {_listed(self.books)}.",
                code="model_not_found",
                param="model",
            )
        return self.books[name]

    @asynccontextmanager
    async def use(self, name: str | None) -> AsyncIterator[Loaded]:
        """The model, loaded, and not put away meanwhile."""
        book = self.book(name)
        book.users += 1  # from here on, so that no other model takes its place before it is used
        try:
            while book.loaded is None:
                if book.loading is None:
                    book.loading = asyncio.create_task(self._load(book))
                await asyncio.shield(book.loading)  # others may wait for it when this one goes
            yield book.loaded
        finally:
            book.users -= 1
            book.used = time.monotonic()
            self._freed.set()

    async def _load(self, book: Book) -> None:
        try:
            async with self._room:  # one at a time: what is free is known
                await self._make_room(book, self._needs(book))
                book.loaded = await asyncio.to_thread(self._open, book)
        except FlyweightError as error:
            raise Fault(
                503, f"The model cannot be loaded: {error}", code="model_not_loaded", retry=30
            ) from error
        finally:
            book.loading = None
            keep_signals()
        self.on_load(book.name, True)

    def _open(self, book: Book) -> Loaded:
        settings = self.settings
        if book.sees:
            return open_eyes(book.name, book.found, book.context, settings)
        engine, found = open_model(
            book.path,
            bits=book.found.bits,
            needs=("stream", "constrain", "reuse", "concurrent"),
            context=book.context,
            streams=settings.streams,
            threads=settings.threads,
            kv_bits=settings.kv_bits,
            cache_bytes=settings.cache_bytes,
        )
        return Loaded(book.name, engine, found, settings)

    async def _make_room(self, book: Book, more: int) -> None:
        """Put away the models that were used least lately, until so many more bytes fit."""
        if self.budget is None:
            return
        until = time.monotonic() + self.settings.patience
        while self._held() + more > self.budget:
            self._freed.clear()
            idle = [each for each in self._loaded() if each is not book and not each.users]
            if idle:
                await self._put_away(min(idle, key=lambda each: each.used))
                continue
            try:
                async with asyncio.timeout(until - time.monotonic()):
                    await self._freed.wait()
            except TimeoutError:
                raise Fault(
                    503,
                    f"The models in use leave no memory for {book.name}. Try again later.",
                    code="no_memory",
                    retry=5,
                ) from None

    def _held(self) -> int:
        return sum(map(self._needs, self._loaded()))

    def _loaded(self) -> list[Book]:
        return [book for book in self.books.values() if book.loaded]

    async def _put_away(self, book: Book) -> None:
        loaded, book.loaded, book.embeds = book.loaded, None, False
        if loaded is not None:
            self.on_load(book.name, False)
            await asyncio.to_thread(loaded.close)

    async def sweep(self) -> None:
        """Put away what nobody has used for long."""
        async with self._room:
            for book in self._loaded():
                if not book.users and time.monotonic() - book.used >= self.settings.idle:
                    await self._put_away(book)

    async def close(self) -> None:
        """Put all away."""
        async with self._room:
            for book in self._loaded():
                await self._put_away(book)


def _listed(books: Mapping[str, Book]) -> str:
    return ", ".join(books)


__all__ = ["Book", "Shelf"]
