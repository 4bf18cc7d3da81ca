"""Runs real worker processes on a real Kafka and compares their results with a fold of the topic from scratch."""

from __future__ import annotations

import asyncio
import copy
import json
import os
import shutil
import signal
import subprocess
import sys
import urllib.error
import urllib.request
import uuid
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self, TypeVar

import msgspec
import numpy as np
from confluent_kafka import OFFSET_END, TIMESTAMP_LOG_APPEND_TIME, Consumer, Producer, TopicPartition
from confluent_kafka.admin import AdminClient

from streamguard.agents.output.source_incidents import PREFIX
from streamguard.agents.task.identity import Topics
from streamguard.alerts.incident import Incident
from streamguard.decisions.signing import Binding, has_header, header_of
from streamguard.events.ceiling import UNKNOWN
from streamguard.events.event import Value
from streamguard.events.indicators import AUTHENTICATION, FAILED
from streamguard.fold.population import POPULATION
from streamguard.kafka import topics
from streamguard.models.key import key_of
from streamguard.polling import poll_until
from streamguard.settings.schema import Detection, Kafka, Models, Settings, Worker
from streamguard.settings.sources import of_sources
from streamguard.state.codec import unpack
from streamguard.state.expiry import PROFILE_KINDS, last_active
from streamguard.state.in_memory import InMemoryPartition
from streamguard.state.partition import HASH_KEY, META
from streamguard.state.store import RESERVED, StateStore, StoreMemory
from streamguard.testing import failpoints
from tests.incidents import published

T = TypeVar("T")


def eventually(condition: str, probe: Callable[[], T], timeout: float = 60.0) -> T:
    """Return the first truthy result of `probe`; raise AssertionError if there is none within `timeout` seconds."""
    try:
        return poll_until(probe, timeout)
    except TimeoutError:
        raise AssertionError(f"not within {timeout:g} s: {condition}") from None


@dataclass(frozen=True)
class Record:
    """A record that was read from Kafka."""

    partition: int
    offset: int
    key: bytes | None
    value: bytes | None
    headers: dict[str, bytes]
    append_ms: int
    """0 if the sender has set the record's time."""
    timestamp: int = -1


def read_topic(bootstrap_servers: str, topic: str, isolation: str = "read_committed") -> list[Record]:
    """All records of a topic; with the default isolation level only committed ones."""
    consumer = Consumer(
        {
            "bootstrap.servers": bootstrap_servers,
            "group.id": "harness",
            "enable.auto.commit": False,
            "isolation.level": isolation,
            "enable.partition.eof": True,
            "auto.offset.reset": "earliest",
        }
    )
    try:
        count = len(consumer.list_topics(topic, timeout=30).topics[topic].partitions)
        consumer.assign([TopicPartition(topic, p, 0) for p in range(count)])
        records, ended = [], set()
        while len(ended) < count:
            for message in consumer.consume(1000, 0.05):
                if message.error():
                    ended.add(message.partition())
                else:
                    kind, ms = message.timestamp()
                    records.append(
                        Record(
                            message.partition(),
                            message.offset(),
                            message.key(),
                            message.value(),
                            dict(message.headers() or []),
                            ms if kind == TIMESTAMP_LOG_APPEND_TIME else UNKNOWN,
                            ms,
                        )
                    )
        return records
    finally:
        consumer.close()


