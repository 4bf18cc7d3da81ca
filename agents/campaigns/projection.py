"""The contents of the campaigns topic, as a pure function of the updates in the window."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

from streamguard.agents.campaigns.window import RETIRED_MS, Update
from streamguard.alerts.incident import decode
from streamguard.campaigns.budget import FLOOR_BITS, decide
from streamguard.campaigns.campaign import campaigns_of
from streamguard.campaigns.record import encode
from streamguard.campaigns.sighting import DAY, Sighting
from streamguard.decisions.forgotten_users import ForgottenUsers
from streamguard.events.event_time import epoch_ms

OPEN_MS = 3 * DAY
"""The longest silence between two incidents of a chain. A campaign whose last alert is older hardly changes."""


class Projection(NamedTuple):
    """What is to be published, and figures about it.

    Attributes
    ----------
    records
        Value of the record of each campaign, by id.
    open
        Campaigns that further incidents may join.
    raised
        Raised campaigns by severity.
    raised_last_day, raised_last_week
        Raised campaigns that began within a day, and within seven, of the latest alert.
    span_ms
        Time from the first to the latest update in the window.
    """

    records: Mapping[str, bytes]
    open: int = 0
    raised: Mapping[str, int] = {}
    raised_last_day: int = 0
    raised_last_week: int = 0
    span_ms: int = 0


NOBODY = ForgottenUsers()
"""No user is forgotten."""


def project(
    updates: Sequence[Update], floor: float = FLOOR_BITS, forgotten: ForgottenUsers = NOBODY
) -> Projection:
    """Compute the contents of the campaigns topic.

    Everything is computed again. Campaigns of the past cannot be set aside: whether an agent marks the rounds of an
    attack depends on how many of all other incidents have it, also of later ones. `Rounds` limits how often.

    Parameters
    ----------
    updates
        Those of `Window.updates`.
    floor
        Setting `detection.floor_bits`.
    forgotten
        Users who are forgotten. Their incidents do not count, and no other incident shows them as participants.
    """
    if not updates:
        return Projection({})
    latest = max(update.at for update in updates)
    rows = campaigns_of(_seen(updates, forgotten))
    decisions = decide(rows, floor)
    kept = [row for row in rows if latest - _ms(row.last_seen) <= RETIRED_MS]
    raised = [row for row in kept if decisions[row.id].raised]
    return Projection(
        records={row.id: encode(row, decisions[row.id]) for row in kept},
        open=sum(latest - _ms(row.last_seen) <= OPEN_MS for row in kept),
        raised=Counter(row.severity for row in raised),
        raised_last_day=sum(latest - _ms(row.first_seen) < DAY for row in raised),
        raised_last_week=sum(latest - _ms(row.first_seen) < 7 * DAY for row in raised),
        span_ms=latest - min(update.at for update in updates),
    )


def _seen(updates: Sequence[Update], forgotten: ForgottenUsers) -> Iterator[Sighting]:
    """What is seen of the updates, without what is forgotten."""
    for update in updates:
        sighting = Sighting(decode(update.value))
        if not forgotten:
            yield sighting
            continue
        entity = sighting.incident.entity
        place = update.partition, update.offset
        if entity.kind == "user" and forgotten.has(entity.value, *place):
            continue
        unnamed = frozenset(user for user in sighting.shown_users() if forgotten.has(user, *place))
        yield Sighting(sighting.incident, unnamed=unnamed) if unnamed else sighting


def differences(
    published: Mapping[str, bytes], wanted: Mapping[str, bytes]
) -> list[tuple[str, bytes | None]]:
    """The records that turn the published values into the wanted ones, by id; None deletes.

    A campaign that has become part of another one is deleted.

    Examples
    --------
    >>> differences({"a": b"1", "b": b"1", "c": b"1"}, {"a": b"1", "b": b"2", "d": b"1"})
    [('b', b'2'), ('c', None), ('d', b'1')]
    """
    names = sorted(published.keys() | wanted.keys())
    return [(name, wanted.get(name)) for name in names if published.get(name) != wanted.get(name)]


def _ms(time: str) -> int:
    return epoch_ms(time) or 0
