"""What of an incident the rules of campaigns look at: its times, its evidence, and what its latest event names."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from ipaddress import ip_address, ip_network
from typing import Any, NamedTuple

import msgspec

from streamguard.alerts.incident import Incident
from streamguard.campaigns.entry import (
    FOOTHOLD_BITS,
    NO_OWN_PATTERNS,
    WAVE_PATTERNS,
    is_entry,
    is_login,
    succeeded,
)
from streamguard.campaigns.participants import Participants
from streamguard.events.address import ADDRESS
from streamguard.events.event import Event, Metadata, parse
from streamguard.events.event_time import epoch_ms
from streamguard.events.place import PLACE

MINUTE = 60_000
HOUR = 60 * MINUTE
DAY = 24 * HOUR

CORE_BITS = 8.0
"""Evidence of new sources in the crowd, or of a spread of users over a source, from which a login shows a wave: one
user's new address alone stays below."""
BORDER_BITS = 5.0
"""Evidence from which a login at the time of a wave may belong to it."""
RARE_BITS = 8.0
"""Evidence from which an address, a host or an agent is rare enough to join incidents of different users."""

_WAVE_COMPONENTS = ("crowd_new_source_failure", "crowd_new_source", "source_spread")


class Key(NamedTuple):
    """Two incidents with an equal key and at most `silence_ms` between them belong together."""

    name: str
    silence_ms: int
    value: Any


