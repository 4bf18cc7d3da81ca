"""Names, requests for them and the audit log, with a real Kafka, real servers and a real browser."""

from __future__ import annotations

import json
import signal
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from axe_playwright_python.sync_playwright import Axe
from click.testing import CliRunner
from confluent_kafka import Producer
from confluent_kafka.admin import AdminClient, NewTopic

from streamguard.cli.main import main
from streamguard.kafka.connection import Brokers
from streamguard.polling import poll_until
from streamguard.serving.api import keys
from streamguard.serving.api.keys import new_key
from streamguard.serving.audit import log as module
from streamguard.serving.audit.log import AuditLog
from streamguard.serving.audit.reading import latest
from streamguard.serving.audit.record import AuditError, decode
from streamguard.serving.audit.verification import verify
from streamguard.serving.masking.roles import ROLES
from tests.campaign_site import CampaignSite
from tests.harness import read_topic
from tests.serving_site import Person, ServeProcess, browser
from tests.serving_stores import at
from tests.unit.test_campaigns import NOON, incident
from tests.unit.test_serving_audit import changed

pytestmark = pytest.mark.integration


@pytest.fixture
def topic(kafka: str) -> str:
    """A topic like that of the audit log."""
    return created(kafka, f"audit-{uuid.uuid4().hex[:8]}")


def created(kafka: str, name: str) -> str:
    admin = AdminClient({"bootstrap.servers": kafka, "log_level": 0})
    admin.create_topics([NewTopic(name, 1, 1)])[name].result(30)
    poll_until(lambda: name in admin.list_topics(timeout=30).topics, 30.0)
    return name


def values(kafka: str, topic: str) -> list[bytes]:
    return [read.value for read in read_topic(kafka, topic) if read.value is not None]


