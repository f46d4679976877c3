"""What this machine is called, and what it is asked to remember of itself."""

from __future__ import annotations

import os
import platform
import re
from pathlib import Path

import platformdirs

from flyweight.runtime.threads import cores


def processor() -> str:
    """This machine's processor, by the name that the system tells."""
    info = Path("/proc/cpuinfo")
    if info.exists():
        for line in info.read_text(encoding="utf-8").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine() or "unknown"


def own_name() -> str:
    """Processor and cores as a file's name."""
    return re.sub(r"[^a-z0-9]+", "-", f"{processor()} x{cores()}".lower()).strip("-")[:80]


def cache_folder() -> Path:
    """Where what can be found out again is kept (FLYWEIGHT_CACHE overrides)."""
    return Path(os.environ.get("FLYWEIGHT_CACHE") or platformdirs.user_cache_dir("flyweight"))


__all__ = ["cache_folder", "own_name", "processor"]
