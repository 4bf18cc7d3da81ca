"""Model watcher, model swaps, shadow scoring of a challenger, and the comparison of versions among workers."""

from __future__ import annotations

import logging
import subprocess
import sys
import threading
import time
from pathlib import Path
from types import SimpleNamespace

import msgspec
import numpy as np
import pytest
from click.testing import CliRunner

from streamguard.agents.model import swap, watcher
from streamguard.agents.model.peers import FORGET_SECONDS, MAX_WORKERS, REPEAT_SECONDS, Peers
from streamguard.agents.model.shadow import Newest, Shadow
from streamguard.agents.model.swap import SwapGuard
from streamguard.agents.model.watcher import ModelWatcher
from streamguard.cli.main import main
from streamguard.fold.features import NAMES
from streamguard.kafka.announcements import MAX_BYTES, PROMOTED_KEY, InUse, ModelsTopic, Promoted
from streamguard.metrics import WORKER
from streamguard.models.forest import Forest
from streamguard.models.manifest import ArtifactError, Manifest, Origin
from streamguard.models.registry import Registry
from streamguard.models.train import train
from streamguard.settings.schema import Detection, Kafka, Models, Settings
from streamguard.state.partition import PartitionState
from streamguard.testing.clock import ManualClock
from tests.harness import eventually

ONE, TWO, THREE = "111111111111", "222222222222", "333333333333"


class FakeRegistry:
    """A registry that holds names instead of models."""

    directory = "registry"

    def __init__(self) -> None:
        self.pointer: str | None = None
        self.bad: set[str] = set()
        self.trouble: Exception | None = None
        self.loads: list[str] = []
        self.times: dict[str, float] = {}

    def current(self) -> str | None:
        return self.pointer

    def versions(self) -> list[str]:
        return sorted(self.times)

    def manifest(self, version: str) -> Manifest:
        return Manifest(1, version, Origin(), {})

    def published(self, version: str) -> float:
        return self.times.get(version, 1000.0)

    def load(self, version: str, between_steps: object = None) -> str:
        self.loads.append(version)
        if self.trouble is not None:
            raise self.trouble
        if version in self.bad:
            raise ArtifactError("digest differs")
        return f"forest {version}"


@pytest.fixture
def registry(monkeypatch: pytest.MonkeyPatch) -> FakeRegistry:
    registry = FakeRegistry()
    monkeypatch.setattr(watcher, "Registry", SimpleNamespace(of=lambda models, memory: registry))
    return registry


def watching(
    directory: Path | str, clock: ManualClock | None = None, *, shadow: bool = False
) -> ModelWatcher:
    return ModelWatcher(
        Settings(models=Models(registry=str(directory), shadow=shadow)), clock or ManualClock()
    )


def sample(name: str, **labels: str) -> float | None:
    return WORKER.get_sample_value(name, labels)


def refusals() -> dict[str, float]:
    reasons = ("pointer", "unreadable", "untrusted", "unexpected")
    return {r: sample("streamguard_model_refusals_total", reason=r) or 0.0 for r in reasons}


def more_refusals(before: dict[str, float]) -> dict[str, float]:
    return {r: n - before[r] for r, n in refusals().items() if n != before[r]}


def test_registry_without_a_model_is_logged_once(
    registry: FakeRegistry, caplog: pytest.LogCaptureFixture
) -> None:
    watch = watching("registry")
    watch.poll()
    watch.poll()
    assert [record.getMessage() for record in caplog.records] == [
        "the registry registry has no current model: events are scored by statistics and patterns only; run "
        "`streamguard retrain` to train a model"
    ]
    registry.pointer = ONE
    watch.poll()
    assert watch.forest == f"forest {ONE}"


def test_watcher_follows_the_pointer_and_keeps_its_model_if_the_next_is_bad(registry: FakeRegistry) -> None:
    watch = watching("registry")
    watch.poll()
    assert watch.forest is None
    registry.pointer, registry.times = ONE, {ONE: 1_767_323_045.0}
    watch.poll()
    watch.poll()
    assert watch.forest == f"forest {ONE}"
    assert registry.loads == [ONE]
    assert sample("streamguard_model_published_timestamp_seconds") == 1_767_323_045

    registry.pointer, registry.bad = TWO, {TWO}
    before = refusals()
    watch.poll()
    watch.poll()
    assert watch.forest == f"forest {ONE}"
    assert registry.loads == [ONE, TWO]
    assert more_refusals(before) == {"untrusted": 1}
    assert sample("streamguard_model_info", version=ONE) == 1
    assert sample("streamguard_model_pointer_info", version=TWO) == 1

    registry.pointer = THREE
    watch.poll()
    assert watch.forest == f"forest {THREE}"
    assert sample("streamguard_model_info", version=THREE) == 1
    assert sample("streamguard_model_info", version=ONE) is None
    assert sample("streamguard_model_published_timestamp_seconds") == 1000


