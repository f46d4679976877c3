"""Write the demo's task: `python -m flyweight.demo out/demo-task.jsonl`."""

from __future__ import annotations

import sys
from pathlib import Path

from flyweight.demo.orders import write_task

if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit("usage: python -m flyweight.demo FILE.jsonl")
    write_task(Path(sys.argv[1]))
