"""The story of an incident in sentences that rest on facts; what is usual about it, and what it does not show."""

from __future__ import annotations

from collections.abc import Iterator

from streamguard.alerts.usual import span
from streamguard.analyst.analysis import MAX_TEXT, Claim, Verdict
from streamguard.analyst.case import Case
from streamguard.analyst.facts import clean, feature_words, moment, reason_texts
from streamguard.analyst.knowledge import technique_use
from streamguard.analyst.verdict import Judgement
from streamguard.text import counted, shortened

STRONGEST = 3
"""Reasons that the story contains; the facts hold all of them."""
TOLD_PATTERNS = 4
"""Patterns that the story contains."""
USUAL_BITS = 2.0
"""Bits up to which a value counts as usual: the user has it in at least one event of four."""

VERDICTS: dict[Verdict, str] = {
    "true_positive": "Probably an attack",
    "suspicious": "Suspicious",
    "benign": "Probably ordinary",
    "insufficient_data": "Not enough data",
}
"""Verdict -> its words in a sentence."""

_VALUES = (
    ("source", "The source address", "source_ip"),
    ("location", "The place", "geo_location"),
    ("host", "The host", "hostname"),
    ("agent", "The agent", "user_agent"),
)


def story(case: Case, judgement: Judgement) -> tuple[Claim, ...]:
    """Who and what, since when and how often; the strongest reasons; who was entered; the verdict."""
    return tuple(Claim(shortened(text, MAX_TEXT), refs) for text, refs in _sentences(case, judgement))


def _sentences(case: Case, judgement: Judgement) -> Iterator[tuple[str, tuple[str, ...]]]:
    incident = case.incident
    alerts = counted(incident.count, "alert")
    since = f"{alerts} {'since' if incident.count > 1 else 'at'} {moment(incident.first_seen)}"
    lasts = f", the last one {span(case.seconds)} after the first one" if incident.count > 1 else ""
    yield f"{_who(case)}: {since}{lasts}.", ("E1", "C1", "T1", *(("T2",) if lasts else ()))
    if patterns := incident.patterns[:TOLD_PATTERNS]:
        refs = tuple(f"P{k}" for k, _ in enumerate(patterns, 1))
        uses = [technique_use(pattern.technique) for pattern in patterns]
        shown = "; ".join(
            f"{clean(feature_words(pattern.name))} ({clean(use.name)}, {clean(use.id, 20)})"
            for pattern, use in zip(patterns, uses, strict=True)
        )
        yield f"It shows {shown}.", refs
    for k, reason in enumerate(incident.reasons[:STRONGEST], 1):
        actual, typical = reason_texts(reason)
        words = feature_words(reason.feature)
        yield f"{words[:1].upper()}{words[1:]}: {actual.text}; usual: {typical.text}.", (f"R{k}",)
    entered = case.involved.entered
    if entered.count:
        names = ", ".join(clean(name, 60) for name in entered.names[:STRONGEST])
        more = " and others" if entered.count > STRONGEST else ""
        yield f"A stranger's login succeeded for {counted(entered.count, 'account')}: {names}{more}.", ("N1",)
    else:
        yield "None of the known alerts shows a stranger's login that succeeded.", ("N1",)
    if incident.peers is not None:
        yield f"Part of it is usual among {counted(incident.peers.users, 'peer')} of the user.", ("Q1",)
    yield judged(judgement), judgement.refs


def judged(judgement: Judgement) -> str:
    """The verdict in words, with its rule and the reason."""
    return f'{VERDICTS[judgement.verdict]}, by the rule "{judgement.rule}": {judgement.reason}'


def _who(case: Case) -> str:
    kind, value = case.incident.entity.kind, clean(case.incident.entity.value) or "without a name"
    if kind == "user":
        return f"User {value}"
    return f"Source address {value}" if kind == "source" else f"All users of {value} together"


def ordinary(case: Case) -> tuple[str, ...]:
    """What of the latest alert is usual: what the event states, and what weighs little or nothing."""
    event, limit = case.event, case.unshown_bits
    if event is None or case.incident.entity.kind == "crowd":
        return ()
    bits, metadata = case.sighting.bits, case.sighting.metadata
    found = []
    for component, words, name in _VALUES:
        value = event.source_ip if name == "source_ip" else getattr(metadata, name)
        if value and bits.get(component, limit) <= USUAL_BITS:
            found.append(f"{words} {clean(value)} is usual for the user.")
    if bits.get("hour", limit) <= USUAL_BITS:
        found.append("The hour of the week is usual for the user.")
    if bits.get("volume", limit) <= USUAL_BITS and event.network_details is not None:
        found.append("The amount of data is usual for the user.")
    return tuple(found)


def unknown(case: Case) -> tuple[str, ...]:
    """What the incident does not show, which a person has to find out elsewhere."""
    incident, event = case.incident, case.event
    found = []
    if event is None:
        found.append("What the event states: it was too large to publish, or cannot be read.")
    else:
        stated = {
            "from which address": event.source_ip,
            "from which place": case.sighting.metadata.geo_location,
            "on which host": case.sighting.metadata.hostname,
            "with which agent": case.sighting.metadata.user_agent,
            "with which outcome": event.status,
        }
        if missing := [words for words, value in stated.items() if not value]:
            found.append(f"The event does not state {', '.join(missing)}.")
    if incident.count > len(case.earlier) + 1:
        found.append(
            "Not every alert of the incident is published with its event; the others are in the events topic."
        )
    if incident.entity.kind == "crowd":
        found.append("Which of the users are attacked, beyond those that the known alerts name.")
    if incident.model.version is None:
        found.append("What a model would say: none scored the latest alert.")
    found.append("What happened after the last alert, and whether the user knows of it.")
    return tuple(found)
