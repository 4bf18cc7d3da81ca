"""Forgets a user's incidents in every server: deletes decisions about them, and records that they are to be dropped."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator
from typing import NamedTuple

import msgspec

from streamguard.alerts.incident import rfc3339
from streamguard.alerts.published import published
from streamguard.campaigns.sighting import Sighting
from streamguard.decisions import forgotten
from streamguard.decisions.forgotten import KEY_PREFIX, MAX_INCIDENTS, VERSION, Forgotten
from streamguard.kafka import control, topics
from streamguard.kafka.connection import Brokers
from streamguard.settings.schema import Settings

PARTITION = 0
"""The topic of decisions has one partition."""


class ForgottenIncidents(NamedTuple):
    """What was done.

    Attributes
    ----------
    incidents
        Incidents of the user that servers drop.
    deleted
        Records of decisions that were deleted.
    kept
        Records that name incidents of others, too; what they say of the user's incidents is dropped by servers.
    """

    incidents: int
    deleted: int
    kept: int


class _Target(msgspec.Struct):
    id: str


class _Scope(msgspec.Struct):
    entity_kind: str
    entity: str


class _Action(msgspec.Struct):
    """Of a case action, what says about whom it is."""

    incidents: tuple[_Target, ...]
    scope: _Scope | None = None


_action = msgspec.json.Decoder(_Action).decode


def forget_incidents(settings: Settings, user: str) -> ForgottenIncidents | None:
    """Delete decisions about a user's incidents, and record that servers drop the incidents published so far.

    The record also makes the campaigns process drop them, and not name the user as tried or entered in other incidents.

    It may be repeated at any time, such as after an error: what is done already is not done again.

    Returns
    -------
    ForgottenIncidents or None
        None if the topic of decisions does not exist: servers need it, so none is running.

    Raises
    ------
    UnavailableError
        If Kafka does not answer.
    """
    names, brokers = topics.names(settings), Brokers.of(settings)
    if not topics.exists(settings, names["decisions"]):
        return None
    topic_id, _ = control.described(brokers, names["alerts"])
    bounds = control.bounds(brokers, names["alerts"])
    ends = tuple(bounds[partition].end for partition in sorted(bounds))
    latest: dict[bytes, bytes] = {}
    for record in control.records(brokers, names["decisions"]):
        if record.value is None:
            latest.pop(record.key or b"", None)
        elif record.key is not None:
            latest[record.key] = record.value
    earlier = {key: found for key, found in _earlier(latest) if found.topic_id == topic_id}
    known = [one for one in earlier.values() if one.is_about(user)]
    ids, fresh, named = set[str](), set[str](), False
    for record in control.records(brokers, names["alerts"]):
        incident = published(record.value)
        if isinstance(incident, str) or record.offset >= ends[record.partition]:
            continue
        done = any(one.reaches(record.partition, record.offset) for one in known)
        if (incident.entity.kind, incident.entity.value) == ("user", user):
            ids.add(incident.id)
            if not done:
                fresh.add(incident.id)
        elif not (named or done):
            named = user in Sighting(incident).shown_users()
    deleted, shared, kept = _decided(latest, user, ids)
    shared -= {id for one in known for id in one.incidents}
    changes: list[tuple[bytes, bytes | None]] = []
    if fresh or shared or named:
        salt = forgotten.salt_of(earlier.values())
        ordered = sorted(shared)
        for first in range(0, max(len(ordered), 1), MAX_INCIDENTS):
            record_of = Forgotten(
                version=VERSION,
                at=rfc3339(int(time.time() * 1000)),
                topic_id=topic_id,
                ends=ends,
                salt=salt,
                digest=forgotten.digest_of(user, salt),
                incidents=tuple(ordered[first : first + MAX_INCIDENTS]),
            )
            changes.append((forgotten.new_key(), forgotten.encode(record_of)))
    changes += [(key, None) for key in deleted]
    starts = {partition: found.start for partition, found in bounds.items()}
    changes += [(key, None) for key, one in earlier.items() if _is_over(one, starts)]
    if changes:
        control.write_all(brokers, names["decisions"], PARTITION, changes)
    return ForgottenIncidents(len(fresh), len(deleted), kept if shared else 0)


def _earlier(latest: dict[bytes, bytes]) -> Iterator[tuple[bytes, Forgotten]]:
    for key, value in latest.items():
        if key.startswith(KEY_PREFIX):
            try:
                yield key, forgotten.decode(value)
            except forgotten.ForgottenError:
                continue  # of a later version: it is left as it is


def _is_over(one: Forgotten, starts: dict[int, int]) -> bool:
    """Whether Kafka has deleted everything that a record makes servers drop."""
    return not one.incidents and all(
        starts.get(partition, 0) >= end for partition, end in enumerate(one.ends)
    )


def _decided(latest: dict[bytes, bytes], user: str, ids: Iterable[str]) -> tuple[list[bytes], set[str], int]:
    """Keys of records that are about the user alone; incidents of the user in other ones, and how many these are."""
    own, deleted, shared, kept = frozenset(ids), list[bytes](), set[str](), 0
    for key, value in latest.items():
        if key.startswith(KEY_PREFIX):
            continue
        try:
            action = _action(value)
        except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
            continue  # no server knows what it says either
        named = {target.id for target in action.incidents}
        scope = action.scope
        if (scope is not None and (scope.entity_kind, scope.entity) == ("user", user)) or (
            named and named <= own
        ):
            deleted.append(key)
        elif named & own:
            shared |= named & own
            kept += 1
    return deleted, shared, kept
