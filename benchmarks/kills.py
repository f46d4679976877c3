"""Does a job that is killed 20 times at random moments end in the same model as one that is not?

A tiny job (a random teacher that writes the answers, three shapes, the rivals, the verdict) is run
once without harm. Then it is run again and again, each time killed with SIGKILL at another random
moment, until it is done, then as a new job, until `--kills` have hit. Compared are shape, hashes
of all weights, every answer and score, and which stages were worked out more than once.

    python benchmarks/kills.py               # 20 kills, about two minutes on two cores
    python benchmarks/kills.py --kills 5 --seed 3
    python benchmarks/kills.py --effort thorough --steps 16
    python benchmarks/kills.py --ctrl-c      # interrupted instead: does each run say so, too?
"""

from __future__ import annotations

import argparse
import signal
import sys
import tempfile
from pathlib import Path

from rich.console import Console

sys.path.insert(0, str(Path(__file__).parents[1] / "tests" / "make"))
sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))
import killing

from conftest import save_tiny_llama
from flyweight.make.progress_report import read_status


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
    parser.add_argument("--effort", choices=("quick", "standard", "thorough"), default="quick")
    parser.add_argument("--steps", type=int, default=120, help="of each distillation")
    parser.add_argument("--ctrl-c", action="store_true", help="SIGINT instead of SIGKILL")
    options = parser.parse_args()
    sent = signal.SIGINT if options.ctrl_c else signal.SIGKILL
    console = Console()
    with tempfile.TemporaryDirectory() as scratch:
        root = Path(scratch)
        task = killing.write_task(root / "task.jsonl", (96, 48, 48))
        job = {
            "teacher": str(tiny_teacher(root / "llama")),
            "task": task,
            "effort": options.effort,
            "steps": options.steps,
        }
        calm = root / "calm"
        calm.mkdir()
        assert killing.run(job, calm)
        wanted, lines = killing.fingerprint(calm / "out"), len(killing.stage_events(calm / "out"))
        hits = jobs = differ = twice = untold = 0
        while hits < options.kills:  # a job that is done makes way for the next
            place = root / f"job{jobs}"
            place.mkdir()
            jobs += 1
            while hits < options.kills and killing.kill_once(
                job, place, lines, options.seed * 1000 + hits + jobs, sent
            ):
                hits += 1
                if options.ctrl_c and read_status(place / "out")["state"] != "stopped":
                    untold += 1
                    console.print((place / "log").read_text()[-2000:])
            assert killing.run(job, place)
            found = killing.fingerprint(place / "out")
            parts = [part for part in wanted if found[part] != wanted[part]]
            differ += bool(parts)
            twice += len(killing.stages_done_twice(place / "out"))
            console.print(f"job {jobs}: {hits} kills so far, {parts or 'nothing'} differs")
    console.print(
        f"{hits} kills in {jobs} jobs: {jobs - differ} of {jobs} ended in the same shape, weights, "
        f"answers and scores; {twice} stages were worked out twice"
        + (f"; {untold} did not say that they were stopped" if options.ctrl_c else "")
    )


if __name__ == "__main__":
    main()
