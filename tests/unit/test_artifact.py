"""Model artifacts: reproducible bytes, a lossless round trip, and a specific error for each invalid file."""

from __future__ import annotations

import hashlib
import hmac
import json
import os
import pickle
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.numpy
from numpy.typing import NDArray

from streamguard.models.artifact import ArtifactError, Origin, load, save
from streamguard.models.forest import Forest, weighted
from streamguard.models.manifest import LIMITS
from streamguard.models.registry import Registry
from streamguard.models.train import train

NAMES = [f"feature_{number}" for number in range(5)]
ROWS = np.random.default_rng(0).normal(size=(600, 5)).astype(np.float32)
KEY = b"a key of the operator"


@pytest.fixture(scope="module")
def forest() -> Forest:
    return train(ROWS, trees=20)


@pytest.fixture
def directory(tmp_path: Path, forest: Forest) -> Path:
    save(forest, tmp_path / "model", feature_names=NAMES)
    return tmp_path / "model"


def seal(directory: Path) -> None:
    """Make the manifest match the present files, as an attacker with a hostile artifact would."""
    path = directory / "manifest.json"
    manifest = json.loads(path.read_bytes())
    for name in manifest["files"]:
        data = (directory / name).read_bytes()
        manifest["files"][name] = {"sha256": hashlib.sha256(data).hexdigest(), "size": len(data)}
    path.write_text(json.dumps(manifest))


def edit(path: Path, change: Callable[[dict[str, Any]], None]) -> None:
    content = json.loads(path.read_bytes())
    change(content)
    path.write_text(json.dumps(content))


def rewrite(directory: Path, change: Callable[[dict[str, NDArray[Any]]], None]) -> None:
    """Change the arrays of a forest and seal the result."""
    path = directory / "forest.safetensors"
    arrays = safetensors.numpy.load_file(path)
    change(arrays)
    safetensors.numpy.save_file({name: np.asarray(array) for name, array in arrays.items()}, path)
    seal(directory)


def test_saved_forest_loads_unchanged(directory: Path, forest: Forest) -> None:
    again = load(directory, feature_names=NAMES)
    assert again.version == forest.version
    assert again.features == 5
    assert np.array_equal(again.score_samples(ROWS), forest.score_samples(ROWS))
    assert np.array_equal(again.bits(ROWS), forest.bits(ROWS))


def test_saving_twice_writes_the_same_bytes(tmp_path: Path, directory: Path) -> None:
    save(train(ROWS.copy(), trees=20), tmp_path / "again", feature_names=NAMES)
    assert sorted(path.name for path in directory.iterdir()) == sorted(LIMITS)
    for path in directory.iterdir():
        assert path.read_bytes() == (tmp_path / "again" / path.name).read_bytes()


def test_safetensors_library_reads_the_arrays(directory: Path, forest: Forest) -> None:
    arrays = safetensors.numpy.load_file(directory / "forest.safetensors")
    assert np.array_equal(arrays["threshold"], forest.trees.threshold)
    assert arrays["golden_rows"].shape == (16, 5)


def test_manifest_holds_the_origin_of_the_forest(tmp_path: Path, forest: Forest) -> None:
    origin = Origin(
        rows=600,
        parameters={"seed": 0, "trees": 20},
        offsets={"0": [0, 599]},
        events_until="2026-01-02T03:04:05Z",
    )
    save(forest, tmp_path, feature_names=NAMES, origin=origin, metrics={"alert_rate": 0.001})
    manifest = json.loads((tmp_path / "manifest.json").read_bytes())
    assert manifest["version"] == forest.version
    assert manifest["origin"]["offsets"] == {"0": [0, 599]}
    assert json.loads((tmp_path / "metrics.json").read_bytes()) == {"alert_rate": 0.001}
    assert load(tmp_path, feature_names=NAMES).version == forest.version


def test_wrong_number_of_feature_names_is_not_saved(tmp_path: Path, forest: Forest) -> None:
    with pytest.raises(ValueError, match="4 feature names for a forest of 5"):
        save(forest, tmp_path, feature_names=NAMES[:4])


# Damage that the manifest detects.


@pytest.mark.parametrize("name", sorted(LIMITS))
def test_missing_file_is_refused(name: str, directory: Path) -> None:
    (directory / name).unlink()
    with pytest.raises(ArtifactError, match=f"{name}: No such file"):
        load(directory, feature_names=NAMES)


