"""Does a job that is killed 20 times at random moments end in the same model as one that is not?

A tiny job (a random teacher that writes the answers, three shapes, the rivals, the verdict) is run
once without harm. Then it is run again and again, killed with SIGKILL each time at another random
moment until `--kills` of them have hit, and at last left to end. Compared are shape, hashes of all
weights, every answer and score, and which stages were worked out more than once.

    python benchmarks/kills.py               # 20 kills, about two minutes on two cores
    python benchmarks/kills.py --kills 5 --seed 3
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from pathlib import Path

from rich.console import Console

sys.path.insert(0, str(Path(__file__).parents[1] / "tests" / "make"))
sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))
import killing

from conftest import save_tiny_llama


def tiny_teacher(folder: Path) -> Path:
    """A random Llama whose answers end soon."""
    from safetensors.torch import load_file, save_file

    save_tiny_llama(folder, max_position_embeddings=1024, num_hidden_layers=4)
    weights = load_file(folder / "model.safetensors")
    weights["lm_head.weight"][1] *= 4
    save_file(weights, folder / "model.safetensors", {"format": "pt"})
    return folder


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--kills", type=int, default=20, help="kills that must hit")
    parser.add_argument("--seed", type=int, default=0, help="of the moments")
    options = parser.parse_args()
    console = Console()
    with tempfile.TemporaryDirectory() as scratch:
        root = Path(scratch)
        task = killing.write_task(root / "task.jsonl", (96, 48, 48))
        job = {
            "teacher": str(tiny_teacher(root / "llama")),
            "task": task,
            "effort": "quick",
            "steps": 120,
        }
        calm, harmed = root / "calm", root / "harmed"
        for place in (calm, harmed):
            place.mkdir()
        assert killing.run(job, calm)
        lines = len(killing.stage_events(calm / "out"))
        hits = rounds = 0
        while hits < options.kills:
            hits += killing.kill_once(job, harmed, lines, options.seed * 1000 + rounds)
            rounds += 1
        assert killing.run(job, harmed)
        one, other = (killing.fingerprint(place / "out") for place in (calm, harmed))
        console.print(f"{hits} kills in {rounds} runs, {lines} lines about stages in a calm run")
        for part in one:
            console.print(f"  {part}: {'the same' if one[part] == other[part] else 'DIFFERS'}")
        twice = killing.stages_done_twice(harmed / "out")
        console.print(f"  stages worked out twice: {len(twice)} {twice or ''}")


if __name__ == "__main__":
    main()
