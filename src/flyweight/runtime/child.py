"""Work in a child process: a crash in native code is an error here and nothing else.

The child (`python -m` a module that ends in `answer_parent`) reads its job as JSON on stdin and
prints one JSON object a line: progress, then the result.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

from flyweight import errors
from flyweight.errors import EngineError, FlyweightError


def run_child(
    module: str, file: Path, job: dict[str, Any], timeout: float, on_answer: Callable[[], object]
) -> dict[str, Any]:
    """What `python -m module` makes of the job, or its error; EngineError where it dies.

    `file` is what the job is about, for the message; `on_answer` is called at each `say_answer`.
    """
    said: dict[str, Any] = {}
    with tempfile.TemporaryFile() as complaints:
        child = subprocess.Popen(
            [sys.executable, "-m", module],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=complaints,
            text=True,
        )
        expired = threading.Event()
        timer = threading.Timer(timeout, lambda: (expired.set(), child.kill()))
        timer.start()
        try:
            said = _listen(child, job, on_answer)
            status = child.wait()
        finally:
            timer.cancel()
            child.kill()  # an exception here must not leave it running; a finished one ignores it
            child.wait()
        if "result" in said:
            return said["result"]
        if "error" in said:
            raise getattr(errors, said["kind"])(said["error"])
        if expired.is_set():
            raise EngineError(f"{file}: not done after {timeout:.0f} s; try a smaller one")
        complaints.seek(0)
        words = complaints.read().decode(errors="replace").strip() or "it left no message"
        raise EngineError(f"{file}: the engine died (status {status}): {words.splitlines()[-1]}")


def _listen(
    child: subprocess.Popen[str], job: dict[str, Any], on_answer: Callable[[], object]
) -> dict[str, Any]:
    """Give the child its job and collect what it says but for its progress."""
    assert child.stdin is not None
    assert child.stdout is not None
    try:
        json.dump(job, child.stdin)
        child.stdin.close()
    except BrokenPipeError:
        pass  # it is dead already; the caller says why
    said: dict[str, Any] = {}
    for line in child.stdout:
        try:
            message = json.loads(line)
        except ValueError:
            continue  # native code that prints
        if "answer" in message:
            on_answer()
        else:
            said |= message
    return said


def say_answer() -> None:
    """In the child: one more answer is there."""
    sys.stdout.write('{"answer": 1}\n')  # in one piece: several threads write here
    sys.stdout.flush()


def answer_parent(work: Callable[[dict[str, Any]], dict[str, Any]]) -> None:
    """In the child: do the job that stdin holds."""
    try:
        said = {"result": work(json.load(sys.stdin))}
    except FlyweightError as error:
        said = {"error": str(error), "kind": type(error).__name__}
    print(json.dumps(said), flush=True)


def percentile(in_order: list[float], share: float) -> float:
    """The smallest value that at least `share` of the sorted values do not exceed."""
    return in_order[max(0, -int(-len(in_order) * share // 1) - 1)]


def memory_of(key: str) -> int:
    """This process's VmRSS or VmHWM in bytes (Linux), elsewhere the peak so far."""
    status = Path("/proc/self/status")
    if status.exists():
        for line in status.read_text().splitlines():
            if line.startswith(key + ":"):
                return int(line.split()[1]) * 1024
    try:
        import resource
    except ImportError:  # Windows counts neither for free
        return 0
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


__all__ = ["answer_parent", "memory_of", "percentile", "run_child", "say_answer"]
