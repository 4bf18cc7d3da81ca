"""What looks for anomalies in a history: a forest trained on it, peer groups of its users, and what both find."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

from streamguard.batch.detection import assessment, challenger
from streamguard.batch.detection.assessment import Findings
from streamguard.batch.detection.challenger import Challenger
from streamguard.batch.detection.clusters import Peers, peer_groups
from streamguard.batch.folded_history import History
from streamguard.batch.planning import Algorithm
from streamguard.models.sampling import Chosen
from streamguard.settings.schema import Settings


@dataclass(frozen=True, slots=True)
class Detected:
    """What detectors have made of a history.

    Attributes
    ----------
    chosen
        The rows of the sample that train.
    trial
        The forest, before the gate; None if none was asked for, or too few rows were chosen.
    peers
        None if they were not asked for.
    findings
        Of both, and of statistics and patterns.
    """

    chosen: Chosen
    trial: Challenger | None
    peers: Peers | None
    findings: Findings


def detect(
    history: History,
    chosen: Chosen,
    algorithm: Algorithm,
    settings: Settings,
) -> Detected:
    """Train the forest, find the peer groups beside it, and judge events and users by both."""
    staged = history.staged
    trial = peers = None
    with ThreadPoolExecutor(1, "peers") as beside:
        if algorithm != "isolation_forest":
            grouping = beside.submit(
                peer_groups, staged.users.usual, settings.clusters, seed=settings.training.seed
            )
        if algorithm != "kmeans":
            trial = challenger.train(staged.sample, chosen, history.about, settings)
        if algorithm != "isolation_forest":
            peers = grouping.result()
    forest = trial.forest if trial else None
    found = assessment.find(staged, forest, peers, alert_bits=settings.detection.alert_bits)
    return Detected(chosen, trial, peers, found)
