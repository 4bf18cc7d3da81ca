"""A worker follows its registry's pointer and keeps what works; a challenger only counts; workers compare notes."""

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


class Shelf:
    """A registry of names."""

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
def shelf(monkeypatch: pytest.MonkeyPatch) -> Shelf:
    shelf = Shelf()
    monkeypatch.setattr(watcher, "Registry", SimpleNamespace(of=lambda models: shelf))
    return shelf


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


def test_a_registry_without_a_model_is_said_once(shelf: Shelf, caplog: pytest.LogCaptureFixture) -> None:
    watch = watching("registry")
    watch.poll()
    watch.poll()
    assert [record.getMessage() for record in caplog.records] == [
        "the registry registry names no model: events are scored without one"
    ]
    shelf.pointer = ONE
    watch.poll()
    assert watch.forest == f"forest {ONE}"


def test_the_pointer_is_followed_and_a_bad_model_changes_nothing(shelf: Shelf) -> None:
    watch = watching("registry")
    watch.poll()
    assert watch.forest is None
    shelf.pointer, shelf.times = ONE, {ONE: 1_767_323_045.0}
    watch.poll()
    watch.poll()
    assert watch.forest == f"forest {ONE}"
    assert shelf.loads == [ONE]
    assert sample("streamguard_model_published_timestamp_seconds") == 1_767_323_045

    shelf.pointer, shelf.bad = TWO, {TWO}
    before = refusals()
    watch.poll()
    watch.poll()
    assert watch.forest == f"forest {ONE}"
    assert shelf.loads == [ONE, TWO]
    assert more_refusals(before) == {"untrusted": 1}
    assert sample("streamguard_model_info", version=ONE) == 1
    assert sample("streamguard_model_pointer_info", version=TWO) == 1

    shelf.pointer = THREE
    watch.poll()
    assert watch.forest == f"forest {THREE}"
    assert sample("streamguard_model_info", version=THREE) == 1
    assert sample("streamguard_model_info", version=ONE) is None
    assert sample("streamguard_model_published_timestamp_seconds") == 1000


def test_a_refused_model_that_was_mended_is_taken(shelf: Shelf, caplog: pytest.LogCaptureFixture) -> None:
    clock = ManualClock()
    watch = watching("registry", clock)
    shelf.pointer, shelf.bad = TWO, {TWO}
    before = refusals()
    for announced, loads in ((False, 1), (False, 1), (True, 1)):
        watch.poll(announced=announced)
        assert len(shelf.loads) == loads
    clock.advance(watcher.RETRY_ANNOUNCED_SECONDS)
    watch.poll()
    assert len(shelf.loads) == 1
    watch.poll(announced=True)
    assert len(shelf.loads) == 2
    clock.advance(watcher.RETRY_SECONDS)
    watch.poll()
    assert len(shelf.loads) == 3
    assert more_refusals(before) == {"untrusted": 3}
    assert len(caplog.messages) == 1
    shelf.bad = set()
    clock.advance(watcher.RETRY_ANNOUNCED_SECONDS)
    watch.poll(announced=True)
    assert watch.forest == f"forest {TWO}"


def test_a_disk_that_fails_for_a_while_is_asked_again(shelf: Shelf, caplog: pytest.LogCaptureFixture) -> None:
    watch = watching("registry")
    shelf.pointer = ONE
    before = refusals()
    for trouble in (OSError(5, "Input/output error"), OSError(5, "Input/output error")):
        shelf.trouble = trouble
        watch.poll()
    assert watch.forest is None
    assert more_refusals(before) == {"unreadable": 2}
    assert len(caplog.messages) == 1 and f"model {ONE}" in caplog.text
    shelf.trouble = None
    watch.poll()
    assert watch.forest == f"forest {ONE}"


def test_an_error_that_nobody_foresaw_is_asked_again(shelf: Shelf) -> None:
    watch = watching("registry")
    shelf.pointer, shelf.trouble = ONE, MemoryError()
    before = refusals()
    watch.poll()
    watch.poll()
    assert more_refusals(before) == {"unexpected": 2}
    assert len(shelf.loads) == 2


