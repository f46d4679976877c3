"""Running a service: its socket, its end, and what it says in the terminal."""

from __future__ import annotations

import asyncio
import ipaddress
import logging
import re
import signal
import socket
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import uvicorn

from flyweight.energy.budget import Budget
from flyweight.energy.ledger import Ledger
from flyweight.errors import FolderError, OptionError
from flyweight.progress import say
from flyweight.runtime.llama_server import keep_signals
from flyweight.serve.app import make_app
from flyweight.serve.connection import PatientProtocol
from flyweight.serve.keys import Keys, key_file, read_keys
from flyweight.serve.loaded import Settings
from flyweight.serve.service import Service

DRAIN_SECONDS = 30  # that answers have to end in, when the service is told to


@dataclass(frozen=True)
class Address:
    """Where a service listens."""

    host: str
    port: int

    @property
    def is_loopback(self) -> bool:
        """Whether only this machine reaches it."""
        if self.host == "localhost":
            return True
        try:
            return ipaddress.ip_address(self.host).is_loopback
        except ValueError:
            return False


def run(
    models: Sequence[Path],
    address: Address,
    settings: Settings,
    seconds: float,
    budget: Budget | None = None,
) -> None:
    """Serve until it is told to end; see `flyweight.serve`."""
    _check(models, settings, seconds)
    keys = None if address.is_loopback else _keys(address)
    ledger = _ledger(budget)
    if keys is not None and ledger is not None:
        keys.recall(ledger)
    service = Service(names_of(models), settings, keys, seconds, ledger, budget)
    listening = _listen(address)
    server = _Server(
        uvicorn.Config(
            make_app(service, address.host),
            http=PatientProtocol,
            ws="none",
            log_level=logging.WARNING,
            access_log=False,
            server_header=False,
            proxy_headers=False,
            lifespan="on",
            timeout_graceful_shutdown=DRAIN_SECONDS,
        ),
        service,
    )
    host, port = listening.getsockname()[:2]
    shown = f"[{host}]" if ":" in host else host
    say(f"Serving {', '.join(service.shelf.books)} on http://{shown}:{port} (Ctrl-C ends it).")
    with _ending_calmly():
        server.run(sockets=[listening])


@contextmanager
def _ending_calmly() -> Iterator[None]:
    """Uvicorn raises the signals that ended it once more: they were heeded."""
    before = {
        each: signal.signal(each, lambda *_: None) for each in (signal.SIGINT, signal.SIGTERM)
    }
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


class _Server(uvicorn.Server):
    """Uvicorn's, which loads a sole model at once and lets answers end before it does."""

    def __init__(self, config: uvicorn.Config, service: Service) -> None:
        super().__init__(config)
        self.service = service

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Uvicorn's call, when it begins."""
        await super().startup(sockets)
        books = list(self.service.shelf.books)
        if len(books) == 1:
            self._first = asyncio.create_task(self._warm(books[0]))

    async def _warm(self, name: str) -> None:
        try:
            async with self.service.shelf.use(name):
                pass
        except Exception as error:  # whoever asks is told again
            say(str(error))

    def handle_exit(self, sig: int, frame: object) -> None:
        """Uvicorn's call, on SIGINT and SIGTERM."""
        if not self.should_exit and sig == signal.SIGTERM:
            say("Ending: no new requests, answers that are being written are finished.")
        self.service.draining = True
        super().handle_exit(sig, frame)  # type: ignore[arg-type]

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Uvicorn's call, when it ends."""
        await super().shutdown(sockets)
        keep_signals()


def names_of(models: Sequence[Path]) -> dict[str, Path]:
    """Models by the names of their folders or files; OptionError where two have the same."""
    found: dict[str, Path] = {}
    for path in models:
        path = Path(path)
        name = path.absolute().name.removesuffix(".gguf")
        if name in found:
            raise OptionError(
                f"{found[name]} and {path} would both be called {name}: rename one of them."
            )
        found[name] = path
    return found


def _check(models: Sequence[Path], settings: Settings, seconds: float) -> None:
    if not models:
        raise OptionError("no model is given: name at least one folder or GGUF file.")
    if settings.streams < 1 or settings.places < 0:
        raise OptionError("--streams is at least 1, --queue at least 0.")
    if not seconds > 0 or not settings.idle > 0:
        raise OptionError("--deadline and --idle are seconds, more than 0.")
    if settings.image_folder is not None and not settings.image_folder.is_dir():
        raise OptionError(f"--image-folder {settings.image_folder}: there is no such folder.")
    for host in settings.image_hosts:
        if not re.fullmatch(r"[A-Za-z0-9.-]+(:\d{1,5})?|\[[0-9A-Fa-f:]+\](:\d{1,5})?", host):
            raise OptionError(f"--image-host is {host!r}: give a name, such as example.com.")
    if settings.memory is not None and settings.memory <= 0:
        raise OptionError("--memory is in GB, more than 0.")


def _keys(address: Address) -> Keys:
    file = key_file()
    if not read_keys(file):
        raise OptionError(
            f"--host {address.host} is beyond this machine, and there are no keys in {file}: make "
            "one with `flyweight key NAME`."
        )
    return Keys(file)


def _ledger(budget: Budget | None) -> Ledger | None:
    """The ledger; without one, said, where it cannot be opened and no budget hangs on it."""
    try:
        return Ledger()
    except FolderError as error:
        if budget is not None:
            raise
        say(f"What answers take is metered, and not kept: {error}")
        return None


def _listen(address: Address) -> socket.socket:
    if not 0 <= address.port < 2**16:
        raise OptionError(f"--port is {address.port}: give 0 to 65535.")
    try:
        info = socket.getaddrinfo(
            address.host, address.port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )
        family, kind, protocol, _, place = info[0]
        listening = socket.socket(family, kind, protocol)
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listening.bind(place)
        listening.listen()  # who connects before the loop begins waits a moment
    except (OSError, OverflowError) as error:
        reason = getattr(error, "strerror", None) or error
        raise OptionError(
            f"cannot listen on {address.host}, port {address.port}: {reason}. Choose another."
        ) from None
    return listening


__all__ = ["Address", "names_of", "run"]
