"""Processes of `streamguard campaigns` on a real Kafka, and what a batch computation over the alerts topic gives."""

from __future__ import annotations

import uuid
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from confluent_kafka import Producer
from confluent_kafka.admin import AdminClient

from streamguard.agents.campaigns.incidents import update_of
from streamguard.agents.campaigns.projection import project
from streamguard.agents.campaigns.window import Update, Window
from streamguard.alerts.incident import Incident, encode
from streamguard.campaigns.record import decode
from streamguard.decisions import forgotten
from streamguard.decisions.forgotten_users import ForgottenUsers
from streamguard.kafka import topics
from streamguard.polling import poll_until
from streamguard.records.record import Record
from streamguard.settings.schema import Campaigns, Kafka, Settings, Worker
from streamguard.testing import failpoints
from tests.harness import Process, read_topic, settings_toml
from tests.harness import Record as ReadRecord

POISON = (
    None, b"", b"\xff\xfe", b"[]", b"[" * 100_000, b'{"schema_version": 2}', b'{"schema_version": 2, "id": 7}',
    b"x" * 600_000,
)  # fmt: skip
"""Values that are no incidents."""


class CampaignsProcess(Process):
    """A process of `streamguard campaigns`."""

    def __init__(self, site: CampaignSite, name: str, environ: dict[str, str]) -> None:
        config = str(site.directory / "streamguard.toml")
        arguments = ["campaigns", "--config", config, "--metrics-port", "0", "--log-format", "json"]
        super().__init__(site.directory / f"{name}-{len(site.started)}.log", name, arguments, environ)


class CampaignSite:
    """An alerts topic and a campaigns topic with unique names, and the processes between them."""

    def __init__(self, bootstrap_servers: str, directory: Path, partitions: int = 3) -> None:
        suffix = uuid.uuid4().hex[:8]
        self.settings = Settings(
            kafka=Kafka(
                bootstrap_servers=bootstrap_servers,
                alerts_topic=f"alerts-{suffix}",
                campaigns_topic=f"campaigns-{suffix}",
                decisions_topic=f"decisions-{suffix}",
                audit_topic=f"audit-{suffix}",
                events_topic=f"events-{suffix}",
                sources_topic=f"sources-{suffix}",
                dead_letter_topic=f"dead-{suffix}",
                models_topic=f"models-{suffix}",
                partitions=partitions,
            ),
            worker=Worker(app_id=f"app-{suffix}"),
            campaigns=Campaigns(round_seconds=0.05),
        )
        self.directory = directory
        directory.mkdir(parents=True, exist_ok=True)
        (directory / "streamguard.toml").write_text(settings_toml(self.settings))
        self.admin = AdminClient({"bootstrap.servers": bootstrap_servers, "log_level": 0})
        self.started: list[CampaignsProcess] = []
        topics.create(self.settings)
        self.names = topics.names(self.settings)

    def start(self, name: str = "a", *, failpoint: str = "", **environ: str) -> CampaignsProcess:
        """Start a process."""
        if failpoint:
            environ[failpoints.VARIABLE] = failpoint
        process = CampaignsProcess(self, name, environ)
        self.started.append(process)
        return process

    def close(self) -> None:
        """Kill every process that still runs."""
        for process in self.started:
            if process.alive:
                process.kill()

    def publish(self, incidents: Iterable[Incident | bytes | None]) -> None:
        """Write incidents as workers do, keyed by entity, and other values as they are."""
        producer = Producer(
            {"bootstrap.servers": self.settings.kafka.bootstrap_servers, "log_level": 0, "linger.ms": 5}
        )
        for one in incidents:
            if isinstance(one, Incident):
                producer.produce(self.names["alerts"], encode(one), one.entity.value.encode())
            else:
                producer.produce(self.names["alerts"], one, b"other")
        assert producer.flush(60) == 0

    def expected(self) -> Mapping[str, bytes]:
        """Campaigns of all records that the alerts topic has, without forgotten users, computed at once."""
        window = Window()
        for read in self._read("alerts"):
            record = Record(
                self.names["alerts"], read.partition, read.offset, read.timestamp, read.key, read.value
            )
            update = update_of(record)
            if isinstance(update, Update):
                window.add(update)
        return project(window.updates(), forgotten=self._forgotten()).records

    def _forgotten(self) -> ForgottenUsers:
        if self.names["decisions"] not in self.admin.list_topics(timeout=30).topics:
            return ForgottenUsers()
        latest = self.after([(read.key, read.value) for read in self._read("decisions")])
        return ForgottenUsers(
            forgotten.decode(value)
            for key, value in latest.items()
            if key.encode().startswith(forgotten.KEY_PREFIX)
        )

    def published(self) -> dict[str, bytes]:
        """What a reader of the compacted topic sees: the last committed value of each key."""
        return self.after([(read.key, read.value) for read in self._read("campaigns")])

    @staticmethod
    def after(changes: Sequence[tuple[bytes | None, bytes | None]]) -> dict[str, bytes]:
        """The last value of each key, without deleted ones."""
        last = {(key or b"").decode(): value for key, value in changes}
        return {key: value for key, value in last.items() if value is not None}

    def _read(self, role: str) -> list[ReadRecord]:
        return read_topic(self.settings.kafka.bootstrap_servers, self.names[role])

    def await_published(
        self, process: CampaignsProcess | None = None, timeout: float = 60.0
    ) -> dict[str, bytes]:
        """Wait until the topic holds what a batch computation gives, and check that each record is valid."""
        wanted = self.expected()

        def same() -> bool:
            if process is not None:
                assert process.alive, f"{process.name} exited:\n{process.tail()}"
            return self.published() == wanted

        try:
            poll_until(same, timeout, interval=0.2)
        except TimeoutError:
            found = self.published()
            differ = [key for key in found.keys() | wanted.keys() if found.get(key) != wanted.get(key)]
            raise AssertionError(
                f"{len(differ)} of {len(wanted)} differ: {differ[:5]}\n{process.tail() if process else ''}"
            ) from None
        found = self.published()
        for key, value in found.items():
            assert decode(value).campaign.id == key
        return found

    def delete_topic(self, role: str) -> None:
        """Delete a topic and wait until it is gone."""
        name = self.names[role]
        self.admin.delete_topics([name])[name].result(30)
        poll_until(lambda: name not in self.admin.list_topics(timeout=30).topics, 30.0)

    def create_topics(self) -> None:
        """Create what is missing."""
        topics.create(self.settings)
