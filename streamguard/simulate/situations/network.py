"""Situations of the network: a VPN for everybody, a private relay for some, addresses that change every day."""

from __future__ import annotations

from streamguard.simulate.labelled import SimulatedEvent
from streamguard.simulate.scenarios.context import DAY
from streamguard.simulate.situations.context import (
    Effect,
    Intrusion,
    Situation,
    SituationContext,
    benchmark_address,
)

EGRESS = "203.0.113.9"
"""Address of the gateway, of a documentation range (RFC 5737)."""
EGRESS_ABROAD = "PL-Warsaw"
"""Where the gateway of the second rollout is: a country in which the company has no office."""

RELAY_USERS = 0.3
"""Share of people who turn on a private relay."""
RELAY_EVENTS = 0.3
"""Share of their events that leave by the relay: not every program uses it."""
RELAY_ADDRESSES = 300
"""Addresses of the relay."""
RELAY_PLACES = ("DE-Frankfurt", "FR-Lille", "BE-Brussels", "NL-Arnhem", "CH-Zurich", "AT-Vienna")

TEMPORARY = 0.5
"""Share of people whose machine has a temporary IPv6 address (RFC 8981); the others have a lease of IPv4."""


def vpn_rollout(context: SituationContext) -> Effect:
    """Everybody moves behind one egress address; the place stays as it was."""
    return _rollout(context, None)


def vpn_rollout_abroad(context: SituationContext) -> Effect:
    """Everybody moves behind one egress address in another country."""
    return _rollout(context, EGRESS_ABROAD)


def private_relay(context: SituationContext) -> Effect:
    """Three of ten people turn on a relay with hundreds of addresses in several countries."""
    people = context.people()
    some = context.draw.sample(people, max(1, round(RELAY_USERS * len(people))))
    names, begin = context.names(some), context.begin

    def change(event: SimulatedEvent) -> SimulatedEvent:
        if event.timestamp < begin or event.user not in names or event.scenario is not None:
            return event
        draw = context.stable(event.event_id)
        if draw.random() >= RELAY_EVENTS:
            return event
        number = draw.randrange(RELAY_ADDRESSES)
        place = {"geo_location": RELAY_PLACES[number % len(RELAY_PLACES)]}
        return context.edited(event, source_ip=benchmark_address(10_000 + number), metadata=place)

    return Effect(_of_one(context, some), change=change)


def dhcp_renewal(context: SituationContext) -> Effect:
    """Leases end: each machine in an office has a new address of its /24 every day, or a temporary IPv6 address."""
    people = context.people()
    names, begin = context.names(people), context.begin

    def change(event: SimulatedEvent) -> SimulatedEvent:
        if event.timestamp < begin or event.user not in names:
            return event
        before = _source(event)
        if not before.startswith("10."):
            return event
        draw = context.stable(event.user, event.timestamp // DAY)
        if context.stable(event.user).random() < TEMPORARY:
            network = before.split(".")[1]
            groups = ":".join(f"{draw.getrandbits(16):x}" for _ in range(4))
            return context.edited(event, source_ip=f"2001:db8:0:{network}:{groups}")
        return context.edited(event, source_ip=f"{before.rpartition('.')[0]}.{draw.randrange(2, 255)}")

    return Effect(_of_one(context, people), change=change)


def _rollout(context: SituationContext, city: str | None) -> Effect:
    people = context.people()
    names, begin = context.names(people), context.at(2, 8)
    place = {} if city is None else {"geo_location": city}

    def change(event: SimulatedEvent) -> SimulatedEvent:
        if event.timestamp < begin or event.user not in names:
            return event
        if event.scenario is not None and not _source(event).startswith("10."):
            return event  # a thief is not behind the company's gateway
        return context.edited(event, source_ip=EGRESS, metadata=place)

    return Effect(_of_one(context, people), change=change)


def _of_one(context: SituationContext, people: list[int]) -> Intrusion:
    """A takeover of one of these people on the fourth day, in the working hours of the owner."""
    user = context.draw.choice(people)
    return Intrusion(user, context.next_working_time(user, context.at(3, 9)))


def _source(event: SimulatedEvent) -> str:
    """The source address of an event, read without decoding all of it: no name and no id contains the marker."""
    _, _, rest = event.value.partition(b'"source_ip":"')
    return rest.partition(b'"')[0].decode()


SITUATIONS = (
    Situation("vpn_rollout", "Everybody moves behind one egress address.", 7, vpn_rollout),
    Situation(
        "vpn_rollout_abroad",
        "Everybody moves behind one egress address in another country.",
        7,
        vpn_rollout_abroad,
    ),
    Situation(
        "private_relay",
        "30 % of people use a relay with 300 addresses in six countries.",
        7,
        private_relay,
    ),
    Situation(
        "dhcp_renewal",
        "New addresses every day: leases of a /24, and temporary addresses of IPv6.",
        7,
        dhcp_renewal,
    ),
)
