"""Incidents as they are published: who, how bad, and why in words a person understands."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from streamguard import population as crowd
from streamguard.calibration import RISK_PER_BIT
from streamguard.columns import TEXTS
from streamguard.events import Event, as_document
from streamguard.patterns import PATTERNS
from streamguard.profile import COMPONENTS, HOURS, SKETCHES

SEVERITIES = ("low", "medium", "high", "critical")
_SEVERITY_BITS = (("critical", 20.0), ("high", 14.0), ("medium", 9.0), ("low", -1.0))
MOST_REASONS = 6
LEAST_REASON_BITS = 1.0
_DAYS = ("Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun")


@dataclass(frozen=True, slots=True)
class Told:
    """An alert that is to be published, with all that its explanation needs.

    Attributes
    ----------
    index
        Of the event in its chunk.
    entity_kind
        `user`, `source` or `crowd`.
    first_offset, first_ms, count, patterns
        Of the incident so far.
    texts
        The event's own, in the order of `streamguard.columns.TEXTS`.
    evidence, tail, forest
        Bits.
    raw, excess
        float32 (18,), bits by component.
    profile
        `PROFILE` scalar, as it was before the event.
    context
        float64 (12,), see `streamguard.fold.fold`.
    """

    partition: int
    index: int
    entity_kind: str
    first_offset: int
    first_ms: int
    count: int
    patterns: int
    event: Event
    texts: list[str]
    offset: int
    evidence: float
    tail: float
    forest: float | None
    model: str | None
    raw: NDArray[np.float32]
    excess: NDArray[np.float32]
    profile: np.void
    context: NDArray[np.float64]


@dataclass(slots=True)
class Incident:
    """One entity's alerts within a window, as published: new, or risen since it was told last."""

    id: str
    entity_kind: str
    entity: str
    severity: str
    patterns: tuple[str, ...]
    index: int
    body: dict[str, Any]

    def attach(self, value: bytes | None) -> None:
        """Put the event itself into the incident."""
        self.body["event"] = as_document(value or b"null")

    def locate(self, topic: str) -> None:
        """Say which topic the event came from."""
        self.body["origin"]["topic"] = topic

    def encode(self) -> bytes:
        """The incident as JSON."""
        return msgspec.json.encode(self.body)


def severity(evidence: float) -> str:
    """The name of a strength of evidence.

    Examples
    --------
    >>> severity(10.0), severity(25.0)
    ('medium', 'critical')
    """
    return next(name for name, bits in _SEVERITY_BITS if evidence >= bits)


def risk(evidence: float) -> float:
    """Evidence in bits on the scale from 0 to 100: 50 is one event in a hundred, 75 one in a thousand.

    Examples
    --------
    >>> round(risk(9.965784)), risk(50.0)
    (75, 100.0)
    """
    return round(min(max(evidence * RISK_PER_BIT, 0.0), 100.0), 1)


def incident_of(told: Told, text_of: Callable[[int], str | None]) -> Incident:
    """The incident that an alert belongs to, as it is now.

    Parameters
    ----------
    told
        The alert.
    text_of
        The partition's dictionary: hash -> text.
    """
    names = [pattern for k, pattern in enumerate(PATTERNS) if told.patterns >> k & 1]
    name = f"{told.partition}-{told.first_offset}-{told.first_ms:x}"
    crowd_name = f"partition {told.partition}"
    entity = {"user": told.event.user or "", "source": told.texts[0], "crowd": crowd_name}[told.entity_kind]
    level = severity(told.evidence)
    body: dict[str, Any] = {
        "id": name,
        "entity": {"kind": told.entity_kind, "value": entity},
        "first_seen": rfc3339(told.first_ms),
        "last_seen": rfc3339(int(told.event.timestamp)),
        "count": told.count,
        "risk": risk(told.evidence),
        "severity": level,
        "evidence_bits": round(told.evidence, 2),
        "technique": names[0].technique if names else None,
        "patterns": [{"name": p.name, "technique": p.technique, "says": p.says} for p in names],
        "reasons": reasons(told, text_of),
        "model": {"version": told.model, "forest_bits": None if told.forest is None else round(told.forest, 2)},
        "origin": {"topic": None, "partition": told.partition, "offset": told.offset},
        "event": None,
    }
    return Incident(name, told.entity_kind, entity, level, tuple(p.name for p in names), told.index, body)


def reasons(told: Told, text_of: Callable[[int], str | None]) -> list[dict[str, Any]]:
    """What made the event surprising, strongest first.

    Returns
    -------
    list of dict
        `feature`, `actual`, `typical`, `bits` and `share` of all bits. What was carried over from earlier events
        stands last: it only repeats their reasons.
    """
    bits = told.excess.astype(np.float64)
    total = float(bits.sum()) or 1.0
    out = []
    order = np.argsort(-bits, kind="stable").tolist()
    order.append(order.pop(order.index(COMPONENTS.index("carried"))))
    for c in [c for c in order if bits[c] >= LEAST_REASON_BITS][:MOST_REASONS]:
        actual, typical = _words(COMPONENTS[c], told, text_of)
        out.append(
            {
                "feature": COMPONENTS[c],
                "actual": actual,
                "typical": typical,
                "bits": round(float(bits[c]), 2),
                "share": round(float(bits[c]) / total, 3),
            }
        )
    return out


