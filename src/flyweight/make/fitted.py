"""Files of few bits, their weights rounded for the train items of the task."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from flyweight.make import results
from flyweight.make.form import Form
from flyweight.make.workload import CALIBRATION, quantise_work

if TYPE_CHECKING:
    from flyweight.make.job import Job

# What such files depend on beside their checkpoint and the task.
FITTING: dict[str, Any] = {"format": results.PACK_FORMAT, "items": CALIBRATION}


def texts(job: Job, form: Form) -> list[list[int]]:
    """Token ids of the train items that weights are rounded for, as a form reads them."""
    return [each.ids.tolist() for each in job.data_of(form).train.examples[:CALIBRATION]]


def quantised(job: Job, form: Form) -> Path:
    """The folder of a teacher's files but the whole one, which hangs on no task, as a stage."""
    packed = job.packed(form)
    if not form.fitted:
        return packed

    def make(folder: Path) -> None:
        form.quantise(packed, texts(job, form), folder)

    work = quantise_work(form.source.parameters, job.sizes)
    return job.store.stage("quantise", job.origin_of(form) | FITTING, make, work=work)


def density(job: Job) -> dict[int, float]:
    """Bytes a parameter of the teacher's files, by bits: a student's have about as many."""
    found = {}
    for bits, name in job.big.files.items():
        folder = job.teacher_folder if name == job.big.whole else quantised(job, job.big)
        found[bits] = (folder / name).stat().st_size / job.teacher.parameters
    return found


__all__ = ["FITTING", "density", "quantised", "texts"]
