"""Which engine runs a model fastest on this machine: the engines there are, and what was found.

What was found lies in the user's cache folder (FLYWEIGHT_CACHE overrides), one file a machine, and
counts for nothing once the processor or an engine is another one.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from importlib import import_module
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, Literal, TypeVar, get_args

from flyweight.errors import OptionError
from flyweight.folder import disk_errors, write_whole
from flyweight.runtime.engine import Engine
from flyweight.runtime.hardware import cache_folder, own_name, processor
from flyweight.runtime.threads import cores

FORMAT = 1
KEPT = 200  # models
T = TypeVar("T")
Work = Literal["stream", "prompt", "batch"]
WORKS: tuple[Work, ...] = get_args(Work)


@dataclass(frozen=True)
class Kind:
    """An engine: where its class is, the package that it needs, and what it opens."""

    module: str
    constructor: str
    package: str
    opens: Literal["gguf", "folder"] = "gguf"
    extra: str = ""  # of ours, that brings the package
    options: dict[str, Any] = field(default_factory=dict)

    def open(self, source: Path, **sizes: Any) -> Engine:
        """The engine with a model loaded; see `Engine`."""
        return self.engine()(source, **(self.options | sizes))

    def engine(self) -> Any:
        """Its class; MissingExtra where what it needs is absent."""
        return getattr(import_module(self.module), self.constructor)


# The first one is the standard: another one wins only where it is faster each time.
ENGINES: dict[str, Kind] = {
    "llama.cpp": Kind("flyweight.runtime.llama", "LlamaEngine", "xllamacpp"),
    "openvino": Kind(
        "flyweight.runtime.openvino_engine", "OpenVinoEngine", "openvino-genai", extra="openvino"
    ),
    "torch": Kind(
        "flyweight.runtime.torch_engine", "TorchEngine", "torch", opens="folder",
        options={"dtype": "bfloat16"},
    ),
}  # fmt: skip


@dataclass(frozen=True)
class Row:
    """What one engine did, once a round; `failed` says why it did nothing."""

    engine: str
    bits: int
    stream: list[float] = field(default_factory=list)  # tokens/s after the first, one answer
    prompt: list[float] = field(default_factory=list)  # tokens/s of a long prompt, in and out
    batches: dict[int, list[float]] = field(default_factory=dict)  # tokens/s of all, by streams
    first: list[float] = field(default_factory=list)  # seconds to the first token of a short prompt
    memory: int = 0  # bytes at most, of the process with one stream
    reads: int = 0  # bytes of weights that a token needs
    limit: list[float] = field(default_factory=list)  # bytes/s at which so many are read here
    failed: str = ""

    def speeds(self, work: Work) -> list[float]:
        """Tokens a second of a kind of work, a round each; `batch` is that of most streams."""
        if work == "batch":
            return self.batches[max(self.batches)] if self.batches else []
        return self.stream if work == "stream" else self.prompt


@dataclass(frozen=True)
class Found:
    """What was measured of a model, when, and the engine that won each kind of work."""

    made: str  # ISO 8601, UTC
    rows: list[Row]
    winners: dict[Work, str]


def best(rows: list[Row]) -> dict[Work, str]:
    """The engine of the highest median for each work; the standard one where it won a round."""
    from statistics import median

    found: dict[Work, str] = {}
    for work in WORKS:
        speeds = {row.engine: row.speeds(work) for row in rows if row.speeds(work)}
        if not speeds:
            continue
        first = max(speeds, key=lambda name: median(speeds[name]))
        standard = next(iter(ENGINES))
        if standard in speeds:
            rounds = zip(speeds[first], speeds[standard], strict=False)
            first = first if all(mine > its for mine, its in rounds) else standard
        found[work] = first
    return found


def installed() -> dict[str, str]:
    """The engines whose package is there, and its version."""
    found = {}
    for name, kind in ENGINES.items():
        try:
            found[name] = version(kind.package)
        except PackageNotFoundError:
            continue
    return found


def winner(model: str, work: Work) -> str | None:
    """The engine that `flyweight engines` found fastest for a file; None where it did not run.

    `model` is the SHA-256 of the GGUF file.
    """
    found = recall(model)
    return found.winners.get(work) if found else None


def recall(model: str) -> Found | None:
    """What was measured of a file on this machine with the engines that are installed now."""
    told = _read().get(model)
    return _found(told) if told else None


def remember(model: str, found: Found) -> None:
    """Keep what was measured of a file."""
    models = _read()
    models.pop(model, None)
    models[model] = asdict(found)
    kept = dict(list(models.items())[-KEPT:])
    told = {"format": FORMAT, "machine": _machine(), "models": kept}
    with disk_errors(_file()):
        write_whole(_file(), json.dumps(told, indent=1) + "\n")


def _file() -> Path:
    return cache_folder() / "engines" / f"{own_name()}.json"


def _machine() -> dict[str, Any]:
    """What all that was measured depends on."""
    return {"processor": processor(), "cores": cores(), "engines": installed()}


def _read() -> dict[str, Any]:
    """Models by their hashes; none where the file is of another machine or other versions."""
    if not _file().exists():
        return {}
    return _checked(lambda: _models(json.loads(_file().read_text(encoding="utf-8"))))


def _models(told: dict[str, Any]) -> dict[str, Any]:
    if told["format"] != FORMAT or told["machine"] != _machine():
        return {}
    return dict(told["models"])


def _found(told: dict[str, Any]) -> Found:
    def row(each: dict[str, Any]) -> Row:
        batches = {int(streams): speeds for streams, speeds in each["batches"].items()}
        return Row(**{**each, "batches": batches})

    return _checked(
        lambda: Found(
            str(told["made"]), [row(each) for each in told["rows"]], dict(told["winners"])
        )
    )


def _checked(read: Callable[[], T]) -> T:
    try:
        return read()
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise OptionError(f"{_file()}: no record of engines ({error}). Remove it.") from error


__all__ = ["ENGINES", "WORKS", "Found", "Kind", "Row", "Work", "best", "installed", "recall",
           "remember", "winner"]  # fmt: skip