def _words(component: str, told: Told, text_of: Callable[[int], str | None]) -> tuple[str, str]:
    profile, event, context = told.profile, told.event, told.context
    if component in ("source", "location", "host", "agent", "resource"):
        return told.texts[TEXTS.index(component)], usual_values(profile, SKETCHES.index(component), text_of)
    if component == "transition":
        return f"{event.event_type} follows here", "seldom comes next for this user"
    if component == "failure":
        reason = told.texts[TEXTS.index("reason")]
        share = float(profile["learned_failures"]) / max(float(profile["learned"]), 1.0)
        return f"{event.status}{f' ({reason})' if reason else ''}", f"{share:.1%} of the user's events fail"
    if component == "outcome":
        return f"{event.event_type}, {event.status}", "rare among all users"
    if component == "hour":
        return hour_name(int(context[11])), usual_hours(profile["hours"])
    if component == "interval":
        return f"{context[10]:.1f} s after the event before", f"{2.0 ** float(profile['mean'][0]):,.0f} s between events"
    if component == "volume":
        return amount(_volume(event)), f"{amount(2.0 ** float(profile['mean'][1]))} an event"
    if component == "threat":
        return f"{event.threat_score}", f"{float(profile['mean'][2]):.2f}"
    if component == "source_spread":
        return (
            f"{told.texts[0]} failed at {context[8]:.0f} users, {context[9]:.0f} times within an hour",
            "a source fails at one user",
        )
    if component == "carried":
        return "the same source was suspicious minutes ago", "no suspicion"
    k = crowd.CLASSES.index(component.removeprefix("crowd_"))
    what = _CROWD_WORDS[k]
    return f"{context[k] + 1:.0f} {what} in 5 minutes among all users", f"{context[4 + k]:.2g}"


_CROWD_WORDS = ("events from addresses new to their user", "failures", "events of hardly known users", "failures from new addresses")


def usual_values(profile: np.void, sketch: int, text_of: Callable[[int], str | None]) -> str:
    """A user's weightiest values by name and share, at most three."""
    total = float(profile["sketch_total"][sketch])
    if total <= 0.0:
        return "nothing known yet"
    weights = profile["sketch_weight"][sketch]
    parts = []
    for q in np.argsort(-weights, kind="stable")[:3].tolist():
        share = float(weights[q]) / total
        if share < 0.01:
            break
        name = text_of(int(profile["sketch_hash"][sketch][q])) or "a value no longer named"
        parts.append(f"{name} ({share:.0%})")
    return ", ".join(parts) or "many values, none often"


def usual_hours(hours: NDArray[np.float32]) -> str:
    """The hours of the week that hold most of a user's events, in words."""
    total = float(hours.sum())
    if total <= 0.0:
        return "nothing known yet"
    by_hour = hours.reshape(7, 24).sum(axis=0)
    order = np.argsort(-by_hour, kind="stable")
    kept = np.sort(order[: int(np.searchsorted(np.cumsum(by_hour[order]), 0.9 * total)) + 1])
    weekend = float(hours[120:].sum()) / total
    return f"{spans(kept.tolist())} UTC, {weekend:.0%} at weekends"


def spans(hours: list[int]) -> str:
    """Ascending hours as ranges.

    Examples
    --------
    >>> spans([8, 9, 10, 14])
    '8-11 h, 14-15 h'
    """
    out: list[list[int]] = []
    for hour in hours:
        if out and out[-1][1] == hour:
            out[-1][1] = hour + 1
        else:
            out.append([hour, hour + 1])
    return ", ".join(f"{a}-{b} h" for a, b in out)


def hour_name(hour: int) -> str:
    """An hour of the week in words.

    Examples
    --------
    >>> hour_name(HOURS - 1)
    'Sun 23 h UTC'
    """
    return f"{_DAYS[hour // 24 % 7]} {hour % 24} h UTC"


def amount(size: float) -> str:
    """Bytes in words.

    Examples
    --------
    >>> amount(1_250_000)
    '1.2 MB'
    """
    for unit, factor in (("TB", 1e12), ("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if size >= factor:
            return f"{size / factor:.1f} {unit}"
    return f"{size:.0f} B"


def _volume(event: Event) -> float:
    if event.network_details is not None:
        return (event.network_details.bytes_sent or 0.0) + (event.network_details.bytes_received or 0.0)
    if event.file_details is not None:
        return event.file_details.file_size_bytes or 0.0
    return 0.0


def rfc3339(ms: int) -> str:
    """Epoch milliseconds as RFC 3339 in UTC.

    Examples
    --------
    >>> rfc3339(1_700_000_000_123)
    '2023-11-14T22:13:20.123Z'
    """
    return datetime.fromtimestamp(ms / 1000, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
