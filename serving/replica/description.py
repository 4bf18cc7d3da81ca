"""Turns what the state knows about a user into a `UserProfile`: hashes into texts, weights into shares and words."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from streamguard.alerts.incident import incident_id, rfc3339
from streamguard.alerts.usual import AN_OLDER_VALUE, amount, failure_share, held_values, span, usual_hours
from streamguard.events.decision import Kind
from streamguard.fold import crowd
from streamguard.fold.decisions import NEVER
from streamguard.fold.dimensions import HOURS, SKETCHES, WITH_TEXT
from streamguard.fold.moments import INTERVAL, THREAT, VOLUME
from streamguard.serving.replica.lookup import StoredUser
from streamguard.serving.replica.profile import (
    DecisionInForce,
    Hours,
    Maturity,
    OpenIncident,
    Typical,
    UserProfile,
    Usual,
    ValueShare,
)
from streamguard.serving.replica.rates import MONTH, a_day, rates_of
from streamguard.serving.replica.unusual import unusual_now
from streamguard.state.expiry import PROFILE_KINDS

LISTED = 10
"""Values of a field that are listed one by one; a profile holds up to 16."""
REST = "other values"
"""Stands for the values that are not listed."""


def user_profile(found: StoredUser, key: bytes, gap_ms: int) -> UserProfile:
    """Describe a user.

    Parameters
    ----------
    found
        What the state knows.
    key
        Key of the profile.
    gap_ms
        Event time without an alert after which an incident is over.
    """
    profile, population = found.profile, found.population
    incident = _open_incident(found, gap_ms)
    return UserProfile(
        user=key[1:].decode(),
        kind="source" if key[:1] == PROFILE_KINDS[0] else "user",
        partition=found.partition,
        topic=found.topic,
        topic_id=found.topic_id,
        source_offset=found.next_offset,
        event_time=rfc3339(int(population["clock"])),
        first_seen=rfc3339(int(profile["first_ts"])),
        last_seen=rfc3339(int(profile["last_ts"])),
        events=round(float(profile["events"])),
        active_days=round(float(profile["active_days"])),
        maturity=_maturity(profile),
        events_a_day=round(a_day(profile, float(profile["count"][MONTH])), 3),
        bytes_a_day=round(a_day(profile, float(profile["volume"][MONTH])), 1),
        failure_share=round(min(failure_share(profile), 1.0), 4),
        usual=tuple(_usual(found, name) for name in WITH_TEXT),
        hours=_hours(profile["hours"]),
        interval=_interval(profile),
        volume=_volume(profile),
        threat=round(float(profile["mean"][THREAT]), 4),
        rates=rates_of(profile),
        failures_in_a_row=int(profile["streak"]),
        unusual_now=unusual_now(found, incident),
        open_incident=incident,
        decisions=_decisions(found),
    )


def _maturity(profile: np.void) -> Maturity:
    events = float(profile["events"])
    if crowd.is_stranger.py_func(float(profile["learned"]), events):
        return "hardly known"
    return "known" if events >= crowd.KNOWN_EVENTS else "partly known"


def _usual(found: StoredUser, name: str) -> Usual:
    sketch = SKETCHES.index(name)
    held = held_values(found.profile, sketch, found.text_of)
    total = float(found.profile["sketch_total"][sketch])
    gone = max(float(found.profile["seen"][sketch]) - total, 0.0)
    rest = held[LISTED:]
    return Usual(
        name,
        tuple(_share(one.text, one.share, one.weight) for one in held[:LISTED]),
        _share(REST, sum(one.share for one in rest), sum(one.weight for one in rest)) if rest else None,
        round(gone, 2),
    )


def _share(text: str, share: float, weight: float) -> ValueShare:
    return ValueShare(text, round(min(share, 1.0), 4), round(weight, 2))


def _hours(hours: NDArray[np.float32]) -> Hours:
    total = float(hours.sum())
    shares = hours.astype(np.float64) / total if total > 0.0 else np.zeros(HOURS)
    return Hours(tuple(round(share, 5) for share in shares.tolist()), usual_hours(hours))


def _interval(profile: np.void) -> Typical | None:
    if not profile["moments"][INTERVAL] > 0.0:
        return None
    seconds = 2.0 ** float(profile["mean"][INTERVAL])
    return Typical(round(seconds, 3), f"{span(seconds)} between events")


def _volume(profile: np.void) -> Typical | None:
    if not profile["moments"][VOLUME] > 0.0:
        return None
    size = 2.0 ** float(profile["mean"][VOLUME])
    return Typical(round(size, 1), f"{amount(size)} an event")


def _open_incident(found: StoredUser, gap_ms: int) -> OpenIncident | None:
    profile = found.profile
    offset, last_ms = int(profile["incident_offset"]), int(profile["incident_last_ts"])
    if offset < 0 or int(found.population["clock"]) - last_ms > gap_ms:
        return None
    first_ms = int(profile["incident_first_ts"])
    return OpenIncident(
        id=incident_id(found.partition, offset, first_ms),
        first_seen=rfc3339(first_ms),
        last_seen=rfc3339(last_ms),
        count=int(profile["incident_count"]),
        evidence_bits=round(float(profile["incident_bits"]), 2),
    )


def _decisions(found: StoredUser) -> tuple[DecisionInForce, ...]:
    clock = int(found.population["clock"])
    out = []
    for row in found.decisions:
        expected, until = int(row["kind"]) == Kind.EXPECTED, int(row["until"])
        if expected and clock >= until * 1000:
            continue
        out.append(
            DecisionInForce(
                id_hash=int(row["id"]).to_bytes(8, "little").hex(),
                decision="expected" if expected else "attack",
                field=SKETCHES[int(row["field"])],
                value=found.text_of(int(row["value"])) or AN_OLDER_VALUE,
                until=rfc3339(until * 1000) if until != NEVER else None,
            )
        )
    return tuple(out)
