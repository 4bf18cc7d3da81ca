"""Relief by peers: what is new for a user but usual for the peers lowers the evidence of an alert."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from streamguard.events import indicators as flag
from streamguard.events.columns import TEXTS, Columns
from streamguard.fold import components, patterns
from streamguard.fold.components import COMPONENTS
from streamguard.fold.dimensions import WITH_TEXT
from streamguard.fold.grouping import USER_ENTITY

RELIEVED = WITH_TEXT
"""Components that peers can relieve: those of values with a text."""

MIN_BITS = 1.0
"""Bits that a value keeps in any case, because at most half of the share of peers counts: `at_most` is never less."""

FOREIGN_BITS = 5.0
"""Evidence from which a source, a place, a host or an agent is foreign to its user: the user has it in fewer than one
event of thirty, as in `streamguard.campaigns.entry`."""

MAX_RELIEF = 6.0
"""Bits by which peers lower the evidence of an alert at most, about the width of a severity. An incident is published
again only if the evidence before peers rises, so this also bounds how far a relieved record can lag behind later
alerts."""

_PLACES = ("source", "location", "host", "agent")
_COMPONENT = {name: COMPONENTS.index(name) for name in RELIEVED}
_TEXT = {name: TEXTS.index(name) for name in RELIEVED}


class UsualValues(Protocol):
    """What is usual among peers; see `streamguard.models.peer_values.PeerValues`."""

    def group_of(self, user: str) -> int | None:
        """Number of the group of a user; None if it is not known."""

    def size(self, group: int) -> int:
        """Number of users of a group."""

    def having(self, group: int, field: str, text: str) -> int:
        """Number of users of a group who have a value; 0 if it is not usual in the group."""


@dataclass(frozen=True, slots=True)
class PeerRelief:
    """What the peers of a user change in an alert.

    Attributes
    ----------
    group, users
        Number of the peer group, and of its users.
    having
        For each relieved component, how many users of the group have the value.
    bits
        Bits by which the evidence of the alert falls.
    """

    group: int
    users: int
    having: Mapping[str, int]
    bits: float


def at_most(having: int, users: int) -> float:
    """Bits that a value weighs at most if so many users of a peer group have it: -log2(½ · (having - 1) / (users + 3)).

    This is the share that the fold gives to values that known users take up (`streamguard.fold.adoption.adoption`).
    One user is left out, because it may be the user of the alert, or the attacker who brought the value. Three users
    without the value are added, so that a small group proves little. Half of the share counts, because peers have the
    value, but not in every event.

    Examples
    --------
    >>> [round(at_most(*peers), 2) for peers in ((60, 60), (34, 60), (3, 60), (3, 3))]
    [1.09, 1.93, 5.98, 2.58]
    """
    return -math.log2(0.5 * (having - 1) / (users + 3))


def relieved_bits(
    excess: Mapping[str, float], having: Mapping[str, int], users: int, *, score: float, tail: float
) -> float:
    """Bits by which the evidence falls: tail · Σ max(excess - at most, 0) / score, at most `MAX_RELIEF`.

    The tail is the rarity of the score among the scores of the partition. It is not computed again for a lower score:
    that needs the histogram of that moment, which is state. It falls by the share of the score that is relieved, so
    patterns, failures, the crowd and all else that the score contains keep their bits, and the tail stays above 0.

    Parameters
    ----------
    excess
        Bits of components above what is usual for the user.
    having
        For each component of a usual value, how many users of the group have it.
    users
        Number of users of the group.
    score
        Sum of all components, in bits.
    tail
        -log2 of the share of events with a score this high.

    Examples
    --------
    >>> relieved_bits({"host": 12.0}, {"host": 33}, 61, score=16.0, tail=8.0)
    5.0
    """
    if score <= 0.0:
        return 0.0
    saved = math.fsum(max(excess[name] - at_most(number, users), 0.0) for name, number in having.items())
    return min(tail * min(saved / score, 1.0), MAX_RELIEF)


def reliefs(
    columns: Columns,
    kind: NDArray[np.int8],
    found: NDArray[np.uint64],
    excess: NDArray[np.float32],
    score: NDArray[np.float64],
    tail: NDArray[np.float64],
    peers: UsualValues,
) -> dict[int, PeerRelief]:
    """Relief of the alerts of a chunk, by the place of the event.

    There is none for alerts that are not of a user with peers, and none for

    * a failure: peers have succeeded with the value;
    * a value that a person has denied;
    * a source that fails for many users and with which the user has not succeeded;
    * an event that states at least three of source, place, host and agent, more than half of which are foreign to the
      user: a thief usually brings more than a user who moves (as in `streamguard.fold.sketch.is_move`).

    Parameters
    ----------
    columns
        The n events.
    kind, found, excess, score, tail
        What the fold has found; see `streamguard.state.partition.Folded`.
    peers
        Groups, and what is usual in them.
    """
    out = {}
    for i in np.flatnonzero(np.abs(kind) == USER_ENTITY).tolist():
        failed = int(columns.flags[i]) & flag.FAILED
        denied = int(found[i]) >> patterns.CONFIRMED & 1
        texts = columns.texts[i * len(TEXTS) : (i + 1) * len(TEXTS)]
        bits = {name: float(excess[i, _COMPONENT[name]]) for name in RELIEVED}
        if failed or denied or excess[i, components.SPREAD] > 0.0 or _is_foreign(bits, texts):
            continue
        one = _relief(columns.subjects[i], texts, bits, float(score[i]), float(tail[i]), peers)
        if one is not None:
            out[i] = one
    return out


def _is_foreign(bits: Mapping[str, float], texts: list[str]) -> bool:
    stated = [name for name in _PLACES if texts[_TEXT[name]]]
    foreign = sum(bits[name] >= FOREIGN_BITS for name in stated)
    return len(stated) >= 3 and 2 * foreign > len(stated)


def _relief(
    user: str, texts: list[str], bits: Mapping[str, float], score: float, tail: float, peers: UsualValues
) -> PeerRelief | None:
    heavy = [name for name in RELIEVED if bits[name] > MIN_BITS and texts[_TEXT[name]]]
    group = peers.group_of(user) if heavy else None
    if group is None:
        return None
    users = peers.size(group)
    having = {name: peers.having(group, name, texts[_TEXT[name]]) for name in heavy}
    having = {name: n for name, n in having.items() if n > 1 and bits[name] > at_most(n, users)}
    lowered = relieved_bits(bits, having, users, score=score, tail=tail)
    return PeerRelief(group, users, having, lowered) if lowered > 0.0 else None
