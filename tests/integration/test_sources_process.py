"""`streamguard sources` on a real Kafka: a spray over all partitions is one incident, and a kill changes nothing."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from confluent_kafka.admin import AlterConfigOpType, ConfigEntry, ConfigResource, ResourceType

from streamguard.agents.output.source_incidents import PREFIX
from streamguard.alerts.incident import Incident, decode
from streamguard.campaigns.campaign import campaigns
from streamguard.errors import ExitCode
from streamguard.history.partitioner import partition_of
from streamguard.kafka import topics
from streamguard.state.profile_cache import user_key
from tests.harness import Site, WorkerProcess, eventually
from tests.streams import START, event, habit

pytestmark = pytest.mark.integration

PARTITIONS = 8
ATTACKER = "203.0.113.66"
TARGETS = {f"target{k}" for k in range(5 * PARTITIONS)}
BENIGN = habit(2000, users=80)
END = START + len(BENIGN) * 20_000


@pytest.fixture
def site(kafka: str, tmp_path: Path) -> Iterator[Site]:
    site = Site(kafka, tmp_path, partitions=PARTITIONS)
    yield site
    site.close()


def placed(values: list[bytes]) -> list[tuple[int, bytes]]:
    """Events in the partitions of their users."""
    return [(partition_of(json.loads(value)["user"].encode(), PARTITIONS), value) for value in values]


def spray(start: int = END) -> list[tuple[int, bytes]]:
    """Failures of one address for five users of each partition, once each, within seven minutes, among logins."""
    failures = [
        (k % PARTITIONS, event(start + k * 10_000, f"target{k}", source_ip=ATTACKER, status="failed"))
        for k in range(len(TARGETS))
    ]
    logins = placed(habit(len(failures), start=start, users=80, step=10_000, seed=1))
    return [one for pair in zip(failures, logins, strict=True) for one in pair]


def published(site: Site) -> list[Incident]:
    """All updates of incidents, in the order of each partition."""
    return [decode(record.value) for record in site.read("alerts") if record.value is not None]


def of_attacker(site: Site) -> list[Incident]:
    """Updates of the incidents of the attacker that the second fold has published, in order."""
    return [one for one in published(site) if one.id.startswith(PREFIX) and one.entity.value == ATTACKER]


def users_named(updates: list[Incident]) -> set[str]:
    return {one.event["user"] for one in updates}


def spread(incident: Incident) -> str:
    return next(one.actual for one in incident.reasons if one.feature == "source_spread")


def settle(site: Site, *workers: WorkerProcess) -> None:
    """Wait until both folds have folded everything, and stop the processes."""
    site.await_caught_up(workers=workers)
    site.second().await_caught_up(workers=workers)
    for worker in workers:
        assert worker.terminate() == 0, worker.tail()


def assert_exact(site: Site) -> None:
    """Whether the second fold has the state and the incidents of an uninterrupted fold of the sources topic."""
    assert site.second().differences(("b/sources",)) == []


def test_spray_over_all_partitions_is_one_incident_of_its_source(site: Site) -> None:
    worker = site.start("a").await_ready()
    second = site.start("b", verb="sources").await_ready()
    site.produce(placed(BENIGN))
    site.await_caught_up(workers=[worker])
    site.produce(spray())
    began = time.perf_counter()
    eventually("the incident names many users", lambda: len(users_named(of_attacker(site))) > 20)
    print(f"the incident named more than 20 users {time.perf_counter() - began:.2f} s after the last failure")
    settle(site, worker, second)
    found = of_attacker(site)
    print(
        f"{time.perf_counter() - began:.2f} s until all was settled; {len(found)} updates, {spread(found[-1])}"
    )
    assert len({one.id for one in found}) == 1
    assert {one.entity.kind for one in found} == {"source"}
    assert found[-1].technique == "T1110.003"
    assert "failed for 4" in spread(found[-1]) or "failed for 3" in spread(found[-1])
    # Each update leads to the event in the events topic, and not to its copy.
    events = {(r.partition, r.offset): r.value for r in site.read("events")}
    for one in found:
        assert one.origin.topic == site.names["events"]
        value = events[one.origin.partition, one.origin.offset]
        assert value is not None and json.loads(value)["user"] == one.event["user"]
    # The workers alone name at most the users of one partition in an incident.
    first = [one for one in published(site) if not one.id.startswith(PREFIX)]
    for name in {one.id for one in first}:
        assert len(users_named([one for one in first if one.id == name]) & TARGETS) <= 5
    assert {one.entity.kind for one in published(site) if one.id.startswith(PREFIX)} == {"source"}
    assert_exact(site)
    # All incidents with this address are one campaign.
    (row,) = (row for row in campaigns(published(site)) if ATTACKER in row.sources)
    assert found[0].id in row.incidents
    assert set(row.tried) <= TARGETS and len(row.tried) > 30


@pytest.mark.parametrize(
    "failpoint",
    ["transaction-begun:3", "changes-sent:2", "transaction-committed:2", "chunk-folded:4", "restore-done"],
)
def test_kill_of_the_sources_process_changes_nothing(site: Site, failpoint: str) -> None:
    site.produce(placed(BENIGN))
    site.produce(spray())
    worker = site.start("a").await_ready()
    killed = site.start("b", verb="sources", failpoint=failpoint)
    assert killed.await_exit() == -signal.SIGKILL, killed.tail()
    settle(site, worker, site.start("b", verb="sources"))
    assert len({one.id for one in of_attacker(site)}) == 1
    assert_exact(site)


def test_lost_disk_and_a_takeover_change_nothing(site: Site) -> None:
    worker = site.start("a").await_ready()
    first = site.start("c", verb="sources").await_ready()
    site.produce(placed(BENIGN))
    site.second().await_caught_up(workers=[worker, first])
    site.produce(spray()[:40])
    first.kill()
    site.wipe("c")
    second = site.start("b", verb="sources").await_ready()
    site.produce(spray()[40:])
    settle(site, worker, second)
    assert len({one.id for one in of_attacker(site)}) == 1
    assert_exact(site)


def test_forgotten_user_is_deleted_from_both_states(site: Site) -> None:
    worker = site.start("a").await_ready()
    second = site.start("b", verb="sources").await_ready()
    site.produce(placed(BENIGN))
    settle(site, worker, second)
    key = user_key("user7")
    states = (site.truth().state, site.second().truth().state)
    assert all(any(key in state for state in partitions.values()) for partitions in states)
    command = [sys.executable, "-m", "streamguard.cli", "forget", "user7"]
    config = ["--config", str(site.directory / "streamguard.toml")]
    ran = subprocess.run([*command, *config], capture_output=True, text=True, check=True)
    assert "deleted from the changelog, partition" in ran.stdout
    assert "deleted from the changelog of the sources process, partition" in ran.stdout
    for fold in (site, site.second()):
        last = {(n, r.key): r.value for n, records in fold.changelog().items() for r in records}
        assert not any(value for (_, name), value in last.items() if name == key)
    again = subprocess.run([*command, *config], capture_output=True, text=True, check=True)
    assert "no profile found" in again.stdout


def lower_the_limit(site: Site) -> None:
    limit = ConfigEntry("max.message.bytes", "20000", incremental_operation=AlterConfigOpType.SET)
    topic = ConfigResource(ResourceType.TOPIC, site.names["sources"], incremental_configs=[limit])
    site.admin.incremental_alter_configs([topic])[topic].result(30)
    eventually(
        "the limit is visible",
        lambda: topics.max_batch_bytes(site.settings, site.names["sources"]) == 20_000,
    )


@pytest.mark.parametrize("running", [False, True])
def test_event_too_large_for_the_sources_topic_does_not_stop_a_worker(site: Site, running: bool) -> None:
    large = event(START, "user1", source_ip=ATTACKER, status="failed", note="x" * 30_000)
    values = placed([*BENIGN[:200], large, *BENIGN[200:400]])
    if running:  # a worker whose topic is changed asks for the limit when it is started again
        before = site.start("a").await_ready()
        lower_the_limit(site)
        site.produce(values)
        assert before.await_exit() == ExitCode.TEMPORARY, before.tail()
        assert "asks for the limit at its start" in before.exit_message()
    else:
        lower_the_limit(site)
        site.produce(values)
    worker = site.start("a").await_ready()
    site.await_caught_up(workers=[worker])
    assert worker.metric("streamguard_forwarded_too_large_total") == 1
    assert sorted(r.value or b"" for r in site.read("sources")) == sorted(BENIGN[:400])
    assert worker.terminate() == 0, worker.tail()
    (line,) = [one["message"] for one in worker.lines() if "does not fit" in one["message"]]
    assert "topics create --alter" in line


def test_worker_whose_sources_topic_is_deleted_loses_no_event(site: Site) -> None:
    worker = site.start("a").await_ready()
    site.produce(placed(BENIGN[:200]))
    site.await_caught_up(workers=[worker])
    site.delete_topic("sources")
    site.produce(placed(BENIGN[200:400]))
    assert worker.await_exit(120) == ExitCode.TEMPORARY, worker.tail()
    assert site.names["sources"] in worker.exit_message()
    refused = site.start("a")
    assert refused.await_exit() == ExitCode.CONFIGURATION, refused.tail()
    topics.create(site.settings)
    worker = site.start("a").await_ready()
    site.await_caught_up(workers=[worker])
    assert worker.terminate() == 0, worker.tail()
    forwarded = [r.value for r in site.read("sources")]
    assert set(BENIGN[200:400]) <= set(forwarded) and len(forwarded) == len(set(forwarded))


def test_sources_process_ends_where_nothing_is_forwarded(kafka: str, tmp_path: Path) -> None:
    site = Site(kafka, tmp_path, partitions=1)
    try:
        assert "sources" not in site.names
        process = site.start("b", verb="sources")
        assert process.await_exit() == ExitCode.CONFIGURATION, process.tail()
        assert "kafka.partitions is 1" in process.exit_message()
        worker = site.start("a").await_ready()
        site.produce([(0, value) for value in BENIGN[:100]])
        site.await_caught_up(workers=[worker])
        assert worker.terminate() == 0, worker.tail()
    finally:
        site.close()
