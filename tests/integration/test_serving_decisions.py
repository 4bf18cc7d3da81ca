"""Case actions on a real Kafka: written, read back, written twice, and refused."""

from __future__ import annotations

import contextlib
import uuid
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest
from confluent_kafka import KafkaError
from confluent_kafka.admin import AdminClient, NewTopic

from streamguard.errors import UnavailableError
from streamguard.kafka import topics
from streamguard.kafka.connection import Brokers
from streamguard.kafka.topics import TopicsMismatchError
from streamguard.serving.decisions import writer as module
from streamguard.serving.decisions.case import case_of
from streamguard.serving.decisions.codec import RecordError, decode, encode
from streamguard.serving.decisions.ledger import Logged
from streamguard.serving.decisions.record import MAX_ID, MAX_INCIDENTS, MAX_TEXT
from streamguard.serving.decisions.transaction import Record, Transactions
from streamguard.serving.decisions.writer import ActionWriter
from streamguard.serving.log.reader import LogReader
from streamguard.serving.log.record import LogRecord
from streamguard.settings.schema import Kafka, Settings
from streamguard.testing.broker import LocalKafka, free_port
from tests.case_actions import INCIDENT, action, close, update
from tests.harness import eventually

pytestmark = pytest.mark.integration


@pytest.fixture
def topic(kafka: str) -> str:
    """The topic of decisions as `streamguard topics create` makes it."""
    own = uuid.uuid4().hex[:8]
    roles = ("events", "alerts", "campaigns", "decisions", "audit", "dead_letter", "models")
    named = {f"{role}_topic": f"{role}-{own}" for role in roles}
    settings = Settings(kafka=Kafka(bootstrap_servers=kafka, sources_topic="", partitions=1, **named))
    topics.create(settings)
    return settings.kafka.decisions_topic


@pytest.fixture
def writer(kafka: str, topic: str) -> Iterator[ActionWriter]:
    with ActionWriter(Brokers(kafka), topic) as writer:
        yield writer


def read(kafka: str, topic: str) -> list[LogRecord]:
    """All records of the topic."""
    reader = LogReader(Brokers(kafka), topic, {0: 0})
    found: list[LogRecord] = []

    def whole() -> bool:
        found.extend(reader.take(0.2))
        return reader.at_end

    try:
        eventually("the topic is read", whole)
    finally:
        reader.close()
    return found


def logged(records: list[LogRecord]) -> list[Logged]:
    return [Logged(one.offset, decode(one.value or b"")) for one in records]


def test_an_action_is_read_back_at_the_offset_that_was_returned(
    kafka: str, topic: str, writer: ActionWriter
) -> None:
    made = [action("acknowledge", "a"), close("b", expected="a", reason="\U0001f600" * MAX_TEXT)]
    offsets = [writer.write(one) for one in made]
    assert logged(read(kafka, topic)) == [Logged(*one) for one in zip(offsets, made, strict=True)]
    assert offsets == [0, 1]


def test_an_action_that_is_written_twice_is_one_action(kafka: str, topic: str, writer: ActionWriter) -> None:
    made = [close("a"), action("reopen", "b", expected="a"), close("a")]
    assert [writer.write(one) for one in made] == [0, 1, 2]
    records = read(kafka, topic)
    assert len({one.key for one in records}) == 3  # compaction keeps all of them
    found = case_of(INCIDENT, [update(1, 12.0)], logged(records))
    assert (found.status, [entry.id for entry in found.history]) == ("new", ["a", "b"])


def test_the_largest_action_is_accepted_by_the_topic(kafka: str, topic: str, writer: ActionWriter) -> None:
    incidents = tuple(f"{k:0{MAX_ID}}" for k in range(MAX_INCIDENTS))
    largest = close("a" * MAX_ID, 1 << 40, "b" * MAX_ID, incidents=incidents, reason="\x01" * MAX_TEXT)
    writer.write(largest)
    assert [one.action for one in logged(read(kafka, topic))] == [largest]


def test_threads_share_a_writer_and_the_log_accepts_one_of_their_actions(
    kafka: str, topic: str, writer: ActionWriter
) -> None:
    with ThreadPoolExecutor(8) as pool:
        offsets = list(pool.map(lambda k: writer.write(close(f"a{k}")), range(40)))
    assert sorted(offsets) == list(range(40))
    found = case_of(INCIDENT, [update(1, 12.0)], logged(read(kafka, topic)))
    assert [entry.rejected for entry in found.history] == [""] + ["conflict"] * 39
    assert found.last_action == f"a{offsets.index(0)}"


