"""Worker, retrain and archive hash texts under the same key, which the worker creates once."""

from __future__ import annotations

from pathlib import Path

import pyarrow.parquet as pq
import pytest

from streamguard.batch.archive import archive
from streamguard.batch.engines import local
from streamguard.batch.source.archive_source import ArchiveSource
from streamguard.batch.source.offset_plan import plan
from streamguard.batch.source.offset_range import partition_file
from streamguard.batch.source.sources import KafkaSource, Source
from streamguard.events.hashing import KEY_BYTES
from streamguard.runs import archive_manifest
from streamguard.state.partition import HASH_KEY, META
from tests.harness import Site, events

pytestmark = pytest.mark.integration


def folded(source: Source, site: Site, directory: Path) -> dict[int, dict[bytes, bytes]]:
    """State of each partition after the local engine has folded the source."""
    directory.mkdir()
    ranges = plan(source, None)
    local.fold(source, ranges, site.settings, directory, lambda offset_range: None)
    states = {}
    for offset_range in ranges:
        rows = pq.read_table(partition_file(directory, offset_range.partition)).to_pylist()
        states[offset_range.partition] = {r["key"]: r["value"] for r in rows if r["kind"] == "state"}
    return states


def without_identity(states: dict[int, dict[bytes, bytes]]) -> dict[int, dict[bytes, bytes]]:
    """The states with layout and offset alone in their metadata: only a worker's names the topics it belongs to."""
    return {partition: {**state, b"m": state[b"m"][: META.size]} for partition, state in states.items()}


def test_worker_topic_and_archive_have_the_same_state_to_the_bit(kafka: str, tmp_path: Path) -> None:
    site = Site(kafka, tmp_path / "site", partitions=2)
    source = KafkaSource.of(site.settings)
    assert source.hash_keys() == {}, "no worker has run"
    site.produce(events(1500, 2))
    worker = site.start().await_ready()
    site.await_caught_up(workers=[worker])
    keys = source.hash_keys()
    assert worker.terminate() == 0
    assert sorted(keys) == [0, 1]
    assert len(set(keys.values())) == 2, "each partition has its own key"
    assert {len(key) for key in keys.values()} == {KEY_BYTES}

    changelog = {
        partition: {r.key: r.value for r in records if r.key is not None and not r.key.startswith(b"\0")}
        for partition, records in site.changelog().items()
    }
    assert {partition: values[HASH_KEY] for partition, values in changelog.items()} == keys
    expected = without_identity(changelog)
    assert without_identity(folded(source, site, tmp_path / "topic")) == expected

    archive(site.settings, tmp_path / "archive", lambda text: None)
    manifest = archive_manifest.read(tmp_path / "archive")
    assert manifest is not None
    kept = ArchiveSource(str(tmp_path / "archive"), manifest)
    assert without_identity(folded(kept, site, tmp_path / "again")) == expected

    again = site.start().await_ready()
    assert again.terminate() == 0
    assert source.hash_keys() == keys, "a restart keeps the keys"
