"""What a request must be before it is read: from here, of a host that is ours, small, with a key.

Plain ASGI, since it stands before every byte. A page of another site cannot reach the service: its
requests bear an Origin that is not the Host, or, after a name was rebound to this machine, a Host
that is not ours; and what is sent has to be JSON, which needs a preflight that is refused.
"""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any
from urllib.parse import urlsplit

import numpy as np

from flyweight.serve.faults import Fault
from flyweight.serve.keys import Keys

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]

_SURROGATE = re.compile(r"\\u[dD][89a-fA-F]")
BODY_BYTES = 16 * 2**20
BODIES_BYTES = 128 * 2**20  # of all requests that are in progress
BODY_SECONDS = 30.0  # for a whole body
DEEPEST = 64  # brackets within brackets of JSON
# texts of JSON, in one pass over any body: an open one ends with it
_TEXTS = re.compile(rb'"[^"\\]*+(?:\\.[^"\\]*+)*+(?:"|\\?\Z)', re.DOTALL)
_SIGNS = np.zeros(256, np.int8)
_SIGNS[list(b"[{")], _SIGNS[list(b"]}")] = 1, -1
_LARGE = 2**16  # bytes of a body that is looked at in a thread
LOOPBACK = frozenset({"localhost", "127.0.0.1", "::1"})
OPEN = frozenset({"/", "/health", "/favicon.ico"})  # and the page's files: they hold nothing
TAKE = frozenset(  # bodies; at no other address is one read
    {"/v1/chat/completions", "/v1/completions", "/v1/responses", "/v1/embeddings"}
)
_POLICY = (
    b"default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; "
    b"connect-src 'self'; form-action 'none'; base-uri 'none'; frame-ancestors 'none'"
)
_SAFE = [
    (b"x-content-type-options", b"nosniff"),
    (b"referrer-policy", b"no-referrer"),
    (b"x-frame-options", b"DENY"),
    (b"cross-origin-resource-policy", b"same-origin"),
    (b"content-security-policy", _POLICY),
]


class Gate:
    """The service behind its checks. `keys` None: on loopback, as `host`, it asks for none.

    `check` raises the Fault of a service that takes nothing now, before a body is read: under a
    storm refusals are most of the work.
    """

    def __init__(
        self, app: App, keys: Keys | None, check: Callable[[], None], host: str = "localhost"
    ) -> None:
        self.app, self.keys, self.check = app, keys, check
        self.names = LOOPBACK | {host.lower()}
        self.held = 0  # bytes of bodies of requests in progress

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """ASGI's call."""
        if scope["type"] == "lifespan":
            await self.app(scope, receive, send)
            return
        if scope["type"] != "http":
            return

        async def send_safe(message: MutableMapping[str, Any]) -> None:
            if message["type"] == "http.response.start":
                message = {**message, "headers": [*message.get("headers", []), *_SAFE]}
            await send(message)

        mine = 0

        def hold(size: int) -> None:
            nonlocal mine
            mine, self.held = mine + size, self.held + size
            if self.held > BODIES_BYTES:
                raise Fault(
                    429, "Requests in progress hold too much. Try again later.",
                    code="too_many_bytes", retry=2,
                )  # fmt: skip

        try:
            try:
                body = await self._admit(scope, receive, hold)
            except Fault as fault:
                await answer_fault(fault, send_safe)
                return
            await self.app(scope, body, send_safe)
        finally:
            self.held -= mine

    async def _admit(self, scope: Scope, receive: Receive, hold: Callable[[int], None]) -> Receive:
        headers = {name.lower(): value for name, value in scope["headers"]}
        host = headers.get(b"host", b"").decode("latin-1")
        name = _name_of(host)
        if self.keys is None and name not in self.names:
            raise Fault(
                403,
                f"This service is for this machine alone, and {host[:80]!r} is not its name. Use "
                "localhost or 127.0.0.1.",
                code="wrong_host",
            )
        origin = headers.get(b"origin", b"").decode("latin-1")
        if origin and not _is_of(origin, host):
            raise Fault(403, "Pages of other sites may not use this service.", code="wrong_origin")
        path = scope["path"]
        if self.keys is not None and path not in OPEN and not path.startswith("/page/"):
            told = headers.get(b"authorization", b"").decode("latin-1")
            scope["key"] = self.keys.admit(told)
        if scope["method"] != "POST" or path not in TAKE:
            return receive
        self.check()
        kind = headers.get(b"content-type", b"").decode("latin-1").partition(";")[0].strip().lower()
        if kind != "application/json":
            raise Fault(415, "Send JSON, with `Content-Type: application/json`.")
        return _again(await _body(headers, receive, hold), receive)


