"""`streamguard forget` reaches decisions and projections: a running server, one that was off, and a rebuilt one."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest

from streamguard.alerts.incident import Incident
from streamguard.campaigns.campaign import Campaign
from streamguard.campaigns.record import decode as decode_campaign
from streamguard.decisions.forgotten import KEY_PREFIX, decode
from streamguard.kafka import control
from streamguard.kafka.connection import Brokers
from streamguard.polling import poll_until
from streamguard.serving.projection.store import Store
from tests.campaign_site import CampaignSite, CampaignsProcess
from tests.harness import eventually
from tests.serving_site import ServeProcess
from tests.serving_stores import at
from tests.unit.test_campaigns import NOON, incident, lone, spray

pytestmark = pytest.mark.integration

USER = "ann@example.org"


class ForgetSite(CampaignSite):
    """Topics of incidents and decisions, and servers."""

    servers: list[ServeProcess]

    def serve(self, name: str, data: str = "") -> ServeProcess:
        server = ServeProcess(self, name, data)
        self.servers.append(server)
        return server.await_serving()

    def forget(self, user: str = USER) -> str:
        """Run `streamguard forget`; return its standard output."""
        command = [sys.executable, "-m", "streamguard.cli", "forget", user]
        ran = subprocess.run(
            [*command, "--config", str(self.directory / "streamguard.toml")],
            capture_output=True,
            text=True,
            check=False,
        )
        assert ran.returncode == 0, ran.stderr
        return ran.stdout

    def decisions(self) -> list[control.TopicRecord]:
        """Records of the topic of decisions that compaction keeps."""
        latest = {one.key: one for one in control.records(Brokers.of(self.settings), self.names["decisions"])}
        return [one for one in latest.values() if one.value is not None]


@pytest.fixture
def site(kafka: str, tmp_path: Path) -> Iterator[ForgetSite]:
    site = ForgetSite(kafka, tmp_path)
    site.servers = []
    yield site
    for server in site.servers:
        if server.alive:
            server.kill()
    site.close()


def export(server: ServeProcess) -> list[bytes]:
    """Contents of the projection of a server that was stopped."""
    store = Store(server.data, 18.0)
    try:
        return list(store.export())
    finally:
        store.close()


def named(number: int, incident: Incident) -> Incident:
    """The incident with an id that does not name the user, as those of workers."""
    return at(number, msgspec.structs.replace(incident, id=f"0-{number}-18bcfe5687b")).incident


def test_forgotten_user_leaves_running_restarted_and_rebuilt_servers(site: ForgetSite) -> None:
    made = [
        incident(USER, NOON, {"resource": 30.0}),
        incident(USER, NOON + 200_000_000, {"hour": 22.0}),
        incident("bob", NOON, {"resource": 25.0}),
        incident("ann", NOON, {"resource": 24.0}),
    ]
    first, second, bob, other = (named(k, one) for k, one in enumerate(made))
    site.publish([first, second, bob, other])
    running, off = site.serve("running"), site.serve("off")
    for server in (running, off):
        server.await_incidents(4)
    running.ask(f"/v1/incidents/{first.id}/actions", kind="mute", reason="of ann alone")
    running.ask(f"/v1/incidents/{second.id}/actions", kind="close", reason="of ann alone")
    running.ask(f"/v1/incidents/{other.id}/actions", kind="comment", text="stays")
    bulk = running.ask("/v1/incidents/actions", kind="acknowledge", reason="of all")
    assert bulk["incidents"] == 4
    before = len(site.decisions())
    assert off.terminate(15) == 0

    said = site.forget()
    assert "2 incidents of the user dropped from every server, 2 records of decisions deleted" in said
    assert "1 record about other incidents, too, kept for these" in said
    assert "no incident of this user is shown by servers" in site.forget(), "nothing is done twice"
    kept = site.decisions()
    assert len(kept) == before - 2 + 1
    assert not any(USER.encode() in (one.value or b"") or USER.encode() in (one.key or b"") for one in kept)
    assert sum((one.key or b"").startswith(KEY_PREFIX) for one in kept) == 1

    poll_until(lambda: len(running.incidents()) == 2, 60.0)
    assert running.ask(f"/v1/incidents/{first.id}")["status"] == 404
    assert running.ask(f"/v1/incidents/{other.id}")["case"]["comments"]
    assert {one["status"] for one in running.incidents()} == {"acknowledged"}
    assert running.ask("/v1/users/" + USER)["status"] == 404
    assert USER not in str(running.ask("/v1/ranking"))
    assert {one["incident"] for one in running.ask("/v1/audit")["actions"]} == {bob.id, other.id}

    again = named(9, incident(USER, NOON + 400_000_000, {"resource": 31.0}))
    site.publish([again])
    restarted, rebuilt = site.serve("restarted", "off"), site.serve("rebuilt")
    for server in (running, restarted, rebuilt):
        assert again.id in {one["id"] for one in server.await_incidents(3)}, "new incidents count again"
    for server in (running, restarted, rebuilt):
        assert server.terminate(15) == 0, server.tail()
    assert export(running) == export(restarted) == export(rebuilt)
    names = [line for line in export(running) if USER.encode() in line]
    assert len(names) == 1 and again.id.encode() in names[0]

    site.forget("bob")
    records = [
        decode(one.value or b"") for one in site.decisions() if (one.key or b"").startswith(KEY_PREFIX)
    ]
    assert len(records) == 2 and len({one.salt for one in records}) == 1
    assert [one.is_about("bob") for one in records].count(True) == 1


def test_forgotten_user_leaves_campaigns_and_what_servers_show_of_them(site: ForgetSite) -> None:
    tried = ["bob", USER, "cem", "dan"]
    of_address = incident(
        "eve@example.org", NOON + 100_000, {"source_spread": 15.0}, "password_spray", kind="source",
        source="203.0.113.7",
    )  # fmt: skip
    also = incident(
        USER, NOON + 101_000, {"source_spread": 16.0}, "password_spray", kind="source", source="203.0.113.7"
    )
    own = [*spray(NOON, tried, entered=USER), of_address, also, lone("zoe", NOON)]
    site.publish([named(k, one) for k, one in enumerate(own)])
    server, process = site.serve("running"), site.start().await_ready()
    whole = site.await_published(process)
    assert USER.encode() in b"".join(whole.values())
    (spread,) = (id for id, value in whole.items() if b'"cem"' in value)
    poll_until(lambda: USER in str(server.ask(f"/v1/campaigns/{spread}")), 60.0)

    site.forget()
    left = site.await_published(process)
    assert USER.encode() not in b"".join(left.values())
    assert {"bob", "cem", "dan", "eve@example.org"} <= {
        name for value in left.values() for name in decode_campaign(value).campaign.tried
    }
    poll_until(
        lambda: shown(server) == {id: decode_campaign(value).campaign for id, value in left.items()}, 60.0
    )
    listed = server.incidents()
    assert len(listed) == len(own) - 2, "the two incidents of the user have left, and no other one"
    assert USER not in str(listed) + str(server.ask("/v1/ranking"))

    # A later process leaves out the same, and what is published after the record counts.
    assert process.terminate(10) == 0
    later = named(50, incident(USER, NOON + 400_000_000, {"resource": 31.0}))
    site.publish([later])
    again = site.start("again")
    assert later.id in site.await_published(again), "new incidents count again"
    site.forget()
    assert USER.encode() not in b"".join(site.await_published(again).values())


def shown(server: ServeProcess) -> dict[str, Campaign]:
    """The campaigns that a server shows, of the incidents that it lists."""
    found = {}
    for one in server.incidents():
        answer = server.ask(f"/v1/incidents/{one['id']}")
        if (id := one["campaign"] or one["id"]) and id not in found:
            campaign = server.ask(f"/v1/campaigns/{id}")["campaign"]
            found[id] = msgspec.convert(campaign, Campaign)
        assert answer["row"]["campaign_incidents"] == found[id].size
    return found


def test_campaigns_go_on_without_the_topic_of_decisions_and_follow_it_when_it_is_there(
    site: ForgetSite,
) -> None:
    site.delete_topic("decisions")
    process: CampaignsProcess = site.start().await_ready()
    own = [named(0, incident(USER, NOON, {"resource": 30.0})), named(1, lone("bob", NOON))]
    site.publish(own)
    assert set(site.await_published(process)) == {one.id for one in own}
    (line,) = [line["message"] for line in process.lines() if "users who are forgotten" in line["message"]]
    assert site.names["decisions"] in line and "streamguard topics create" in line
    site.create_topics()
    site.forget()
    assert set(site.await_published(process, timeout=90)) == {own[1].id}
    eventually(
        "the topic is named in the log", lambda: "is another topic, or is there now" in process.tail(400)
    )
