"""The signs of a case on which the verdict rests: what was found, how foreign it is, and for how long."""

from __future__ import annotations

from typing import NamedTuple

from streamguard.analyst.case import Case
from streamguard.campaigns.entry import FOOTHOLD_BITS

IDENTITY = ("source", "location", "host", "agent")
"""Components that show who acts: an intruder brings an address, a place, a host and an agent."""
DOING = ("resource", "action", "command", "unheard_actions", "volume")
"""Components that show what is done."""
WAVE = ("crowd_new_source_failure", "source_spread")
"""Components of an attack on many users."""
WAVE_BITS = 8.0
"""Evidence from which many users are tried at once: by chance in fewer than one event of two hundred."""
STRONG_BITS = 14.0
"""Evidence from which an incident is of severity `high`."""
CERTAIN_BITS = 20.0
"""Evidence from which an incident is of severity `critical`."""
PEER_BITS = 3.0
"""Bits that peers take from the evidence, from which most of it is usual for them."""


class Signs(NamedTuple):
    """What the rules look at.

    Attributes
    ----------
    kind
        Kind of the entity.
    patterns
        Names of the patterns of all alerts.
    entered
        Whether a stranger's login succeeded.
    foreign
        Number of components of `IDENTITY` that are foreign to the user.
    doing
        Largest weight of a component of `DOING`, in bits.
    wave
        Largest weight of a component of `WAVE`, in bits.
    odd_hour
        Whether the hour is foreign to the user.
    login, succeeded
        Whether the latest event is a login, and a success.
    alerts
        Number of alerts.
    bits
        Evidence.
    peers
        Bits by which peers have lowered the evidence.
    stated
        Whether the incident states a reason or a pattern, and the event of the latest alert.
    """

    kind: str
    patterns: frozenset[str]
    entered: bool
    foreign: int
    doing: float
    wave: float
    odd_hour: bool
    login: bool
    succeeded: bool
    alerts: int
    bits: float
    peers: float
    stated: bool

    @property
    def lasting(self) -> bool:
        """Whether there are more alerts than one and its repetition."""
        return self.alerts > 2


def signs_of(case: Case) -> Signs:
    """The signs of a case; those of reasons are the largest over all updates."""
    incident, bits, latest = case.incident, case.strongest, case.sighting
    return Signs(
        kind=incident.entity.kind,
        patterns=latest.patterns,
        entered=case.involved.entered.count > 0,
        foreign=sum(bits.get(name, 0.0) >= FOOTHOLD_BITS for name in IDENTITY),
        doing=max(bits.get(name, 0.0) for name in DOING),
        wave=max(bits.get(name, 0.0) for name in WAVE),
        odd_hour=bits.get("hour", 0.0) >= FOOTHOLD_BITS,
        login=latest.is_login,
        succeeded=latest.succeeded,
        alerts=incident.count,
        bits=incident.evidence_bits,
        peers=incident.peers.bits if incident.peers else 0.0,
        stated=bool(incident.patterns) or (bool(incident.reasons) and case.event is not None),
    )
