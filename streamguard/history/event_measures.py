"""Measures of how well a score ranks events that are attacks before benign ones."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

FALSE_POSITIVE_RATES = (0.01, 0.001)
"""False-positive rates at which the recall is measured."""
TOP = 100
"""Number of events with the highest scores whose precision is measured."""


def ranking(score: NDArray[np.float64], attack: NDArray[np.bool_]) -> dict[str, float | None]:
    """Measures of how well a score ranks attacks before benign events; events of equal score count as one step.

    Parameters
    ----------
    score
        float64 (n,); a higher score is more suspicious.
    attack
        bool (n,), whether the event is an attack.

    Returns
    -------
    dict
        `roc_auc`, `average_precision`, `precision_at_100` (of all events if there are fewer than 100),
        `recall_at_fpr_0.01` and `recall_at_fpr_0.001`: the highest recall of a threshold that alerts at most this
        share of the benign events. All are None if there are no attacks or no benign events.

    Examples
    --------
    >>> ranking(np.array([5.0, 4.0, 3.0, 1.0]), np.array([True, True, False, False]))["average_precision"]
    1.0
    """
    names = ["roc_auc", "average_precision", f"precision_at_{TOP}"]
    names += [f"recall_at_fpr_{rate:g}" for rate in FALSE_POSITIVE_RATES]
    positives = int(attack.sum())
    negatives = len(attack) - positives
    if not positives or not negatives:
        return dict.fromkeys(names)
    order = np.argsort(-score, kind="stable")
    ends = np.append(np.flatnonzero(np.diff(score[order])), len(order) - 1)
    hits = np.cumsum(attack[order])[ends].astype(np.float64)
    found = ends + 1.0
    recall = np.append(0.0, hits / positives)
    false = np.append(0.0, (found - hits) / negatives)
    top = min(TOP, len(order))
    measures = [
        float(np.trapezoid(recall, false)),
        float(np.sum(np.diff(recall) * hits / found)),
        float(np.interp(top, np.append(0.0, found), np.append(0.0, hits)) / top),
        *(float(recall[false <= rate].max()) for rate in FALSE_POSITIVE_RATES),
    ]
    return dict(zip(names, measures, strict=True))
