"""The main path on secured brokers: TLS, passwords, certificates, and only the required permissions."""

from __future__ import annotations

import json
import subprocess
import sys
import time
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from confluent_kafka.admin import (
    AclBinding,
    AclBindingFilter,
    AclOperation,
    AclPermissionType,
    AdminClient,
    ResourcePatternType,
    ResourceType,
)

from streamguard.alerts.incident import decode, encode
from streamguard.errors import UnavailableError
from streamguard.kafka import control, topics
from streamguard.kafka.acls import Acl, acls_of
from streamguard.kafka.connection import Brokers
from streamguard.serving.audit.log import AuditLog
from streamguard.serving.decisions.writer import ActionWriter
from streamguard.serving.log.reader import LogReader, topic_state
from streamguard.settings.load import load
from streamguard.settings.schema import Security, Settings
from streamguard.testing.broker import LocalKafka
from tests.case_actions import close
from tests.certificates import Authority
from tests.harness import eventually
from tests.serving_stores import at
from tests.unit.test_campaigns import NOON, incident

pytestmark = pytest.mark.integration

SECRET = "=;[secret"
PASSWORDS = {
    name: f"{name} \"\\' {SECRET}"
    for name in (
        "setup",
        "producer",
        "worker",
        "sources",
        "campaigns",
        "serve",
        "retrain",
        "decide",
        "forget",
        "audit",
    )
}
BROKER = {"broker": "broker-secret"}
RESOURCES = {
    "topic": ResourceType.TOPIC,
    "group": ResourceType.GROUP,
    "transactional-id": ResourceType.TRANSACTIONAL_ID,
}
AUTHORIZED = {
    "authorizer.class.name": "org.apache.kafka.metadata.authorizer.StandardAuthorizer",
    "ssl.keystore.type": "PEM",
    "ssl.truststore.type": "PEM",
}


@dataclass
class SecuredBroker:
    """A secured broker, and settings files with which each part of StreamGuard connects to it."""

    kafka: LocalKafka
    directory: Path
    authority: Authority

    def config(self, part: str, **other: str) -> Path:
        """Write the settings file of a part; `other` replaces security settings with wrong ones."""
        file = self.directory / f"{part}-{len(other)}.toml"
        security = {"ca_file": str(self.authority.file)} | self._credentials(part) | other
        text = f'[kafka]\nbootstrap_servers = "{self.kafka.bootstrap_servers}"\npartitions = 2\n'
        text += (
            "[gate]\nmin_injected_auc = 0.5\n[security]\n"  # the forest of so few events may be a weak one
        )
        file.write_text(text + "".join(f'{name} = "{value}"\n' for name, value in security.items()))
        return file

    def _credentials(self, part: str) -> dict[str, str]:
        raise NotImplementedError

    def run(
        self, part: str, *arguments: object, code: int = 0, **other: str
    ) -> subprocess.CompletedProcess[str]:
        """Run a command with the settings of a part and assert its exit code."""
        ran = subprocess.run(
            self.command(part, *arguments, **other), capture_output=True, text=True, check=False
        )
        assert ran.returncode == code, ran.stdout + ran.stderr
        return ran

    def command(self, part: str, *arguments: object, **other: str) -> list[str]:
        config = self.config(part, **other)
        return [sys.executable, "-m", "streamguard.cli", *map(str, arguments), "--config", str(config)]

    def main_path(self, engine: str) -> None:
        """Create topics, produce events with an attack, run a worker, and retrain a model that the worker loads."""
        self.run("setup", "topics", "create")
        self.run("producer", "simulate", "--events", "3000", "--users", "5", "--attack", "brute_force")
        registry, log = self.directory / "registry", self.directory / "worker.log"
        command = self.command(
            "worker", "worker", "--data-dir", self.directory / "data", "--metrics-port", "0",
            "--registry", registry, "--log-format", "json",
        )  # fmt: skip
        with log.open("wb") as out:
            worker = subprocess.Popen(command, stdout=out, stderr=out)
        try:
            ran = self.run(
                "retrain", "retrain", "--engine", engine, "--output", self.directory / "runs",
                "--registry", registry, "--json",
            )  # fmt: skip
            outcome = json.loads(ran.stdout)
            assert outcome["events"] == 3000
            assert outcome["current"], outcome
            eventually("the worker has the model", lambda: outcome["version"] in log.read_text())
        finally:
            worker.terminate()
            code = worker.wait(60)
        assert code == 0, log.read_text()
        assert not [line for line in log.read_text().splitlines() if '"ERROR"' in line]
        sources_log = self.directory / "sources.log"
        command = self.command(
            "sources", "sources", "--data-dir", self.directory / "data", "--metrics-port", "0",
        )  # fmt: skip
        with sources_log.open("wb") as out:
            sources = subprocess.Popen([*command, "--log-format", "json"], stdout=out, stderr=out)
        try:
            eventually("sources are judged", lambda: "is ready and scores" in sources_log.read_text())
        finally:
            sources.terminate()
            code = sources.wait(60)
        assert code == 0, sources_log.read_text()
        campaigns_log = self.directory / "campaigns.log"
        with campaigns_log.open("wb") as out:
            campaigns = subprocess.Popen(
                self.command("campaigns", "campaigns", "--metrics-port", "0"), stdout=out, stderr=out
            )
        try:
            eventually("campaigns are published", lambda: '"published ' in campaigns_log.read_text())
        finally:
            campaigns.terminate()
            code = campaigns.wait(20)
        assert code == 0, campaigns_log.read_text()
        logs = [one.read_text() for one in (log, sources_log, campaigns_log)]
        for printed in (ran.stdout, ran.stderr, *logs):
            assert SECRET not in printed
            assert "PRIVATE KEY" not in printed