class Process:
    """A process of a `streamguard` command that logs JSON lines and serves metrics."""

    def __init__(self, log: Path, name: str, arguments: list[str], environ: dict[str, str]) -> None:
        self.name = name
        self.log = log
        command = [str(Path(sys.executable).with_name("streamguard")), *arguments]
        with self.log.open("wb") as file:
            self.process = subprocess.Popen(
                command, stdout=file, stderr=file, env={**os.environ, "NUMBA_NUM_THREADS": "1", **environ}
            )

    def lines(self) -> list[dict[str, Any]]:
        """Parsed log lines; lines that are not JSON are left out."""
        found = []
        for line in self.log.read_text(errors="replace").splitlines():
            if line.startswith("{"):
                try:
                    found.append(json.loads(line))
                except json.JSONDecodeError:  # the worker is writing this line
                    continue
        return found

    def exit_message(self) -> str:
        """Message that was logged with the exit code; other threads may have logged lines after it."""
        return next(line["message"] for line in reversed(self.lines()) if "exit_code" in line)

    @property
    def port(self) -> int | None:
        """Metrics port; None until the worker serves metrics."""
        return next((line["metrics_port"] for line in self.lines() if "metrics_port" in line), None)

    @property
    def alive(self) -> bool:
        return self.process.poll() is None

    def get(self, path: str) -> tuple[int, str]:
        """Status and body of a request to the metrics port; (0, "") while nothing answers there."""
        if self.port is None:
            return 0, ""
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{self.port}{path}", timeout=5) as response:
                return response.status, response.read().decode()
        except urllib.error.HTTPError as error:
            return error.code, error.read().decode()
        except OSError:
            return 0, ""

    def metrics(self) -> dict[str, float]:
        """Value of each metric; the keys are names with labels, as in the text format."""
        lines = [line for line in self.get("/metrics")[1].splitlines() if not line.startswith("#")]
        return {name: float(value) for name, _, value in (line.rpartition(" ") for line in lines)}

    def metric(self, name: str) -> float | None:
        return self.metrics().get(name)

    def frozen(self) -> bool:
        """Whether the process is stopped by a signal."""
        assert self.alive, f"{self.name} exited with {self.process.returncode}:\n{self.tail()}"
        status = Path(f"/proc/{self.process.pid}/stat").read_text()
        return status.rpartition(")")[2].split()[0] == "T"

    def await_ready(self, timeout: float = 60.0) -> Self:
        def ready() -> bool:
            assert self.alive, f"{self.name} exited with {self.process.returncode}:\n{self.tail()}"
            return self.get("/readyz")[0] == 200

        eventually(f"{self.name} is ready", ready, timeout)
        return self

    def await_exit(self, timeout: float = 60.0) -> int:
        try:
            return self.process.wait(timeout)
        except subprocess.TimeoutExpired:
            raise AssertionError(f"{self.name} does not exit:\n{self.tail()}") from None

    def signal(self, number: signal.Signals) -> None:
        if self.alive:
            self.process.send_signal(number)

    def kill(self) -> None:
        self.signal(signal.SIGKILL)
        self.process.wait()

    def terminate(self, timeout: float = 60.0) -> int:
        self.signal(signal.SIGTERM)
        return self.await_exit(timeout)

    def tail(self, lines: int = 30) -> str:
        return "\n".join(self.log.read_text(errors="replace").splitlines()[-lines:])


class WorkerProcess(Process):
    """A process of `streamguard worker`, or of `streamguard sources`."""

    def __init__(self, site: Site, name: str, environ: dict[str, str], verb: str = "worker") -> None:
        self.data_dir = site.directory / name
        config = str(site.directory / "streamguard.toml")
        arguments = [verb, "--config", config, "--data-dir", str(self.data_dir), "--metrics-port", "0"]
        arguments += ["--log-format", "json"]
        super().__init__(site.directory / f"{name}-{len(site.started)}.log", name, arguments, environ)


@dataclass
class Truth:
    """Expected results of the workers: state and end offset of each partition, incidents and refused records."""

    state: dict[int, dict[bytes, bytes]] = field(default_factory=dict)
    next_offset: dict[int, int] = field(default_factory=dict)
    incidents: set[str] = field(default_factory=set)
    refused: set[tuple[int, int]] = field(default_factory=set)
    forwarded: list[tuple[int, int, bytes | None]] = field(default_factory=list)
    """Partition, offset and value of each failure or login with an address."""


