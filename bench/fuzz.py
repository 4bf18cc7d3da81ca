"""Damaged batches and bombs at rate: what was scored and refused adds up to what was sent, in bounded memory."""

from __future__ import annotations

import random
import tempfile
import time
from pathlib import Path

from confluent_kafka import Consumer, TopicPartition

from bench.figures import Figure
from bench.traffic import habits, values
from bench.worker import EVENTS, RESIDENT, running, settings
from streamguard.settings.schema import Settings
from streamguard.state.warmup import compile_fold
from streamguard.testing.broker import LocalKafka
from tests import wire

MB = 1 << 20
DEAD = "streamguard_dead_letters_total"
BOMBS = 20_000
"""One batch in so many unpacks to 900 MB."""


def measure(*, quick: bool) -> list[Figure]:
    batches = 500 if quick else 1_000_000
    compile_fold()  # in this process, since the compiler takes memory
    chance = random.Random(5)
    events = values(habits(10_000, 200))
    bombs = [wire.bomb(codec, 900 * MB) for codec in (wire.GZIP, wire.ZSTD)]
    with tempfile.TemporaryDirectory(prefix="streamguard-bench-") as directory, LocalKafka() as kafka:
        chosen = settings(kafka.bootstrap_servers, Path(directory))
        topic, partitions = chosen.kafka.events_topic, chosen.kafka.partitions
        with running(chosen) as worker, wire.RawProducer(kafka.bootstrap_servers) as producer:
            worker.until_ready()
            start = worker.metrics()[RESIDENT]
            begun, accepted = time.monotonic(), 0
            for k in range(batches):
                if k % BOMBS == min(BOMBS, batches) // 2:
                    made = bombs[k // BOMBS % len(bombs)]
                elif k % 2:
                    made = wire.mutated(chance)
                else:
                    listed = [wire.record(i, chance.choice(events)) for i in range(chance.randrange(1, 6))]
                    made = wire.batch(listed, codec_number=chance.randrange(5), ms=int(time.time() * 1000))
                accepted += producer.send(topic, chance.randrange(partitions), made)[0] == 0
            seconds = time.monotonic() - begun
            sent = _records(chosen, topic)
            found = worker.until(
                f"has accounted for {sent:,} records", lambda m: m.get(EVENTS, 0) + m.get(DEAD, 0) >= sent
            )
            found = worker.until_saved(chosen.worker.checkpoint_seconds)
            peak = worker.peak()
    scored, dead = found[EVENTS], found.get(DEAD, 0.0)
    return [
        Figure("batches sent", batches),
        Figure("batches that the broker accepted", accepted),
        Figure("batches a second", accepted / seconds),
        Figure("records in the topic", sent),
        Figure("records scored", scored),
        Figure("records in dead letters", dead),
        Figure("records unaccounted for", abs(sent - scored - dead), "", "<= 0"),
        Figure("memory of the worker at its start", start / MB, "MB"),
        Figure("peak memory of the worker", peak / MB, "MB", "<= 350"),
    ]


def _records(chosen: Settings, topic: str) -> int:
    """Offsets in the topic: no transaction occupies any."""
    consumer = Consumer({"bootstrap.servers": chosen.kafka.bootstrap_servers, "group.id": "bench"})
    ends = [
        consumer.get_watermark_offsets(TopicPartition(topic, partition), timeout=30)[1]
        for partition in range(chosen.kafka.partitions)
    ]
    consumer.close()
    return sum(ends)
