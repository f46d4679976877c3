"""What stands at a URL, fetched from named hosts only, and never from within the own network.

A request that names a URL makes this machine ask for it: whoever sends it must not reach through
it what only this machine can reach (OWASP: Server-Side Request Forgery).
"""

from __future__ import annotations

import http.client
import ipaddress
import re
import socket
import ssl
import threading
import time
from collections.abc import Callable, Collection
from contextlib import suppress
from typing import Any, NamedTuple
from urllib.parse import urlsplit

from flyweight.errors import ImageError, reason_of

SECONDS = 15.0  # from the first packet to the last; looking the name up is not in them
_ADDRESSES = 8  # of a host, that are tried
_NAT64 = ipaddress.IPv6Network("64:ff9b::/96")
_INSTEAD = "send the picture itself, as a data: URL"


def is_public(address: str) -> bool:
    """Whether an IP address is one of the public Internet, also by what is mapped within it."""
    ip = ipaddress.ip_address(address.partition("%")[0])
    if isinstance(ip, ipaddress.IPv6Address):
        if ip.ipv4_mapped is not None:
            return is_public(str(ip.ipv4_mapped))
        if ip in _NAT64:
            return is_public(str(ipaddress.IPv4Address(int(ip) & 0xFFFFFFFF)))
        if ip.sixtofour or ip.teredo or ip.is_site_local:
            return False
    return ip.is_global and not (ip.is_multicast or ip.is_reserved or ip.is_unspecified)


def fetched(
    url: str,
    *,
    hosts: Collection[str],
    most: int,
    seconds: float = SECONDS,
    reachable: Callable[[str], bool] = is_public,
) -> bytes:
    """The bytes at an http(s) URL of one of `hosts`. Raises ImageError.

    A host is a name, or `name:port` for another port than the usual one. No redirect is followed,
    no proxy asked. All addresses of the host must be `reachable`; the connection goes to one of
    those that were checked, without asking for the name again.
    """
    asked = _asked(url, hosts)
    connection = _Checked(asked, _addresses(asked, reachable), seconds)
    clock = threading.Timer(seconds, connection.end)
    clock.daemon = True
    clock.start()
    try:
        return _body(connection, asked, most)
    except (OSError, http.client.HTTPException, ValueError) as error:
        late = f"took more than {seconds:.0f} seconds"
        reason = late if connection.late else reason_of(error)
        raise ImageError(f"{asked.host}: no picture came ({reason}); {_INSTEAD}") from error
    finally:
        clock.cancel()
        connection.finish()


class _Asked(NamedTuple):
    host: str
    port: int
    secure: bool
    target: str


def _asked(url: str, hosts: Collection[str]) -> _Asked:
    """What a URL asks for. Raises ImageError where it is none, or of a host that is not named."""
    try:
        parts = urlsplit(url)
        host, port = (parts.hostname or "").rstrip("."), parts.port
    except ValueError as error:
        raise ImageError(f"the picture's URL is wrong ({error}); {_INSTEAD}") from error
    if not re.fullmatch(r"[!-\[\]-~]+", url) or "@" in parts.netloc or not host:
        raise ImageError(
            "the picture's URL has signs or a password in it that are not taken; "
            "write it percent-encoded, without either"
        )
    secure = parts.scheme == "https"
    usual = 443 if secure else 80
    names = {each.lower().rstrip(".") for each in hosts}
    if not (host in names and port in (None, usual)) and f"{host}:{port or usual}" not in names:
        raise ImageError(f"{host}: pictures are not fetched from this host; {_INSTEAD}")
    target = (parts.path or "/") + ("?" + parts.query if parts.query else "")
    return _Asked(host, port or usual, secure, target)


def _addresses(asked: _Asked, reachable: Callable[[str], bool]) -> list[tuple[Any, ...]]:
    """Where the host is, as getaddrinfo says. Raises ImageError where not all may be asked."""
    try:
        found = socket.getaddrinfo(asked.host, asked.port, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError) as error:
        raise ImageError(f"{asked.host}: there is no such host; {_INSTEAD}") from error
    if not all(reachable(str(each[4][0])) for each in found):
        raise ImageError(f"{asked.host}: has an address that is not public; {_INSTEAD}")
    return found[:_ADDRESSES]


class _Checked(http.client.HTTPConnection):
    """A connection to addresses that were checked, which can be ended from another thread."""

    def __init__(self, asked: _Asked, addresses: list[tuple[Any, ...]], seconds: float) -> None:
        super().__init__(asked.host, asked.port, timeout=seconds)
        self.default_port = 443 if asked.secure else 80  # for the Host header
        self.late = False
        self._secure, self._addresses = asked.secure, addresses
        self._until = time.monotonic() + seconds
        self._same: socket.socket | None = None  # for `end`: TLS takes the first over

    def connect(self) -> None:
        """http.client's call."""
        plain = self._plain()
        self._same = plain.dup()
        self.sock = plain
        if self._secure:
            self.sock = ssl.create_default_context().wrap_socket(plain, server_hostname=self.host)

    def _plain(self) -> socket.socket:
        failed: OSError = TimeoutError("no address answers")
        for family, kind, protocol, _, address in self._addresses:
            left = self._until - time.monotonic()
            if left <= 0:
                break
            tried = socket.socket(family, kind, protocol)
            try:
                tried.settimeout(left)
                tried.connect(address)
            except OSError as error:
                tried.close()
                failed = error
            else:
                return tried
        raise failed

    def end(self) -> None:
        """Ends it, whatever it waits for."""
        self.late = True
        if self._same is not None:
            with suppress(OSError):
                self._same.shutdown(socket.SHUT_RDWR)

    def finish(self) -> None:
        """Closes all; http.client closes a part once a response has come that will be the last."""
        self.close()
        if self._same is not None:
            self._same.close()


def _body(connection: _Checked, asked: _Asked, most: int) -> bytes:
    connection.request(
        "GET",
        asked.target,
        headers={"Accept": "image/*", "User-Agent": "flyweight", "Connection": "close"},
    )
    with connection.getresponse() as response:
        return _read(response, connection, asked, most)


def _read(
    response: http.client.HTTPResponse, connection: _Checked, asked: _Asked, most: int
) -> bytes:
    if 300 <= response.status < 400:
        raise ImageError(
            f"{asked.host}: redirects, which is not followed; give the address it leads to"
        )
    if response.status != http.client.OK:
        raise ImageError(f"{asked.host}: answers with status {response.status}; {_INSTEAD}")
    if response.headers.get("Content-Encoding", "identity").lower() != "identity":
        raise ImageError(f"{asked.host}: sends the picture packed; {_INSTEAD}")
    found, said = bytearray(), response.length or 0
    while len(found) <= most and said <= most:
        piece = response.read(65_536)
        if not piece:
            if connection.late or len(found) < said:
                raise ConnectionError("the connection broke off")
            return bytes(found)
        found += piece
    raise ImageError(f"{asked.host}: sends more than the {most:,} bytes that are read")


__all__ = ["SECONDS", "fetched", "is_public"]