def _is_of(origin: str, host: str) -> bool:
    """Whether an Origin header is of the same place as a Host header."""
    try:
        return urlsplit(origin).netloc.lower() == host.lower()
    except ValueError:
        return False


def _name_of(host: str) -> str:
    """The name in a Host header, without its port."""
    try:
        return (urlsplit(f"//{host}").hostname or "").lower()
    except ValueError:
        return ""


async def _body(
    headers: dict[bytes, bytes], receive: Receive, hold: Callable[[int], None]
) -> bytes:
    """The whole body, checked for its size and for what JSON readers choke on.

    `hold` is told of each part, and raises the Fault of too many bytes in all.
    """
    told = headers.get(b"content-length", b"0")
    if not told.isdigit() or int(told) > BODY_BYTES:
        raise _too_large()
    parts, size = [], 0
    try:
        async with asyncio.timeout(BODY_SECONDS):
            more = True
            while more:
                message = await receive()
                if message["type"] == "http.disconnect":
                    raise Fault(400, "The request ended before its body.")
                parts.append(message.get("body", b""))
                size += len(parts[-1])
                hold(len(parts[-1]))
                if size > BODY_BYTES:
                    raise _too_large()
                more = message.get("more_body", False)
    except TimeoutError:
        raise Fault(408, f"The body did not come within {BODY_SECONDS:g} seconds.") from None
    body = b"".join(parts)
    if len(body) > _LARGE:
        await asyncio.to_thread(_check_json, body)
    else:
        _check_json(body)
    return body


def _too_large() -> Fault:
    return Fault(413, f"The request is larger than {BODY_BYTES // 2**20} MiB.")


def _check_json(body: bytes) -> None:
    """Fault 400 for what is no UTF-8, no JSON, or nested too deeply to be meant."""
    try:
        text = body.decode("utf-8")
    except UnicodeDecodeError as error:
        raise Fault(400, f"The body is not UTF-8 (byte {error.start}).") from None
    brackets = _SIGNS[np.frombuffer(_TEXTS.sub(b"", body), np.uint8)]
    if np.cumsum(brackets, dtype=np.int32).max(initial=0) > DEEPEST:
        raise Fault(400, f"The JSON is nested more than {DEEPEST} deep.")
    if _SURROGATE.search(text):
        try:
            json.dumps(json.loads(text), ensure_ascii=False).encode()
        except UnicodeEncodeError:
            raise Fault(400, "The JSON holds half of a surrogate pair: no text.") from None
        except ValueError:
            pass  # no JSON: refused where it is read


def _again(body: bytes, receive: Receive) -> Receive:
    """A `receive` that gives a body that was read, then what follows."""
    given = False

    async def receive_again() -> MutableMapping[str, Any]:
        nonlocal given
        if not given:
            given = True
            return {"type": "http.request", "body": body, "more_body": False}
        return await receive()

    return receive_again


async def answer_fault(fault: Fault, send: Send) -> None:
    """A refusal as an HTTP response."""
    body = json.dumps(fault.body).encode()
    headers = [(b"content-type", b"application/json"), (b"content-length", b"%d" % len(body))]
    headers += [(name.lower().encode(), value.encode()) for name, value in fault.headers.items()]
    if fault.status in (408, 413):
        headers.append((b"connection", b"close"))
    await send({"type": "http.response.start", "status": fault.status, "headers": headers})
    await send({"type": "http.response.body", "body": body})


__all__ = ["TAKE", "App", "Gate", "answer_fault"]