def test_refused_model_is_retried_and_loaded_after_repair(
    registry: FakeRegistry, caplog: pytest.LogCaptureFixture
) -> None:
    clock = ManualClock()
    watch = watching("registry", clock)
    registry.pointer, registry.bad = TWO, {TWO}
    before = refusals()
    for announced, loads in ((False, 1), (False, 1), (True, 1)):
        watch.poll(announced=announced)
        assert len(registry.loads) == loads
    clock.advance(watcher.RETRY_ANNOUNCED_SECONDS)
    watch.poll()
    assert len(registry.loads) == 1
    watch.poll(announced=True)
    assert len(registry.loads) == 2
    clock.advance(watcher.RETRY_SECONDS)
    watch.poll()
    assert len(registry.loads) == 3
    assert more_refusals(before) == {"untrusted": 3}
    assert len(caplog.messages) == 1
    registry.bad = set()
    clock.advance(watcher.RETRY_ANNOUNCED_SECONDS)
    watch.poll(announced=True)
    assert watch.forest == f"forest {TWO}"


def test_unreadable_model_is_retried_at_each_poll(
    registry: FakeRegistry, caplog: pytest.LogCaptureFixture
) -> None:
    watch = watching("registry")
    registry.pointer = ONE
    before = refusals()
    for trouble in (OSError(5, "Input/output error"), OSError(5, "Input/output error")):
        registry.trouble = trouble
        watch.poll()
    assert watch.forest is None
    assert more_refusals(before) == {"unreadable": 2}
    assert len(caplog.messages) == 1 and f"model {ONE}" in caplog.text
    registry.trouble = None
    watch.poll()
    assert watch.forest == f"forest {ONE}"


def test_unexpected_error_is_retried_at_each_poll(registry: FakeRegistry) -> None:
    watch = watching("registry")
    registry.pointer, registry.trouble = ONE, MemoryError()
    before = refusals()
    watch.poll()
    watch.poll()
    assert more_refusals(before) == {"unexpected": 2}
    assert len(registry.loads) == 2


def test_missing_version_files_are_retried_at_each_poll(tmp_path: Path) -> None:
    """With the real registry: the files of a version arrive late."""
    version = "0123456789ab"
    (tmp_path / "versions" / version).mkdir(parents=True)
    (tmp_path / "current").write_text(version)
    watch = watching(tmp_path)
    before = refusals()
    watch.poll()
    assert more_refusals(before) == {"unreadable": 1}
    (tmp_path / "versions" / version / "manifest.json").write_text("{")
    watch.poll()
    assert more_refusals(before) == {"unreadable": 1, "untrusted": 1}


