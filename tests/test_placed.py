"""What only reads a network does so on the GPU: `placed_cases.py`, in a process of its own.

Once a second device is there, torch starts threads for it, and no process that computed gradients
can be forked any more, as other tests do.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

CASES = Path(__file__).with_name("placed_cases.py")


def test_networks_are_read_on_the_gpu_as_on_the_cpu() -> None:
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:xdist", "-p", "no:cacheprovider"]
    done = subprocess.run([*command, str(CASES)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout[-5000:]
    assert " passed" in done.stdout
    assert "skipped" not in done.stdout
