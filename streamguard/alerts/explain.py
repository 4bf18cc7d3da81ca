"""The reasons of an alert in words: what was seen against what is usual."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Annotated, Any, Literal

import msgspec
import numpy as np
from numpy.typing import NDArray

from streamguard.alerts.peers import PeerRelief
from streamguard.alerts.usual import (
    TextOf,
    amount,
    failure_share,
    hour_name,
    lived_seconds,
    span,
    usual_hours,
    usual_values,
)
from streamguard.events.columns import TEXTS
from streamguard.events.event import Event
from streamguard.fold import population
from streamguard.fold.components import COMPONENTS, DECLARED
from streamguard.fold.dimensions import SKETCHES, WITH_TEXT
from streamguard.fold.evidence import GUESSING
from streamguard.fold.patterns import PATTERNS
from streamguard.text import counted

MAX_REASONS = 6
"""Reasons of an incident; the strongest are kept."""
MIN_REASON_BITS = 1.0
"""Components below this weight are no reason."""
MAX_SHOWN = 120
"""Characters of a command line or an event type that a reason shows."""
MAX_CHARACTERS = 256
"""Length of a text taken from an event: a record that the broker refuses would stop the worker."""


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
    weight
        Weight of the forest, which `forest` contains; None without a model.
    raw, excess
        float32 (21,), bits of each component.
    profile
        `PROFILE` scalar, as it was before the event.
    context
        `streamguard.fold.grouping.CONTEXT` scalar.
    peers
        What the peers of the user have relieved; None if nothing was.
    lowered
        Bits by which they have lowered the evidence of the incident, which `evidence` is after.
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
    weight: float | None
    raw: NDArray[np.float32]
    excess: NDArray[np.float32]
    profile: np.void
    context: np.void
    peers: PeerRelief | None
    lowered: float


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
        (PATTERNS[k].name, _pattern_bits(k, alert), pattern_words(k, alert, text_of))
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


def _pattern_bits(k: int, alert: Alert) -> float:
    more = float(alert.context["guess_bits"]) if GUESSING[k] else 0.0
    return PATTERNS[k].bits + more


def pattern_words(k: int, alert: Alert, text_of: TextOf) -> tuple[str, str]:
    """(actual, typical) of a pattern that the event completes."""
    profile, context, name = alert.profile, alert.context, PATTERNS[k].name
    if GUESSING[k]:
        share = failure_share(profile)
        return (
            f"{int(profile['streak'])} failed logins in a row before",
            f"{share:.1%} of the user's events fail",
        )
    if name == "password_spray":
        return component_words("source_spread", alert, text_of)
    if name == "distributed_guessing":
        return component_words("crowd_new_source_failure", alert, text_of)
    if name == "impossible_travel":
        minutes = (int(alert.event.timestamp) - int(profile["last_area_ts"])) / 60_000
        after = counted(round(max(minutes, 0)), "minute")
        usual = usual_values(profile, SKETCHES.index("location"), text_of)
        return f"{alert.texts[1]}, {after} after another country", usual
    if name == "dormant_account":
        return (
            f"first event in {counted(round(context['gap'] / 86_400), 'day')}",
            f"{span(2.0 ** float(profile['mean'][0]))} between events",
        )
    if name == "mass_download":
        return _per_five_minutes("file", "read", profile["reads"], profile)
    if name == "ransomware":
        return _per_five_minutes("file", "changed", profile["changes"], profile)
    if name == "exfiltration":
        moved = float(profile["volume"][1]) + alert.volume
        return f"{amount(moved)} moved within the hour", f"{amount(float(profile['volume'][3]))} in a month"
    if name == "dns_tunnel":
        names = counted(int(context["names"]), "different name")
        return f"{names} under {alert.texts[TEXTS.index('resource')]} within minutes", "0"
    if name == "confirmed_before":
        denied = [name for c, name in enumerate(SKETCHES) if int(context["denied"]) >> c & 1]
        shown = ", ".join(f"{name} {alert.texts[TEXTS.index(name)]}" for name in denied)
        return shown, "a person has decided that this is part of an attack"
    if name == "generated_names":
        return f"{counted(int(context['names']), 'such domain')} within minutes", "0"
    days = counted(round(float(profile["pattern_days"][k])), "day")
    process = alert.event.process_details
    shown = alert.event.event_type if process is None else process.command_line or ""
    return shown[:MAX_SHOWN], f"on {days} of the last month"


def _per_five_minutes(noun: str, verb: str, counts: Any, profile: np.void) -> tuple[str, str]:
    usual = float(counts[1]) / lived_seconds(profile) * 300.0
    return f"{counted(round(float(counts[0]) + 1), noun)} {verb} in 5 minutes", f"{usual:.2g} in 5 minutes"


def component_words(component: str, alert: Alert, text_of: TextOf) -> tuple[str, str]:
    """(actual, typical) of a component of the score."""
    profile, event, context = alert.profile, alert.event, alert.context
    if component in WITH_TEXT:
        usual = usual_values(profile, SKETCHES.index(component), text_of)
        return alert.texts[TEXTS.index(component)], usual + _among_peers(component, alert.peers)
    if component == "unheard_actions":
        return "further action that no user had done before", "one now and then"
    if component == "transition":
        return f"{event.event_type} as the next event", "rarely the next event for this user"
    if component == "failure":
        reason = alert.texts[TEXTS.index("reason")]
        share = failure_share(profile)
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
    declared = DECLARED.all[COMPONENTS.index(component)]
    if declared.about != "crowd":  # a component without words of its own
        return declared.formula, f"{float(profile['typical'][COMPONENTS.index(component)]):.1f} bits"
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


def _among_peers(component: str, peers: PeerRelief | None) -> str:
    if peers is None or component not in peers.having:
        return ""
    return f"; usual for {peers.having[component]:,} of {peers.users:,} peers"