@pytest.mark.parametrize("name", sorted(LIMITS.keys() - {"manifest.json"}))
def test_truncated_file_is_refused(name: str, directory: Path) -> None:
    path = directory / name
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(ArtifactError, match=f"{name}: not the file that manifest.json describes"):
        load(directory, feature_names=NAMES)


@pytest.mark.parametrize("name", sorted(LIMITS.keys() - {"manifest.json"}))
def test_wrong_digest_is_refused(name: str, directory: Path) -> None:
    path = directory / name
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)
    with pytest.raises(ArtifactError, match=f"{name}: not the file"):
        load(directory, feature_names=NAMES)


@pytest.mark.parametrize("name", sorted(LIMITS))
def test_oversized_file_is_refused_without_reading_it(name: str, directory: Path) -> None:
    os.truncate(directory / name, 2 * 2**30)
    with pytest.raises(ArtifactError, match=f"{name}: 2147483648 bytes, but at most"):
        load(directory, feature_names=NAMES)


def test_pipe_instead_of_a_file_is_refused_without_blocking(directory: Path) -> None:
    (directory / "forest.safetensors").unlink()
    os.mkfifo(directory / "forest.safetensors")
    with pytest.raises(ArtifactError, match=r"forest\.safetensors: not a regular file"):
        load(directory, feature_names=NAMES)


def test_directory_instead_of_a_file_is_refused(directory: Path) -> None:
    (directory / "forest.safetensors").unlink()
    (directory / "forest.safetensors").mkdir()
    with pytest.raises(ArtifactError, match=r"forest\.safetensors: (not a regular file|Is a directory)"):
        load(directory, feature_names=NAMES)


# Contents of the manifest.


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda m: m.update(format=3), "format 3, but this version reads format 2"),
        (lambda m: m.update(version="0" * 12), "says version 000000000000, the files are"),
        (lambda m: m.pop("version"), "missing required field `version`"),
        (lambda m: m["files"].pop("forest.safetensors"), "are not those of an artifact"),
        (lambda m: m["files"].update({"../../secret": {"sha256": "", "size": 0}}), "are not those of"),
        (lambda m: m.update(extra=1), "unknown field `extra`"),
    ],
)
def test_invalid_manifest_is_refused(
    change: Callable[[dict[str, Any]], None], message: str, directory: Path
) -> None:
    edit(directory / "manifest.json", change)
    with pytest.raises(ArtifactError, match=message):
        load(directory, feature_names=NAMES)


@pytest.mark.parametrize("content", [b"", b"{", b"\xff\xfe", b"[" * 100_000, b"null", b"pickled"])
@pytest.mark.parametrize("name", ["manifest.json", "calibration.json", "features.json", "metrics.json"])
def test_invalid_json_is_refused(content: bytes, name: str, directory: Path) -> None:
    (directory / name).write_bytes(content)
    if name != "manifest.json":
        seal(directory)
    with pytest.raises(ArtifactError, match=name):
        load(directory, feature_names=NAMES)


def test_signed_artifact_is_refused_with_another_key(tmp_path: Path, forest: Forest) -> None:
    save(forest, tmp_path, feature_names=NAMES, key=KEY)
    assert load(tmp_path, feature_names=NAMES, key=KEY).version == forest.version
    assert load(tmp_path, feature_names=NAMES).version == forest.version
    with pytest.raises(ArtifactError, match=r"manifest\.json: the signature does not match"):
        load(tmp_path, feature_names=NAMES, key=b"another")


def test_unsigned_artifact_is_refused_if_a_key_is_set(directory: Path) -> None:
    with pytest.raises(ArtifactError, match=r"manifest\.json: not signed"):
        load(directory, feature_names=NAMES, key=KEY)


@pytest.mark.parametrize("signature", ["", "0" * 64, "ä"])
def test_wrong_signature_is_refused(signature: str, tmp_path: Path, forest: Forest) -> None:
    save(forest, tmp_path, feature_names=NAMES, key=KEY)
    edit(tmp_path / "manifest.json", lambda manifest: manifest.update(hmac=signature))
    with pytest.raises(ArtifactError, match="signature does not match"):
        load(tmp_path, feature_names=NAMES, key=KEY)


def test_signature_covers_every_file(tmp_path: Path, forest: Forest) -> None:
    save(forest, tmp_path, feature_names=NAMES, key=KEY)
    edit(tmp_path / "metrics.json", lambda metrics: metrics.update(alert_rate=0))
    seal(tmp_path)
    with pytest.raises(ArtifactError, match="signature does not match"):
        load(tmp_path, feature_names=NAMES, key=KEY)