class Site:
    """A set of topics with unique names, a directory, and the workers that use them.

    Parameters
    ----------
    bootstrap_servers
        A running Kafka.
    directory
        For settings, data directories and logs.
    partitions
        Number of partitions of the events topic.
    models
        Model settings; by default no registry is set.
    replication_factor
        Number of brokers that store each record.
    worker
        Worker settings that replace the defaults of this class, which make tests fast.
    """

    def __init__(
        self,
        bootstrap_servers: str,
        directory: Path,
        partitions: int = 2,
        models: Models | None = None,
        replication_factor: int = 1,
        detection: Detection | None = None,
        **worker: Any,
    ) -> None:
        suffix = uuid.uuid4().hex[:8]
        defaults: dict[str, Any] = {
            "app_id": f"app-{suffix}",
            "chunk_events": 50,
            "checkpoint_seconds": 0.2,
            "checkpoint_events": 200,
            "session_timeout_seconds": 4.0,
            "resident_profiles": 800,  # fewer than users, so that profiles are evicted and loaded again
        }
        self.settings = Settings(
            kafka=Kafka(
                bootstrap_servers=bootstrap_servers,
                events_topic=f"events-{suffix}",
                alerts_topic=f"alerts-{suffix}",
                sources_topic=f"sources-{suffix}",
                campaigns_topic=f"campaigns-{suffix}",
                decisions_topic=f"decisions-{suffix}",
                audit_topic=f"audit-{suffix}",
                dead_letter_topic=f"dead-{suffix}",
                models_topic=f"models-{suffix}",
                partitions=partitions,
                replication_factor=replication_factor,
            ),
            worker=Worker(**{**defaults, **worker}),
            detection=detection or Detection(),
            models=models or Models(),
        )
        self.directory = directory
        directory.mkdir(parents=True, exist_ok=True)
        (directory / "streamguard.toml").write_text(settings_toml(self.settings))
        self.admin = AdminClient({"bootstrap.servers": bootstrap_servers, "log_level": 0})
        self.started: list[WorkerProcess] = []
        topics.create(self.settings)
        self.names = topics.names(self.settings)

    def second(self) -> Site:
        """The second fold of the same site, to read and to compare: its events topic is the sources topic."""
        site = copy.copy(self)
        site.settings = of_sources(self.settings)
        site.names = topics.names(site.settings)
        return site

    def _own(self, incidents: Iterable[str]) -> set[str]:
        """Those of the incidents' ids that this fold has published, and not the other one."""
        return {name for name in incidents if name.startswith(PREFIX) == self.settings.kafka.folds_sources}

    # Workers

    def start(
        self, name: str = "a", *, failpoint: str = "", verb: str = "worker", **environ: str
    ) -> WorkerProcess:
        """Start a worker, or `streamguard sources`; its data directory has its name."""
        if failpoint:
            environ[failpoints.VARIABLE] = failpoint
        worker = WorkerProcess(self, name, environ, verb)
        self.started.append(worker)
        return worker

    def wipe(self, name: str) -> None:
        """Delete a worker's local state."""
        shutil.rmtree(self.directory / name, ignore_errors=True)

    def close(self) -> None:
        """Kill every worker that still runs."""
        for worker in self.started:
            if worker.alive:
                worker.signal(signal.SIGCONT)
                worker.kill()

    # Events

    def produce(self, values: Iterable[tuple[int, bytes | None]], **settings: Any) -> None:
        """Write (partition, value) records in the given order."""
        producer = Producer(
            {
                "bootstrap.servers": self.settings.kafka.bootstrap_servers,
                "enable.idempotence": True,
                "linger.ms": 5,
                "log_level": 0,
            }
            | settings
        )
        for partition, value in values:
            producer.produce(
                self.names["events"], value, key=b"k", partition=partition, headers={"trace": b"1"}
            )
            producer.poll(0)
        assert producer.flush(60) == 0

    def produce_with_header(self, partition: int, value: bytes, headers: dict[str, bytes]) -> None:
        """Write one record of the events topic with headers, such as those of a control record."""
        producer = Producer({"bootstrap.servers": self.settings.kafka.bootstrap_servers, "log_level": 0})
        producer.produce(self.names["events"], value, partition=partition, headers=headers)
        assert producer.flush(60) == 0

    def produce_in_transactions(self, batches: Iterable[tuple[bool, list[tuple[int, bytes]]]]) -> None:
        """Write each batch in its own transaction; a batch that starts with False is aborted."""
        producer = Producer(
            {
                "bootstrap.servers": self.settings.kafka.bootstrap_servers,
                "transactional.id": f"producer-{uuid.uuid4().hex[:8]}",
            }
        )
        producer.init_transactions(30)
        for committed, values in batches:
            producer.begin_transaction()
            for partition, value in values:
                producer.produce(self.names["events"], value, partition=partition)
            producer.flush(30)
            producer.commit_transaction(30) if committed else producer.abort_transaction(30)

    def delete_topic(self, role: str) -> None:
        """Delete a topic and wait until it is gone."""
        name = self.names[role]
        self.admin.delete_topics([name])[name].result(30)
        eventually(f"{name} is gone", lambda: name not in self.admin.list_topics(timeout=30).topics)

    def expire(self, role: str, partition: int) -> None:
        """Delete all records and transaction markers of a partition, as retention does."""
        end = TopicPartition(self.names[role], partition, OFFSET_END)
        self.admin.delete_records([end])[end].result(30)

    def read(self, role: str, isolation: str = "read_committed") -> list[Record]:
        """All records of a topic; with the default isolation level only committed ones."""
        records = read_topic(self.settings.kafka.bootstrap_servers, self.names[role], isolation)
        if role == "alerts":
            for record in records:
                assert record.value is not None
                published(record.value)
        return records

    def committed(self) -> dict[int, int]:
        """Offset that the consumer group committed in each partition; a worker commits it after a checkpoint."""
        consumer = Consumer(
            {
                "bootstrap.servers": self.settings.kafka.bootstrap_servers,
                "group.id": self.settings.worker.app_id,
            }
        )
        try:
            partitions = [
                TopicPartition(self.names["events"], p) for p in range(self.settings.kafka.partitions)
            ]
            return {
                t.partition: t.offset for t in consumer.committed(partitions, timeout=30) if t.offset >= 0
            }
        finally:
            consumer.close()

    def ends(self) -> dict[int, int]:
        """End offset of each partition that has had records, including transaction markers and records that no
        transaction has committed."""
        consumer = Consumer(
            {
                "bootstrap.servers": self.settings.kafka.bootstrap_servers,
                "group.id": "harness",
                "isolation.level": "read_uncommitted",  # otherwise Kafka answers with the last stable offset
            }
        )
        try:
            partitions = [
                TopicPartition(self.names["events"], p) for p in range(self.settings.kafka.partitions)
            ]
            ends = {tp.partition: consumer.get_watermark_offsets(tp, timeout=30)[1] for tp in partitions}
            return {partition: end for partition, end in ends.items() if end}
        finally:
            consumer.close()

    def await_caught_up(self, timeout: float = 120.0, workers: Iterable[WorkerProcess] = ()) -> None:
        """Wait until the committed offset of every partition that has had events is its end offset.

        The ends are read each time: the marker of a transaction may reach a partition after its offsets are committed.
        """

        def done() -> bool:
            for worker in workers:
                assert worker.alive, (
                    f"{worker.name} exited with {worker.process.returncode}:\n{worker.tail()}"
                )
            return self.committed() == self.ends()

        eventually(f"the committed offsets of {self.names['events']} are its ends", done, timeout)

    # Truth

    def identity(self, partition: int) -> bytes:
        """Identity that the checkpoints of a partition carry, by the ids that the topics have now."""
        return asyncio.run(Topics.describe(self.settings)).identity(partition).encoded()

    def binding(self) -> Binding:
        """What signatures of decisions are valid for, by the id that the events topic has now."""
        source = asyncio.run(Topics.describe(self.settings)).source
        return Binding(source.topic, source.id, key_of(self.settings.models))

    def values(self, records: Iterable[Record]) -> list[Value]:
        """Values of records of the events topic, with verified decisions."""
        binding, out = None, list[Value]()
        for r in records:
            if has_header(r.headers.items()):
                binding = binding or self.binding()
                out.append(binding.read(header_of(r.headers.items()) or b"", r.partition, r.offset, r.value))
            else:
                out.append(r.value)
        return out

    def truth(self, chunk: int = 113) -> Truth:
        """Fold the topic from scratch, in chunks of a different size and with a dictionary as the state store."""
        by_partition: dict[int, list[Record]] = {}
        for record in self.read("events"):
            by_partition.setdefault(record.partition, []).append(record)
        truth = Truth(next_offset=self.ends())
        keys = {
            partition: record.value
            for partition, records in self.changelog().items()
            for record in records
            if record.key == HASH_KEY and record.value is not None
        }
        for partition, records in sorted(by_partition.items()):
            partition_state = InMemoryPartition(
                partition,
                resident=self.settings.worker.resident_profiles,
                detection=self.settings.detection,
                saved={HASH_KEY: keys[partition]} if partition in keys else None,
            )
            state = partition_state.state
            for i in range(0, len(records), chunk):
                part = records[i : i + chunk]
                offsets, times = np.array([(r.offset, r.append_ms) for r in part], np.int64).T
                folded = state.fold(self.values(part), offsets, append_ms=times)
                truth.incidents |= self._ids(update.incident for update in folded.incidents)
                truth.refused |= {(partition, part[refusal.index].offset) for refusal in folded.refused}
                for index, flags, source in zip(
                    folded.index, folded.columns.flags.tolist(), folded.columns.text("source"), strict=True
                ):
                    if source and flags & (FAILED | AUTHENTICATION):
                        truth.forwarded.append((partition, part[index].offset, part[index].value))
                partition_state.save_if_full()
            state.next_offset = truth.next_offset[partition]
            partition_state.save()
            partition_state.saved[b"m"] += self.identity(partition)
            truth.state[partition] = partition_state.saved
        return truth

    def _ids(self, incidents: Iterable[Incident]) -> set[str]:
        if not self.settings.kafka.folds_sources:
            return {incident.id for incident in incidents}
        return {PREFIX + incident.id for incident in incidents if incident.entity.kind == "source"}

    def changelog(self) -> dict[int, list[Record]]:
        """Committed changelog records by partition."""
        by_partition: dict[int, list[Record]] = {}
        for record in self.read("changelog"):
            by_partition.setdefault(record.partition, []).append(record)
        return by_partition

    def event_counts(self) -> dict[int, tuple[int, int]]:
        """By partition: number of events in the topic, and number of folded events in the state of the changelog."""
        dead = {
            (int(r.headers["sg.partition"]), int(r.headers["sg.offset"])) for r in self.read("dead_letter")
        }
        counts = {}
        for partition, records in self.changelog().items():
            expected = self.ends()[partition] - sum(1 for of, _ in dead if of == partition)
            population = unpack(_last_values(records)[b"p"], POPULATION, "the population")[0]
            counts[partition] = expected, int(population["events"])
        return counts

    def differences(self, names: Iterable[str] = ("a",), *, compacted: bool = False) -> list[str]:
        """Differences between the workers' results and the expected ones, one line each. All workers must be stopped.

        A compacted changelog contains only the last values, so older local copies are not compared.
        """
        truth, changelog = self.truth(), self.changelog()
        wrong = (
            []
            if truth.incidents and (truth.refused or self.settings.kafka.folds_sources)
            else ["the topic has no incident or no bad record: the comparison proves nothing"]
        )
        for partition, state in truth.state.items():
            records = changelog.get(partition, [])
            final = without_expired(_last_values(records), self.settings.detection)
            wrong += _compare(f"changelog of partition {partition}", state, final)
            newest = 0
            for name in names:
                path = self.directory / name / self.settings.worker.app_id / f"partition-{partition:04d}"
                if not path.exists():
                    continue
                table = StateStore(path, StoreMemory(8 << 20))
                position = table.local.position if table.local is not None else 0
                newest = max(newest, position)
                if not compacted or position > records[-1].offset:
                    wrong += _compare(
                        f"{name}'s copy of partition {partition} at changelog offset {position}",
                        _last_values([r for r in records if r.offset < position]),
                        table.items(),
                    )
                table.close()
            if newest <= records[-1].offset:
                wrong.append(
                    f"no local copy of partition {partition} is complete: {newest} of {records[-1].offset}"
                )
            regressions = _regressions(records)
            if regressions:
                wrong.append(
                    f"changelog of partition {partition}: {regressions} checkpoints of an older state"
                )
        incidents = self._own(r.headers["sg.incident"].decode() for r in self.read("alerts"))
        if incidents != truth.incidents:
            missing, extra = truth.incidents - incidents, incidents - truth.incidents
            wrong.append(
                f"incidents: {len(missing)} missing, {len(extra)} unexpected, of {len(truth.incidents)}"
            )
        dead = {
            (int(r.headers["sg.partition"]), offset)
            for r in self.read("dead_letter")
            if r.headers["sg.topic"].decode() == self.names["events"]
            for offset in _offsets(r)
        }
        if dead != truth.refused:
            wrong.append(
                f"dead letters: {len(truth.refused - dead)} missing, {len(dead - truth.refused)} unexpected, "
                f"of {len(truth.refused)}"
            )
        if self.settings.kafka.forwards:
            forwarded = [
                (int(r.headers["sg.partition"]), int(r.headers["sg.offset"]), r.value)
                for r in self.read("sources")
            ]
            want, have = Counter(truth.forwarded), Counter(forwarded)
            if want != have:
                wrong.append(
                    f"sources topic: {(want - have).total()} missing, {(have - want).total()} unexpected, "
                    f"of {len(truth.forwarded)}"
                )
        if self.committed() != truth.next_offset:
            wrong.append(f"group offsets {self.committed()}, not {truth.next_offset}")
        return wrong


