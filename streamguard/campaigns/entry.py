"""Whether an alert shows that a stranger entered an account, and not that its user came back during an attack."""

from __future__ import annotations

from collections.abc import Mapping, Set

from streamguard.events import indicators as flag
from streamguard.events.event import Event, Metadata
from streamguard.events.vocabulary import KIND, STATUS

FOOTHOLD_BITS = 5.0
"""Evidence from which a source, a host, an agent or a place is foreign to its user: the user has it in fewer than one
event of thirty."""
CROWD_BITS = 8.0
"""Evidence of addresses that are new to their users from which that of one event is foreign, even if its user is hardly
known: by chance, so many are new at once in fewer than one event of two hundred."""
TARGET_BITS = 8.0
"""Evidence from which a target is foreign to its user; higher than for a source, as users log in to many targets."""

WAVE_PATTERNS = frozenset({"distributed_guessing", "password_spray"})
"""Patterns of an attack on many users."""
NO_OWN_PATTERNS = WAVE_PATTERNS | {"impossible_travel", "success_after_failures"}
"""Patterns that state nothing about what is done, so that two incidents with one of them may be different attacks."""


def is_login(event: Event) -> bool:
    """Whether an event is a login."""
    return bool(KIND[event.event_type] & flag.AUTHENTICATION)


def succeeded(event: Event) -> bool:
    """Whether an event is a success: by its status or, if that states no outcome, by its type."""
    stated, status = KIND[event.event_type], STATUS[event.status or ""]
    decided = status & (flag.FAILED | flag.SUCCEEDED) and not status & flag.STATUS_ABSENT
    outcome = status if decided or not stated & flag.FAILED else stated
    return bool(outcome & flag.SUCCEEDED)


def is_entry(event: Event, entity_kind: str, bits: Mapping[str, float], patterns: Set[str]) -> bool:
    """Whether an alert is the successful login of a stranger.

    A success after failures is not enough: while an account is attacked its user logs in, too. Neither is one foreign
    thing: users travel, and buy laptops. So all that the event states of a source, a place, a host and an agent has to
    be foreign to the user. Two cases need less: from an address that fails for many users, it is enough that the
    address is foreign; and in an incident with a pattern of what an intruder does, that the target is.

    Parameters
    ----------
    event
        Event of the alert.
    entity_kind
        Entity of its incident.
    bits
        Weight of each reason of the alert.
    patterns
        Names of the patterns of the incident so far.

    Examples
    --------
    >>> login = Event(1, "login", "ann", source_ip="192.0.2.1", status="success", metadata=Metadata(hostname="laptop"))
    >>> is_entry(login, "user", {"source": 18.0, "host": 9.0}, frozenset())
    True
    >>> is_entry(login, "user", {"source": 18.0}, frozenset())  # from the usual laptop
    False
    >>> is_entry(login, "source", {"source": 18.0}, frozenset())  # from an address that fails for many users
    True
    """
    if not event.user or not is_login(event) or not succeeded(event):
        return False
    metadata = event.metadata or Metadata()
    stated = {
        "source": event.source_ip,
        "location": metadata.geo_location,
        "host": metadata.hostname,
        "agent": metadata.user_agent,
    }
    foreign = {name for name in stated if bits.get(name, 0.0) >= FOOTHOLD_BITS}
    if bits.get("crowd_new_source", 0.0) >= CROWD_BITS:
        foreign.add("source")
    if foreign and foreign >= {name for name, value in stated.items() if value}:
        return True
    attacks = entity_kind == "source" or bits.get("source_spread", 0.0) >= FOOTHOLD_BITS
    if attacks and "source" in foreign:
        return True
    return bool(patterns - NO_OWN_PATTERNS) and bits.get("resource", 0.0) >= TARGET_BITS
