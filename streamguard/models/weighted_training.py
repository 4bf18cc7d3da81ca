"""Trains a forest and measures, without labels, how well it separates: this gives it its weight."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from streamguard.models import injection
from streamguard.models.forest import Forest, weighted
from streamguard.models.sampling import Selection
from streamguard.models.train import train_on
from streamguard.models.weight import Separation
from streamguard.settings.schema import Training

HELD_OUT = 1 / 3
"""Share of the sample, its latest events, on which the agreement is measured; the probe forest is trained on the rest.
Among the events that trained it, a forest agrees far better than among later ones: 0.95, not 0.64 on CloudTrail."""


def train_weighted(
    features: NDArray[np.float32], chosen: Selection, timestamp: NDArray[np.int64], settings: Training
) -> tuple[Forest, Separation]:
    """Train a forest on the selected rows of a sample, and give it the weight that its separation deserves.

    Parameters
    ----------
    features
        float32 (n, 34): rows of a sample with all features.
    chosen
        Selection among them.
    timestamp
        int64 (n,): event times, any unit.

    Raises
    ------
    ValueError
        See `streamguard.models.train.train`.
    """
    forest = train_on(features, chosen, settings)
    agreement, strange = _agreement(features, chosen, timestamp, settings)
    found = injection.separations(forest, features[chosen.quiet], features[chosen.rows])
    injected = float(np.mean(list(found.values()))) if found else 0.5
    separation = Separation(round(injected, 4), round(agreement, 4), strange)
    return weighted(forest, separation.weight), separation


def _agreement(
    features: NDArray[np.float32], chosen: Selection, timestamp: NDArray[np.int64], settings: Training
) -> tuple[float, int]:
    """`Separation.agreement` and `Separation.strange`; chance and 0 if either part has too few events."""
    late = timestamp > np.quantile(timestamp, 1.0 - HELD_OUT, method="lower")
    early = Selection(
        chosen.rows[~late[chosen.rows]], chosen.calibration[~late[chosen.calibration]], chosen.quiet
    )
    quiet, strange = late & chosen.quiet, late & ~chosen.quiet
    if len(early.rows) < 2 or not quiet.any() or not strange.any():
        return 0.5, 0
    probe = train_on(features, early, settings)
    return (
        injection.auc(-probe.score_samples(features[strange]), -probe.score_samples(features[quiet])),
        int(strange.sum()),
    )
