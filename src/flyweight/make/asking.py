"""What the teacher answers where the task holds no answer: a stage, the same for every score."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from flyweight.errors import TaskError
from flyweight.make import results, workload
from flyweight.progress import bar
from flyweight.tasks.score import exact

if TYPE_CHECKING:
    from flyweight.make.job import Job

SAID = "answers.json"


def teacher_answers(job: Job, prompts: list[list[int]], max_tokens: int) -> list[str]:
    """The teacher's answer to each prompt.

    TaskError where some do not end within `max_tokens` and are to be said exactly. They are kept
    all the same: another score takes them.
    """

    def make(folder: Path) -> None:
        file = job.teacher_folder / job.big.whole
        with bar("Teacher writes answers", len(prompts)) as running:
            said = job.big.answers(file, prompts, max_tokens, running.advance)
        results.write_json(folder / SAID, {"texts": said.texts, "unfinished": said.unfinished})

    work = workload.measure_work("answers", len(prompts), job.sizes, job.teacher.parameters)
    inputs = job.asked_of(job.big) | {"max_tokens": max_tokens, "asked": prompts}
    found = results.read_json(job.store.stage("answers", inputs, make, work=work) / SAID)
    if found["unfinished"] and job.scorer.compare is exact:
        raise TaskError(
            f"{job.task.name}: the teacher did not end {found['unfinished']} of {len(prompts)} "
            f"answers within {max_tokens} tokens. Give answers, or ask for shorter ones, or use "
            "another score."
        )
    return found["texts"]


__all__ = ["SAID", "teacher_answers"]