def settings_toml(settings: Settings) -> str:
    """The settings as a file."""
    sections = msgspec.to_builtins(settings)
    return "".join(
        f"[{section}]\n" + "".join(f"{name} = {json.dumps(value)}\n" for name, value in values.items())
        for section, values in sections.items()
    )


def _last_values(records: Iterable[Record]) -> dict[bytes, bytes]:
    last = {r.key: r.value for r in records if r.key and not r.key.startswith(RESERVED)}
    return {key: value for key, value in last.items() if value is not None}


def without_expired(values: dict[bytes, bytes], detection: Detection) -> dict[bytes, bytes]:
    """The values of a state without profiles that have aged out, which a worker deletes some time later."""
    limit = int(unpack(values[b"p"], POPULATION, "the population")[0]["active_ms"]) - detection.forget_ms
    return {k: v for k, v in values.items() if k[:1] not in PROFILE_KINDS or last_active(v) >= limit}


def _offsets(letter: Record) -> list[int]:
    """Offsets that a dead letter stands for; a summary lists those of many records."""
    if "sg.count" not in letter.headers or not letter.value or not letter.value.startswith(b'{"offsets"'):
        return [int(letter.headers["sg.offset"])]
    ranges = json.loads(letter.value)["offsets"]
    return [offset for first, last in ranges for offset in range(first, last + 1)]


