"""Who may use a service beyond this machine: keys, of which only hashes are kept, and their limits.

A key is 256 random bits: one SHA-256 of it is as good as any slow hash. The file is read again when
it changes, so that a key can be made or taken back while the service runs.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import secrets
import time
from collections import deque
from dataclasses import dataclass, field
from pathlib import Path

import platformdirs
from filelock import FileLock
from pydantic import BaseModel, ConfigDict, ValidationError

from flyweight.energy.ledger import Ledger
from flyweight.errors import FolderError, OptionError
from flyweight.folder import disk_errors
from flyweight.progress import say
from flyweight.serve.faults import Fault

PREFIX = "fw-"
_MINUTE, _DAY = 60.0, 86400.0


class Key(BaseModel):
    """One key: its hash, and what it may use; None is no limit."""

    model_config = ConfigDict(extra="forbid")

    sha256: str
    requests_per_minute: int | None = None
    tokens_per_day: int | None = None


class KeyFile(BaseModel):
    """The file of keys, by their names."""

    model_config = ConfigDict(extra="forbid")

    keys: dict[str, Key] = {}


def key_file() -> Path:
    """Where keys are kept: FLYWEIGHT_KEYS, or a file in the user's configuration."""
    told = os.environ.get("FLYWEIGHT_KEYS")
    return Path(told) if told else Path(platformdirs.user_config_dir("flyweight")) / "keys.json"


def read_keys(file: Path) -> dict[str, Key]:
    """The keys of a file, none where there is no file. FolderError for one that cannot be read."""
    try:
        return KeyFile.model_validate_json(file.read_bytes()).keys if file.exists() else {}
    except (OSError, ValidationError, ValueError) as error:
        reason = str(error).splitlines()[0]
        raise FolderError(f"{file}: cannot be read as keys ({reason}); remove or mend it") from None


def make_key(name: str, requests_per_minute: int | None, tokens_per_day: int | None) -> str:
    """A new key under this name, which replaces an older one. It is told once, here."""
    _check_name(name)
    for limit in (requests_per_minute, tokens_per_day):
        if limit is not None and limit < 1:
            raise OptionError(f"a limit of {limit} lets nothing through: give 1 or more")
    key = PREFIX + secrets.token_urlsafe(32)
    made = Key(
        sha256=_hash(key), requests_per_minute=requests_per_minute, tokens_per_day=tokens_per_day
    )
    _change(name, made)
    return key


def remove_key(name: str) -> None:
    """Take a key back. OptionError where there is none of this name."""
    _check_name(name)
    _change(name, None)


def _check_name(name: str) -> None:
    if not re.fullmatch(r"[A-Za-z0-9_.@-]{1,64}", name):
        raise OptionError(f"{name!r} is no name for a key: use letters, digits and _ . @ -")


def _change(name: str, key: Key | None) -> None:
    file = key_file()
    with disk_errors(file):
        file.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(f"{file}.lock"):
            keys = read_keys(file)
            if key is None and name not in keys:
                raise OptionError(f"there is no key {name!r} in {file}")
            kept = {other: each for other, each in keys.items() if other != name}
            kept |= {} if key is None else {name: key}
            whole = {other: each.model_dump() for other, each in kept.items()}
            beside = file.with_name(f"{file.name}.new")
            with os.fdopen(
                os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w"
            ) as out:
                json.dump({"keys": whole}, out, indent=2)
                out.flush()
                os.fsync(out.fileno())
            beside.replace(file)


def _hash(key: str) -> str:
    return hashlib.sha256(key.encode()).hexdigest()


@dataclass
class _Used:
    """What a key has used: when its requests came, and the tokens of each."""

    requests: deque[float] = field(default_factory=deque)
    tokens: deque[tuple[float, int]] = field(default_factory=deque)
    sum: int = 0


class Keys:
    """The keys of a service while it runs, and what they have used."""

    def __init__(self, file: Path) -> None:
        self.file = file
        self._changed: int | None = None
        self._by_hash: dict[str, tuple[str, Key]] = {}
        self._used: dict[str, _Used] = {}

    def admit(self, authorization: str) -> str:
        """The name of the key in a header, which asks once more. Faults 401 and 429."""
        self._refresh()
        scheme, _, given = authorization.partition(" ")
        found = self._by_hash.get(_hash(given.strip())) if scheme.lower() == "bearer" else None
        if found is None:
            raise Fault(
                401,
                "This service wants a key: send `Authorization: Bearer` with one that "
                "`flyweight key` made on its machine.",
                code="invalid_api_key",
            )
        name, key = found
        used, now = self._used.setdefault(name, _Used()), time.monotonic()
        while used.requests and now - used.requests[0] >= _MINUTE:
            used.requests.popleft()
        while used.tokens and now - used.tokens[0][0] >= _DAY:
            used.sum -= used.tokens.popleft()[1]
        if key.requests_per_minute and len(used.requests) >= key.requests_per_minute:
            raise Fault(
                429,
                f"The key {name!r} may ask {key.requests_per_minute} times a minute: wait.",
                code="rate_limit_exceeded",
                retry=used.requests[0] + _MINUTE - now,
            )
        if key.tokens_per_day and used.sum >= key.tokens_per_day:
            raise Fault(
                429,
                f"The key {name!r} has used its {key.tokens_per_day:,} tokens of 24 hours.",
                code="tokens_exceeded",
                retry=used.tokens[0][0] + _DAY - now,
            )
        used.requests.append(now)
        return name

    def count(self, name: str, tokens: int) -> None:
        """A key has used tokens, read and written."""
        used = self._used.setdefault(name, _Used())
        used.tokens.append((time.monotonic(), tokens))
        used.sum += tokens

    def recall(self, ledger: Ledger) -> None:
        """Count what keys used of their day before this service began. Raises FolderError."""
        now, moment = time.monotonic(), time.time()
        for name, at, tokens in ledger.tokens(moment - _DAY):
            used = self._used.setdefault(name, _Used())
            used.tokens.append((now - max(0.0, moment - at), tokens))
            used.sum += tokens

    def _refresh(self) -> None:
        changed = self.file.stat().st_mtime_ns if self.file.exists() else 0
        if changed == self._changed:
            return
        self._changed = changed
        try:
            keys = read_keys(self.file)
        except FolderError as error:  # while somebody edits it: those that were good still are
            say(str(error))
            return
        self._by_hash = {key.sha256: (name, key) for name, key in keys.items()}


__all__ = ["Key", "Keys", "key_file", "make_key", "read_keys", "remove_key"]