@dataclass(frozen=True)
class Sighting:
    """An incident, as the rules see it.

    Parameters
    ----------
    incident
        As last published.
    earlier
        Its earlier updates; each shows what else the incident is about.
    unnamed
        Users who were forgotten after this update: it does not show them as participants.
    """

    incident: Incident
    earlier: tuple[Sighting, ...] = ()
    unnamed: frozenset[str] = frozenset()

    @cached_property
    def first_ms(self) -> int:
        """Event time of the first alert, in ms since 1970."""
        return epoch_ms(self.incident.first_seen) or 0

    @cached_property
    def last_ms(self) -> int:
        """Event time of the latest alert, in ms since 1970."""
        return max(epoch_ms(self.incident.last_seen) or 0, self.first_ms)

    @cached_property
    def event(self) -> Event | None:
        """The event of the latest published alert; None if it was too large to publish."""
        events = parse([msgspec.json.encode(self.incident.event)]).events
        return events[0] if events else None

    @cached_property
    def bits(self) -> dict[str, float]:
        """Weight of each reason, in bits."""
        return {reason.feature: reason.bits for reason in self.incident.reasons}

    @cached_property
    def patterns(self) -> frozenset[str]:
        """Names of the patterns of all alerts."""
        return frozenset(pattern.name for pattern in self.incident.patterns)

    @property
    def entity(self) -> tuple[str, str]:
        """Kind and name of the entity; a crowd stands for the user of its latest event."""
        kind, value = self.incident.entity.kind, self.incident.entity.value
        return ("user", self.user) if kind == "crowd" else (kind, value)

    @property
    def kind(self) -> str:
        """Kind of the entity: `user`, `source` or `crowd`."""
        return self.incident.entity.kind

    @cached_property
    def user(self) -> str:
        """The user; empty if the event names none."""
        named = (self.event.user if self.event else None) or ""
        return self.incident.entity.value if self.kind == "user" else named

    @cached_property
    def address(self) -> str:
        """Source address of the latest event in its canonical spelling."""
        return ADDRESS[(self.event.source_ip if self.event else None) or ""][0]

    @property
    def source(self) -> str:
        """The source: the entity, or that of the latest event."""
        return self.incident.entity.value if self.kind == "source" else self.address

    @cached_property
    def metadata(self) -> Metadata:
        """Host, place and agent of the latest event."""
        return (self.event.metadata if self.event else None) or Metadata()

    @cached_property
    def is_login(self) -> bool:
        """Whether the latest event is a login."""
        return self.event is not None and is_login(self.event)

    @cached_property
    def succeeded(self) -> bool:
        """Whether the latest event is a success."""
        return self.event is not None and succeeded(self.event)

    def of(self, *components: str) -> float:
        """The largest weight of some reasons, in bits."""
        return max(self.bits.get(component, 0.0) for component in components)

    @cached_property
    def moments(self) -> tuple[int, ...]:
        """Times at which the incident surely had alerts, in ms.

        Incidents of a crowd or a source stay open for up to a day, and only the time of their strongest alert shows
        which wave they belong to.
        """
        stamp = int(self.event.timestamp) if self.event else self.first_ms
        strongest = min(max(stamp, self.first_ms), self.last_ms)
        if self.last_ms - self.first_ms <= HOUR:
            return tuple(sorted({self.first_ms, strongest, self.last_ms}))
        return (self.first_ms, strongest) if self.kind == "user" else (strongest,)

    @property
    def middle(self) -> int:
        """The middle one of the moments, which decides between two waves."""
        return self.moments[len(self.moments) // 2]

    @cached_property
    def _is_of_the_user(self) -> bool:
        """Whether the event is the success of its user: while a wave tries many, they log in from new places."""
        if self.event is None or not self.succeeded:
            return False
        return not is_entry(self.event, self.kind, self.bits, self.patterns)

    @cached_property
    def is_core(self) -> bool:
        """Whether the incident by itself shows a wave: logins of many users at once."""
        return self._shows_wave or any(one._shows_wave for one in self.earlier)

    @cached_property
    def _shows_wave(self) -> bool:
        strong = self.of(*_WAVE_COMPONENTS) >= CORE_BITS and not self._is_of_the_user
        return self.is_login and (self.kind != "user" or strong or bool(self.patterns & WAVE_PATTERNS))

    @cached_property
    def is_border(self) -> bool:
        """Whether the incident may belong to a wave at its time."""
        return not self.is_core and any(one._may_be_in_wave for one in (self, *self.earlier))

    @cached_property
    def _may_be_in_wave(self) -> bool:
        weak = self.of(*_WAVE_COMPONENTS, "source", "crowd_new_user") >= BORDER_BITS
        return self.is_login and weak and not self._is_of_the_user

    @property
    def in_wave(self) -> bool:
        """Whether the incident is in a wave, or may be."""
        return self.is_core or self.is_border

    def show(self, participants: Participants) -> None:
        """Add whom this update of the incident shows: the participants of its event, and those that it names."""
        if self.event is not None:
            named = self.event.user not in self.unnamed
            event = self.event if named else msgspec.structs.replace(self.event, user=None)
            participants.add(event, self.kind, self.bits, self.patterns)
        if self.kind == "user":
            participants.add_user(self.user)
        elif self.kind == "source":
            participants.add_source(self.source)
        if self.incident.involved is not None:
            participants.merge(self.incident.involved, self.unnamed)

    def shown_users(self) -> frozenset[str]:
        """The users that this update shows as participants."""
        named = {(self.event.user if self.event else None) or ""}
        if self.incident.involved is not None:
            named.update(self.incident.involved.users.names, self.incident.involved.entered.names)
        return frozenset(named) - {""}

    def links(self) -> Iterator[Key]:
        """The keys by which incidents of one attack find each other."""
        yield from dict.fromkeys(key for one in (self, *self.earlier) for key in one._links())
        if self.kind == "user" and not self.in_wave:
            yield Key("likeness", DAY, self.entity)

    def _links(self) -> Iterator[Key]:
        yield from self._links_of_any_entity()
        own = self.patterns - NO_OWN_PATTERNS
        if self.kind == "crowd" and not own:
            return
        entity, host = self.entity, self.metadata.hostname
        place = PLACE[self.metadata.geo_location or ""][0]
        if self.address and self.of("source") >= FOOTHOLD_BITS:
            yield Key("foothold", 3 * DAY, (entity, "source", self.address))
        if host and self.of("host") >= FOOTHOLD_BITS:
            yield Key("foothold", 3 * DAY, (entity, "host", host))
        agent = self.metadata.user_agent
        if agent and place and min(self.of("agent"), self.of("location")) >= FOOTHOLD_BITS:
            yield Key("foothold", 3 * DAY, (entity, "agent and place", agent, place))
        for pattern in sorted(own):
            yield Key("pattern", DAY, (entity, pattern))

    def _links_of_any_entity(self) -> Iterator[Key]:
        if self.source and (self.of("source") >= RARE_BITS or self.kind == "source"):
            yield Key("address", 3 * DAY, self.source)
            if near := network_of(self.source):
                yield Key("network", DAY, near)
        if self.metadata.hostname and self.of("host") >= RARE_BITS:
            yield Key("host", DAY, self.metadata.hostname)
        failing = self.is_login and not self.succeeded
        if self.metadata.user_agent and self.of("agent") >= RARE_BITS and failing:
            yield Key("agent", HOUR, self.metadata.user_agent)


def network_of(address: str) -> str | None:
    """The /24 or /64 of an address; None for a text that is none.

    Examples
    --------
    >>> network_of("192.0.2.10"), network_of("2001:db8::1"), network_of("kiosk")
    ('192.0.2.0/24', '2001:db8::/64', None)
    """
    if not re.match(r"[0-9a-fA-F:.]+\Z", address):
        return None
    try:
        ip = ip_address(address)
    except ValueError:
        return None
    return str(ip_network(f"{ip}/{24 if ip.version == 4 else 64}", strict=False))
