"""Any number of incidents, made of those of a simulated replay under invented users, ids and times."""

from __future__ import annotations

import random
from collections.abc import Iterator
from itertools import islice
from typing import Any

import msgspec

from streamguard.alerts.incident import Entity, Incident, Origin, encode, rfc3339
from streamguard.events.event import parse
from streamguard.events.event_time import epoch_ms
from streamguard.history.files import Batch
from streamguard.history.replay import Replay
from streamguard.risk import risk, severity
from streamguard.serving.decisions.ledger import Logged
from streamguard.serving.decisions.record import (
    VERSION,
    Acknowledge,
    CaseAction,
    Classification,
    Close,
    Target,
)
from streamguard.serving.decisions.writer import key_of
from streamguard.serving.projection.store import Store
from streamguard.serving.projection.update import Update
from streamguard.settings.schema import Detection
from streamguard.simulate import ALL_SCENARIOS, Simulation
from streamguard.simulate.simulation import START_MS

DAYS = 90
"""The incidents are spread over these days: the retention of their topic."""
DAY_MS = 86_400_000
PEOPLE = tuple(f"analyst-{k}" for k in range(12))
"""Who has acknowledged and closed incidents."""
CLASSIFICATIONS: tuple[Classification, ...] = (
    "true_positive",
    "benign_positive",
    "false_positive",
    "undetermined",
)
CLOSED, ACKNOWLEDGED = 0.5, 0.1
"""Shares of the incidents."""
BATCH = 1000
"""Incidents of one transaction."""
TOGETHER = 20
"""Incidents that a person acts on at once."""
OF_USERS = 0.85
"""Share of incidents of users; the others are of users, addresses and crowds, as the simulated company has them."""
WEAKER = (0.2, 1.1)
"""Range of the evidence, relative to that of the simulated incident, which comes from an attack."""


def templates(events: int) -> list[Incident]:
    """All publications of the incidents of a simulated company with every attack."""
    replay = Replay(detection=Detection())
    stream = iter(Simulation(60, 7, events=events, events_per_day=40.0, scenarios=tuple(ALL_SCENARIOS) * 4))
    while rows := list(islice(stream, BATCH)):
        values: list[bytes | None] = [event.value for event in rows]
        replay.feed(Batch(0, [], values, *parse(values), {}))
    return replay.updates()


def updates(count: int, known: list[Incident], partitions: int, seed: int = 1) -> Iterator[Update]:
    """Incidents as records of the alerts topic, in the order of their times; a few users have many of them."""
    draw = random.Random(seed)
    of_users = [one for one in known if one.entity.kind == "user"]
    offsets = [0] * partitions
    for k in range(count):
        one = draw.choice(of_users if draw.random() < OF_USERS else known)
        partition = draw.randrange(partitions)
        name = f"user-{int(draw.random() ** 3 * max(count // 10, 10)):06d}"
        last = START_MS + int((k + draw.random()) * DAYS * DAY_MS / count)
        lasts = (epoch_ms(one.last_seen) or 0) - (epoch_ms(one.first_seen) or 0)
        bits = round(max(one.evidence_bits * draw.uniform(*WEAKER), 4.0), 1)
        made = msgspec.structs.replace(
            one,
            id=f"{partition}-{name}-{k:x}",
            entity=Entity("user", name) if one.entity.kind == "user" else one.entity,
            first_seen=rfc3339(last - lasts),
            last_seen=rfc3339(last),
            risk=risk(bits),
            severity=severity(risk(bits)),
            evidence_bits=bits,
            origin=Origin("security-events", partition, k),
        )
        yield Update(partition, offsets[partition], made, encode(made))
        offsets[partition] += 1


def fill(
    store: Store, count: int, known: list[Incident], partitions: int, topic: str, decisions: str
) -> None:
    """Add incidents, most of which people have acted on, as if they had been read; the positions stay at 0.

    An action is added before its incidents, so that each incident is computed once.
    """
    draw = random.Random(3)
    made = updates(count, known, partitions)
    store.loading.add(topic)
    offset = 0
    while part := list(islice(made, BATCH)):
        actions = []
        for first in range(0, len(part), TOGETHER):
            ids = [one.incident.id for one in part[first : first + TOGETHER]]
            if action := acted(draw, f"bench-{offset}", ids):
                actions.append((key_of(action), Logged(offset, action)))
                offset += 1
        store.add_actions(decisions, actions, [], {})
        store.add_updates(topic, part, {})
    store.loaded(topic)


def acted(draw: random.Random, id: str, incidents: list[str]) -> CaseAction | None:
    """What a person has done with incidents; None for new ones."""
    common: dict[str, Any] = {
        "version": VERSION,
        "id": id,
        "incidents": tuple(Target(id=one, seen=1 << 30) for one in incidents),
        "by": draw.choice(PEOPLE),
        "at": rfc3339(START_MS),
    }
    share = draw.random()
    if share < CLOSED:
        return Close(**common, classification=draw.choice(CLASSIFICATIONS))
    return Acknowledge(**common, assignee=common["by"]) if share < CLOSED + ACKNOWLEDGED else None
