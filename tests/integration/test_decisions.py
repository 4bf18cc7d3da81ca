"""`streamguard decide` on a real Kafka: worker, both engines and an archive fold decisions at the same offsets."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from streamguard.alerts.incident import decode
from streamguard.batch.archive import archive
from streamguard.batch.engines import local
from streamguard.batch.engines import spark as spark_engine
from streamguard.batch.source.archive_source import ArchiveSource
from streamguard.batch.source.offset_plan import plan
from streamguard.batch.source.sources import KafkaSource, Source
from streamguard.decisions.signing import HEADER
from streamguard.errors import ExitCode
from streamguard.events.decision import Decision
from streamguard.fold.decisions import DECISION
from streamguard.runs.archive_manifest import read
from streamguard.settings.schema import Batch, Models
from streamguard.state.decisions import DECISIONS_KEY
from tests.harness import Site, events

pytestmark = pytest.mark.integration


@pytest.fixture
def site(kafka: str, tmp_path: Path) -> Iterator[Site]:
    key = tmp_path / "key"
    key.write_bytes(b"k" * 32)
    site = Site(kafka, tmp_path, models=Models(key_file=str(key)))
    yield site
    site.close()


def decide(site: Site, *arguments: str, code: int = 0, answer: str = "") -> str:
    """Run `streamguard decide`; return its standard output, or standard error if the exit code is not 0."""
    command = [sys.executable, "-m", "streamguard.cli", "decide", *arguments]
    ran = subprocess.run(
        [*command, "--config", str(site.directory / "streamguard.toml")],
        capture_output=True,
        text=True,
        check=False,
        input=answer,
    )
    assert ran.returncode == code, ran.stdout + ran.stderr
    return ran.stderr if code else ran.stdout


def test_decisions_are_exact_after_a_kill_and_in_every_engine(site: Site, spark: Any, tmp_path: Path) -> None:
    worker = site.start(failpoint="changes-sent:6").await_ready()
    site.produce(events(1500, 2))
    user = ["--user", "user-4", "--field", "source", "--partition", "0", "--yes"]
    denied = decide(site, "attack", *user, "--value", "10.0.4.1").split()[0]
    decide(site, "expected", *user, "--value", "10.0.4.2", "--until", "2023-12-24")
    forged = Decision(
        version=1, id="0-" + "a" * 24, decision="attack", user="user-4", field="host", value="x"
    )
    site.produce_with_header(0, forged.encoded(), {HEADER: f"{forged.id}:{'0' * 64}".encode()})
    site.produce(events(1500, 2, seed=2, start=1500))
    assert worker.await_exit() != 0
    worker = site.start().await_ready()
    decide(site, "revoke", denied, "--yes")
    site.produce(events(1000, 2, seed=3, start=3000))
    site.await_caught_up(workers=[worker])
    assert worker.metric('streamguard_decisions_total{decision="revoke",outcome="applied"}') == 1
    worker.kill()
    worker = site.start().await_ready()
    site.produce(events(500, 2, seed=4, start=4000))
    site.await_caught_up(workers=[worker])
    assert worker.terminate() == 0
    assert site.differences() == []

    letters = [r for r in site.read("dead_letter") if r.headers["sg.reason"] == b"unsigned_decision"]
    assert {(r.value, r.headers["sender.sg.decision"][:26].decode()) for r in letters} == {
        (forged.encoded(), forged.id)
    }
    incidents = [decode(r.value) for r in site.read("alerts") if r.value is not None]
    assert any(p.name == "confirmed_before" for one in incidents for p in one.patterns)

    expected = site.truth().state[0]
    assert len(expected[DECISIONS_KEY]) > 1
    settings = msgspec.structs.replace(site.settings, batch=Batch(engine="local"))
    source = KafkaSource.of(settings)
    archive(settings, tmp_path / "archive", lambda _: None)
    manifest = read(tmp_path / "archive")
    assert manifest is not None
    states = [
        folded(source, site, tmp_path / "local"),
        folded(source, site, tmp_path / "spark", spark),
        folded(ArchiveSource(str(tmp_path / "archive"), manifest), site, tmp_path / "of-archive"),
    ]
    for state in states:
        assert {k: v for k, v in state.items() if k != b"m"} == {
            k: v for k, v in expected.items() if k != b"m"
        }
        assert expected[b"m"].startswith(state[b"m"])


def folded(source: Source, site: Site, directory: Path, spark: Any = None) -> dict[bytes, bytes]:
    """The state of partition 0 after a fold by an engine."""
    directory.mkdir()
    ranges = plan(source, None)
    if spark is None:
        local.fold(source, ranges, site.settings, directory, lambda _: None)
    else:
        spark_engine.fold(source, ranges, site.settings, directory, lambda _: None, spark)
    table = pq.read_table(directory / "partition-0000.parquet")
    rows = table.filter(pa.compute.equal(table["kind"], "state"))
    return dict(zip(rows["key"].to_pylist(), rows["value"].to_pylist(), strict=True))


def test_incident_is_previewed_and_decided_after_a_confirmation(site: Site) -> None:
    site.produce(events(2500, 2))
    worker = site.start().await_ready()
    site.await_caught_up(workers=[worker])
    incidents = [decode(r.value) for r in site.read("alerts") if r.value is not None]
    fields = ("source", "resource", "action")
    chosen = next(
        one
        for one in incidents
        if one.entity.kind == "user" and any(r.feature in fields for r in one.reasons)
    )
    before = site.ends()
    assert "Aborted" in decide(site, "expected", chosen.id, code=1, answer="n\n")
    assert site.ends() == before
    out = decide(site, "expected", chosen.id, "--reason", "new laptop", answer="y\n")
    assert f"incidents of {chosen.entity.value} in 30 days" in out or "1 incident of" in out
    assert "is written to partition" in out and "streamguard decide revoke" in out
    site.await_caught_up(workers=[worker])
    assert worker.metric('streamguard_decisions_total{decision="expected",outcome="applied"}') == 1
    assert worker.terminate() == 0
    assert site.differences() == []


def test_decide_explains_what_is_missing(kafka: str, tmp_path: Path, site: Site) -> None:
    unknown = decide(site, "attack", "0-1-2", "--yes", code=ExitCode.DATA_ERROR)
    assert "has no incident '0-1-2'" in unknown
    assert "give --user, --field and --value" in decide(site, "attack", "--user", "ann", code=2)
    assert "is not the id of a decision" in decide(site, "revoke", "7", "--yes", code=ExitCode.DATA_ERROR)
    place = ["--user", "ann", "--field", "source", "--value", "10.0.0.1", "--partition", "9", "--yes"]
    assert "has no partition 9" in decide(site, "attack", *place, code=ExitCode.DATA_ERROR)
    unsigned = Site(kafka, tmp_path / "unsigned")
    try:
        message = decide(unsigned, "attack", *place, code=ExitCode.CONFIGURATION)
        assert "openssl rand -out FILE 32" in message and "models.key_file" in message
    finally:
        unsigned.close()


def test_forget_deletes_the_decisions_about_a_user_and_no_others(site: Site) -> None:
    site.produce(events(1500, 2))
    place = ["--field", "source", "--value", "10.0.4.1", "--partition", "0", "--yes"]
    decide(site, "attack", "--user", "user-4", *place)
    decide(site, "attack", "--user", "user-6", *place)
    worker = site.start().await_ready()
    site.await_caught_up(workers=[worker])
    assert worker.terminate() == 0
    forgotten = [sys.executable, "-m", "streamguard.cli", "forget", "user-4"]
    forgotten += ["--config", str(site.directory / "streamguard.toml")]
    out = subprocess.run(forgotten, capture_output=True, text=True, check=True).stdout
    assert "the profile is deleted from the changelog, partition 0" in out
    assert "decisions about the user are deleted from the changelog, partition 0" in out
    assert "the records of decisions in the events topic remain" in out
    changelog = {r.key: r.value for r in site.changelog()[0]}
    kept = changelog[DECISIONS_KEY]
    assert kept is not None and len(kept) == 1 + DECISION.itemsize
    assert "no profile found" in subprocess.run(forgotten, capture_output=True, text=True, check=True).stdout
    worker = site.start().await_ready()
    assert worker.terminate() == 0
