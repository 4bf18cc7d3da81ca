"""Attacks through DNS: data in query names, and names that a program generates."""

from __future__ import annotations

import base64
from collections.abc import Iterator

from streamguard.simulate.places import public_address
from streamguard.simulate.scenarios.context import HOUR, Actor, Scenario, ScenarioContext, Step
from streamguard.simulate.shared import domain


def dns_tunnel(context: ScenarioContext, start: int) -> Iterator[Step]:
    """Data is sent in the labels of queries for one domain, with hundreds of queries within minutes."""
    draw = context.draw
    user = context.pick("office", "developer", "service", "sales")
    actor = Actor(context, user, context.own_place(user, start), noticed=0.15)
    zone = f"{draw.choice(('t', 'ns1', 'x', 'dl'))}.{domain(draw)}"
    kind = draw.choice(("TXT", "TXT", "NULL", "CNAME"))
    labels, size = draw.choice(((1, 30), (2, 35), (3, 38)))
    pace, time = draw.uniform(150, 3000), start
    for _ in range(draw.randint(300, 2000)):
        parts = (
            base64.b32encode(draw.randbytes(size))[: int(size * 1.6)].decode().lower() for _ in range(labels)
        )
        yield actor.resolve(time, f"{'.'.join(parts)}.{zone}", kind=kind, ttl=draw.choice((0, 1, 5)))
        time += context.gap(pace)


def dga(context: ScenarioContext, start: int) -> Iterator[Step]:
    """A program looks up its server under generated names, most of which do not exist."""
    draw = context.draw
    user = context.pick("office", "developer", "sales", "finance")
    actor = Actor(context, user, context.own_place(user, start), noticed=0.15)
    time, letters = start, "abcdefghijklmnopqrstuvwxyz"
    length = draw.randint(11, 19)
    for _ in range(draw.randint(2, 5)):
        pace = draw.uniform(100, 2500)
        for _ in range(draw.randint(40, 150)):
            yield actor.resolve(time, "".join(draw.choices(letters, k=length)) + ".example", code="NXDOMAIN")
            time += context.gap(pace)
        if draw.random() < 0.5:
            host, address = (
                "".join(draw.choices(letters, k=length)) + ".example",
                public_address(draw, "hosting:dga"),
            )
            yield actor.resolve(time, host, addresses=(address,))
            yield actor.connect(time + 60, address, host, sent=context.gap(800), received=context.gap(5000))
        time += int(draw.uniform(0.5 * HOUR, 3 * HOUR))


SCENARIOS = (
    Scenario("dns_tunnel", "T1071.004", "Data in the names of DNS queries.", False, dns_tunnel),
    Scenario("dga", "T1568.002", "Queries for generated names that do not exist.", False, dga),
)
