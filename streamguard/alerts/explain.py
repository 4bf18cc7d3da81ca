"""The reasons of an alert in words: what was seen against what is usual."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated, Any, Literal

import msgspec
import numpy as np
from numpy.typing import NDArray

from streamguard.events.columns import TEXTS
from streamguard.events.event import Event
from streamguard.fold import patterns, population
from streamguard.fold.patterns import PATTERNS
from streamguard.fold.profile import COMPONENTS, MONTH, SKETCHES
from streamguard.text import counted

TextOf = Callable[[int], str | None]
"""Dictionary of the partition: hash -> text."""

MAX_REASONS = 6
"""Reasons of an incident; the strongest are kept."""
MIN_REASON_BITS = 1.0
"""Components below this weight are no reason."""
MAX_CHARACTERS = 256
"""Length of a text taken from an event: a record that the broker refuses would stop the worker."""

_DAYS = ("Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun")


EntityKind = Literal["user", "source", "crowd"]


@dataclass(frozen=True, slots=True)
class Alert:
    """An alert that is to be published, with all that its explanation needs.

    Attributes
    ----------
    index
        Place of the event among the events of its chunk.
    entity_kind
        Whose incident it is.
    first_offset, first_ms, count, patterns
        The incident so far: offset and event time of its first alert, number of alerts, patterns as a bit set.
    found
        Patterns of this event, as a bit set.
    volume
        Bytes that the event moves.
    texts
        Texts of the event, in the order of `streamguard.events.columns.TEXTS`.
    evidence, tail, forest
        Bits; `forest` is None without a model.
    raw, excess
        float32 (18,), bits of each component.
    profile
        `PROFILE` scalar, as it was before the event.
    context
        `streamguard.fold.grouping.CONTEXT` scalar.
    """

    partition: int
    index: int
    entity_kind: EntityKind
    first_offset: int
    first_ms: int
    count: int
    patterns: int
    found: int
    event: Event
    volume: float
    texts: list[str]
    offset: int
    evidence: float
    tail: float
    forest: float | None
    model: str | None
    raw: NDArray[np.float32]
    excess: NDArray[np.float32]
    profile: np.void
    context: np.void


class Reason(msgspec.Struct, frozen=True):
    """One reason of an alert: what was seen, what is usual, and how much it weighs."""

    feature: Annotated[str, msgspec.Meta(description="Name of the pattern or of the component of the score")]
    actual: Annotated[str, msgspec.Meta(description="What the event shows")]
    typical: Annotated[str, msgspec.Meta(description="What is usual for the user, or for all users")]
    bits: Annotated[float, msgspec.Meta(description="Weight of the reason, in bits")]
    share: Annotated[float, msgspec.Meta(description="Share of the weight of all reasons", ge=0, le=1)]


def reasons(alert: Alert, text_of: TextOf) -> tuple[Reason, ...]:
    """What makes the event unusual, the strongest reason first.

    Suspicion carried over from earlier events stands last, because it only repeats their reasons.
    """
    found = [
        (PATTERNS[k].name, PATTERNS[k].bits, pattern_words(k, alert, text_of))
        for k in range(len(PATTERNS))
        if alert.found >> k & 1
    ]
    bits = alert.excess.astype(np.float64)
    order = np.argsort(-bits, kind="stable").tolist()
    order.append(order.pop(order.index(COMPONENTS.index("carried"))))
    found += [
        (COMPONENTS[c], float(bits[c]), component_words(COMPONENTS[c], alert, text_of))
        for c in order
        if bits[c] >= MIN_REASON_BITS
    ]
    total = math.fsum(strength for _, strength, _ in found) or 1.0
    return tuple(
        Reason(
            feature=name,
            actual=actual[:MAX_CHARACTERS],
            typical=typical,
            bits=round(strength, 2),
            share=round(strength / total, 3),
        )
        for name, strength, (actual, typical) in found[:MAX_REASONS]
    )


def pattern_words(k: int, alert: Alert, text_of: TextOf) -> tuple[str, str]:
    """(actual, typical) of a pattern that the event completes."""
    profile, context = alert.profile, alert.context
    if k in (patterns.BRUTE_FORCE, patterns.SUCCESS_AFTER_FAILURES):
        share = float(profile["learned_failures"]) / max(float(profile["learned"]), 1.0)
        return (
            f"{int(profile['streak'])} failed logins in a row before",
            f"{share:.1%} of the user's events fail",
        )
    if k == patterns.SPRAY:
        return component_words("source_spread", alert, text_of)
    if k == patterns.DISTRIBUTED:
        return component_words("crowd_new_source_failure", alert, text_of)
    if k == patterns.TRAVEL:
        minutes = (int(alert.event.timestamp) - int(profile["last_area_ts"])) / 60_000
        after = counted(round(max(minutes, 0)), "minute")
        usual = usual_values(profile, SKETCHES.index("location"), text_of)
        return f"{alert.texts[1]}, {after} after another country", usual
    if k == patterns.DORMANT:
        return (
            f"first event in {counted(round(context['gap'] / 86_400), 'day')}",
            f"{span(2.0 ** float(profile['mean'][0]))} between events",
        )
    if k == patterns.DOWNLOAD:
        return _per_five_minutes("file", "read", profile["reads"], profile)
    if k == patterns.RANSOMWARE:
        return _per_five_minutes("file", "changed", profile["changes"], profile)
    if k == patterns.EXFILTRATION:
        moved = float(profile["volume"][1]) + alert.volume
        return f"{amount(moved)} moved within the hour", f"{amount(float(profile['volume'][3]))} in a month"
    if k in (patterns.TUNNEL, patterns.GENERATED):
        return f"{counted(round(float(profile['queries']) + 1), 'such name')} in 5 minutes", "0"
    days = float(profile["pattern_days"][k])
    command = alert.event.process_details.command_line if alert.event.process_details else None
    return (command or "")[:120], f"on {counted(round(days), 'day')} of the last month"


def _per_five_minutes(noun: str, verb: str, counts: Any, profile: np.void) -> tuple[str, str]:
    age = (int(profile["active_ms"]) - int(profile["first_active_ms"])) / 1000
    usual = float(counts[1]) / patterns.lived.py_func(2.0 ** (-age / MONTH)) * 300.0
    return f"{counted(round(float(counts[0]) + 1), noun)} {verb} in 5 minutes", f"{usual:.2g} in 5 minutes"


def component_words(component: str, alert: Alert, text_of: TextOf) -> tuple[str, str]:
    """(actual, typical) of a component of the score."""
    profile, event, context = alert.profile, alert.event, alert.context
    if component in ("source", "location", "host", "agent", "resource"):
        return alert.texts[TEXTS.index(component)], usual_values(profile, SKETCHES.index(component), text_of)
    if component == "transition":
        return f"{event.event_type} as the next event", "rarely the next event for this user"
    if component == "failure":
        reason = alert.texts[TEXTS.index("reason")]
        share = float(profile["learned_failures"]) / max(float(profile["learned"]), 1.0)
        outcome = event.status or event.event_type
        return f"{outcome}{f' ({reason})' if reason else ''}", f"{share:.1%} of the user's events fail"
    if component == "outcome":
        return f"{event.event_type}, {event.status or 'no status'}", "rare among all users"
    if component == "hour":
        return hour_name(int(context["hour"])), usual_hours(profile["hours"])
    if component == "interval":
        return (
            f"{span(context['gap'])} after the event before",
            f"{span(2.0 ** float(profile['mean'][0]))} between events",
        )
    if component == "volume":
        return amount(alert.volume), f"{amount(2.0 ** float(profile['mean'][1]))} an event"
    if component == "threat":
        return f"{event.threat_score}", f"{float(profile['mean'][2]):.2f}"
    if component == "source_spread":
        users = counted(round(context["source_users"]), "user")
        failures = counted(round(context["source_failures"]), "time")
        return (
            f"{alert.texts[0]} failed for {users}, {failures} within an hour",
            "a source usually fails for one user only",
        )
    if component == "carried":
        return "the same source was suspicious minutes ago", "no suspicion"
    k = population.CLASSES.index(component.removeprefix("crowd_"))
    noun, which = _CROWD_WORDS[k]
    return (
        f"{counted(round(context['present'][k] + 1), noun)}{which} in 5 minutes among all users",
        f"{context['usual'][k]:.2g}",
    )


_CROWD_WORDS = (
    ("event", " from addresses new to their user"),
    ("failure", ""),
    ("event", " of new users"),
    ("failure", " from new addresses"),
)


def usual_values(profile: np.void, sketch: int, text_of: TextOf) -> str:
    """The most frequent values of a user with their shares, at most three."""
    total = float(profile["sketch_total"][sketch])
    if total <= 0.0:
        return "nothing known yet"
    weights = profile["sketch_weight"][sketch]
    parts = []
    for q in np.argsort(-weights, kind="stable")[:3].tolist():
        share = float(weights[q]) / total
        if share < 0.01:
            break
        name = text_of(int(profile["sketch_hash"][sketch][q])) or "an older value"
        parts.append(f"{name} ({share:.0%})")
    return ", ".join(parts) or "no dominant value"


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
    >>> hour_name(167)
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


def span(seconds: float) -> str:
    """A duration in words.

    Examples
    --------
    >>> span(0.25), span(90), span(200_000)
    ('0.2 s', '2 minutes', '2 days')
    """
    for unit, length in (("days", 86_400.0), ("hours", 3600.0), ("minutes", 60.0)):
        if seconds >= 1.5 * length:
            return f"{seconds / length:.0f} {unit}"
    return f"{seconds:.0f} s" if seconds >= 10.0 else f"{seconds:.1f} s"
