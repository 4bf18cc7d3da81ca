"""The append time of a record, plus a tolerance, is the ceiling of its event's time."""

from __future__ import annotations

import numpy as np

from streamguard.events.ceiling import TOLERANCE_MS, UNKNOWN
from streamguard.settings.schema import Detection
from tests.incidents import bodies
from tests.streams import DAY, HOUR, START, Partition, event, habit

FORGED = START + 70 * 365 * DAY
ATTACK = {
    "source_ip": "203.0.113.9",
    "status": "failed",
    "metadata": {"geo_location": "US-Ohio", "hostname": "x"},
}
LIVE = START + 2000 * 20_000
"""When the habit of 2,000 events ends."""


def times(values: list[bytes]) -> np.ndarray:
    """The habit's records are appended as they happen, the others after it."""
    return np.minimum(START + np.arange(len(values)) * 20_000, LIVE)


def test_event_of_the_future_is_scored_at_its_ceiling_and_counted() -> None:
    values = [*habit(2000), *(event(FORGED + k, "user3", **ATTACK) for k in range(3))]
    partition = Partition(detection=Detection(alert_risk=3.8))
    folded = partition.state.fold(values, np.arange(len(values)), append_ms=times(values))
    partition.save()

    assert folded.clamped == 3
    assert folded.columns.timestamp[-3:].tolist() == [LIVE + TOLERANCE_MS] * 3
    assert folded.score[-1] > 0
    assert partition.population["clock"] == LIVE + TOLERANCE_MS
    assert partition.profile("user3")["last_ts"] == LIVE + TOLERANCE_MS
    incident = bodies(update.incident for update in folded.incidents)[-1]
    assert incident["last_seen"] == "2025-01-06T11:16:40.000Z"
    assert incident["event"]["timestamp"] >= FORGED  # the record itself stays as it was sent


def test_early_and_late_events_within_the_tolerance_keep_their_times() -> None:
    values = [event(START, "a"), event(START + 2 * TOLERANCE_MS, "b"), event(START - 9 * HOUR, "c")]
    append = np.array([START, START + TOLERANCE_MS, START])
    folded = Partition().state.fold(values, np.arange(3), append_ms=append)

    assert folded.clamped == 0
    assert folded.columns.timestamp.tolist() == [START, START + 2 * TOLERANCE_MS, START - 9 * HOUR]


def test_a_record_whose_time_was_set_by_its_sender_has_no_ceiling() -> None:
    values = [event(FORGED, "a"), b"?", event(FORGED, "b")]
    folded = Partition().state.fold(values, np.arange(3), append_ms=np.array([UNKNOWN, START, START]))

    assert folded.columns.timestamp.tolist() == [FORGED, START + TOLERANCE_MS]
    assert folded.clamped == 1