# Hostile content with a matching manifest.


def test_other_feature_names_are_refused(directory: Path) -> None:
    with pytest.raises(
        ArtifactError, match=r"features\.json: .*feature 'feature_4', which this version does not"
    ):
        load(directory, feature_names=[*NAMES[:4], "new"])
    with pytest.raises(ArtifactError, match=r"features\.json: features in another order"):
        load(directory, feature_names=NAMES[::-1])


def test_a_program_with_more_features_scores_with_those_of_the_artifact(
    directory: Path, forest: Forest
) -> None:
    wide = load(directory, feature_names=["first", *NAMES[:2], "between", *NAMES[2:], "last"])
    rows = np.full((len(ROWS), 8), 1e6, np.float32)
    rows[:, [1, 2, 4, 5, 6]] = ROWS
    assert wide.version == forest.version
    assert np.array_equal(wide.score_samples(rows), forest.score_samples(ROWS))


def test_forest_of_some_columns_ignores_the_others_and_is_stored_with_their_names(tmp_path: Path) -> None:
    some = train(ROWS, trees=20, columns=np.array([0, 3]))
    save(some, tmp_path, feature_names=NAMES)
    assert json.loads((tmp_path / "features.json").read_bytes())["names"] == ["feature_0", "feature_3"]
    other = ROWS.copy()
    other[:, [1, 2, 4]] = 9.0
    again = load(tmp_path, feature_names=NAMES)
    assert np.array_equal(again.score_samples(other), some.score_samples(ROWS))
    assert again.features == 5


def test_weight_is_part_of_artifact_and_version(tmp_path: Path, forest: Forest) -> None:
    half = weighted(forest, 0.5)
    save(half, tmp_path, feature_names=NAMES)
    again = load(tmp_path, feature_names=NAMES)
    assert again.weight == 0.5
    assert again.version == half.version != forest.version
    assert np.array_equal(again.bits(ROWS), 0.5 * forest.bits(ROWS))
    edit(tmp_path / "manifest.json", lambda manifest: manifest.update(weight=1.0))
    with pytest.raises(ArtifactError, match="says version"):
        load(tmp_path, feature_names=NAMES)


def test_artifact_without_weight_counts_fully(directory: Path, forest: Forest) -> None:
    edit(directory / "manifest.json", lambda manifest: manifest.pop("weight"))
    assert load(directory, feature_names=NAMES).weight == 1.0


def test_signature_of_a_manifest_without_weight_stays_valid(tmp_path: Path, forest: Forest) -> None:
    save(forest, tmp_path, feature_names=NAMES)
    content = json.loads((tmp_path / "manifest.json").read_bytes())
    del content["weight"]
    unsigned = json.dumps(content | {"hmac": None}, sort_keys=True, separators=(",", ":"))
    content["hmac"] = hmac.new(KEY, unsigned.encode(), hashlib.sha256).hexdigest()
    (tmp_path / "manifest.json").write_text(json.dumps(content))
    assert load(tmp_path, feature_names=NAMES, key=KEY).weight == 1.0


@pytest.mark.parametrize("weight", [-0.1, 1.1, "1", None])
def test_weight_out_of_range_is_refused(weight: object, directory: Path) -> None:
    edit(directory / "manifest.json", lambda manifest: manifest.update(weight=weight))
    with pytest.raises(ArtifactError, match=r"manifest\.json: .*weight"):
        load(directory, feature_names=NAMES)


def test_wrong_feature_hash_is_refused(directory: Path) -> None:
    edit(directory / "features.json", lambda features: features.update(sha256="0" * 64))
    seal(directory)
    with pytest.raises(ArtifactError, match=r"features\.json: the hash is not that of the names"):
        load(directory, feature_names=NAMES)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('{"anomaly": [NaN, 0.5], "level": [0, 2], "slope": 1}', "malformed"),
        ('{"anomaly": [null, 0.5], "level": [0, 2], "slope": 1}', "Expected `float`"),
        ('{"anomaly": [0.4, 1e999], "level": [0, 2], "slope": 1}', "finite|out of range"),
        ('{"anomaly": [0.5, 0.4], "level": [0, 2], "slope": 1}', "must be finite and rise"),
        ('{"anomaly": [0.4, 0.5], "level": [0, 2], "slope": -1}', "slope"),
    ],
)
def test_invalid_calibration_is_refused(text: str, message: str, directory: Path) -> None:
    (directory / "calibration.json").write_text(text)
    seal(directory)
    with pytest.raises(ArtifactError, match=rf"calibration\.json: .*({message})"):
        load(directory, feature_names=NAMES)