def test_a_writer_continues_after_an_error_that_ends_its_producer(writer: ActionWriter) -> None:
    assert writer.write(close("a")) == 0
    before = writer._producer
    writer._report(KafkaError(KafkaError._FATAL))
    assert writer.write(close("b")) == 1
    assert writer._producer is not before


def test_an_action_that_readers_would_refuse_is_not_written(
    kafka: str, topic: str, writer: ActionWriter
) -> None:
    with pytest.raises(RecordError):
        writer.write(close("a", by=""))
    assert read(kafka, topic) == []


def test_a_missing_topic_is_an_error_with_a_remedy(kafka: str) -> None:
    with (
        ActionWriter(Brokers(kafka), "no-such-topic") as writer,
        pytest.raises(
            TopicsMismatchError, match="has no topic no-such-topic: run `streamguard topics create`"
        ),
    ):
        writer.write(close("a"))


def test_brokers_that_do_not_answer_are_an_error_with_a_remedy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "TIMEOUT_SECONDS", 1.0)
    with (
        ActionWriter(Brokers(f"127.0.0.1:{free_port()}"), "decisions") as writer,
        pytest.raises(UnavailableError, match=r"refused a request .* repeat it with the same id"),
    ):
        writer.write(close("a"))


def test_a_closed_writer_accepts_nothing(kafka: str, topics: Callable[..., str]) -> None:
    writer = ActionWriter(Brokers(kafka), topics("decisions"))
    writer.close()
    with pytest.raises(UnavailableError, match="is closed"):
        writer.write(close("a"))


def test_a_writer_survives_an_outage_of_the_broker(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "TIMEOUT_SECONDS", 2.0)
    with LocalKafka() as broker:
        servers = broker.bootstrap_servers
        admin = AdminClient({"bootstrap.servers": servers})
        admin.create_topics([NewTopic("decisions", 1, 1)])["decisions"].result(30)
        with ActionWriter(Brokers(servers), "decisions") as writer:
            assert writer.write(close("a")) == 0
            broker.kill()
            with pytest.raises(UnavailableError, match="repeat it with the same id"):
                writer.write(close("b"))
            broker.start()

            def repeated() -> bool:
                with contextlib.suppress(UnavailableError):
                    writer.write(close("b"))
                    return True
                return False

            eventually("the action is written", repeated)
        assert {one.action.id for one in logged(read(servers, "decisions"))} == {"a", "b"}


def test_records_of_two_topics_are_written_together_or_not_at_all(
    kafka: str, topic: str, writer: ActionWriter
) -> None:
    events = topic.replace("decisions-", "events-")
    made = [close("a"), close("a.1")]
    control = Record(events, 0, b"ann", b"{}", (("sg.decision", b"signed"),))
    last, (offset,) = writer.write_together(made, [control])
    eventually("the markers of the transaction are written", lambda: len(read(kafka, topic)) == 2)
    found = logged(read(kafka, topic))
    assert ([one.action for one in found], found[-1].offset, offset) == (made, last, 0)
    assert writer.end() == last + 2, "the marker of the transaction is included"
    (record,) = read(kafka, events)
    assert (record.offset, record.key, record.value, record.headers) == (
        0, b"ann", b"{}", (("sg.decision", b"signed"),),
    )  # fmt: skip
    too_large = control._replace(value=b"x" * 2_000_000)
    with pytest.raises(UnavailableError, match="repeat it with the same id"):
        writer.write_together([close("b")], [too_large])
    with pytest.raises(TopicsMismatchError, match="streamguard topics create"):
        writer.write_together([close("c")], [control._replace(topic="no-such-topic")])
    assert writer.write_together([close("d")], [control])[1] > [0], "the writer goes on"
    eventually("both are seen", lambda: len(read(kafka, topic)) == 3 and len(read(kafka, events)) == 2)
    assert [one.action.id for one in logged(read(kafka, topic))] == ["a", "a.1", "d"]


def test_writer_that_starts_again_ends_what_the_former_one_left_open(kafka: str, topic: str) -> None:
    """A server is killed within a transaction: its records are never seen, and the topic is not blocked for long."""
    record = Record(topic, 0, b"a/1", encode(close("a")))
    killed = Transactions(Brokers(kafka), f"{topic}-t")
    killed.write([record])
    producer = killed._producer
    assert producer is not None
    producer.begin_transaction()
    producer.produce(topic, encode(close("b")), b"b/1", partition=0)
    producer.flush(10)
    with ActionWriter(Brokers(kafka), topic, f"{topic}-t") as again:
        assert again.end() == 3, "an open record counts: whether it will be committed is unknown"
        again.write_together([close("c"), close("c.1")])
    eventually("the markers of the transactions are written", lambda: len(read(kafka, topic)) == 3)
    assert [one.action.id for one in logged(read(kafka, topic))] == ["a", "c", "c.1"]