def test_what_the_registry_could_not_read_is_asked_again(tmp_path: Path) -> None:
    """The real registry: a version whose files come late."""
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


def test_a_broken_pointer_is_said_once_and_counted_each_time(
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


def test_a_missing_key_is_refused(tmp_path: Path) -> None:
    watch = ModelWatcher(Settings(models=Models(registry=str(tmp_path), key_file=str(tmp_path / "key"))))
    before = refusals()
    watch.poll()
    assert more_refusals(before) == {"pointer": 1}


def test_without_a_model_there_is_no_time_of_its_loading() -> None:
    code = (
        "from streamguard import metrics\nfrom prometheus_client import generate_latest\n"
        "print(generate_latest(metrics.WORKER).decode())"
    )
    text = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert "streamguard_model_loaded_timestamp_seconds NaN" in text
    assert "streamguard_model_published_timestamp_seconds NaN" in text
    assert 'streamguard_model_refusals_total{reason="untrusted"} 0.0' in text


def test_without_a_registry_nothing_is_polled(shelf: Shelf) -> None:
    watch = watching("")
    watch.start()
    watch.stop()
    assert watch.forest is None


def test_the_command_line_names_a_registry(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    config = tmp_path / "streamguard.toml"
    config.write_text('[models]\nregistry = "of the file"\nshadow = true\n')
    given: list[Settings] = []
    monkeypatch.setattr("streamguard.agents.process.worker.run", lambda settings: given.append(settings) or 0)
    monkeypatch.setattr("streamguard.agents.process.logging.configure", lambda form: None)
    for options in (["--registry", "elsewhere", "--metrics-port", "0"], []):
        assert CliRunner().invoke(main, ["worker", "--config", str(config), *options]).exit_code == 0
    assert [settings.models for settings in given] == [
        Models(registry="elsewhere", shadow=True),
        Models(registry="of the file", shadow=True),
    ]
    assert [settings.worker.metrics_port for settings in given] == [0, 9464]


# A swap between two chunks


def test_a_chunk_keeps_its_forest_while_another_is_swapped_in(
    shelf: Shelf, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(swap, "YIELD_SECONDS", 0.0)
    watch = watching("registry")
    shelf.pointer = ONE
    watch.poll()
    pauses = sample("streamguard_model_swap_pause_seconds_count") or 0
    with watch.chunk():
        pass  # the pause of the first swap, if it is still to be told
    with watch.chunk() as forest:
        shelf.pointer = TWO
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


def test_loading_rests_while_a_chunk_is_handled(monkeypatch: pytest.MonkeyPatch) -> None:
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
        eventually("loading goes on between chunks", lambda least=before: len(steps) > least)
        with guard.chunk():
            before = len(steps)
            time.sleep(0.05)
            assert len(steps) <= before + 2  # what was under way
    done.set()
    thread.join()
    guard.close()


def test_what_a_chunk_waited_during_a_swap_is_told_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Sleep stands for the wait: it takes no CPU and wants no core."""
    monkeypatch.setattr(swap, "YIELD_SECONDS", 0.0)

    def told() -> tuple[float, float]:
        name = "streamguard_model_swap_pause_seconds"
        return sample(f"{name}_count") or 0.0, sample(f"{name}_sum") or 0.0

    guard = SwapGuard()
    begun, loaded = threading.Event(), threading.Event()

    def load() -> None:
        with guard.swap():
            begun.set()
            loaded.wait(10)

    before = told()
    with guard.chunk():
        time.sleep(0.02)  # nothing is swapped: of no interest
    thread = threading.Thread(target=load)
    for _ in range(2):
        with guard.chunk():
            if not thread.ident:
                thread.start()
                begun.wait(10)
            time.sleep(0.02)
    assert told() == before
    loaded.set()
    thread.join()
    for _ in range(2):
        with guard.chunk():
            time.sleep(0.02)  # begun after the swap
    count, waited = told()
    assert count == before[0] + 1
    assert 0.035 <= waited - before[1] < 10
    guard.close()


def test_without_kafka_the_registry_is_followed_all_the_same(
    shelf: Shelf, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def no_kafka(kafka: Kafka) -> None:
        raise RuntimeError("no Kafka")

    monkeypatch.setattr(watcher, "ModelsTopic", no_kafka)
    watch = ModelWatcher(Settings(models=Models(registry="registry", poll_seconds=0.01)))
    watch.start()
    shelf.pointer = ONE
    eventually("the model is followed", lambda: watch.forest == f"forest {ONE}")
    watch.stop()
    assert [record.message for record in caplog.records if "no Kafka" in record.message] == [
        "cannot listen to streamguard-models: no Kafka"
    ]


def test_trouble_with_the_topic_is_said_once_until_it_works_again(caplog: pytest.LogCaptureFixture) -> None:
    topic = ModelsTopic(Settings(kafka=Kafka(bootstrap_servers="127.0.0.1:1")))
    eventually("the trouble is noticed", lambda: not topic.read(0.1) and caplog.messages)
    topic.tell(b"key", InUse("app", ONE))
    for _ in range(5):
        assert topic.read(0.1) == []
    topic.close()
    assert len(caplog.messages) == 1
    assert "the models topic streamguard-models does not work" in caplog.messages[0]


# The challenger


def test_the_newest_by_its_time_is_the_challenger(shelf: Shelf) -> None:
    watch = watching("registry", shadow=True)
    shelf.times = {ONE: 22.0, TWO: 23.0, THREE: 21.0}
    shelf.pointer = THREE
    watch.poll()
    assert (watch.forest, watch.shadow.challenger) == (f"forest {THREE}", f"forest {TWO}")
    assert sample("streamguard_shadow_info", version=TWO) == 1
    shelf.pointer = TWO
    watch.poll()
    assert (watch.forest, watch.shadow.challenger) == (f"forest {TWO}", f"forest {ONE}")
    shelf.times = {TWO: 23.0}
    watch.poll()
    assert watch.shadow.challenger is None
    assert sample("streamguard_shadow_info", version=ONE) is None


def test_without_shadow_nothing_is_loaded_beside_the_champion(shelf: Shelf) -> None:
    watch = watching("registry")
    shelf.times, shelf.pointer = {ONE: 1.0, TWO: 1.0}, ONE
    watch.poll()
    assert watch.shadow.challenger is None
    assert shelf.loads == [ONE]


def test_a_refused_challenger_leaves_the_champion_alone(shelf: Shelf) -> None:
    watch = watching("registry", shadow=True)
    shelf.times, shelf.pointer, shelf.bad = {ONE: 1.0, TWO: 1.0}, ONE, {TWO}
    before = refusals()
    watch.poll()
    assert (watch.forest, watch.shadow.challenger) == (f"forest {ONE}", None)
    assert more_refusals(before) == {"untrusted": 1}


def test_a_promoted_challenger_does_not_stay_beside_itself(shelf: Shelf) -> None:
    watch = watching("registry", shadow=True)
    shelf.times, shelf.pointer = {ONE: 1.0, TWO: 1.0}, ONE
    watch.poll()
    assert watch.shadow.challenger == f"forest {TWO}"
    shelf.times, shelf.pointer, shelf.bad = {ONE: 1.0, TWO: 1.0, THREE: 1.0}, TWO, {THREE}
    watch.poll()
    assert (watch.forest, watch.shadow.challenger) == (f"forest {TWO}", None)


def test_of_the_same_time_the_last_name_is_the_newest_and_bad_manifests_are_none(tmp_path: Path) -> None:
    shelf = Shelf()
    shelf.times = {ONE: 2.0, TWO: 2.0, THREE: 1.0}
    assert Newest().beside(shelf, None) == TWO  # type: ignore[arg-type]
    assert Newest().beside(shelf, TWO) == ONE  # type: ignore[arg-type]
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


def test_both_alert_rates_are_counted_and_nothing_else_changes(forests: list[Forest]) -> None:
    narrow, wide = forests  # to the narrow one everything is strange, and to the wide one nothing
    events = [
        msgspec.json.encode(
            {"timestamp": 1_700_000_000_000 + i, "user": f"u{i % 7}", "event_type": "dns_query"}
        )
        for i in range(100)
    ]

    def counts() -> dict[str, float]:
        names = {f"{kind} {role}": (f"streamguard_shadow_{kind}_total", {"role": role})
                 for kind in ("alerts", "forest_alerts") for role in ("champion", "challenger")}  # fmt: skip
        names["events"] = ("streamguard_shadow_events_total", {})
        return {what: sample(name, **labels) or 0.0 for what, (name, labels) in names.items()}

    for champion, challenger in ((narrow, wide), (wide, narrow), (None, narrow)):
        state = PartitionState(0, lambda keys: [None] * len(keys), resident=1000, detection=Detection())
        folded = state.fold(events, np.arange(100), champion)
        untouched = folded.evidence.copy(), folded.forest.copy()
        shadow = Shadow(Detection(alert_risk=50.0))
        before = counts()
        shadow.score(folded)
        assert counts() == before
        shadow.challenger = challenger
        shadow.score(folded)
        state.next_offset = None
        shadow.score(state.fold(events, np.arange(100), champion))  # folded before: not counted again
        seen = {what: n - before[what] for what, n in counts().items()}
        assert seen["events"] == 100
        assert seen["alerts champion"] == (folded.evidence >= 50.0 / 7.525749891599529).sum()
        strict, lax = ("champion", "challenger") if champion is narrow else ("challenger", "champion")
        assert seen[f"forest_alerts {strict}"] > 90
        assert seen[f"forest_alerts {lax}"] == 0
        assert seen[f"alerts {strict}"] >= seen[f"alerts {lax}"]
        assert (folded.evidence == untouched[0]).all() and (folded.forest == untouched[1]).all()


# What workers tell each other


def said(version: str | None, app_id: str = "app") -> bytes:
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
        (said(ONE), False),
    ],
)
def test_only_a_well_formed_promotion_is_a_hint(value: bytes | None, hint: bool) -> None:
    peers = Peers("app")
    assert peers.hear(PROMOTED_KEY, value) is hint
    assert peers.judge(ONE) == 0


def test_workers_with_another_version_are_counted_until_they_are_gone() -> None:
    clock = ManualClock()
    peers = Peers("app", clock)
    peers.hear(b"a", said(ONE))
    peers.hear(b"b", said(TWO))
    peers.hear(b"c", said(None))
    peers.hear(b"d", said(TWO, app_id="another"))
    peers.hear(peers.key, said(THREE))
    peers.hear(None, said(THREE))
    peers.hear(b"e" * 100, said(THREE))
    peers.hear(b"f", b"nonsense")
    assert peers.judge(ONE) == 2
    assert sample("streamguard_model_disagreement") == 2
    peers.hear(b"c", None)
    assert peers.judge(ONE) == 1
    clock.advance(FORGET_SECONDS)
    peers.hear(b"a", said(ONE))
    clock.advance(1.0)
    assert peers.judge(ONE) == 0


def test_a_disagreement_that_lasts_is_warned_of_once(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    clock = ManualClock()
    peers = Peers("app", clock)
    for _ in range(12):
        peers.hear(b"a", said(TWO))
        peers.judge(ONE)
        clock.advance(REPEAT_SECONDS)
    assert len(caplog.messages) == 1
    assert f"this one uses model {ONE}, of the others 1 use {TWO}" in caplog.messages[0]
    peers.hear(b"a", said(ONE))
    peers.judge(ONE)
    assert caplog.messages[1:] == [f"all workers use model {ONE}"]


def test_memory_for_other_workers_is_bounded() -> None:
    peers = Peers("app")
    for i in range(MAX_WORKERS + 50):
        peers.hear(f"{i}".encode(), said(TWO))
    assert peers.judge(ONE) == MAX_WORKERS