def set_at(name: str, index: int, value: float) -> Callable[[dict[str, NDArray[Any]]], None]:
    def change(arrays: dict[str, NDArray[Any]]) -> None:
        arrays[name][index] = value

    return change


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (set_at("left", 0, 0), "node 0 .*leads back"),
        (set_at("right", 0, 10**8), "node 0 .*out of range"),
        (set_at("right", 0, -9), "node 0 .*leads back"),
        (set_at("feature", 0, 5), "node 0 .*feature that does not exist"),
        (set_at("threshold", 0, np.nan), "node 0 .*threshold that is not finite"),
        (set_at("path", 0, np.inf), "node 0 .*path length"),
        (set_at("roots", 1, 0), "roots must start at 0"),
        (set_at("golden_scores", 3, -0.5), "golden row 3 does not score -0.5 again"),
        (set_at("golden_scores", 3, np.nan), "golden row 3 does not score nan again"),
        (set_at("golden_rows", 2, np.nan), "row 2, column 0 is nan"),
        (lambda a: a.update(normaliser=np.float64(np.nan)), "normaliser must be finite"),
        (lambda a: a.update(features=np.int64(2**40)), "trees over 1099511627776 features"),
        (lambda a: a.update(path=a["path"][:-1]), "path has .* entries for"),
        (lambda a: a.update(path=a["path"].astype(np.float32)), "path is <f4"),
        (lambda a: a.update(path=a["path"].reshape(1, -1)), "path is <f8 with 2 axes"),
        (lambda a: a.update(golden_rows=a["golden_rows"][:0], golden_scores=np.zeros(0)), "golden rows"),
        (lambda a: a.update(roots=a["roots"][:0]), "roots must start at 0"),
        (lambda a: a.update(extra=np.zeros(1)), "holds .*extra"),
        (lambda a: a.pop("left"), "holds .*, expected"),
    ],
)
def test_invalid_arrays_are_refused(
    change: Callable[[dict[str, NDArray[Any]]], None], message: str, directory: Path
) -> None:
    rewrite(directory, change)
    with pytest.raises(ArtifactError, match=rf"forest\.safetensors: .*{message}"):
        load(directory, feature_names=NAMES)


HOSTILE: dict[str, Callable[[Path], object]] = {
    "a pickle": lambda d: ((d / "forest.safetensors").write_bytes(pickle.dumps([1])), seal(d)),
    "truncated file": lambda d: os.truncate(d / "forest.safetensors", 1000),
    "cyclic tree": lambda d: rewrite(d, set_at("left", 0, 0)),
    "node with two parents": lambda d: rewrite(d, set_at("right", 0, 1)),
    "child out of range": lambda d: rewrite(d, set_at("right", 0, 10**8)),
    "wrong feature hash": lambda d: (
        edit(d / "features.json", lambda f: f.update(sha256="0" * 64)), seal(d)
    ),
    "wrong digest": lambda d: edit(
        d / "manifest.json", lambda m: m["files"]["forest.safetensors"].update(sha256="0" * 64)
    ),
    "2 GB file": lambda d: os.truncate(d / "forest.safetensors", 2 * 2**30),
    "NaN threshold": lambda d: rewrite(d, set_at("threshold", 0, np.nan)),
}  # fmt: skip


@pytest.mark.parametrize("damage", HOSTILE.values(), ids=HOSTILE.keys())
def test_hostile_version_is_neither_promoted_nor_rolled_back_to(
    damage: Callable[[Path], object], tmp_path: Path, forest: Forest
) -> None:
    registry = Registry(tmp_path, feature_names=NAMES)
    bad = registry.publish(train(ROWS, trees=20, seed=1))
    registry.promote(bad)
    registry.promote(registry.publish(forest))
    damage(tmp_path / "versions" / bad)
    for call in (lambda: registry.promote(bad), registry.rollback, lambda: registry.load(bad)):
        with pytest.raises(ArtifactError, match=bad):
            call()
    assert registry.current() == forest.version
    assert registry.load(forest.version).version == forest.version


