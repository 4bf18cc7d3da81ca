"""Events of incidents and dead letters as the server reads them from a real Kafka."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from confluent_kafka import Producer, TopicPartition
from confluent_kafka.admin import AdminClient

from streamguard.kafka.connection import Brokers
from streamguard.serving.log import events as module
from streamguard.serving.log.events import MAX_EVENTS, Place, event_at, events_at
from streamguard.serving.log.missing import MissingEvent
from streamguard.serving.log.reader import LogReader, topic_state
from streamguard.serving.log.record import LogRecord
from streamguard.serving.results.answers import Unavailable
from streamguard.serving.results.dead_letters import DeadLetterSummary, dead_letters
from tests import wire
from tests.harness import Site, eventually

pytestmark = pytest.mark.integration

Topics = Callable[..., str]
PATIENCE = 60.0
"""Seconds that a call may take on a busy machine."""


@pytest.fixture
def brokers(kafka: str) -> Brokers:
    return Brokers(kafka)


def produce(kafka: str, topic: str, values: list[bytes | None], partition: int = 0, **more: Any) -> None:
    producer = Producer(
        {"bootstrap.servers": kafka, "log_level": 0, "enable.idempotence": True, "batch.num.messages": 50}
    )
    for value in values:
        producer.produce(topic, value, b"k", partition=partition, **more)
    assert producer.flush(60) == 0


def id_of(brokers: Brokers, topic: str) -> str:
    state = topic_state(brokers, topic)
    assert state is not None
    return state.id


def reason(answer: LogRecord | MissingEvent) -> str:
    assert isinstance(answer, MissingEvent), answer
    assert f"partition {answer.partition}, offset {answer.offset}: " in answer.message
    return answer.reason


def test_events_near_and_far_of_several_partitions_are_read_in_one_call(
    kafka: str, brokers: Brokers, topics: Topics
) -> None:
    topic = topics("events", partitions=3)
    for partition in range(3):
        produce(
            kafka, topic, [b"%d-%d" % (partition, k) for k in range(3000)], partition, headers=[("h", b"x")]
        )
    places = [Place(p, k) for p in range(3) for k in (0, 1, 2, 150, 700, 701, 2999)]
    found = events_at(brokers, topic, [*reversed(places), places[3]], id_of(brokers, topic), PATIENCE)
    assert found.keys() == set(places)
    for place, record in found.items():
        assert isinstance(record, LogRecord), record
        assert (record.partition, record.offset, record.value) == (*place, b"%d-%d" % place)
        assert record.key == b"k" and record.timestamp > 0
    one = event_at(brokers, topic, 2, 1234, None, PATIENCE)
    assert isinstance(one, LogRecord) and one.value == b"2-1234"


def test_aborted_open_and_future_records_are_not_committed(
    kafka: str, brokers: Brokers, topics: Topics
) -> None:
    topic = topics("events", partitions=1)
    produce(kafka, topic, [b"first"])  # 0
    producer = Producer({"bootstrap.servers": kafka, "transactional.id": f"{topic}-t", "log_level": 0})
    producer.init_transactions(60)
    for text, end in ((b"aborted", producer.abort_transaction), (b"committed", producer.commit_transaction)):
        producer.begin_transaction()  # record and marker: 1 and 2, then 3 and 4
        producer.produce(topic, text, partition=0)
        assert producer.flush(60) == 0
        end(60)
    produce(kafka, topic, [None])  # 5
    producer.begin_transaction()
    producer.produce(topic, b"open", partition=0)  # 6
    assert producer.flush(60) == 0
    found = events_at(brokers, topic, [Place(0, k) for k in range(9)], None, PATIENCE)
    producer.abort_transaction(60)
    values = {place.offset: one.value for place, one in found.items() if isinstance(one, LogRecord)}
    assert values == {0: b"first", 3: b"committed", 5: None}
    assert {place.offset: reason(one) for place, one in found.items() if isinstance(one, MissingEvent)} == (
        dict.fromkeys((1, 2, 4, 6, 7, 8), "not_committed")
    )


def test_deleted_records_and_other_topics_are_explained(kafka: str, brokers: Brokers, topics: Topics) -> None:
    topic = topics("events", partitions=1)
    produce(kafka, topic, [b"%d" % k for k in range(10)])
    before = id_of(brokers, topic)
    admin = AdminClient({"bootstrap.servers": kafka})
    for answer in admin.delete_records([TopicPartition(topic, 0, 4)]).values():
        answer.result(30)
    found = events_at(brokers, topic, [Place(0, 3), Place(0, 4), Place(7, 0), Place(0, -1)], before, PATIENCE)
    assert reason(found[Place(0, 3)]) == reason(found[Place(0, -1)]) == "expired"
    assert reason(found[Place(7, 0)]) == "no_topic"
    kept = found[Place(0, 4)]
    assert isinstance(kept, LogRecord) and kept.value == b"4"
    assert reason(event_at(brokers, topic, 0, 4, "another", PATIENCE)) == "another_topic"
    assert reason(event_at(brokers, f"{topic}-missing", 0, 4, None, PATIENCE)) == "no_topic"


def test_number_of_events_and_of_calls_is_bounded(
    kafka: str, brokers: Brokers, topics: Topics, monkeypatch: pytest.MonkeyPatch
) -> None:
    topic = topics("events", partitions=1)
    produce(kafka, topic, [b"%d" % k for k in range(MAX_EVENTS + 5)])
    found = events_at(brokers, topic, [Place(0, k) for k in range(MAX_EVENTS + 5)], None, PATIENCE)
    late = [place for place, one in found.items() if isinstance(one, MissingEvent)]
    assert late == [Place(0, MAX_EVENTS + k) for k in range(5)]
    assert {reason(found[place]) for place in late} == {"busy"}
    assert events_at(brokers, topic, [], None) == {}
    for _ in range(module.AT_ONCE):
        assert module._slots.acquire(timeout=0)
    try:
        assert reason(event_at(brokers, topic, 0, 0, None, 0.05)) == "busy"
    finally:
        for _ in range(module.AT_ONCE):
            module._slots.release()
    assert isinstance(event_at(brokers, topic, 0, 0, None, PATIENCE), LogRecord)


def test_kafka_that_does_not_answer_is_an_answer(brokers: Brokers, topics: Topics) -> None:
    assert reason(event_at(Brokers("127.0.0.1:9"), "events", 0, 0, None, 0.5)) == "timed_out"
    topic = topics("events", partitions=1)
    produce(brokers.servers, topic, [b"x"])
    search = module._Search(brokers, topic, [Place(0, 0)], {0: 1})
    assert [reason(one) for one in search.run(0.0).values()] == ["timed_out"]
    assert module._slots.acquire(timeout=0)
    module._slots.release()


HEADERS: tuple[list[tuple[bytes, bytes | None]], ...] = (
    [(b"fine", b"1"), (b"n", None), (b"", b"")],
    [(b"\xff", b"1")],
    [(b"\xff\xfe", b"1"), (b"n", None)],
    [(b"ok", b"1"), (b"\xff", None)],
    [(b"\xff", b"1"), (b"ok", b"2")],
    [(b"\xed\xa0\x80", b"a surrogate")],
    [],
    [(b"sg.reason", b"not_json")],
)


def test_header_names_that_are_no_utf8_do_not_end_a_reader(
    kafka: str, brokers: Brokers, topics: Topics
) -> None:
    topic = topics("letters", partitions=1)
    with wire.RawProducer(kafka) as producer:
        for headers in HEADERS:
            producer.accepted(topic, 0, wire.batch([wire.record(0, b"v", headers=headers)]))
    found = events_at(brokers, topic, [Place(0, k) for k in range(len(HEADERS))], None, PATIENCE)
    assert {record.value for record in found.values() if isinstance(record, LogRecord)} == {b"v"}
    reader = LogReader(brokers, topic, {0: 0})
    records: list[LogRecord] = []

    def whole() -> bool:
        records.extend(reader.take(0.1))
        return reader.at_end

    eventually("all records are read", whole)
    reader.close()
    expected = [()] * len(HEADERS)
    expected[0] = (("fine", b"1"), ("n", None), ("", b""))  # type: ignore[assignment]
    expected[-1] = (("sg.reason", b"not_json"),)  # type: ignore[assignment]
    assert [record.headers for record in records] == expected
    letters = dead_letters(brokers, topic, PATIENCE)
    assert isinstance(letters, DeadLetterSummary)
    assert {one.reason: one.records for one in letters.reasons} == {"unknown": 7, "not_json": 1}


def test_damaged_batches_do_not_hide_the_events_after_them(
    kafka: str, brokers: Brokers, topics: Topics
) -> None:
    topic = topics("events", partitions=len(wire.POISON))
    accepted = []
    with wire.RawProducer(kafka) as producer:
        for partition, kind in enumerate(wire.POISON):
            error, _ = producer.send(topic, partition, wire.poison(kind, [b"[1]", b"[2]"]))
            if not error:
                accepted.append(partition)
                produce(kafka, topic, [b"after"], partition)
    assert len(accepted) > 8
    state = topic_state(brokers, topic)
    assert state is not None
    after = [Place(partition, state.bounds[partition].end - 1) for partition in accepted]
    damaged = [Place(partition, 0) for partition in accepted]
    found = events_at(brokers, topic, [*damaged, *after], None, PATIENCE)
    values = {place: one.value for place, one in found.items() if isinstance(one, LogRecord)}
    assert {place: values.get(place) for place in after} == dict.fromkeys(after, b"after")
    assert {values.get(place, b"[1]") for place in damaged} == {b"[1]"}
    assert "timed_out" in {one.reason for one in found.values() if isinstance(one, MissingEvent)}


def test_dead_letters_of_a_real_worker_are_counted_by_reason(kafka: str, tmp_path: Any) -> None:
    site = Site(kafka, tmp_path)
    try:
        site.produce([(k % 2, b"?") for k in range(60)])
        site.produce([(0, b'{"user": "ann", "event_type": "login", "timestamp": "yesterday"}')] * 3)
        worker = site.start().await_ready()
        site.await_caught_up(workers=[worker])
        assert worker.terminate() == 0, worker.tail()
        brokers = Brokers(kafka)
        found = dead_letters(brokers, site.names["dead_letter"], PATIENCE)
    finally:
        site.close()
    assert isinstance(found, DeadLetterSummary)
    assert {one.reason: one.records for one in found.reasons} == {"not_json": 60, "bad_timestamp": 3}
    assert found.letters < found.records == 63
    bad = next(one for one in found.reasons if one.reason == "bad_timestamp")
    assert [one.subject for one in bad.samples] == ["user ann"] * 3
    assert {one.source_offset for one in bad.samples} == {30, 31, 32}
    assert all(one.topic == site.names["events"] and "yesterday" in one.head for one in bad.samples)


def test_missing_topic_and_unreachable_kafka_are_answers(brokers: Brokers) -> None:
    missing = dead_letters(brokers, "streamguard-no-such-topic", PATIENCE)
    assert isinstance(missing, Unavailable) and missing.why == "none"
    nobody = dead_letters(Brokers("127.0.0.1:9"), "t", 0.5)
    assert isinstance(nobody, Unavailable) and nobody.why == "unreadable"
