"""The registry: versions appear complete, the pointer moves atomically, and nothing doubtful is promoted."""

from __future__ import annotations

import itertools
import json
import os
import re
import shutil
import threading
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from streamguard.errors import CannotWriteError
from streamguard.fold import features
from streamguard.models import pointer
from streamguard.models.artifact import ArtifactError, Origin
from streamguard.models.forest import Forest
from streamguard.models.gate import Check, Judgement
from streamguard.models.manifest import read_file
from streamguard.models.pointer import REMEMBERED
from streamguard.models.registry import Registry
from streamguard.models.train import train
from streamguard.settings.schema import Models

NAMES = ["a", "b", "c"]
ROWS = np.random.default_rng(0).normal(size=(400, 3)).astype(np.float32)


@pytest.fixture(scope="module")
def forests() -> list[Forest]:
    return [train(ROWS, seed=seed, trees=10) for seed in range(2)]


@pytest.fixture
def registry(tmp_path: Path) -> Registry:
    return Registry(tmp_path / "registry", feature_names=NAMES)


def test_missing_or_empty_registry_has_no_current_version(tmp_path: Path) -> None:
    for directory in (tmp_path / "missing", tmp_path):
        registry = Registry(directory, feature_names=NAMES)
        assert registry.current() is None
        assert registry.versions() == []


def test_publishing_does_not_promote(registry: Registry, forests: list[Forest]) -> None:
    version = registry.publish(forests[0])
    assert version == forests[0].version
    assert registry.versions() == [version]
    assert registry.current() is None


def test_pointer_moves_between_versions(registry: Registry, forests: list[Forest]) -> None:
    first, second = (registry.publish(forest) for forest in forests)
    assert registry.versions() == sorted([first, second])
    for version in (first, second, first):
        registry.promote(version)
        assert registry.current() == version
        assert registry.load(version).version == version


def test_pruning_keeps_versions_that_rollback_can_reach(registry: Registry) -> None:
    versions = [registry.publish(train(ROWS, seed=seed, trees=2)) for seed in range(6)]
    for age, version in enumerate(versions):
        os.utime(registry.directory / "versions" / version / "manifest.json", (1000 - age, 1000 - age))
        registry.judge(version, Judgement(True, []))
    registry.promote(versions[5])
    registry.promote(versions[4])
    assert registry.prune(2) == [versions[2], versions[3]]
    assert registry.versions() == sorted(versions[:2] + versions[4:])
    assert registry.prune(2) == []
    kept = {path.stem for path in (registry.directory / "judgements").iterdir()}
    assert kept == set(registry.versions())
    assert registry.rollback() == (versions[4], versions[5])
    assert registry.prune(1) == [versions[1], versions[4]]
    registry.publish(train(ROWS, seed=4, trees=2))
    assert registry.promote_after(versions[4], versions[5]) == "it was rolled back"


def test_pruning_removes_damaged_and_half_removed_versions(registry: Registry) -> None:
    versions = [registry.publish(train(ROWS, seed=seed, trees=2)) for seed in range(3)]
    place = registry.directory / "versions"
    (place / versions[1] / "manifest.json").unlink()
    (place / f".removing-{versions[1]}").mkdir()
    (place / f".removing-{versions[1]}" / "forest.safetensors").write_bytes(b"rest")
    assert registry.prune(2) == [versions[1]]
    assert sorted(path.name for path in place.iterdir()) == sorted([versions[0], versions[2]])


def test_rollback_goes_back_step_by_step(registry: Registry, forests: list[Forest]) -> None:
    first, second = (registry.publish(forest) for forest in forests)
    for version in (first, second, second, first):
        registry.promote(version)
    assert registry.before() == [second, first]
    assert registry.rollback() == (first, second)
    assert registry.rollback() == (second, first)
    with pytest.raises(ArtifactError, match="no version was current before"):
        registry.rollback()
    assert registry.current() == first


def test_rollback_to_a_damaged_version_is_refused(
    tmp_path: Path, registry: Registry, forests: list[Forest]
) -> None:
    first, second = (registry.publish(forest) for forest in forests)
    registry.promote(first)
    registry.promote(second)
    os.truncate(tmp_path / "registry" / "versions" / first / "forest.safetensors", 100)
    with pytest.raises(ArtifactError, match=r"forest\.safetensors: not the file"):
        registry.rollback()
    assert registry.current() == second
    assert registry.before() == [first]


