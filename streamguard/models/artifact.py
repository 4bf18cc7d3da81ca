"""A forest with its peers as a directory of files: written byte for byte the same, read back only after every check."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from streamguard.models import arrays, manifest, peer_values
from streamguard.models.forest import BLOCK, Forest
from streamguard.models.manifest import ArtifactError, File, Manifest, Origin, decode, encode, read_file
from streamguard.models.peer_values import PeerValues
from streamguard.models.tail import Tail
from streamguard.models.trees import Trees

__all__ = ["ArtifactError", "Manifest", "Origin", "feature_hash", "load", "read_metrics", "save"]

_ARRAYS: dict[str, np.dtype[Any]] = {
    "features": np.dtype("<i8"),
    "normaliser": np.dtype("<f8"),
    "roots": np.dtype("<i4"),
    "feature": np.dtype("<i4"),
    "threshold": np.dtype("<f4"),
    "left": np.dtype("<i4"),
    "right": np.dtype("<i4"),
    "path": np.dtype("<f8"),
    "golden_rows": np.dtype("<f4"),
    "golden_scores": np.dtype("<f8"),
}
_PEERS = "peers.safetensors"
_DIMENSIONS = {"features": 0, "normaliser": 0, "golden_rows": 2}
_GOLDEN_TOLERANCE = 1e-14
"""Relative. The path lengths are exact everywhere, but the last bit of 2**x is the processor's own."""


