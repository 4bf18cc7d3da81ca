"""Shadow mode: scores events with the newest forest that is not in use, and only counts its alerts."""

from __future__ import annotations

import numpy as np

from streamguard.alerts.verdict import verdict
from streamguard.metrics import SHADOW_ALERTS, SHADOW_EVENTS, SHADOW_FOREST_ALERTS
from streamguard.models.forest import Forest
from streamguard.models.manifest import ArtifactError
from streamguard.models.registry import Registry
from streamguard.settings.schema import Detection
from streamguard.state.partition import Folded


class Shadow:
    """Scores each chunk with the challenger, after the incidents of the champion have been handed to the publisher.

    Attributes
    ----------
    challenger
        The forest of the challenger, or None.
    """

    def __init__(self, detection: Detection) -> None:
        self._alert_bits = detection.alert_bits
        self.challenger: Forest | None = None

    def score(self, folded: Folded) -> None:
        """Count the alerts of champion and challenger in a chunk that was `folded` with the champion."""
        challenger = self.challenger
        if challenger is None or not folded.count:
            return
        seen = folded.score >= 0  # excludes events that were already folded before a crash
        champion, bits = folded.forest, challenger.bits(folded.features)
        without = folded.evidence - verdict(np.zeros(folded.count), champion)
        SHADOW_EVENTS.inc(int(seen.sum()))
        for role, own in (("champion", champion), ("challenger", bits)):
            SHADOW_ALERTS.labels(role).inc(int((verdict(without, own)[seen] >= self._alert_bits).sum()))
            SHADOW_FOREST_ALERTS.labels(role).inc(int((own[seen] >= self._alert_bits).sum()))


class Newest:
    """Finds the version of a registry that was published last; each manifest is read once."""

    def __init__(self) -> None:
        self._published: dict[str, float | None] = {}

    def beside(self, registry: Registry, current: str | None) -> str | None:
        """Find the newest version other than `current`; of two with the same time, the one that sorts last.

        Versions whose manifest is refused are left out. The result is None if no version remains.
        """
        found = registry.versions()
        self._published = {
            version: self._published[version] for version in found if version in self._published
        }
        for version in found:
            if version not in self._published:
                try:
                    registry.manifest(version)
                    self._published[version] = registry.published(version)
                except ArtifactError as error:
                    if not isinstance(error.__context__, OSError):
                        self._published[version] = None
        ages = [
            (at, version) for version, at in self._published.items() if at is not None and version != current
        ]
        return max(ages)[1] if ages else None