def command(kafka: str, topic: str, *arguments: str, monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.setenv("STREAMGUARD_KAFKA_AUDIT_TOPIC", topic)
    return CliRunner().invoke(main, ["audit", *arguments, "--bootstrap-servers", kafka])


def written(kafka: str, topic: str, records: int = 5) -> list[bytes]:
    """The values of a chain of a log that was closed."""
    log = AuditLog(Brokers(kafka), topic)
    for number in range(records):
        log.record("ann", "investigator", "GET /v1/incidents/{id}", f"3-{number}-18bcfe5687b")
    log.close()
    return values(kafka, topic)


def test_log_is_read_back_as_one_chain_and_verified(
    kafka: str, topic: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = [decode(value) for value in written(kafka, topic)]
    assert [one.kind for one in found] == ["first", *["event"] * 5, "last"]
    assert [one.subject for one in latest(Brokers(kafka), topic, 3)] == ["3-4-18bcfe5687b", "3-3-18bcfe5687b"]
    sound = command(kafka, topic, "verify", monkeypatch=monkeypatch)
    assert sound.exit_code == 0 and sound.output.endswith("in 1 chain: nothing is wrong\n")
    shown = command(kafka, topic, "show", "--by", "ann", "--json", monkeypatch=monkeypatch)
    assert [json.loads(line)["number"] for line in shown.output.splitlines()] == [1, 2, 3, 4, 5]
    missing = command(kafka, "none", "verify", monkeypatch=monkeypatch)
    assert missing.exit_code != 0 and "run `streamguard topics create`" in missing.output


@pytest.mark.parametrize(
    ("harm", "named"),
    [
        (
            lambda found: [*found[:3], changed(found[3], by="eve"), *found[4:]],
            "offset 3: changed record: record 3",
        ),
        (lambda found: [*found[:3], *found[4:]], "offset 3: gap: 1 record before it (3 to 3)"),
        (lambda found: found[1:], "offset 0: gap: 1 record before it (0 to 0)"),
        (lambda found: [*found[:-1], b"{}"], "changed record: it is not a record of the audit log"),
    ],
    ids=["changed", "omitted", "beginning", "replaced"],
)
def test_verification_of_a_topic_names_what_was_changed_or_omitted(
    kafka: str, topic: str, harm: Any, named: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    copy = created(kafka, f"{topic}-copy")
    producer = Producer({"bootstrap.servers": kafka, "log_level": 0})
    for value in harm(written(kafka, topic)):
        producer.produce(copy, value, partition=0)
    assert producer.flush(30) == 0
    broken = command(kafka, copy, "verify", monkeypatch=monkeypatch)
    assert broken.exit_code == 1 and named in broken.output, broken.output


def test_records_wait_until_the_topic_exists_and_are_refused_meanwhile(kafka: str) -> None:
    topic = f"audit-{uuid.uuid4().hex[:8]}"
    log = AuditLog(Brokers(kafka), topic)
    try:

        def refused() -> bool:
            try:
                log.record("ann", "investigator", "GET /v1/incidents")
            except AuditError as error:
                return "topics create" in str(error)
            return False

        poll_until(refused, 30.0)
        created(kafka, topic)
        poll_until(lambda: log.waiting == 0, 60.0)
        log.record("ann", "investigator", "GET /v1/statistics")
    finally:
        log.close()
    found = values(kafka, topic)
    assert verify(enumerate(found), 0, 0).sound
    assert decode(found[-1]).kind == "last" and decode(found[-2]).what == "GET /v1/statistics"


def test_list_that_follows_its_changes_is_one_record_a_minute(
    kafka: str, topic: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    log = AuditLog(Brokers(kafka), topic)
    for name in ("ann", "bob", "ann", "ann"):
        log.record(name, "investigator", "GET /rows", repeated=True)
    monkeypatch.setattr(module, "REPEAT_SECONDS", -1.0)
    log.record("ann", "investigator", "GET /rows", repeated=True)
    log.close()
    found = [decode(value).by for value in values(kafka, topic)]
    assert found == ["", "ann", "bob", "ann", ""]


def test_queue_is_bounded(kafka: str, topic: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MAX_WAITING", 0)
    log = AuditLog(Brokers(kafka), topic)
    with pytest.raises(AuditError, match="wait for Kafka"):
        log.record("ann", "investigator", "GET /v1/incidents")
    log.close()
    with pytest.raises(AuditError, match="the server stops"):
        log.record("ann", "investigator", "GET /v1/incidents")


class PrivateSite(CampaignSite):
    """Topics, and servers with a key of each role."""

    def __init__(self, kafka: str, directory: Path) -> None:
        super().__init__(kafka, directory)
        self.held: dict[str, str] = {}
        self.file = directory / "keys.json"
        made = []
        for role in ROLES:
            self.held[role], key = new_key(role, role, 3600)
            made.append(key)
        keys.write(self.file, made)
        self.secret = directory / "pseudonym.key"
        self.secret.write_bytes(b"p" * 32)
        self.servers: list[ServeProcess] = []

    def serve(self, name: str) -> ServeProcess:
        environ = {
            "STREAMGUARD_SERVE_KEYS_FILE": str(self.file),
            "STREAMGUARD_SERVE_PSEUDONYM_KEY_FILE": str(self.secret),
        }
        server = ServeProcess(self, name, **environ)
        self.servers.append(server)
        return server.await_serving()

    def person(self, server: ServeProcess, role: str) -> Person:
        return Person(server, self.held[role])

    def audit(self) -> list[bytes]:
        return values(self.settings.kafka.bootstrap_servers, self.names["audit"])


@pytest.fixture
def site(kafka: str, tmp_path: Path) -> Iterator[PrivateSite]:
    site = PrivateSite(kafka, tmp_path)
    yield site
    for server in site.servers:
        if server.alive:
            server.kill()
    site.close()


def test_analyst_asks_officer_grants_and_every_server_and_the_log_know_it(site: PrivateSite) -> None:
    ann = at(0, incident("ann", NOON, {"resource": 12.0})).incident
    site.publish([ann])
    one, other = site.serve("one"), site.serve("other")
    analyst, officer = site.person(one, "analyst"), site.person(other, "privacy_officer")
    poll_until(lambda: "incident" in analyst.ask(f"/v1/incidents/{ann.id}"), 60.0)
    poll_until(lambda: "incident" in officer.ask(f"/v1/incidents/{ann.id}"), 60.0)
    masked = [who.ask(f"/v1/incidents/{ann.id}")["incident"]["entity"]["value"] for who in (analyst, officer)]
    assert masked[0] == masked[1] and masked[0].startswith("user-")
    with browser(analyst) as page:
        page.goto(f"{analyst.address}/incidents/{ann.id}")
        assert "user ann" not in page.inner_text("main")
        assert Axe().run(page).violations_count == 0
        page.get_by_label("Why you need them").fill("the user has called")
        page.get_by_role("button", name="Ask to unmask").click()
        page.wait_for_load_state()
        assert "analyst has asked" in page.inner_text(".names")
    poll_until(lambda: officer.ask("/v1/unmaskings?state=open")["requests"], 30.0)
    with browser(officer) as page:
        page.goto(f"{officer.address}/privacy")
        assert page.locator("#open").inner_text() == "1" and "the user has called" in page.inner_text("main")
        found = Axe().run(page)
        assert found.violations_count == 0, found.generate_report()
        page.get_by_role("button", name="Grant").click()
        page.wait_for_load_state()
        assert page.locator("#open").inner_text() == "0"
        assert "granted" in page.inner_text("main")
    poll_until(lambda: not analyst.ask(f"/v1/incidents/{ann.id}")["masked"], 30.0)
    with browser(analyst) as page:
        page.goto(f"{analyst.address}/incidents/{ann.id}")
        assert "user ann" in page.inner_text("main")
        assert Axe().run(page).violations_count == 0
        page.goto(f"{analyst.address}/?view=all")
        assert "user ann" not in page.inner_text("main") and masked[0] in page.inner_text("main")
    assert one.terminate(15) == 0
    other.process.send_signal(signal.SIGKILL)
    other.process.wait(20)
    found_values = site.audit()
    records = [decode(value) for value in found_values]
    done = [(one.by, one.what, one.detail) for one in records if one.kind == "event"]
    assert ("analyst", "POST /incidents/{id}/unmask", "asked") in done
    assert ("privacy_officer", "POST /privacy/{id}", "granted") in done
    assert ("analyst", "GET /incidents/{id}", "") in done
    assert b'ann"' not in b"".join(found_values), "the log has ids and pseudonyms, no names of users"
    states = {one.state: one.breaks for one in verify(enumerate(found_values), 0, 2**42).chains}
    assert states["ended"] == ()
    assert "missing end" in states["broken"][0]


def test_names_are_refused_while_the_audit_log_cannot_be_written(site: PrivateSite) -> None:
    ann = at(0, incident("ann", NOON, {"resource": 12.0})).incident
    site.publish([ann])
    site.delete_topic("audit")
    server = site.serve("one")
    analyst, investigator = site.person(server, "analyst"), site.person(server, "investigator")
    poll_until(lambda: "incident" in analyst.ask(f"/v1/incidents/{ann.id}"), 60.0)
    path = f"/v1/incidents/{ann.id}"
    poll_until(lambda: investigator.ask(path).get("type") == "/problems/no-audit", 60.0)
    assert analyst.ask(path)["masked"]
    site.create_topics()
    poll_until(lambda: "incident" in investigator.ask(path), 60.0)
    assert investigator.ask(path)["incident"]["entity"]["value"] == "ann"