class ByPassword(SecuredBroker):
    def _credentials(self, part: str) -> dict[str, str]:
        password = self.directory / f"{part}.password"
        password.write_text(PASSWORDS[part] + "\n")
        return {"username": part, "password_file": str(password)}


class ByCertificate(SecuredBroker):
    def _credentials(self, part: str) -> dict[str, str]:
        return {"certificate_file": str(self.authority.issue(part))}


@pytest.fixture(scope="module")
def by_password(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ByPassword]:
    """A broker with SCRAM over TLS that grants only the permissions of `streamguard.kafka.acls`."""
    directory = tmp_path_factory.mktemp("password")
    authority = Authority(directory)
    settings = AUTHORIZED | {
        "ssl.keystore.location": authority.issue("broker"),
        "ssl.truststore.location": authority.file,
        "sasl.enabled.mechanisms": "SCRAM-SHA-512",
        "sasl.mechanism.inter.broker.protocol": "SCRAM-SHA-512",
        "listener.name.sasl_ssl.scram-sha-512.sasl.jaas.config": (
            "org.apache.kafka.common.security.scram.ScramLoginModule required "
            f'username="broker" password="{BROKER["broker"]}";'
        ),
        "super.users": "User:broker;User:ANONYMOUS",  # only this node connects to the controller's listener
    }
    with LocalKafka(protocol="SASL_SSL", settings=settings, users=PASSWORDS | BROKER) as kafka:
        secured = ByPassword(kafka, directory, authority)
        secret = directory / "broker.password"
        secret.write_text(BROKER["broker"])
        own = Security(ca_file=str(authority.file), username="broker", password_file=str(secret))
        grant(Brokers(kafka.bootstrap_servers, own), load(secured.config("setup"), {}))
        yield secured


def grant(brokers: Brokers, settings: Settings) -> None:
    """Grant each part its permissions; who forgets users has those of the processes with a state, too."""
    rights: dict[str, list[Acl]] = dict(acls_of(settings))  # type: ignore[arg-type]
    rights["forget"] = [*rights["forget"], *rights["worker"], *rights["sources"]]
    bindings = [
        AclBinding(
            RESOURCES[right.kind],
            right.name,
            ResourcePatternType.PREFIXED if right.prefixed else ResourcePatternType.LITERAL,
            f"User:{part}",
            "*",
            AclOperation[operation],
            AclPermissionType.ALLOW,
        )
        for part, needed in rights.items()
        for right in needed
        for operation in right.operations
    ]
    admin = AdminClient(brokers.librdkafka())  # referenced until its futures are done
    for done in admin.create_acls(list(dict.fromkeys(bindings))).values():
        done.result(30)


