"""A running worker loads a promoted model; a damaged model or a missing topic does not stop it."""

from __future__ import annotations

import json
import os
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import msgspec
import numpy as np
import pytest

from streamguard.fold.features import NAMES
from streamguard.kafka import announcements as announcing
from streamguard.kafka.announcements import AnnounceError, announce
from streamguard.models.forest import Forest
from streamguard.models.registry import Registry
from streamguard.models.train import train
from streamguard.settings.schema import Kafka, Models, Settings
from tests.harness import Site, WorkerProcess, events, eventually

pytestmark = pytest.mark.integration
NEVER = 86_400.0
"""Poll interval that is longer than a test: a worker learns of a new version only from an announcement."""


@pytest.fixture(scope="module")
def forests() -> list[Forest]:
    random = np.random.default_rng(5)
    rows = random.normal(1.0, 2.0, (600, len(NAMES))).astype(np.float32)
    return [train(rows, seed=seed, trees=30) for seed in range(3)]


@pytest.fixture
def registry(tmp_path: Path) -> Registry:
    return Registry(tmp_path / "registry", feature_names=NAMES)


@pytest.fixture
def create_site(kafka: str, tmp_path: Path) -> Iterator[Callable[..., Site]]:
    sites = []

    def make(**models: object) -> Site:
        chosen = msgspec.convert({"registry": str(tmp_path / "registry"), **models}, Models)
        sites.append(Site(kafka, tmp_path, models=chosen))
        return sites[-1]

    yield make
    for one in sites:
        one.close()


class EventStream:
    """Produces events until the context ends."""

    def __init__(self, site: Site) -> None:
        self._site = site
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run)

    def _run(self) -> None:
        start = 0
        while not self._stop.wait(0.05):
            # The gap in time ends the incidents of the batch before, so that each batch has new incidents.
            self._site.produce(events(100, 2, seed=start + 1, start=start * 50))
            start += 100

    def __enter__(self) -> EventStream:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()


def scoring_versions(site: Site) -> dict[int, list[tuple[int, str]]]:
    """Partition -> (offset of the event, version that scored it) of each published incident, ordered by offset."""
    scored: dict[int, list[tuple[int, str]]] = {}
    for record in site.read("alerts"):
        body = json.loads(record.value or b"")
        scored.setdefault(body["origin"]["partition"], []).append(
            (body["origin"]["offset"], body["model"]["version"])
        )
    return {partition: sorted(pairs) for partition, pairs in scored.items()}


def versions(site: Site) -> set[str]:
    return {version for pairs in scoring_versions(site).values() for _, version in pairs}


def in_use(worker: WorkerProcess, version: str) -> bool:
    assert worker.alive, worker.tail()
    return worker.metric(f'streamguard_model_info{{version="{version}"}}') == 1.0


def scored_events(worker: WorkerProcess) -> float:
    return sum(v for k, v in worker.metrics().items() if k.startswith("streamguard_events_total"))


def test_worker_loads_a_promoted_model_under_traffic_and_rejects_a_damaged_one(
    create_site: Callable[..., Site], registry: Registry, forests: list[Forest], tmp_path: Path
) -> None:
    first, second, bad = (registry.publish(forest) for forest in forests)
    os.truncate(tmp_path / "registry" / "versions" / bad / "forest.safetensors", 1000)
    registry.promote(first)
    site = create_site(poll_seconds=NEVER, shadow=True)
    worker = site.start().await_ready()
    untrusted = 'streamguard_model_refusals_total{reason="untrusted"}'
    assert in_use(worker, first)
    assert worker.metric(untrusted) == 1  # the damaged model, as challenger
    with EventStream(site):
        eventually("incidents by the first model", lambda: versions(site) == {first})
        registry.promote(second)
        announce(site.settings, second, first)
        eventually("the second model is in use", lambda: in_use(worker, second))
        eventually("incidents by the second model", lambda: second in versions(site))

        (tmp_path / "registry" / "current").write_text(bad)
        announce(site.settings, bad, second)
        eventually("the damaged model is refused", lambda: (worker.metric(untrusted) or 0) >= 2)
        assert worker.metric(f'streamguard_model_pointer_info{{version="{bad}"}}') == 1
        before = scored_events(worker)
        eventually("more events are scored", lambda: scored_events(worker) > before + 200)
        assert in_use(worker, second)
        shadowed = worker.metric("streamguard_shadow_events_total") or 0.0
        assert shadowed > 0
        assert (worker.metric("streamguard_model_swap_pause_seconds_count") or 0) >= 1
    site.await_caught_up(workers=[worker])
    assert worker.terminate() == 0, worker.tail()
    assert site.differences() == []
    for pairs in scoring_versions(site).values():
        names = [version for _, version in pairs]
        assert names == [first] * names.count(first) + [second] * names.count(second)
        assert names.count(second)


def test_disagreement_metric_is_1_while_workers_use_different_models(
    create_site: Callable[..., Site], registry: Registry, forests: list[Forest], tmp_path: Path
) -> None:
    registry.promote(registry.publish(forests[0]))
    other = Registry(tmp_path / "other", feature_names=NAMES)
    other.promote(other.publish(forests[1]))
    site = create_site()
    a = site.start("a").await_ready()
    b = site.start("b", STREAMGUARD_MODELS_REGISTRY=str(tmp_path / "other"))
    eventually("b uses the other model", lambda: b.alive and in_use(b, forests[1].version))
    disagreement = "streamguard_model_disagreement"
    eventually("a reports the disagreement", lambda: a.metric(disagreement) == 1)
    assert b.terminate() == 0, b.tail()
    eventually("a reports no disagreement after b has left", lambda: a.metric(disagreement) == 0)


def test_worker_without_the_models_topic_polls_the_registry(
    create_site: Callable[..., Site],
    registry: Registry,
    forests: list[Forest],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(announcing, "TIMEOUT_SECONDS", 1.0)
    first, second = (registry.publish(forest) for forest in forests[:2])
    registry.promote(first)
    site = create_site(poll_seconds=0.2)
    worker = site.start().await_ready()
    site.delete_topic("models")
    with pytest.raises(AnnounceError, match=f"version {second} is promoted, but could not be announced"):
        announce(site.settings, second, first)
    registry.promote(second)
    eventually("the second model is in use", lambda: in_use(worker, second))
    site.produce(events(200, 2))
    site.await_caught_up(workers=[worker])
    assert worker.terminate() == 0, worker.tail()
    assert sum("models topic" in line["message"] for line in worker.lines()) <= 1


def test_announcement_without_a_broker_raises_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(announcing, "TIMEOUT_SECONDS", 0.5)
    settings = Settings(kafka=Kafka(bootstrap_servers="127.0.0.1:1"))
    with pytest.raises(AnnounceError, match=r"streamguard-models at 127\.0\.0\.1:1 \(.*within 5 s"):
        announce(settings, "0123456789ab", None)
