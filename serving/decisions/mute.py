"""Whether mutes hide an incident: every update has to be like the one that a person muted."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

import msgspec

from streamguard.events.event_time import epoch_ms
from streamguard.serving.decisions.codec import RecordError
from streamguard.serving.decisions.record import MAX_REASONS, MutedReason, Scope
from streamguard.serving.decisions.update import Update, UpdateReason

MARGIN_BITS = 3.0
"""Bits by which the evidence may exceed the muted one: an event that is eight times rarer is another matter."""
TOP_REASON_BITS = 3.0
"""Bits from which a reason has to be among the muted ones: weaker ones come and go by chance."""
MEASURED = frozenset(
    {
        *("interval", "volume", "threat", "source_spread"),
        *("crowd_new_source", "crowd_failure", "crowd_new_user", "crowd_new_source_failure"),
        *(
            "brute_force",
            "success_after_failures",
            "password_spray",
            "distributed_guessing",
            "impossible_travel",
        ),
        *("dormant_account", "mass_download", "exfiltration", "ransomware", "dns_tunnel", "generated_names"),
    }
)
"""Features whose text holds measurements. Two alerts of one kind never have the same numbers, and `MARGIN_BITS` bounds
their strength, so numbers are left out when such texts are compared; addresses, names and units are compared."""
_NUMBER = re.compile(r"(?<![\w.:])[0-9][0-9,]*(?:\.[0-9]+)?(?![\w.:])")

BREACHES = {
    "entity": "it is about another entity",
    "time": "it happened after the end of the mute",
    "pattern": "it has an attack pattern that was not muted",
    "reason": "a strong reason of it was not muted",
    "evidence": f"its evidence is more than {MARGIN_BITS:g} bits above the muted one",
}
"""Why a mute does not hide an update."""


class MuteInForce(msgspec.Struct, frozen=True, order=True):
    """A mute that was accepted and is not undone.

    Attributes
    ----------
    offset
        Offset in the topic of decisions.
    id, incident
        Ids of the action, and of the incident that was muted.
    by, at, reason
        As the record states them.
    scope
        What is hidden.
    """

    offset: int
    id: str
    incident: str
    by: str
    at: str
    reason: str
    scope: Scope


class Breach(msgspec.Struct, frozen=True):
    """The first update of an incident that its mutes do not hide.

    Attributes
    ----------
    count
        Number of alerts of this update.
    mute
        Id of the newest mute that hides another update of the incident.
    why
        Key of `BREACHES`: how the update differs from this mute.
    """

    count: int
    mute: str
    why: str


class Muting(msgspec.Struct, frozen=True):
    """What mutes do to one incident.

    Attributes
    ----------
    muted
        Whether the incident is hidden: mutes hide each of its updates.
    mutes
        Ids of the mutes that hide an update, in the order of the log.
    breach
        Why the incident is visible although mutes hide a part of it; None if no update is hidden, or every one.
    """

    muted: bool
    mutes: tuple[str, ...]
    breach: Breach | None


def scope_of(updates: Iterable[Update], seen: int, until: str) -> Scope:
    """The scope of a mute, from the updates of an incident that its author has seen.

    Parameters
    ----------
    updates
        Updates of the incident.
    seen
        Number of alerts of the last update that the author saw.
    until
        Event time at which the mute ends, RFC 3339 in UTC with milliseconds.

    Raises
    ------
    RecordError
        If the author has seen no update with a reason, or the updates have too many different reasons.
    """
    known = sorted({update for update in updates if update.count <= seen})
    reasons: dict[tuple[str, str], MutedReason] = {}
    for update in known:
        for reason in top_reasons(update):
            reasons.setdefault(_key(reason), MutedReason(feature=reason.feature, actual=reason.actual))
    if not reasons:
        raise RecordError(
            "contradictory", "none of the updates up to `seen` has a reason that could be muted"
        )
    if len(reasons) > MAX_REASONS:
        raise RecordError(
            "contradictory",
            f"the incident has {len(reasons):,} different reasons, a mute has at most {MAX_REASONS}: close it instead",
        )
    patterns = dict.fromkeys(pattern for update in known for pattern in update.patterns)
    return Scope(
        entity_kind=known[-1].entity_kind,
        entity=known[-1].entity,
        patterns=tuple(patterns),
        reasons=tuple(reasons.values()),
        bits=max(update.bits for update in known),
        until=until,
    )


def muting(updates: Iterable[Update], mutes: Iterable[MuteInForce]) -> Muting:
    """What mutes do to an incident: a function of two sets.

    Parameters
    ----------
    updates
        All updates of the incident.
    mutes
        All mutes in force of its entity, whatever incident they were made from. Others have no effect.
    """
    known, ordered = sorted(set(updates)), sorted(set(mutes))
    hidden = [[not difference(update, one.scope) for update in known] for one in ordered]
    active = [k for k in range(len(ordered)) if any(hidden[k])]
    names = tuple(ordered[k].id for k in active)
    if not active:
        return Muting(False, (), None)
    for i, update in enumerate(known):
        if not any(hidden[k][i] for k in active):
            newest = ordered[active[-1]]
            return Muting(False, names, Breach(update.count, newest.id, difference(update, newest.scope)))
    return Muting(True, names, None)


def difference(update: Update, scope: Scope) -> str:
    """Why a scope does not hide an update, a key of `BREACHES`; empty if it hides it."""
    if (update.entity_kind, update.entity) != (scope.entity_kind, scope.entity):
        return "entity"
    at, until = epoch_ms(update.at), epoch_ms(scope.until)
    if at is None or until is None or at >= until:
        return "time"
    if not set(update.patterns) <= set(scope.patterns):
        return "pattern"
    top = {_key(reason) for reason in top_reasons(update)}
    if not top or not top <= {_key(reason) for reason in scope.reasons}:
        return "reason"
    return "evidence" if update.bits > scope.bits + MARGIN_BITS else ""


def top_reasons(update: Update) -> Sequence[UpdateReason]:
    """The reasons of an update that decide: all from `TOP_REASON_BITS` on, or else the strongest one."""
    strong = [reason for reason in update.reasons if reason.bits >= TOP_REASON_BITS]
    return strong or sorted(update.reasons, key=lambda one: (-one.bits, one))[:1]


def _key(reason: UpdateReason | MutedReason) -> tuple[str, str]:
    """By what reasons are compared.

    Examples
    --------
    >>> _key(MutedReason(feature="brute_force", actual="12 failed logins in a row before"))
    ('brute_force', '# failed logins in a row before')
    >>> _key(MutedReason(feature="source_spread", actual="10.0.0.7 failed for 12 users, 1,340 times within an hour"))
    ('source_spread', '10.0.0.7 failed for # users, # times within an hour')
    >>> _key(MutedReason(feature="command", actual="sleep 12"))
    ('command', 'sleep 12')
    """
    actual = _NUMBER.sub("#", reason.actual) if reason.feature in MEASURED else reason.actual
    return reason.feature, actual
