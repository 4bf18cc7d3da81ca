"""Shadow mode: scores events with the newest forest that is not in use, and only counts its alerts."""

from __future__ import annotations

from streamguard.alerts.verdict import verdict
from streamguard.metrics import SHADOW_EVENTS, SHADOW_FOREST_ALERTS, SHADOW_RANKED
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
        """Count what champion and challenger say of a chunk that was `folded` with the champion; peers are left out."""
        challenger = self.challenger
        if challenger is None or not folded.count:
            return
        seen = folded.score >= 0  # excludes events that were already folded before a crash
        SHADOW_EVENTS.inc(int(seen.sum()))
        for role, bits in (("champion", folded.forest), ("challenger", challenger.bits(folded.features))):
            ranked = verdict(folded.strength, bits) > folded.strength
            SHADOW_RANKED.labels(role).inc(int(ranked[seen].sum()))
            SHADOW_FOREST_ALERTS.labels(role).inc(int((bits[seen] >= self._alert_bits).sum()))


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
