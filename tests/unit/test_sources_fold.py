"""Both folds of one spray, in memory: what each of them sees, and that their incidents are one campaign."""

from __future__ import annotations

import json

import numpy as np
import pytest

from streamguard.agents.output.forwarding import Destination, Forwarding
from streamguard.agents.output.source_incidents import source_incident
from streamguard.alerts.incident import Incident
from streamguard.campaigns.campaign import campaigns
from streamguard.history.partitioner import partition_of
from streamguard.records.record import Record
from streamguard.settings.schema import Detection
from streamguard.state.in_memory import InMemoryPartition
from tests.streams import START, event, habit

PARTITIONS = 8
ATTACKER = "203.0.113.66"
BENIGN = habit(2400, users=80)
END = START + len(BENIGN) * 20_000


def spray(users: int) -> list[bytes]:
    """Failures of one address for each user, ten seconds apart."""
    return [event(END + k * 10_000, f"target{k}", source_ip=ATTACKER, status="failed") for k in range(users)]


def folded(records: list[Record], forwarding: Forwarding) -> list[tuple[Incident, Record]]:
    """Incidents of a partition, and the records of their events."""
    partition = InMemoryPartition(records[0].partition, resident=4000, detection=Detection())
    found = []
    for at in range(0, len(records), 200):
        part = records[at : at + 200]
        values = [one.value for one in part]
        chunk = partition.state.fold(values, np.array([one.offset for one in part]))  # type: ignore[arg-type]
        forwarding.add(part, chunk)
        found += [(update.incident, part[chunk.index[update.event]]) for update in chunk.incidents]
    return found


def both_folds(values: list[bytes]) -> tuple[list[Incident], list[Incident]]:
    """What the first fold and the second one publish of a stream of events."""
    logs: dict[int, list[Record]] = {}
    for value in values:
        body = json.loads(value)
        log = logs.setdefault(at := partition_of(body["user"].encode(), PARTITIONS), [])
        log.append(Record("events", at, len(log), body["timestamp"], body["user"].encode(), value))
    forwarding = Forwarding(Destination("sources", PARTITIONS, 1 << 20))
    first = [incident for log in logs.values() for incident, _ in folded(log, forwarding)]
    forwarded: dict[int, list[Record]] = {}
    batches = sorted(
        (
            one
            for batch in forwarding.take()
            for one in ((batch.partition, record) for record in batch.records)
        ),
        key=lambda one: one[1].timestamp,
    )
    for at, one in batches:
        log = forwarded.setdefault(at, [])
        log.append(Record("sources", at, len(log), one.timestamp, one.key, one.value, one.headers))
    second = [
        published[0]
        for log in forwarded.values()
        for incident, record in folded(log, Forwarding(None))
        if (published := source_incident(incident, record)) is not None
    ]
    return first, second


@pytest.mark.parametrize("targets", [40, 120])
def test_spray_is_one_incident_of_the_second_fold_and_one_campaign_of_both(targets: int) -> None:
    first, second = both_folds(BENIGN + spray(targets))
    assert {one.entity.value for one in second} == {ATTACKER}
    assert len({one.id for one in second}) == 1 and second[0].id.startswith("s")
    assert not {one.id for one in first} & {one.id for one in second}
    (row,) = (row for row in campaigns([*first, *second]) if ATTACKER in row.sources)
    own = {one.id for one in first if one.event["source_ip"] == ATTACKER}
    assert set(row.incidents) == own | {second[0].id}
    assert row.technique == "T1110.003" and row.users >= targets - 10
    assert own or targets == 40, "the first fold sees a large spray in some partitions, too"


def test_second_fold_publishes_nothing_of_benign_logins() -> None:
    assert both_folds(BENIGN)[1] == []
