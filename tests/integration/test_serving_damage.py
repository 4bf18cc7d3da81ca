"""Damage that a server meets: batches that cannot be read, a database with bad pages, a missing right."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from streamguard.alerts.incident import encode
from streamguard.kafka.connection import Brokers
from streamguard.serving.log.reader import LogReader
from streamguard.serving.log.record import LogRecord
from streamguard.serving.projection.store import Store
from streamguard.testing.broker import LocalKafka
from tests import wire
from tests.campaign_site import CampaignSite
from tests.harness import eventually
from tests.serving_site import ServeProcess
from tests.serving_stores import at
from tests.unit.test_campaigns import NOON, lone
from tests.unit.test_serving_limits import overwrite_middle

pytestmark = pytest.mark.integration


@pytest.fixture
def broker() -> Iterator[LocalKafka]:
    with LocalKafka() as broker:
        yield broker


def incident_batch(first: int, count: int) -> bytes:
    found = (at(k, lone(f"user-{k}", NOON + 1000 * k)).incident for k in range(first, first + count))
    return wire.batch([wire.record(k, encode(one)) for k, one in enumerate(found)])


def damage(broker: LocalKafka, topic: str) -> None:
    """Change the last byte of the only segment of a partition, as a bad disk does."""
    (log,) = (broker.directory / "data" / f"{topic}-0").glob("*.log")
    with log.open("r+b") as file:
        file.seek(log.stat().st_size - 1)
        last = file.read(1)
        file.seek(log.stat().st_size - 1)
        file.write(bytes([last[0] ^ 0xFF]))


def whole(broker: LocalKafka, topic: str, partitions: int = 1) -> tuple[list[LogRecord], int]:
    """All records that can be read, and the number of offsets that were passed over."""
    reader = LogReader(Brokers(broker.bootstrap_servers), topic, dict.fromkeys(range(partitions), 0))
    found: list[LogRecord] = []

    def read() -> bool:
        found.extend(reader.take(0.2))
        return reader.at_end

    try:
        eventually("the topic is read", read)
        return found, reader.unreadable
    finally:
        reader.close()


@pytest.mark.parametrize("last", [True, False])
def test_batch_that_is_damaged_on_the_disk_is_passed_over_and_nothing_else(
    broker: LocalKafka, tmp_path: Path, last: bool
) -> None:
    site = CampaignSite(broker.bootstrap_servers, tmp_path, partitions=1)
    topic = site.names["alerts"]
    with wire.RawProducer(broker.bootstrap_servers) as producer:
        producer.accepted(topic, 0, incident_batch(0, 3))
        producer.accepted(topic, 0, incident_batch(3, 2))
        damage(broker, topic)
        if not last:
            producer.accepted(topic, 0, incident_batch(5, 4))
    found, unreadable = whole(broker, topic)
    assert ([one.offset for one in found], unreadable) == ([0, 1, 2] + ([] if last else [5, 6, 7, 8]), 2)
    server = ServeProcess(site, "a").await_serving()
    try:
        server.await_incidents(len(found))
        assert server.metric('streamguard_serve_records_total{result="damaged",topic="alerts"}') == 2.0
        assert "cannot be read (the checksum of the batch is wrong)" in server.log.read_text()
        site.publish([at(20, lone("eve", NOON)).incident])
        server.await_incidents(len(found) + 1)
    finally:
        assert server.terminate(15) == 0, server.tail()
        site.close()


def test_whatever_a_client_has_written_the_record_behind_it_is_read(
    broker: LocalKafka, tmp_path: Path
) -> None:
    site = CampaignSite(broker.bootstrap_servers, tmp_path, partitions=len(wire.POISON))
    topic, behind = site.names["alerts"], {}
    with wire.RawProducer(broker.bootstrap_servers) as producer:
        for partition, kind in enumerate(sorted(wire.POISON)):
            producer.send(topic, partition, wire.poison(kind, [b"first", b"second"]))
            behind[partition] = producer.accepted(topic, partition, wire.batch([wire.record(0, b"behind")]))
    found, _ = whole(broker, topic, len(wire.POISON))
    last = {one.partition: (one.offset, one.value) for one in found}
    assert last == {partition: (offset, b"behind") for partition, offset in behind.items()}
    site.close()


def test_server_with_bad_pages_in_its_database_builds_it_again(broker: LocalKafka, tmp_path: Path) -> None:
    site = CampaignSite(broker.bootstrap_servers, tmp_path, partitions=1)
    incidents = [at(k, lone(f"user-{k}", NOON + 1000 * k)).incident for k in range(300)]
    site.publish(incidents)
    server = ServeProcess(site, "a").await_serving()
    server.await_incidents(300)
    assert server.terminate(15) == 0
    before = Store(server.data, 18.0)
    lines = list(before.export())
    overwrite_middle(before)
    before.close()
    again = ServeProcess(site, "a", "a")
    site.publish(
        [at(900, lone("eve", NOON)).incident]
    )  # a reader of old pages, or this record, meets the damage
    again.await_serving().await_incidents(301)
    assert again.terminate(15) == 0, again.tail()
    assert "is built again from the topics" in again.log.read_text()
    after = Store(again.data, 18.0)
    assert len(set(lines) & set(after.export())) == 300
    after.close()
    site.close()
