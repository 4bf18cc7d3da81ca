"""What a history shows: a forest trained on it, peer groups of its users, and what both find."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

from streamguard.batch.detection.assessment import Assessment, assess
from streamguard.batch.detection.challenger import Challenger, train
from streamguard.batch.detection.clusters import Peers, peer_groups
from streamguard.batch.folded_history import FoldedHistory
from streamguard.batch.planning import Algorithm
from streamguard.models.sampling import Selection
from streamguard.settings.schema import Settings


@dataclass(frozen=True, slots=True)
class DetectionResult:
    """What detectors have made of a history.

    Attributes
    ----------
    chosen
        The rows of the sample that train.
    challenger
        The forest, before the gate; None if none was asked for, or too few rows were chosen.
    peers
        None if they were not asked for.
    assessment
        Of both, and of statistics and patterns.
    """

    chosen: Selection
    challenger: Challenger | None
    peers: Peers | None
    assessment: Assessment


def detect(
    history: FoldedHistory,
    chosen: Selection,
    algorithm: Algorithm,
    settings: Settings,
) -> DetectionResult:
    """Train the forest, find the peer groups beside it, and judge events and users by both."""
    result = history.result
    challenger = peers = None
    with ThreadPoolExecutor(1, "peers") as beside:
        if algorithm != "isolation_forest":
            grouping = beside.submit(
                peer_groups, result.users.usual, settings.clusters, seed=settings.training.seed
            )
        if algorithm != "kmeans":
            challenger = train(result.sample, chosen, history.about, settings)
        if algorithm != "isolation_forest":
            peers = grouping.result()
    forest = challenger.forest if challenger else None
    assessment = assess(result, forest, peers, alert_bits=settings.detection.alert_bits)
    return DetectionResult(chosen, challenger, peers, assessment)
