"""Runs the detectors over a folded history: trains the forest, finds peer groups, and assesses the kept events."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace

from streamguard.batch.detection.assessment import Assessment, assess
from streamguard.batch.detection.challenger import Challenger, train
from streamguard.batch.detection.clusters import PeerGroups, peer_groups
from streamguard.batch.detection.peer_values import peer_values
from streamguard.batch.detection.users import UserAssessor
from streamguard.batch.folded_history import FoldedHistory
from streamguard.batch.planning import Algorithm
from streamguard.models.forest import with_peers
from streamguard.models.sampling import Selection
from streamguard.settings.schema import Settings


@dataclass(frozen=True, slots=True)
class DetectionResult:
    """Results of the detectors for one history.

    Attributes
    ----------
    selection
        The training rows of the sample.
    challenger
        The forest with its peers, before the gate; None if none was requested, or too few rows were selected.
    peers
        The peer groups; None if they were not requested.
    assessment
        Evidence and risk of the kept events from statistics, patterns and forest.
    assessor
        Assesses users from these events and their peer groups.
    """

    selection: Selection
    challenger: Challenger | None
    peers: PeerGroups | None
    assessment: Assessment
    assessor: UserAssessor


def detect(
    history: FoldedHistory,
    selection: Selection,
    algorithm: Algorithm,
    settings: Settings,
) -> DetectionResult:
    """Train the forest, find the peer groups in parallel, and assess the kept events."""
    result = history.result
    challenger = peers = None
    with ThreadPoolExecutor(1, "peers") as beside:
        if algorithm != "isolation_forest":
            grouping = beside.submit(
                peer_groups, result.usual, settings.clusters, seed=settings.training.seed
            )
        if algorithm != "kmeans":
            challenger = train(result.sample, selection, history.about, settings)
        if algorithm != "isolation_forest":
            peers = grouping.result()
    if challenger and peers:
        usual = peer_values(result, peers, challenger.forest.version)
        challenger = replace(challenger, forest=with_peers(challenger.forest, usual))
    forest = challenger.forest if challenger else None
    alert_bits = settings.detection.alert_bits
    assessment = assess(result, forest, alert_bits=alert_bits)
    assessor = UserAssessor(assessment, result.counts, peers, alert_bits=alert_bits)
    return DetectionResult(selection, challenger, peers, assessment, assessor)