def _compare(name: str, wanted: dict[bytes, bytes], found: dict[bytes, bytes]) -> list[str]:
    if wanted == found:
        return []
    missing, extra = wanted.keys() - found.keys(), found.keys() - wanted.keys()
    differ = sorted(k for k in wanted.keys() & found.keys() if wanted[k] != found[k])
    return [
        f"{name}: {len(missing)} missing, {len(extra)} unexpected, {len(differ)} different {differ[:3]}, of "
        f"{len(wanted)}"
    ]


def _regressions(records: list[Record]) -> int:
    """Number of checkpoints whose source offset is lower than that of an earlier checkpoint."""
    count, reached = 0, -1
    for record in records:
        if record.key == b"m":
            assert record.value is not None
            _, offset = META.unpack_from(record.value)
            count += offset < reached
            reached = max(reached, offset)
    return count


def events(
    count: int, partitions: int, users: int = 900, seed: int = 1, start: int = 0
) -> list[tuple[int, bytes]]:
    """Generate (partition, event) pairs: few users are busy, some users fail often, some records are not valid JSON.

    Every 150th event copies credentials, so that there are incidents.
    """
    random = np.random.default_rng(seed)
    made = []
    for i in range(start, start + count):
        user = int(random.integers(9 if random.random() < 0.4 else users))
        event = {
            "event_id": str(i),
            "timestamp": 1_700_000_000_000 + i * 1000,
            "event_type": "auth_attempt",
            "source_ip": f"10.0.{user}.{int(random.integers(3))}",
            "user": f"user-{user}",
            "status": "failed" if random.random() < (0.75 if user % 7 == 0 else 0.1) else "success",
        }
        if i % 150 == 75:
            command = {"process_name": "tool.exe", "command_line": "mimikatz sekurlsa::logonpasswords"}
            event |= {"event_type": "process_execution", "status": "success", "process_details": command}
        value = json.dumps(event).encode()
        if random.random() < 0.01:
            value = value[: len(value) // 2]
        made.append((user % partitions, value))
    return made