def test_promotion_repairs_a_damaged_pointer(
    tmp_path: Path, registry: Registry, forests: list[Forest]
) -> None:
    first, second = (registry.publish(forest) for forest in forests)
    registry.promote(first)
    (tmp_path / "registry" / "current").write_text(f"nonsense\n{first}\n../../etc\n")
    registry.promote(second)
    assert registry.current() == second
    assert registry.before() == [first]


def test_rolled_back_version_is_promoted_only_by_hand(registry: Registry, forests: list[Forest]) -> None:
    first, second = (registry.publish(forest) for forest in forests)
    registry.promote(first)
    assert registry.promote_after(second, first) is None
    registry.rollback()
    assert registry.withdrawn() == [second]
    assert registry.promote_after(second, first) == "it was rolled back"
    assert registry.current() == first
    assert registry.promote(second) == first
    assert (registry.current(), registry.before(), registry.withdrawn()) == (second, [first], [])
    registry.rollback()
    registry.promote(first)
    assert registry.withdrawn() == [second]


def test_decision_is_not_carried_out_after_another_promotion(
    registry: Registry, forests: list[Forest]
) -> None:
    first, second = (registry.publish(forest) for forest in forests)
    registry.promote(first)
    assert registry.promote_after(second, None) == f"meanwhile {first} has become current"
    assert registry.current() == first


def test_history_of_promotions_is_limited(registry: Registry, forests: list[Forest]) -> None:
    versions = [registry.publish(forest) for forest in forests]
    for turn in range(2 * REMEMBERED + 3):
        registry.promote(versions[turn % 2])
    assert len(registry.before()) == REMEMBERED - 1
    registry.rollback()
    assert len(registry.withdrawn()) == 1
    assert registry.current() == versions[1]


def test_judgement_is_stored_beside_the_version_and_the_last_one_counts(
    tmp_path: Path, registry: Registry, forests: list[Forest]
) -> None:
    version = registry.publish(forests[0])
    files = {path.name: path.read_bytes() for path in (tmp_path / "registry/versions" / version).iterdir()}
    assert registry.judgement(version) is None
    for passed in (False, True):
        judgement = Judgement(passed, [Check("rows", 1.0, 2.0, passed, "one row")], "0123456789ab")
        registry.judge(version, judgement)
        assert registry.judgement(version) == judgement
    for path in (tmp_path / "registry/versions" / version).iterdir():
        assert path.read_bytes() == files[path.name]
    with pytest.raises(ArtifactError, match="no version 0123456789ab"):
        registry.judge("0123456789ab", judgement)


@pytest.mark.parametrize(
    "content",
    [
        "",
        "{}",
        '{"passed": true}',
        '{"passed": true, "checks": [], "x": 1}',
        '{"passed": true, "checks": [{"name": "x", "value": 1, "limit": 1, "passed": true, "says": "one"}]}',
    ],
)
def test_damaged_judgement_is_reported(
    content: str, tmp_path: Path, registry: Registry, forests: list[Forest]
) -> None:
    version = registry.publish(forests[0])
    registry.judge(version, Judgement(True, []))
    (tmp_path / "registry" / "judgements" / f"{version}.json").write_text(content)
    with pytest.raises(ArtifactError, match=rf"judgements/{version}\.json: "):
        registry.judgement(version)


# Disk errors


def test_unusable_registry_directory_is_reported(tmp_path: Path, forests: list[Forest]) -> None:
    (tmp_path / "file").write_text("")
    registry = Registry(tmp_path / "file" / "registry", feature_names=NAMES)
    for call in (registry.probe, lambda: registry.publish(forests[0])):
        with pytest.raises(CannotWriteError, match=r"file/registry.*: Not a directory.*--registry"):
            call()
    with pytest.raises(ArtifactError, match=r"file/registry.*: Not a directory"):
        registry.rollback()


def test_probe_leaves_nothing_and_detects_a_damaged_pointer(
    tmp_path: Path, registry: Registry, forests: list[Forest]
) -> None:
    registry.probe()
    registry.promote(registry.publish(forests[0]))
    registry.probe()
    assert sorted(path.name for path in (tmp_path / "registry").iterdir()) == [
        ".lock",
        "current",
        "judgements",
        "versions",
    ]
    assert not list((tmp_path / "registry" / "judgements").iterdir())
    (tmp_path / "registry" / "current").write_text("nonsense\n")
    with pytest.raises(ArtifactError, match="streamguard models promote VERSION --registry"):
        registry.probe()