def test_main_path_with_passwords_and_only_the_required_permissions(by_password: ByPassword) -> None:
    by_password.main_path("spark")
    found = json.loads(by_password.run("worker", "doctor", "--json", code=0).stdout)
    status = {finding["check"]: finding["status"] for finding in found["findings"]}
    assert status["broker"] == status["topics"] == status["permissions"] == "ok", found


def test_main_path_with_client_certificates(tmp_path: Path) -> None:
    authority = Authority(tmp_path)
    settings = AUTHORIZED | {
        "ssl.keystore.location": authority.issue("broker"),
        "ssl.truststore.location": authority.file,
        "ssl.client.auth": "required",
        "super.users": "User:CN=broker;User:ANONYMOUS",
        "allow.everyone.if.no.acl.found": "true",
    }
    with LocalKafka(protocol="SSL", settings=settings) as kafka:
        ByCertificate(kafka, tmp_path, authority).main_path("local")


@pytest.mark.parametrize(
    "command",
    [
        ("topics", "check"),
        ("simulate", "--events", "5"),
        ("worker", "--metrics-port", "0"),
        ("retrain", "--engine", "local"),
        ("doctor",),
    ],
    ids=lambda command: command[0],
)
def test_wrong_password_and_unknown_authority_are_errors_with_the_setting(
    by_password: ByPassword, command: tuple[str, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    wrong = tmp_path / "wrong.password"
    wrong.write_text("not-the-password")
    output = refused(by_password, command, password_file=str(wrong))
    assert "security.password_file" in output
    assert "not-the-password" not in output
    unknown = Authority(tmp_path, "stranger")
    assert "security.ca_file" in refused(by_password, command, ca_file=str(unknown.file))


def refused(secured: SecuredBroker, command: tuple[str, ...], **other: str) -> str:
    """Run a command that must fail without a traceback; return its output."""
    ran = subprocess.run(
        secured.command("worker", *command, **other), capture_output=True, text=True, check=False
    )
    assert ran.returncode != 0
    assert "Traceback" not in ran.stderr
    return ran.stdout + ran.stderr


def test_missing_permission_is_reported_with_the_command_that_grants_it(by_password: ByPassword) -> None:
    by_password.run("setup", "topics", "create")
    found = by_password.run("producer", "doctor", code=1).stdout
    assert "topic security-alerts: no permission for WRITE, DESCRIBE_CONFIGS" in found
    assert "--operation Write --operation DescribeConfigs --topic security-alerts" in found


def test_a_server_reads_its_topics_and_writes_actions_with_its_rights(by_password: ByPassword) -> None:
    by_password.run("setup", "topics", "create")
    settings = load(by_password.config("serve"), {})
    assert topics.require(settings, topics.SERVING_ROLES) == []
    brokers, names = Brokers.of(settings), topics.names(settings)
    with ActionWriter(brokers, names["decisions"]) as writer:
        assert writer.write(close("a")) >= 0
    log = AuditLog(brokers, names["audit"])
    log.record("ann", "investigator", "GET /v1/incidents")
    log.close()
    assert "nothing is wrong" in by_password.run("audit", "audit", "verify").stdout
    for role in ("events", "alerts", "campaigns", "decisions", "audit", "dead_letter", "changelog"):
        state = topic_state(brokers, names[role])
        assert state is not None
        reader = LogReader(brokers, names[role], {0: state.bounds[0].start})
        eventually(f"{role} is read", lambda reader=reader: reader.take(0.2) is not None and reader.at_end)  # type: ignore[misc]
        reader.close()
    with (
        ActionWriter(brokers, names["alerts"]) as stranger,
        pytest.raises(UnavailableError, match="Topic authorization failed"),
    ):
        stranger.write(close("a"))


def test_a_server_without_the_right_to_read_says_which_command_grants_it(by_password: ByPassword) -> None:
    by_password.run("setup", "topics", "create")
    brokers = Brokers.of(load(by_password.config("producer"), {}))
    topic = topics.names(load(by_password.config("producer"), {}))["alerts"]
    reader = LogReader(brokers, topic, {0: 0})
    try:
        with pytest.raises(UnavailableError, match="grant the rights that `streamguard topics acls serve"):
            eventually("the broker refuses", lambda: reader.take(0.2) is None)
    finally:
        reader.close()


def test_decide_reads_incidents_with_its_rights(by_password: ByPassword) -> None:
    by_password.run("setup", "topics", "create")
    settings = load(by_password.config("decide"), {})
    _, partitions = control.described(Brokers.of(settings), settings.kafka.events_topic)
    assert partitions == 2
    for value in control.values(Brokers.of(settings), settings.kafka.alerts_topic):
        assert decode(value)


def test_forget_reaches_incidents_with_its_rights(by_password: ByPassword) -> None:
    by_password.run("setup", "topics", "create")
    worker = load(by_password.config("worker"), {})
    made = encode(at(0, incident("ann@example.org", NOON, {"resource": 30.0})).incident)
    control.write_all(Brokers.of(worker), worker.kafka.alerts_topic, 0, [(b"ann@example.org", made)])
    assert "1 incident of the user dropped" in by_password.run("forget", "forget", "ann@example.org").stdout
    ran = by_password.run("decide", "forget", "bob", code=69)
    assert "streamguard topics acls worker" in ran.stderr or "uthoriz" in ran.stderr


def test_campaigns_without_the_right_to_read_decisions_go_on_and_say_what_follows(
    by_password: ByPassword,
) -> None:
    by_password.run("setup", "topics", "create")
    worker = load(by_password.config("worker"), {})
    secret = by_password.directory / "broker.password"
    own = Security(ca_file=str(by_password.authority.file), username="broker", password_file=str(secret))
    admin = AdminClient(Brokers(by_password.kafka.bootstrap_servers, own).librdkafka())
    refusals = [
        AclBinding(
            ResourceType.TOPIC, worker.kafka.decisions_topic, ResourcePatternType.LITERAL, "User:campaigns", "*",
            denied, AclPermissionType.DENY,
        )
        for denied in (AclOperation.READ, AclOperation.DESCRIBE)
    ]  # fmt: skip
    missing = f"may not read the topic {worker.kafka.decisions_topic}"
    try:
        for refusal in refusals:  # the first one lets the process find the topic, and read nothing of it
            admin.create_acls([refusal])[refusal].result(30)
            log = published_without_an_error(by_password, worker)
            assert log.count(missing) == log.count("`streamguard topics acls campaigns`") == 1
    finally:
        for deleted in admin.delete_acls([_filter(refusal) for refusal in refusals]).values():
            deleted.result(30)
    assert missing not in published_without_an_error(by_password, worker)


def published_without_an_error(secured: SecuredBroker, worker: Settings) -> str:
    """The log of a campaigns process, from its start until it has published a new incident."""
    # Of this moment: the window of campaigns leaves out what is older than 37 days before the latest incident.
    name = f"zoe-{uuid.uuid4().hex[:8]}"
    made = encode(at(0, incident(name, int(time.time() * 1000), {"resource": 30.0})).incident)
    control.write_all(Brokers.of(worker), worker.kafka.alerts_topic, 0, [(name.encode(), made)])
    log = secured.directory / f"campaigns-{name}.log"
    with log.open("wb") as out:
        command = secured.command("campaigns", "campaigns", "--metrics-port", "0", "--log-format", "json")
        campaigns = subprocess.Popen(command, stdout=out, stderr=out)
    try:
        eventually("campaigns are published", lambda: '"published ' in log.read_text())
        assert campaigns.poll() is None, log.read_text()
    finally:
        campaigns.terminate()
        assert campaigns.wait(20) == 0, log.read_text()
    return log.read_text()


def _filter(binding: AclBinding) -> AclBindingFilter:
    return AclBindingFilter(
        binding.restype,
        binding.name,
        binding.resource_pattern_type,
        binding.principal,
        binding.host,
        binding.operation,
        binding.permission_type,
    )