def test_too_deep_tree_is_refused(directory: Path) -> None:
    def chain(arrays: dict[str, NDArray[Any]]) -> None:
        inner = np.arange(40) % 2 == 0
        arrays["left"] = np.where(inner, np.arange(40) + 1, -1).astype(np.int32)
        arrays["right"] = np.where(inner, np.arange(40) + 2, -1).astype(np.int32)
        for name in ("left", "right"):
            arrays[name] = np.append(arrays[name], np.int32(-1))
        arrays["feature"] = np.append(np.where(inner, 0, -1), -1).astype(np.int32)
        arrays["threshold"], arrays["path"] = np.zeros(41, np.float32), np.ones(41)
        arrays["roots"] = np.zeros(1, np.int32)

    rewrite(directory, chain)
    with pytest.raises(ArtifactError, match=r"forest\.safetensors: node \d+ lies below 8 splits"):
        load(directory, feature_names=NAMES)


def test_too_many_trees_are_refused(directory: Path) -> None:
    def stumps(arrays: dict[str, NDArray[Any]]) -> None:
        count = 1_000_000
        arrays["roots"] = np.arange(count, dtype=np.int32)
        arrays["left"] = arrays["right"] = arrays["feature"] = np.full(count, -1, np.int32)
        arrays["threshold"], arrays["path"] = np.zeros(count, np.float32), np.ones(count)

    rewrite(directory, stumps)
    with pytest.raises(ArtifactError, match=r"forest\.safetensors: 1000000 trees, but at most 10000"):
        load(directory, feature_names=NAMES)


class Bomb:
    """Creates a file if it is unpickled."""

    def __init__(self, trace: Path) -> None:
        self.trace = trace

    def __reduce__(self) -> tuple[Any, ...]:
        return (Path.touch, (self.trace,))


def test_pickle_is_never_loaded(directory: Path, tmp_path: Path) -> None:
    trace = tmp_path / "opened"
    (directory / "forest.safetensors").write_bytes(pickle.dumps(Bomb(trace)))
    seal(directory)
    with pytest.raises(ArtifactError, match=r"forest\.safetensors: is not a whole safetensors file"):
        load(directory, feature_names=NAMES)
    assert not trace.exists()


@pytest.mark.parametrize(
    "header",
    [
        {"path": {"dtype": "F64", "shape": [10**12], "data_offsets": [0, 8 * 10**12]}},
        {"path": {"dtype": "F64", "shape": [10**12], "data_offsets": [0, 8]}},
        {"path": {"dtype": "F64", "shape": [2**62, 4], "data_offsets": [0, 8]}},
        {"path": {"dtype": "O", "shape": [1], "data_offsets": [0, 8]}},
        {"path": {"dtype": "BF16", "shape": [4], "data_offsets": [0, 8]}},
        {"path": {"dtype": "F64", "shape": [-1], "data_offsets": [0, 8]}},
    ],
)
def test_invalid_header_is_refused(directory: Path, header: dict[str, Any]) -> None:
    text = json.dumps(header).encode()
    (directory / "forest.safetensors").write_bytes(len(text).to_bytes(8, "little") + text + bytes(8))
    seal(directory)
    with pytest.raises(ArtifactError, match=r"forest\.safetensors: "):
        load(directory, feature_names=NAMES)


@pytest.mark.parametrize("size", [0, 2**30, 2**63])
def test_wrong_header_size_is_refused(directory: Path, size: int) -> None:
    (directory / "forest.safetensors").write_bytes(size.to_bytes(8, "little") + b"{}")
    seal(directory)
    with pytest.raises(ArtifactError, match=r"forest\.safetensors: "):
        load(directory, feature_names=NAMES)


def test_random_damage_with_a_matching_manifest_is_refused_or_harmless(directory: Path) -> None:
    chance = random.Random(0)
    originals = {name: (directory / name).read_bytes() for name in LIMITS}
    refused = 0
    for _ in range(300):
        name = chance.choice(sorted(originals.keys() - {"manifest.json"}))
        data = bytearray(originals[name])
        for _ in range(chance.randint(1, 4)):
            data[chance.randrange(len(data))] = chance.randrange(256)
        (directory / name).write_bytes(data)
        seal(directory)
        try:
            load(directory, feature_names=NAMES)
        except ArtifactError:
            refused += 1
        for file, content in originals.items():
            (directory / file).write_bytes(content)
    assert refused > 200