class _Features(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    names: list[str]
    sha256: str


class _Calibration(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    anomaly: list[float]
    level: list[float]
    slope: float


def feature_hash(names: Sequence[str]) -> str:
    """SHA-256 of the ordered feature names."""
    return hashlib.sha256("\n".join(names).encode()).hexdigest()


def save(
    forest: Forest,
    directory: str | Path,
    *,
    feature_names: Sequence[str],
    origin: Origin | None = None,
    metrics: dict[str, Any] | None = None,
    key: bytes | None = None,
) -> None:
    """Write a forest into a directory; the same arguments give the same bytes.

    Parameters
    ----------
    forest
        The trained forest.
    directory
        It is created if it is missing. Files of an older artifact are overwritten one by one; use a registry if a
        process may read the directory at the same time.
    feature_names
        Names of the columns of a row; the artifact contains those on which the trees split.
    origin, metrics
        Information for people and for the gate; metrics are any JSON object.
    key
        Key that signs the manifest; None for a manifest without a signature.

    Raises
    ------
    ValueError
        If there are more or fewer names than features.
    """
    if len(feature_names) != forest.features:
        raise ValueError(f"{len(feature_names)} feature names for a forest of {forest.features} features")
    names = [feature_names[k] for k in forest.columns]
    flat = {name: getattr(forest.trees, name) for name in _ARRAYS if not name.startswith("golden")}
    flat |= {"golden_rows": forest.golden_rows, "golden_scores": forest.golden_scores}
    tail = forest.tail
    files = {
        "forest.safetensors": arrays.pack(
            {name: np.asarray(flat[name], dtype) for name, dtype in _ARRAYS.items()}
        ),
        "calibration.json": encode(_Calibration(tail.anomaly.tolist(), tail.level.tolist(), tail.slope)),
        "features.json": encode(_Features(names, feature_hash(names))),
        "metrics.json": encode(metrics or {}),
    }
    if forest.peers is not None:
        files[_PEERS] = forest.peers.pack()
    described = {
        name: File(hashlib.sha256(data).hexdigest(), len(data)) for name, data in sorted(files.items())
    }
    about = Manifest(manifest.FORMAT, forest.version, origin or Origin(), described, weight=forest.weight)
    if key is not None:
        about = msgspec.structs.replace(about, hmac=about.sign(key))
    files["manifest.json"] = encode(about)
    target = Path(directory)
    target.mkdir(parents=True, exist_ok=True)
    for name, data in files.items():
        with (target / name).open("wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())


def load(
    directory: str | Path,
    *,
    feature_names: Sequence[str],
    key: bytes | None = None,
    between_steps: Callable[[], object] = lambda: None,
) -> Forest:
    """Read a forest and score its golden rows again.

    Parameters
    ----------
    directory
        Directory of the artifact.
    feature_names
        Names of the columns in this program; those of the artifact must be among them, in the same order.
    key
        See `streamguard.models.manifest.read`.
    between_steps
        Called between the steps of loading, each of which holds the interpreter lock for less than a millisecond.

    Raises
    ------
    ArtifactError
        If a file is missing, too large or changed since it was written, if features are unknown, arrays have a wrong
        type or shape, nodes do not form a tree, the calibration does not rise, golden rows score differently, or peers
        are not sorted.
    """
    directory = Path(directory)
    about = manifest.read(directory, key=key)
    content = {}
    for name, file in about.files.items():
        between_steps()
        content[name] = _described(directory / name, file)
    decode(directory / "metrics.json", content["metrics.json"], dict[str, Any])
    path = directory / "features.json"
    features = decode(path, content["features.json"], _Features)
    if features.sha256 != feature_hash(features.names):
        raise ArtifactError(f"{path}: the hash is not that of the names beside it")
    columns = _columns(path, features.names, list(feature_names))
    path = directory / "calibration.json"
    calibration = decode(path, content["calibration.json"], _Calibration)
    try:
        tail = Tail(np.array(calibration.anomaly), np.array(calibration.level), calibration.slope)
    except ValueError as error:
        raise ArtifactError(f"{path}: {error}") from None
    path, peers = directory / _PEERS, None
    if _PEERS in content:
        between_steps()
        try:
            peers = peer_values.unpack(content[_PEERS])
        except ValueError as error:
            raise ArtifactError(f"{path}: {error}") from None
    path = directory / "forest.safetensors"
    between_steps()
    try:
        flat = arrays.unpack(content["forest.safetensors"], _ARRAYS, _DIMENSIONS)
        between_steps()
        weight = 1.0 if about.weight is msgspec.UNSET else about.weight
        forest = _forest(flat, tail, columns, len(feature_names), weight, peers, between_steps)
    except ValueError as error:
        raise ArtifactError(f"{path}: {error}") from None
    if forest.version != about.version:
        raise ArtifactError(
            f"{directory}: manifest.json says version {about.version}, the files are {forest.version}"
        )
    return forest


def read_metrics(directory: str | Path, *, key: bytes | None = None) -> dict[str, Any]:
    """The metrics of an artifact, without reading its forest.

    Raises
    ------
    ArtifactError
        If manifest or metrics are missing, damaged, or not signed with the key.
    """
    path = Path(directory) / "metrics.json"
    about = manifest.read(directory, key=key)
    return decode(path, _described(path, about.files[path.name]), dict[str, Any])


def _described(path: Path, file: File) -> bytes:
    data = read_file(path, (manifest.LIMITS | manifest.OPTIONAL)[path.name])
    if len(data) != file.size or hashlib.sha256(data).hexdigest() != file.sha256:
        raise ArtifactError(f"{path}: not the file that manifest.json describes (size or SHA-256)")
    return data


def _forest(
    flat: dict[str, NDArray[Any]],
    tail: Tail,
    columns: NDArray[np.int64],
    width: int,
    weight: float,
    peers: PeerValues | None,
    between_steps: Callable[[], object],
) -> Forest:
    rows, scores = flat.pop("golden_rows"), flat.pop("golden_scores")
    trees = Trees(int(flat.pop("features")), float(flat.pop("normaliser")), **flat)
    if trees.features != len(columns):
        raise ValueError(f"trees over {trees.features} features, but features.json names {len(columns)}")
    forest = Forest(trees, tail, rows, scores, weight=weight, columns=columns, width=width, peers=peers)
    between_steps()
    wide = np.zeros((len(rows), width), np.float32)
    wide[:, columns] = rows
    # Each batch runs through another kernel, which is then compiled as well.
    for batch in (wide, np.resize(wide, (BLOCK, width))):
        expected = np.resize(scores, len(batch))
        error = np.abs(forest.score_samples(batch) - expected)
        wrong = ~(error <= _GOLDEN_TOLERANCE * np.abs(expected))
        if wrong.any():
            row = int(wrong.argmax()) % len(rows)
            raise ValueError(f"golden row {row} does not score {scores[row]} again")
    return forest


def _columns(path: Path, theirs: list[str], ours: list[str]) -> NDArray[np.int64]:
    """Columns of an artifact's features in the rows of this program, which may have more."""
    unknown = [name for name in theirs if name not in ours]
    if unknown:
        raise ArtifactError(
            f"{path}: trained with feature {unknown[0]!r}, which this version does not have: train again"
        )
    columns = np.array([ours.index(name) for name in theirs], np.int64)
    if not len(columns) or (np.diff(columns) <= 0).any():
        raise ArtifactError(f"{path}: features in another order than in this version: train again")
    return columns
