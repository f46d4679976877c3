"""What this machine is called, and what it is asked to remember of itself."""

from __future__ import annotations

import os
import re
from pathlib import Path

import platformdirs

from flyweight.energy.machine import cores, processor


def own_name() -> str:
    """Processor and cores as a file's name."""
    return re.sub(r"[^a-z0-9]+", "-", f"{processor()} x{cores()}".lower()).strip("-")[:80]


def cache_folder() -> Path:
    """Where what can be found out again is kept (FLYWEIGHT_CACHE overrides)."""
    return Path(os.environ.get("FLYWEIGHT_CACHE") or platformdirs.user_cache_dir("flyweight"))


__all__ = ["cache_folder", "own_name", "processor"]
