"""Unusual and very large records: the worker writes a dead letter for each and continues."""

from __future__ import annotations

import hashlib
import json
import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from confluent_kafka import Producer
from confluent_kafka.admin import AdminClient, AlterConfigOpType, ConfigEntry, ConfigResource, ResourceType

from streamguard.agents.output.dead_letter import MAX_VALUE_BYTES
from tests import wire
from tests.harness import Record, Site, WorkerProcess, events, eventually

pytestmark = pytest.mark.integration


@pytest.fixture
def site(kafka: str, tmp_path: Path) -> Iterator[Site]:
    site = Site(kafka, tmp_path)
    yield site
    site.close()


def produce(site: Site, value: bytes | None, key: bytes | None, headers: Any = None) -> None:
    """Write a compressed record to partition 0, larger than the limits of StreamGuard's own producers."""
    producer = Producer(
        {
            "bootstrap.servers": site.settings.kafka.bootstrap_servers,
            "compression.type": "zstd",
            "message.max.bytes": 200_000_000,
            "log_level": 0,
        }
    )
    producer.produce(site.names["events"], value, key, partition=0, headers=headers)
    assert producer.flush(60) == 0


def limit(site: Site, role: str, size: int) -> None:
    """Set `max.message.bytes` of a topic in use, and wait until the broker reports it."""
    admin = AdminClient({"bootstrap.servers": site.settings.kafka.bootstrap_servers})
    entry = ConfigEntry("max.message.bytes", str(size), incremental_operation=AlterConfigOpType.SET)
    resource = ConfigResource(ResourceType.TOPIC, site.names[role], incremental_configs=[entry])
    for answer in admin.incremental_alter_configs([resource]).values():
        answer.result(30)

    def applied() -> bool:
        topic = ConfigResource(ResourceType.TOPIC, site.names[role])
        (description,) = admin.describe_configs([topic]).values()
        return bool(description.result(30)["max.message.bytes"].value == str(size))

    eventually(f"the limit of {role} is {size}", applied)


def letters_of_this_file(site: Site) -> list[Record]:
    """Dead letters of the records that this file produces; records of the harness have the key `k`."""
    return sorted((r for r in site.read("dead_letter") if r.key != b"k"), key=lambda r: r.offset)


def test_worker_survives_empty_records_decompression_bombs_and_huge_headers(site: Site) -> None:
    bomb, middle = b"x" * (20 << 20), b"x" * (5 << 20)
    site.produce(events(300, 2))
    produce(site, None, None)
    produce(site, bomb, b"bomb")
    produce(site, middle, None)
    produce(site, b"[1]", b"headers", {"h": b"x" * 1_000_000})
    produce(site, b"[2]", b"many", [("h", b"")] * 50_000)
    produce(site, b"[3]", b"K" * 1_000_000)
    site.produce(events(300, 2, seed=2, start=300))
    worker = site.start().await_ready()
    site.await_caught_up(workers=[worker])
    assert worker.terminate() == 0, worker.tail()
    assert site.differences() == []

    empty, large, medium, huge_header, many_headers, huge_key = letters_of_this_file(site)
    assert (empty.key, empty.value, empty.headers["sg.null"]) == (b"", None, b"key,value")
    for letter, value, key in ((large, bomb, b"bomb"), (medium, middle, None)):
        assert (letter.key, letter.value) == (key, value[:MAX_VALUE_BYTES])
        assert letter.headers["sg.cut"] == b"value"
        assert letter.headers["sg.size"] == str(len(value)).encode()
        assert letter.headers["sg.sha256"] == hashlib.sha256(value).hexdigest().encode()
    assert [(letter.value, letter.headers["sg.cut"]) for letter in (huge_header, many_headers, huge_key)] == [
        (b"[1]", b"headers"),
        (b"[2]", b"headers"),
        (b"[3]", b"key"),
    ]
    assert all(letter.headers.keys() >= {"sg.reason", "sg.offset"} for letter in letters_of_this_file(site))


def test_records_are_shortened_to_the_size_limits_of_the_output_topics(site: Site) -> None:
    worker = site.start().await_ready()
    limit(site, "alerts", 3500)
    limit(site, "dead_letter", 20_000)
    produce(site, b"[" + random.Random(1).randbytes(50_000), b"large")
    produce(site, b"[4]", b"small")
    note = random.Random(2).randbytes(2500).hex().encode()  # hardly compressible
    padded = [
        (partition, value[:-1] + b', "note": "' + note + b'"}' if value.endswith(b"}") else value)
        for partition, value in events(600, 2)
    ]
    site.produce(padded)
    site.await_caught_up(workers=[worker])
    assert worker.terminate() == 0, worker.tail()
    assert site.differences() == []
    small, large = sorted(letters_of_this_file(site), key=lambda letter: letter.headers.keys() >= {"sg.cut"})
    assert (small.key, small.value) == (b"small", b"[4]")
    assert (large.key, large.value, large.headers["sg.cut"]) == (b"", b"", b"value,key")
    assert any(b'"event":{"truncated":true}' in (incident.value or b"") for incident in site.read("alerts"))


def accounted(site: Site) -> dict[int, set[int]]:
    """Offsets of each partition that its dead letters stand for."""
    found: dict[int, set[int]] = {}
    for letter in site.read("dead_letter"):
        first = int(letter.headers["sg.offset"])
        ranges = [(first, int(letter.headers.get("sg.last_offset", first)))]
        if letter.headers["sg.reason"] != b"unreadable_batch" and "sg.count" in letter.headers:
            ranges = json.loads(letter.value or b"")["offsets"]
        listed = [offset for start, end in ranges for offset in range(start, end + 1)]
        assert len(listed) == int(letter.headers.get("sg.count", b"1"))
        found.setdefault(int(letter.headers["sg.partition"]), set()).update(listed)
    return found


def test_no_batch_that_the_broker_accepts_stops_a_partition_or_vanishes(site: Site) -> None:
    """Poison first, last and in between in both partitions, and bombs; the worker is killed on the way."""
    values = [value for _, value in events(600, 1)]
    accepted = 0
    with wire.RawProducer(site.settings.kafka.bootstrap_servers) as producer:
        for k, kind in enumerate(wire.POISON):
            error, _ = producer.send(
                site.names["events"], k % 2, wire.poison(kind, values[2 * k : 2 * k + 2])
            )
            accepted += error == 0
        for codec in (wire.GZIP, wire.LZ4, wire.ZSTD):
            producer.accepted(site.names["events"], 0, wire.bomb(codec, 80 << 20))
        site.produce((k % 2, value) for k, value in enumerate(values[100:]))
        producer.accepted(site.names["events"], 1, wire.poison("xerial-twice"))
    assert accepted > 8
    assert site.start(failpoint="incidents-acknowledged:2").await_exit() != 0
    worker = site.start().await_ready()
    site.await_caught_up(workers=[worker])
    peak = peak_bytes(worker)
    assert worker.terminate() == 0, worker.tail()
    folded = {p: n for p, (_, n) in site.event_counts().items()}
    refused = accounted(site)
    assert {p: folded[p] + len(refused[p]) for p in folded} == site.ends()
    assert peak < 350 << 20
    reasons = {letter.headers["sg.reason"] for letter in site.read("dead_letter")}
    assert b"unreadable_batch" in reasons


def peak_bytes(worker: WorkerProcess) -> int:
    """Largest resident memory that the process has had."""
    status = Path(f"/proc/{worker.process.pid}/status").read_text()
    (line,) = (line for line in status.splitlines() if line.startswith("VmHWM"))
    return int(line.split()[1]) << 10
