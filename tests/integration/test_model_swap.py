"""A promoted model reaches a running worker; a bad one, a lost topic or a worker that disagrees stops nothing."""

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
"""Between two looks at the registry: what arrives sooner was announced."""


@pytest.fixture(scope="module")
def forests() -> list[Forest]:
    random = np.random.default_rng(5)
    rows = random.normal(1.0, 2.0, (600, len(NAMES))).astype(np.float32)
    return [train(rows, seed=seed, trees=30) for seed in range(3)]


@pytest.fixture
def registry(tmp_path: Path) -> Registry:
    return Registry(tmp_path / "registry", feature_names=NAMES)


@pytest.fixture
def site(kafka: str, tmp_path: Path) -> Iterator[Callable[..., Site]]:
    made = []

    def make(**models: object) -> Site:
        chosen = msgspec.convert({"registry": str(tmp_path / "registry"), **models}, Models)
        made.append(Site(kafka, tmp_path, models=chosen))
        return made[-1]

    yield make
    for one in made:
        one.close()


class Flow:
    """Events without end, until the context is left."""

    def __init__(self, site: Site) -> None:
        self._site = site
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run)

    def _run(self) -> None:
        start = 0
        while not self._stop.wait(0.05):
            # A gap ends the incidents of the batch before: there are new ones all the time.
            self._site.produce(events(100, 2, seed=start + 1, start=start * 50))
            start += 100

    def __enter__(self) -> Flow:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()


def told_by(site: Site) -> dict[int, list[tuple[int, str]]]:
    """Partition -> (offset of the event, version that scored it) of every published telling, in order."""
    told: dict[int, list[tuple[int, str]]] = {}
    for record in site.read("alerts"):
        body = json.loads(record.value or b"")
        told.setdefault(body["origin"]["partition"], []).append(
            (body["origin"]["offset"], body["model"]["version"])
        )
    return {partition: sorted(pairs) for partition, pairs in told.items()}


def versions(site: Site) -> set[str]:
    return {version for pairs in told_by(site).values() for _, version in pairs}


def in_use(worker: WorkerProcess, version: str) -> bool:
    assert worker.alive, worker.tail()
    return worker.metric(f'streamguard_model_info{{version="{version}"}}') == 1.0


def events_of(worker: WorkerProcess) -> float:
    return sum(v for k, v in worker.metrics().items() if k.startswith("streamguard_events_total"))


def test_a_promotion_under_traffic_and_then_a_damaged_model(
    site: Callable[..., Site], registry: Registry, forests: list[Forest], tmp_path: Path
) -> None:
    first, second, bad = (registry.publish(forest) for forest in forests)
    os.truncate(tmp_path / "registry" / "versions" / bad / "forest.safetensors", 1000)
    registry.promote(first)
    here = site(poll_seconds=NEVER, shadow=True)
    worker = here.start().await_ready()
    untrusted = 'streamguard_model_refusals_total{reason="untrusted"}'
    assert in_use(worker, first)
    assert worker.metric(untrusted) == 1  # as challenger
    with Flow(here):
        eventually("incidents by the first model", lambda: versions(here) == {first})
        registry.promote(second)
        announce(here.settings, second, first)
        eventually("the second model is in use", lambda: in_use(worker, second))
        eventually("incidents by the second model", lambda: second in versions(here))

        (tmp_path / "registry" / "current").write_text(bad)
        announce(here.settings, bad, second)
        eventually("the bad model is refused", lambda: (worker.metric(untrusted) or 0) >= 2)
        assert worker.metric(f'streamguard_model_pointer_info{{version="{bad}"}}') == 1
        seen = events_of(worker)
        eventually("events are scored all the same", lambda: events_of(worker) > seen + 200)
        assert in_use(worker, second)
        shadowed = worker.metric("streamguard_shadow_events_total") or 0.0
        assert shadowed > 0
        assert (worker.metric("streamguard_model_swap_pause_seconds_count") or 0) >= 1
    here.await_caught_up(workers=[worker])
    assert worker.terminate() == 0, worker.tail()
    assert here.differences() == []
    for pairs in told_by(here).values():
        names = [version for _, version in pairs]
        assert names == [first] * names.count(first) + [second] * names.count(second)
        assert names.count(second)


def test_workers_that_disagree_say_so_until_one_is_gone(
    site: Callable[..., Site], registry: Registry, forests: list[Forest], tmp_path: Path
) -> None:
    registry.promote(registry.publish(forests[0]))
    other = Registry(tmp_path / "other", feature_names=NAMES)
    other.promote(other.publish(forests[1]))
    here = site()
    a = here.start("a").await_ready()
    b = here.start("b", STREAMGUARD_MODELS_REGISTRY=str(tmp_path / "other"))
    eventually("b uses the other model", lambda: b.alive and in_use(b, forests[1].version))
    disagreement = "streamguard_model_disagreement"
    eventually("a hears of it", lambda: a.metric(disagreement) == 1)
    assert b.terminate() == 0, b.tail()
    eventually("a hears that b is gone", lambda: a.metric(disagreement) == 0)


def test_without_its_topic_a_worker_still_looks(
    site: Callable[..., Site], registry: Registry, forests: list[Forest], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(announcing, "TIMEOUT_SECONDS", 1.0)
    first, second = (registry.publish(forest) for forest in forests[:2])
    registry.promote(first)
    here = site(poll_seconds=0.2)
    worker = here.start().await_ready()
    here.delete_topic("models")
    with pytest.raises(AnnounceError, match=f"version {second} is promoted, but not announced"):
        announce(here.settings, second, first)
    registry.promote(second)
    eventually("the second model is in use", lambda: in_use(worker, second))
    here.produce(events(200, 2))
    here.await_caught_up(workers=[worker])
    assert worker.terminate() == 0, worker.tail()
    assert sum("models topic" in line["message"] for line in worker.lines()) <= 1


def test_no_broker_for_an_announcement(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(announcing, "TIMEOUT_SECONDS", 0.5)
    settings = Settings(kafka=Kafka(bootstrap_servers="127.0.0.1:1"))
    with pytest.raises(AnnounceError, match=r"streamguard-models at 127\.0\.0\.1:1 \(.*within 5 s"):
        announce(settings, "0123456789ab", None)
