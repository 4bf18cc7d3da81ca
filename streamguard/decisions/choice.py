"""From an incident to a decision: which value of which user a person decides about, and the record that says so."""

from __future__ import annotations

import hashlib
import secrets

import msgspec

from streamguard.alerts.incident import Incident
from streamguard.decisions.preview import document, user_of
from streamguard.decisions.values import canonical, of_event
from streamguard.errors import DataError
from streamguard.events.decision import FIELDS, VERSION, Decision, decoded
from streamguard.events.event_time import epoch_ms

EXPECTED_DAYS = 30
"""Days of event time for which a value is expected unless a person says otherwise: a month of use makes it a habit."""


class Chosen(msgspec.Struct, frozen=True):
    """A value of a user, and where the decision about it belongs.

    Attributes
    ----------
    partition
        Partition of the user's events.
    at
        Event time of the incident, epoch milliseconds.
    incident
        Id of the incident; empty for a decision without one.
    """

    user: str
    field: str
    value: str
    partition: int
    at: int
    incident: str


def choices(incident: Incident) -> tuple[tuple[str, str], ...]:
    """(field, value) of everything about which a person can decide, the strongest reason first."""
    _, texts = of_event(document(incident))
    shown = {one.feature: one.actual for one in incident.reasons if one.feature in FIELDS}
    return tuple((field, texts.get(field) or value) for field, value in shown.items())


def chosen_of(incident: Incident, field: str | None = None, value: str | None = None) -> Chosen:
    """What a decision about an incident is about.

    Parameters
    ----------
    field, value
        None: the strongest reason that is a value, and the value of the event.

    Raises
    ------
    DataError
        If the incident names no user, or has no such value.
    """
    name = incident.id
    user, texts = of_event(document(incident))
    user = user or (user_of(incident) if incident.entity.kind == "user" else "")
    if not user:
        raise DataError(f"the incident {name} names no user, and decisions are about values of a user")
    if field is None:
        field = next((one.feature for one in incident.reasons if one.feature in FIELDS), None)
    if field is None:
        raise DataError(
            f"none of the reasons of the incident {name} is a value: name the field, and the value if the event does "
            "not show it"
        )
    shown = next((one.actual for one in incident.reasons if one.feature == field), "")
    chosen = canonical(field, value) if value else texts.get(field) or shown
    if not chosen:
        raise DataError(f"the event of the incident {name} has no {field}: name the value, or another field")
    return Chosen(user, field, chosen, incident.origin.partition, epoch_ms(incident.last_seen) or 0, name)


def decision_about(found: Chosen, kind: str, until: int, reason: str, by: str, request: str = "") -> Decision:
    """The decision about a value, checked as every reader checks it.

    Parameters
    ----------
    request
        Name of the request: the same request about the same incident has the same id. Empty: a new id.

    Raises
    ------
    DecisionError
        If readers would refuse it.
    """
    made = Decision(
        VERSION,  # type: ignore[arg-type]
        new_id(found.partition, f"{found.incident}\n{request}" if request else ""),
        kind,  # type: ignore[arg-type]
        user=found.user,
        field=found.field,  # type: ignore[arg-type]
        value=found.value,
        until=until,
        incident=found.incident,
        reason=reason,
        by=by,
    )
    return decoded(made.encoded())


def revocation(decision: str, partition: int, reason: str, by: str) -> Decision:
    """The record that ends a decision; what was learned meanwhile remains."""
    return Decision(VERSION, new_id(partition), "revoke", revokes=decision, reason=reason, by=by)  # type: ignore[arg-type]


def new_id(partition: int, name: str = "") -> str:
    """An id of a decision for a partition: random, or that of a name.

    Examples
    --------
    >>> new_id(2, "a") == new_id(2, "a") != new_id(2, "b")
    True
    """
    digits = hashlib.sha256(name.encode()).hexdigest()[:24] if name else secrets.token_hex(12)
    return f"{partition}-{digits}"