def test_broken_pointer_is_logged_once_and_counted_each_time(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    pointer = tmp_path / "current"
    watch = watching(tmp_path)
    before = refusals()
    with caplog.at_level(logging.ERROR):
        for content in ("nonsense", "nonsense", "other nonsense", "other nonsense"):
            pointer.write_text(content)
            watch.poll()
        pointer.unlink()
        watch.poll()
        pointer.write_text("other nonsense")
        watch.poll()
    assert len(caplog.messages) == 3
    assert "pointer" in caplog.messages[0] and str(pointer) in caplog.messages[0]
    assert more_refusals(before) == {"pointer": 5}


def test_missing_key_file_is_counted_as_a_refusal(tmp_path: Path) -> None:
    watch = ModelWatcher(Settings(models=Models(registry=str(tmp_path), key_file=str(tmp_path / "key"))))
    before = refusals()
    watch.poll()
    assert more_refusals(before) == {"pointer": 1}


def test_model_timestamps_are_nan_without_a_model() -> None:
    code = (
        "from streamguard import metrics\nfrom prometheus_client import generate_latest\n"
        "print(generate_latest(metrics.WORKER).decode())"
    )
    text = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert "streamguard_model_loaded_timestamp_seconds NaN" in text
    assert "streamguard_model_published_timestamp_seconds NaN" in text
    assert 'streamguard_model_refusals_total{reason="untrusted"} 0.0' in text


def test_nothing_is_polled_without_a_registry(registry: FakeRegistry) -> None:
    watch = watching("")
    watch.start()
    watch.stop()
    assert watch.forest is None


def test_registry_option_overrides_the_settings_file(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    config = tmp_path / "streamguard.toml"
    config.write_text('[models]\nregistry = "of the file"\nshadow = true\n')
    given: list[Settings] = []
    monkeypatch.setattr("streamguard.agents.process.worker.run", lambda settings: given.append(settings) or 0)
    monkeypatch.setattr("streamguard.logs.configure", lambda form: None)
    for options in (["--registry", "elsewhere", "--metrics-port", "0"], []):
        assert CliRunner().invoke(main, ["worker", "--config", str(config), *options]).exit_code == 0
    assert [settings.models for settings in given] == [
        Models(registry="elsewhere", shadow=True),
        Models(registry="of the file", shadow=True),
    ]
    assert [settings.worker.metrics_port for settings in given] == [0, 9464]


# Model swaps


def test_chunk_keeps_its_forest_during_a_model_swap(
    registry: FakeRegistry, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(swap, "YIELD_SECONDS", 0.0)
    watch = watching("registry")
    registry.pointer = ONE
    watch.poll()
    pauses = sample("streamguard_model_swap_pause_seconds_count") or 0
    with watch.chunk():
        pass  # records the pause of the first swap if it is still pending
    with watch.chunk() as forest:
        registry.pointer = TWO
        thread = threading.Thread(target=watch.poll)
        thread.start()
        thread.join()
        assert forest == f"forest {ONE}"
    with watch.chunk() as forest:
        assert forest == f"forest {TWO}"
    with watch.chunk():
        pass
    assert sample("streamguard_model_swap_pause_seconds_count") == pauses + 2
    assert sys.getswitchinterval() == pytest.approx(0.005)


def test_loading_pauses_while_a_chunk_is_processed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(swap, "YIELD_SECONDS", 60.0)
    guard = SwapGuard()
    steps: list[int] = []
    done = threading.Event()

    def load() -> None:
        with guard.swap() as give_way:
            while not done.is_set():
                give_way()
                steps.append(len(steps))

    thread = threading.Thread(target=load)
    thread.start()
    for _ in range(3):
        before = len(steps)
        eventually("loading goes on between chunks", lambda count=before: len(steps) > count)
        with guard.chunk():
            before = len(steps)
            time.sleep(0.05)
            assert len(steps) <= before + 2  # a step that had already begun
    done.set()
    thread.join()
    guard.close()


def test_swap_pause_is_recorded_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Sleep simulates the wait, because it needs neither CPU time nor a free core."""
    monkeypatch.setattr(swap, "YIELD_SECONDS", 0.0)

    def recorded() -> tuple[float, float]:
        name = "streamguard_model_swap_pause_seconds"
        return sample(f"{name}_count") or 0.0, sample(f"{name}_sum") or 0.0

    guard = SwapGuard()
    begun, loaded = threading.Event(), threading.Event()

    def load() -> None:
        with guard.swap():
            begun.set()
            loaded.wait(10)

    before = recorded()
    with guard.chunk():
        time.sleep(0.02)  # no swap is running: not recorded
    thread = threading.Thread(target=load)
    for _ in range(2):
        with guard.chunk():
            if not thread.ident:
                thread.start()
                begun.wait(10)
            time.sleep(0.02)
    assert recorded() == before
    loaded.set()
    thread.join()
    for _ in range(2):
        with guard.chunk():
            time.sleep(0.02)  # begins after the swap
    count, waited = recorded()
    assert count == before[0] + 1
    assert 0.035 <= waited - before[1] < 10
    guard.close()


def test_registry_is_followed_without_kafka(
    registry: FakeRegistry, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def no_kafka(kafka: Kafka) -> None:
        raise RuntimeError("no Kafka")

    monkeypatch.setattr(watcher, "ModelsTopic", no_kafka)
    watch = ModelWatcher(Settings(models=Models(registry="registry", poll_seconds=0.01)))
    watch.start()
    registry.pointer = ONE
    eventually("the model is followed", lambda: watch.forest == f"forest {ONE}")
    watch.stop()
    assert [record.message for record in caplog.records if "no Kafka" in record.message] == [
        "the models topic streamguard-models cannot be read: no Kafka; the worker notices a promotion when it next "
        "checks the registry, every 0.01 s (models.poll_seconds)"
    ]


def test_models_topic_failure_is_logged_once(caplog: pytest.LogCaptureFixture) -> None:
    topic = ModelsTopic(Settings(kafka=Kafka(bootstrap_servers="127.0.0.1:1")))
    eventually("the trouble is noticed", lambda: not topic.read(0.1) and caplog.messages)
    topic.report(b"key", InUse("app", ONE))
    for _ in range(5):
        assert topic.read(0.1) == []
    topic.close()
    assert len(caplog.messages) == 1
    assert "the models topic streamguard-models cannot be used" in caplog.messages[0]


# The challenger


def test_newest_version_other_than_the_champion_is_the_challenger(registry: FakeRegistry) -> None:
    watch = watching("registry", shadow=True)
    registry.times = {ONE: 22.0, TWO: 23.0, THREE: 21.0}
    registry.pointer = THREE
    watch.poll()
    assert (watch.forest, watch.shadow.challenger) == (f"forest {THREE}", f"forest {TWO}")
    assert sample("streamguard_shadow_info", version=TWO) == 1
    registry.pointer = TWO
    watch.poll()
    assert (watch.forest, watch.shadow.challenger) == (f"forest {TWO}", f"forest {ONE}")
    registry.times = {TWO: 23.0}
    watch.poll()
    assert watch.shadow.challenger is None
    assert sample("streamguard_shadow_info", version=ONE) is None


def test_challenger_is_not_loaded_without_shadow_mode(registry: FakeRegistry) -> None:
    watch = watching("registry")
    registry.times, registry.pointer = {ONE: 1.0, TWO: 1.0}, ONE
    watch.poll()
    assert watch.shadow.challenger is None
    assert registry.loads == [ONE]


def test_refused_challenger_leaves_the_champion_in_use(registry: FakeRegistry) -> None:
    watch = watching("registry", shadow=True)
    registry.times, registry.pointer, registry.bad = {ONE: 1.0, TWO: 1.0}, ONE, {TWO}
    before = refusals()
    watch.poll()
    assert (watch.forest, watch.shadow.challenger) == (f"forest {ONE}", None)
    assert more_refusals(before) == {"untrusted": 1}


def test_promoted_version_is_no_longer_the_challenger(registry: FakeRegistry) -> None:
    watch = watching("registry", shadow=True)
    registry.times, registry.pointer = {ONE: 1.0, TWO: 1.0}, ONE
    watch.poll()
    assert watch.shadow.challenger == f"forest {TWO}"
    registry.times, registry.pointer, registry.bad = {ONE: 1.0, TWO: 1.0, THREE: 1.0}, TWO, {THREE}
    watch.poll()
    assert (watch.forest, watch.shadow.challenger) == (f"forest {TWO}", None)


def test_newest_version_breaks_ties_by_name_and_skips_bad_manifests(tmp_path: Path) -> None:
    registry = FakeRegistry()
    registry.times = {ONE: 2.0, TWO: 2.0, THREE: 1.0}
    assert Newest().beside(registry, None) == TWO  # type: ignore[arg-type]
    assert Newest().beside(registry, TWO) == ONE  # type: ignore[arg-type]
    directory = tmp_path / "versions" / ONE
    directory.mkdir(parents=True)
    (directory / "manifest.json").write_text("{")
    assert Newest().beside(Registry(tmp_path, feature_names=NAMES), None) is None


@pytest.fixture(scope="module")
def forests() -> list[Forest]:
    random = np.random.default_rng(3)
    return [
        train(random.normal(scale, scale, (600, len(NAMES))).astype(np.float32), trees=20)
        for scale in (0.01, 30.0)
    ]


def test_shadow_counts_alerts_of_both_models_and_changes_no_scores(forests: list[Forest]) -> None:
    narrow, wide = forests  # every event is anomalous to the narrow forest, none to the wide one
    events = [
        msgspec.json.encode(
            {"timestamp": 1_700_000_000_000 + i, "user": f"u{i % 7}", "event_type": "dns_query"}
        )
        for i in range(100)
    ]

    def counts() -> dict[str, float]:
        names = {f"{kind} {role}": (f"streamguard_shadow_{kind}_total", {"role": role})
                 for kind in ("ranked", "forest_alerts") for role in ("champion", "challenger")}  # fmt: skip
        names["events"] = ("streamguard_shadow_events_total", {})
        return {what: sample(name, **labels) or 0.0 for what, (name, labels) in names.items()}

    for champion, challenger in ((narrow, wide), (wide, narrow), (None, narrow)):
        state = PartitionState(0, lambda keys: [None] * len(keys), resident=1000, detection=Detection())
        folded = state.fold(events, np.arange(100), champion)
        untouched = folded.evidence.copy(), folded.forest.copy()
        shadow = Shadow(Detection(alert_risk=66.7))
        before = counts()
        shadow.score(folded)
        assert counts() == before
        shadow.challenger = challenger
        shadow.score(folded)
        state.next_offset = None
        shadow.score(state.fold(events, np.arange(100), champion))  # folded before, so not counted again
        seen = {what: n - before[what] for what, n in counts().items()}
        assert seen["events"] == 100
        assert seen["ranked champion"] == (folded.evidence > folded.strength).sum()
        strict, lax = ("champion", "challenger") if champion is narrow else ("challenger", "champion")
        assert seen[f"forest_alerts {strict}"] > 90
        assert seen[f"forest_alerts {lax}"] == 0
        assert seen[f"ranked {strict}"] > seen[f"ranked {lax}"]
        assert (folded.evidence == untouched[0]).all() and (folded.forest == untouched[1]).all()


# Announcements among workers


def announcement(version: str | None, app_id: str = "app") -> bytes:
    return msgspec.json.encode(InUse(app_id, version))


@pytest.mark.parametrize(
    ("value", "hint"),
    [
        (msgspec.json.encode(Promoted(ONE, None)), True),
        (msgspec.json.encode(Promoted(ONE, TWO)), True),
        (b'{"version": "111111111111"}', True),
        (None, False),
        (b"", False),
        (b"\xff", False),
        (b"[" * 1000, False),
        (b'{"version": "../../etc"}', False),
        (b'{"version": "111111111111\\n"}', False),
        (b'{"version": null}', False),
        (b'{"version": "111111111111", "more": 1}', False),
        (b'{"version": "111111111111"' + b" " * MAX_BYTES + b"}", False),
        (announcement(ONE), False),
    ],
)
def test_only_a_well_formed_promotion_is_accepted(value: bytes | None, hint: bool) -> None:
    peers = Peers("app")
    assert peers.receive(PROMOTED_KEY, value) is hint
    assert peers.count_disagreeing(ONE) == 0


def test_workers_with_another_version_are_counted_until_they_expire() -> None:
    clock = ManualClock()
    peers = Peers("app", clock)
    peers.receive(b"a", announcement(ONE))
    peers.receive(b"b", announcement(TWO))
    peers.receive(b"c", announcement(None))
    peers.receive(b"d", announcement(TWO, app_id="another"))
    peers.receive(peers.key, announcement(THREE))
    peers.receive(None, announcement(THREE))
    peers.receive(b"e" * 100, announcement(THREE))
    peers.receive(b"f", b"nonsense")
    assert peers.count_disagreeing(ONE) == 2
    assert sample("streamguard_model_disagreement") == 2
    peers.receive(b"c", None)
    assert peers.count_disagreeing(ONE) == 1
    clock.advance(FORGET_SECONDS)
    peers.receive(b"a", announcement(ONE))
    clock.advance(1.0)
    assert peers.count_disagreeing(ONE) == 0


def test_lasting_disagreement_is_logged_once(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    clock = ManualClock()
    peers = Peers("app", clock)
    for _ in range(12):
        peers.receive(b"a", announcement(TWO))
        peers.count_disagreeing(ONE)
        clock.advance(REPEAT_SECONDS)
    assert len(caplog.messages) == 1
    assert (
        f"this worker uses model {ONE}; number of other workers by model: model {TWO}: 1;"
        in caplog.messages[0]
    )
    peers.receive(b"a", announcement(ONE))
    peers.count_disagreeing(ONE)
    assert caplog.messages[1:] == [f"all workers now use model {ONE}"]


def test_memory_for_other_workers_is_bounded() -> None:
    peers = Peers("app")
    for i in range(MAX_WORKERS + 50):
        peers.receive(f"{i}".encode(), announcement(TWO))
    assert peers.count_disagreeing(ONE) == MAX_WORKERS