def test_full_disk_is_reported(
    tmp_path: Path, registry: Registry, forests: list[Forest], monkeypatch: pytest.MonkeyPatch
) -> None:
    first, second = (registry.publish(forest) for forest in forests)
    registry.promote(first)

    def full(handle: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    for call in (lambda: registry.promote(second), lambda: registry.judge(first, Judgement(True, []))):
        with pytest.raises(CannotWriteError, match="No space left on device"):
            call()
    shutil.rmtree(tmp_path / "registry" / "versions" / second)
    with pytest.raises(CannotWriteError, match=f"{second}: No space left on device"):
        registry.publish(forests[1])
    assert (registry.current(), registry.versions()) == (first, [first])


def test_interrupted_promotion_keeps_pointer_and_history(
    tmp_path: Path, registry: Registry, forests: list[Forest], monkeypatch: pytest.MonkeyPatch
) -> None:
    first, second = (registry.publish(forest) for forest in forests)
    registry.promote(first)

    def interrupted(self: Path, target: Path) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(Path, "replace", interrupted)
    with pytest.raises(KeyboardInterrupt):
        registry.promote(second)
    assert registry.current() == first
    assert registry.before() == []
    assert sorted(path.name for path in (tmp_path / "registry").iterdir()) == [".lock", "current", "versions"]


def test_concurrent_promotions_are_all_recorded(registry: Registry, forests: list[Forest]) -> None:
    versions = [registry.publish(forest) for forest in forests]
    threads = [threading.Thread(target=registry.promote, args=(versions[k % 2],)) for k in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    line = [registry.current(), *registry.before()]
    assert set(line) == set(versions)
    assert all(one != other for one, other in itertools.pairwise(line))


def test_metrics_are_read_without_the_forest_and_refused_if_changed(
    tmp_path: Path, registry: Registry, forests: list[Forest]
) -> None:
    version = registry.publish(forests[0], metrics={"gate": {"passed": True}})
    assert registry.metrics(version) == {"gate": {"passed": True}}
    assert registry.published(version) > 0
    (tmp_path / "registry" / "versions" / version / "metrics.json").write_text('{"gate": {"passed": false}}')
    with pytest.raises(ArtifactError, match=r"metrics\.json: not the file"):
        registry.metrics(version)


# Settings


def test_settings_give_directory_and_key(tmp_path: Path) -> None:
    key = tmp_path / "key"
    key.write_bytes(b"0123456789abcdef")
    forest = train(
        np.random.default_rng(0).normal(size=(300, len(features.NAMES))).astype(np.float32), trees=5
    )
    plain, signing = (
        Registry.of(Models(registry=str(tmp_path / "registry"), key_file=file)) for file in ("", str(key))
    )
    version = plain.publish(forest)
    with pytest.raises(ArtifactError, match="not signed, but a key is set"):
        signing.promote(version)
    assert plain.current() is None
    key.write_bytes(b"short")
    with pytest.raises(ArtifactError, match="has 5 bytes, the minimum is 16"):
        Registry.of(Models(key_file=str(key)))
    with pytest.raises(ArtifactError, match="No such file"):
        Registry.of(Models(key_file=str(tmp_path / "none")))


def test_repeated_publication_leaves_no_temporary_files(
    tmp_path: Path, registry: Registry, forests: list[Forest]
) -> None:
    for _ in range(2):
        registry.promote(registry.publish(forests[0]))
    assert sorted(path.name for path in (tmp_path / "registry").iterdir()) == [".lock", "current", "versions"]
    assert [path.name for path in (tmp_path / "registry" / "versions").iterdir()] == [forests[0].version]


def test_published_version_does_not_change(registry: Registry, forests: list[Forest]) -> None:
    version = registry.publish(forests[0], origin=Origin(rows=400))
    assert registry.publish(forests[0], origin=Origin(rows=1)) == version
    assert registry.manifest(version).origin.rows == 400


def test_damaged_version_is_neither_promoted_nor_overwritten(
    tmp_path: Path, registry: Registry, forests: list[Forest]
) -> None:
    good, bad = (registry.publish(forest) for forest in forests)
    registry.promote(good)
    os.truncate(tmp_path / "registry" / "versions" / bad / "forest.safetensors", 100)
    with pytest.raises(ArtifactError, match=rf"{bad}/forest\.safetensors: not the file"):
        registry.promote(bad)
    with pytest.raises(
        ArtifactError, match=rf"{bad}/forest\.safetensors: not the file.*: remove .*{bad} and publish"
    ):
        registry.publish(forests[1])
    assert registry.current() == good


def test_version_under_another_name_is_refused(
    tmp_path: Path, registry: Registry, forests: list[Forest]
) -> None:
    version = registry.publish(forests[0])
    other = "0123456789ab"
    shutil.copytree(tmp_path / "registry" / "versions" / version, tmp_path / "registry" / "versions" / other)
    with pytest.raises(ArtifactError, match=f"{other}: holds version {version}"):
        registry.promote(other)


@pytest.mark.parametrize(
    "content",
    [b"", b"../../etc", b"/etc/passwd", b"0123456789ab/../x", b"0123456789AB", b"\xff" * 12],
)
def test_pointer_without_a_version_name_is_refused(
    content: bytes, tmp_path: Path, registry: Registry, forests: list[Forest]
) -> None:
    registry.promote(registry.publish(forests[0]))
    (tmp_path / "registry" / "current").write_bytes(content)
    with pytest.raises(ArtifactError, match=r"current: .* is not the name of a version"):
        registry.current()


@pytest.mark.parametrize("version", ["..", "../versions", "", "0123456789ab\n", "/"])
def test_path_is_refused_as_a_version(version: str, registry: Registry) -> None:
    for call in (registry.load, registry.promote, registry.manifest):
        with pytest.raises(ArtifactError, match="is not the name of a version"):
            call(version)


def test_missing_version_is_refused(registry: Registry) -> None:
    with pytest.raises(ArtifactError, match="no version 0123456789ab"):
        registry.promote("0123456789ab")


def test_key_signs_versions_and_is_required_to_load_them(tmp_path: Path, forests: list[Forest]) -> None:
    signing = Registry(tmp_path, feature_names=NAMES, key=b"key")
    version = signing.publish(forests[0])
    signing.promote(version)
    assert json.loads((tmp_path / "versions" / version / "manifest.json").read_bytes())["hmac"]
    with pytest.raises(ArtifactError, match="signature"):
        Registry(tmp_path, feature_names=NAMES, key=b"other").load(version)


def test_readers_never_see_a_partial_promotion(registry: Registry, forests: list[Forest]) -> None:
    versions = [registry.publish(forest) for forest in forests]
    registry.promote(versions[0])
    seen: list[str | None] = []
    done = threading.Event()

    def read() -> None:
        while not done.is_set():
            seen.append(registry.current())

    reader = threading.Thread(target=read)
    reader.start()
    try:
        for turn in range(20):
            registry.promote(versions[turn % 2])
    finally:
        done.set()
        reader.join()
    assert set(seen) <= set(versions)


def test_concurrent_publications_of_one_version_agree(registry: Registry, forests: list[Forest]) -> None:
    results: list[str] = []
    threads = [
        threading.Thread(target=lambda: results.append(registry.publish(forests[0]))) for _ in range(4)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert results == [forests[0].version] * 4
    assert registry.versions() == [forests[0].version]


def fifo(path: Path) -> None:
    os.mkfifo(path)


@pytest.mark.parametrize("make", [fifo, Path.mkdir, lambda path: path.write_bytes(b"0" * 10_000)])
def test_a_pipe_a_directory_or_a_huge_file_as_pointer_is_refused_at_once(
    make: Callable[[Path], object], tmp_path: Path, registry: Registry, forests: list[Forest]
) -> None:
    registry.publish(forests[0])
    make(tmp_path / "registry" / "current")
    for call in (registry.current, registry.before, registry.probe):
        with pytest.raises(ArtifactError, match=r"current: (not a regular file|Is a directory|10000 bytes)"):
            call()


@pytest.fixture
def signing(tmp_path: Path, forests: list[Forest]) -> Registry:
    registry = Registry(tmp_path / "registry", feature_names=NAMES, key=b"k" * 16)
    for forest in forests:
        registry.publish(forest)
    return registry


def test_pointer_is_signed_and_a_changed_one_is_refused(
    tmp_path: Path, signing: Registry, forests: list[Forest]
) -> None:
    first, second = (forest.version for forest in forests)
    signing.promote(first)
    signing.promote(second)
    pointer = tmp_path / "registry" / "current"
    signed = pointer.read_text()
    for changed in (
        signed.replace(second, first),
        f"{first}\n",
        signed.replace("counter 2", "counter 3"),
        signed.rpartition("signature")[0],
        signed + f"{first}\n",
    ):
        pointer.write_text(changed)
        for call in (signing.current, signing.rollback, lambda: signing.prune(1)):
            with pytest.raises(ArtifactError, match="models promote VERSION"):
                call()
    pointer.write_text(signed)
    assert signing.current() == second
    with pytest.raises(ArtifactError, match="signature of another key"):
        Registry(tmp_path / "registry", feature_names=NAMES, key=b"x" * 16).current()


def test_an_older_pointer_that_is_put_back_is_refused_until_a_promotion(
    tmp_path: Path, signing: Registry, forests: list[Forest]
) -> None:
    first, second = (forest.version for forest in forests)
    pointer = tmp_path / "registry" / "current"
    signing.promote(first)
    older = pointer.read_bytes()
    signing.promote(second)
    assert signing.current() == second
    pointer.write_bytes(older)
    with pytest.raises(ArtifactError, match="older pointer"):
        signing.current()
    signing.promote(first)
    assert signing.current() == first


def test_an_older_pointer_is_refused_after_a_restart_too(
    tmp_path: Path, signing: Registry, forests: list[Forest]
) -> None:
    first, second = (forest.version for forest in forests)
    file = tmp_path / "registry" / "current"
    signing.promote(first)
    older = file.read_bytes()
    signing.promote(second)

    def restarted() -> Registry:
        pointer._highest.clear()
        return Registry(file.parent, feature_names=NAMES, key=b"k" * 16, memory=tmp_path / "state")

    assert restarted().current() == second
    file.write_bytes(older)
    with pytest.raises(ArtifactError, match="older pointer"):
        restarted().current()
    restarted().promote(first)
    assert restarted().current() == first


@pytest.mark.parametrize("content", [b"", b"x\n", b"9" * 100])
def test_damaged_memory_of_the_counter_is_refused(
    content: bytes, tmp_path: Path, signing: Registry, forests: list[Forest]
) -> None:
    signing.promote(forests[0].version)
    remembering = Registry(signing.directory, feature_names=NAMES, key=b"k" * 16, memory=tmp_path / "state")
    pointer._highest.clear()
    assert remembering.current() == forests[0].version
    (stored,) = (tmp_path / "state").iterdir()
    stored.write_bytes(content)
    pointer._highest.clear()
    with pytest.raises(ArtifactError, match=re.escape(str(stored))):
        remembering.current()


@pytest.mark.parametrize("make", [Path.mkdir, fifo])
def test_refused_file_leaves_no_open_handle(make: Callable[[Path], object], tmp_path: Path) -> None:
    make(tmp_path / "current")
    before = len(list(Path("/proc/self/fd").iterdir()))
    for _ in range(10):
        with pytest.raises(ArtifactError):
            read_file(tmp_path / "current", 100)
    assert len(list(Path("/proc/self/fd").iterdir())) == before


def test_promotion_signs_the_pointer_of_an_unsigned_registry_and_trusts_nothing_else_in_it(
    tmp_path: Path, signing: Registry, forests: list[Forest]
) -> None:
    first, second = (forest.version for forest in forests)
    (tmp_path / "registry" / "current").write_text(f"{first}\n{second}\n")
    with pytest.raises(ArtifactError, match="is not signed"):
        signing.current()
    assert signing.promote(first) == first
    assert (signing.current(), signing.before(), signing.withdrawn()) == (first, [], [])


def test_counter_rises_with_each_change_without_a_key_too(
    tmp_path: Path, registry: Registry, forests: list[Forest]
) -> None:
    for count, forest in enumerate(forests, 1):
        registry.promote(registry.publish(forest))
        assert f"counter {count}\n" in (tmp_path / "registry" / "current").read_text()
