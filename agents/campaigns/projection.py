"""The contents of the campaigns topic, as a pure function of the updates in the window."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from streamguard.agents.campaigns.window import RETIRED_MS, Update
from streamguard.alerts.incident import decode
from streamguard.campaigns.budget import FLOOR_BITS, decide
from streamguard.campaigns.campaign import campaigns
from streamguard.campaigns.record import encode
from streamguard.campaigns.sighting import DAY
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


def project(updates: Sequence[Update], floor: float = FLOOR_BITS) -> Projection:
    """Compute the contents of the campaigns topic.

    Everything is computed again. Campaigns of the past cannot be set aside: whether an agent marks the rounds of an
    attack depends on how many of all other incidents have it, also of later ones. `Rounds` limits how often.

    Parameters
    ----------
    updates
        Those of `Window.updates`.
    floor
        Setting `detection.floor_bits`.
    """
    if not updates:
        return Projection({})
    latest = max(update.at for update in updates)
    rows = campaigns(decode(update.value) for update in updates)
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
