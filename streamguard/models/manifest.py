"""The manifest of an artifact: its files and digests, origin and signature, read with size limits."""

from __future__ import annotations

import hashlib
import hmac
import os
import re
import stat
from datetime import datetime
from pathlib import Path
from typing import Annotated, Any, TypeVar

import msgspec

from streamguard.errors import ConfigurationError

Kind = TypeVar("Kind")

FORMAT = 2
LIMITS = {
    "manifest.json": 2**20,
    "calibration.json": 2**20,
    "features.json": 2**20,
    "metrics.json": 2**20,
    "forest.safetensors": 2**26,
}
"""Files of an artifact, and the maximum size of each in bytes."""

OPTIONAL = {"peers.safetensors": 2**25}
"""The same for files that an artifact may lack. Versions before these files refuse an artifact that has one."""


_RFC3339 = re.compile(r"\d{4}-\d\d-\d\d[Tt ]\d\d:\d\d:\d\d(\.\d{1,9})?([Zz]|[+-]\d\d:\d\d)", re.ASCII)


class ArtifactError(ConfigurationError):
    """An artifact that cannot be trusted; the message names the file and says what is wrong with it."""


class Origin(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Origin of a forest, as stated by the process that trained it."""

    rows: int = 0
    """Number of training rows."""
    parameters: dict[str, Any] = {}
    """Parameters of the training: seed, trees, samples."""
    offsets: dict[str, Any] = {}
    """Offsets of the source: partition -> first and last."""
    events_until: str | None = None
    """Time of the last event of the history on which the forest was trained, in RFC 3339. The time of training is not
    stored, so that the same events result in the same bytes."""


class File(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Digest and size of a file."""

    sha256: str
    size: int


class Manifest(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Contents of an artifact."""

    format: int
    version: str
    origin: Origin
    files: dict[str, File]
    weight: Annotated[float, msgspec.Meta(ge=0.0, le=1.0)] | msgspec.UnsetType = msgspec.UNSET
    """Weight of the forest; a manifest of version 0.1 has none, which means 1."""
    hmac: str | None = None
    """HMAC-SHA256 of this manifest without this field, as compact JSON with sorted keys."""

    def sign(self, key: bytes) -> str:
        """Compute the `hmac` of this manifest with a key."""
        unsigned = msgspec.structs.replace(self, hmac=None)
        return hmac.new(key, msgspec.json.encode(unsigned, order="sorted"), hashlib.sha256).hexdigest()


def read(directory: str | Path, *, key: bytes | None = None) -> Manifest:
    """Read the manifest of an artifact.

    Parameters
    ----------
    directory
        Directory of the artifact.
    key
        If given, a manifest that is not signed with it is refused; otherwise signatures are not checked.

    Raises
    ------
    ArtifactError
        If the manifest is missing, damaged, has another format, or is not signed with the key.
    """
    path = Path(directory) / "manifest.json"
    manifest = decode(path, read_file(path, LIMITS[path.name]), Manifest)
    if manifest.format != FORMAT:
        raise ArtifactError(
            f"{path}: format {manifest.format}, but this version reads format {FORMAT}: train again"
        )
    if key is not None:
        if manifest.hmac is None:
            raise ArtifactError(
                f"{path}: not signed, but a key is set: unset models.key_file, or remove the version and run "
                "`streamguard retrain --fresh` to publish a signed one"
            )
        if not hmac.compare_digest(manifest.hmac.encode(), manifest.sign(key).encode()):
            raise ArtifactError(
                f"{path}: the signature does not match the key that is set: set the key with which it was signed, or "
                "remove the version and run `streamguard retrain --fresh` to publish it again"
            )
    if manifest.files.keys() - OPTIONAL.keys() != LIMITS.keys() - {"manifest.json"}:
        raise ArtifactError(f"{path}: files {sorted(manifest.files)} are not those of an artifact")
    return manifest


def events_until(about: Manifest) -> float | None:
    """Return `Origin.events_until` in epoch seconds; None if the manifest has none, or if it is not in RFC 3339.

    Examples
    --------
    >>> events_until(Manifest(1, "0123456789ab", Origin(events_until="2026-01-02T03:04:05Z"), {}))
    1767323045.0
    >>> events_until(Manifest(1, "0123456789ab", Origin(events_until="yesterday"), {})) is None
    True
    """
    if not _RFC3339.fullmatch(about.origin.events_until or ""):
        return None
    try:
        return datetime.fromisoformat(about.origin.events_until or "").timestamp()
    except (ValueError, OverflowError):
        return None


def encode(value: object) -> bytes:
    """Encode a value as indented JSON with sorted keys; the same value results in the same bytes."""
    return msgspec.json.format(msgspec.json.encode(value, order="sorted")) + b"\n"


def decode(path: Path, data: bytes, kind: type[Kind]) -> Kind:
    """Decode the content of a JSON file.

    Raises
    ------
    ArtifactError
        If the content is not JSON or not of this kind; the message names the file and the place in it.
    """
    try:
        return msgspec.json.decode(data, type=kind)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise ArtifactError(f"{path}: {error}") from None


def read_file(path: Path, limit: int) -> bytes:
    """Read a file of at most `limit` bytes; a pipe of that name does not block.

    Raises
    ------
    ArtifactError
        If the file is missing, not a regular file, or larger.
    """
    try:
        handle = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        try:
            about = os.fstat(handle)
            if not stat.S_ISREG(about.st_mode):
                raise ArtifactError(f"{path}: not a regular file")
            if about.st_size > limit:
                raise ArtifactError(f"{path}: {about.st_size} bytes, but at most {limit} are read")
            with open(handle, "rb", closefd=False) as file:
                return file.read(limit)
        finally:
            os.close(handle)  # `open` does not close the handle of a directory, which it refuses
    except OSError as error:
        raise ArtifactError(f"{path}: {error.strerror}") from None
