"""A forest as a directory of plain files: written byte for byte the same, read back only after every check."""

from __future__ import annotations

import hashlib
import hmac
import os
import stat
from collections.abc import Sequence
from pathlib import Path
from typing import Any, TypeVar

import msgspec
import numpy as np
from numpy.typing import NDArray

from streamguard.forest import BLOCK, Forest
from streamguard.models import arrays
from streamguard.tail import Tail
from streamguard.trees import Trees

Kind = TypeVar("Kind")

FORMAT = 1
LIMITS = {
    "manifest.json": 2**20,
    "calibration.json": 2**20,
    "features.json": 2**20,
    "metrics.json": 2**20,
    "forest.npz": 2**26,
}
"""The files of an artifact and the bytes that each may have."""

_ARRAYS = {
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
_DIMENSIONS = {"features": 0, "normaliser": 0, "golden_rows": 2}
_GOLDEN_TOLERANCE = 1e-14
"""Relative. The path lengths are exact everywhere, but the last bit of 2**x is the processor's own."""


class ArtifactError(ValueError):
    """An artifact that is not to be trusted; the message says which file, and what is wrong with it."""


class Origin(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Where a forest comes from, as far as its maker tells."""

    rows: int = 0
    """Rows that it was trained on."""
    parameters: dict[str, Any] = {}
    """Of the training: seed, trees, samples."""
    offsets: dict[str, Any] = {}
    """Of the source: partition -> first and last."""
    created: str | None = None
    """When, in RFC 3339. Left out, two savings of one forest are the same bytes."""


class File(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What the manifest says of a file."""

    sha256: str
    size: int


class Manifest(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What an artifact is made of."""

    format: int
    version: str
    origin: Origin
    files: dict[str, File]
    hmac: str | None = None
    """HMAC-SHA256 of this manifest without it, as compact JSON with sorted keys."""

    def sign(self, key: bytes) -> str:
        """What `hmac` should be under this key."""
        unsigned = msgspec.structs.replace(self, hmac=None)
        return hmac.new(key, msgspec.json.encode(unsigned, order="sorted"), hashlib.sha256).hexdigest()


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
        As trained.
    directory
        Made if missing. Files of an older artifact in it are overwritten one by one: publish through a registry
        where somebody may be reading.
    feature_names
        In the order of the columns.
    origin, metrics
        For people and for the gate; metrics are any JSON object.
    key
        Signs the manifest if given.

    Raises
    ------
    ValueError
        If there are more or fewer names than features.
    """
    if len(feature_names) != forest.features:
        raise ValueError(f"{len(feature_names)} feature names for a forest of {forest.features} features")
    flat = {name: getattr(forest.trees, name) for name in _ARRAYS if not name.startswith("golden")}
    flat |= {"golden_rows": forest.golden_rows, "golden_scores": forest.golden_scores}
    tail = forest.tail
    files = {
        "forest.npz": arrays.pack({name: np.asarray(flat[name], dtype) for name, dtype in _ARRAYS.items()}),
        "calibration.json": _json(_Calibration(tail.anomaly.tolist(), tail.level.tolist(), tail.slope)),
        "features.json": _json(_Features(list(feature_names), feature_hash(feature_names))),
        "metrics.json": _json(metrics or {}),
    }
    described = {
        name: File(hashlib.sha256(data).hexdigest(), len(data)) for name, data in sorted(files.items())
    }
    manifest = Manifest(FORMAT, forest.version, origin or Origin(), described)
    if key is not None:
        manifest = msgspec.structs.replace(manifest, hmac=manifest.sign(key))
    files["manifest.json"] = _json(manifest)
    target = Path(directory)
    target.mkdir(parents=True, exist_ok=True)
    for name, data in files.items():
        with (target / name).open("wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())


def read_manifest(directory: str | Path, *, key: bytes | None = None) -> Manifest:
    """The manifest of an artifact.

    Parameters
    ----------
    directory
        Of the artifact.
    key
        If given, a manifest that is not signed with it is refused; otherwise a signature is not looked at.

    Raises
    ------
    ArtifactError
        If it is missing, damaged, of another format or not signed with the key.
    """
    path = Path(directory) / "manifest.json"
    manifest = _decode(path, _read(path), Manifest)
    if manifest.format != FORMAT:
        raise ArtifactError(f"{path}: format {manifest.format}, but this version reads {FORMAT}: train again")
    if key is not None:
        if manifest.hmac is None:
            raise ArtifactError(f"{path}: not signed, but a key is set")
        if not hmac.compare_digest(manifest.hmac.encode(), manifest.sign(key).encode()):
            raise ArtifactError(f"{path}: the signature does not fit the key that is set")
    if manifest.files.keys() != LIMITS.keys() - {"manifest.json"}:
        raise ArtifactError(f"{path}: files {sorted(manifest.files)} are not those of an artifact")
    return manifest


def load(directory: str | Path, *, feature_names: Sequence[str], key: bytes | None = None) -> Forest:
    """Read a forest and score its golden rows again.

    Parameters
    ----------
    directory
        Of the artifact.
    feature_names
        What the columns are in this program; those of the artifact must be the same, in the same order.
    key
        As for `read_manifest`.

    Raises
    ------
    ArtifactError
        At the first doubt: a file missing, too large, changed since it was written, of the wrong shape or kind,
        trees that are none, other features, calibration that is not monotone, golden rows that score otherwise.
    """
    directory = Path(directory)
    manifest = read_manifest(directory, key=key)
    content = {}
    for name, file in manifest.files.items():
        content[name] = data = _read(directory / name)
        if len(data) != file.size or hashlib.sha256(data).hexdigest() != file.sha256:
            raise ArtifactError(
                f"{directory / name}: not the file that manifest.json describes (size or SHA-256)"
            )
    _decode(directory / "metrics.json", content["metrics.json"], dict[str, Any])
    path = directory / "features.json"
    features = _decode(path, content["features.json"], _Features)
    if features.sha256 != feature_hash(features.names):
        raise ArtifactError(f"{path}: the hash is not that of the names beside it")
    if features.names != list(feature_names):
        raise ArtifactError(f"{path}: {_difference(features.names, list(feature_names))}: train again")
    path = directory / "calibration.json"
    calibration = _decode(path, content["calibration.json"], _Calibration)
    try:
        tail = Tail(np.array(calibration.anomaly), np.array(calibration.level), calibration.slope)
    except ValueError as error:
        raise ArtifactError(f"{path}: {error}") from None
    path = directory / "forest.npz"
    try:
        forest = _forest(
            arrays.unpack(content["forest.npz"], _ARRAYS, _DIMENSIONS), tail, len(features.names)
        )
    except ValueError as error:
        raise ArtifactError(f"{path}: {error}") from None
    if forest.version != manifest.version:
        raise ArtifactError(
            f"{directory}: manifest.json says version {manifest.version}, the files are {forest.version}"
        )
    return forest


def _forest(flat: dict[str, NDArray[Any]], tail: Tail, features: int) -> Forest:
    rows, scores = flat.pop("golden_rows"), flat.pop("golden_scores")
    trees = Trees(int(flat.pop("features")), float(flat.pop("normaliser")), **flat)
    if trees.features != features:
        raise ValueError(f"trees over {trees.features} features, but features.json names {features}")
    forest = Forest(trees, tail, rows, scores)
    for batch in (
        rows,
        np.resize(rows, (BLOCK, features)),
    ):  # each by its kernel, which is then compiled, too
        expected = np.resize(scores, len(batch))
        error = np.abs(forest.score_samples(batch) - expected)
        wrong = ~(error <= _GOLDEN_TOLERANCE * np.abs(expected))
        if wrong.any():
            row = int(wrong.argmax()) % len(rows)
            raise ValueError(f"golden row {row} does not score {scores[row]} again")
    return forest


def _difference(theirs: list[str], ours: list[str]) -> str:
    if len(theirs) != len(ours):
        return f"trained on {len(theirs)} features, but there are {len(ours)} now"
    place = next(i for i, (their, our) in enumerate(zip(theirs, ours, strict=True)) if their != our)
    return f"trained with feature {place} = {theirs[place]!r}, which is {ours[place]!r} now"


def _json(value: object) -> bytes:
    return msgspec.json.format(msgspec.json.encode(value, order="sorted")) + b"\n"


def _decode(path: Path, data: bytes, kind: type[Kind]) -> Kind:
    try:
        return msgspec.json.decode(data, type=kind)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise ArtifactError(f"{path}: {error}") from None


def _read(path: Path) -> bytes:
    """All bytes of a regular file that is not over its limit; a pipe in its place does not block."""
    limit = LIMITS[path.name]
    try:
        with open(os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC), "rb") as file:
            about = os.fstat(file.fileno())
            if not stat.S_ISREG(about.st_mode):
                raise ArtifactError(f"{path}: not a regular file")
            if about.st_size > limit:
                raise ArtifactError(f"{path}: {about.st_size} bytes, but at most {limit} are read")
            return file.read(limit)
    except OSError as error:
        raise ArtifactError(f"{path}: {error.strerror}") from None
