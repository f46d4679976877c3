"""Files of few bits, their weights rounded for the train items of the task."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from flyweight.make import results
from flyweight.make.workload import CALIBRATION

if TYPE_CHECKING:
    from flyweight.make.job import Job

# What such files depend on beside their checkpoint and the task.
FITTING: dict[str, Any] = {"format": results.PACK_FORMAT, "items": CALIBRATION}


def density(job: Job) -> dict[int, float]:
    """Bytes a parameter of the teacher's files, by bits: a student's have about as many."""
    found = {}
    for bits, name in job.big.files.items():
        folder = job.teacher_folder if name == job.big.whole else job.big.quantised(job)
        found[bits] = (folder / name).stat().st_size / job.teacher.parameters
    return found


__all__ = ["FITTING", "density"]
