"""Macro-averaged F1: every label counts the same, however rare it is."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np


def macro_f1_parts(said: Sequence[str], wanted: Sequence[str]) -> np.ndarray:
    """float [n], whose mean is the macro-averaged F1 of these answers.

    As scikit-learn's f1_score(average="macro") has it, where all that is said and never wanted is
    one label more: a model is not judged by in how many ways it is wrong.
    The score is no mean over items, so each gets what it adds to first order (the influence of one
    item on a function of counts; Efron & Tibshirani 1993, chapter 21): intervals of means then hold
    for it in large samples. A part may be below 0, or above 1 where labels are rare.
    """
    said, wanted = ([text.strip() for text in texts] for texts in (said, wanted))
    names = {label: number for number, label in enumerate(sorted(set(wanted)))}
    other = len(names)
    told = np.array([names.get(label, other) for label in said])
    right = np.array([names[label] for label in wanted])
    count = other + (other in told)
    both = np.bincount(told[told == right], minlength=count)
    sizes = np.bincount(told, minlength=count) + np.bincount(right, minlength=count)  # never 0
    each = 2 * both / sizes  # F1 by label
    moved = 2.0 * (told == right) / sizes[right] - each[told] / sizes[told]
    moved -= each[right] / sizes[right]
    return each.mean() + len(told) / count * moved


__all__ = ["macro_f1_parts"]
