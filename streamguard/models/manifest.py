"""What an artifact says of itself: files and digests, origin, signature; read with limits."""

from __future__ import annotations

import hashlib
import hmac
import os
import re
import stat
from datetime import datetime
from pathlib import Path
from typing import Any, TypeVar

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
"""The files of an artifact and the bytes that each may have."""


_RFC3339 = re.compile(r"\d{4}-\d\d-\d\d[Tt ]\d\d:\d\d:\d\d(\.\d{1,9})?([Zz]|[+-]\d\d:\d\d)", re.ASCII)


class ArtifactError(ConfigurationError):
    """An artifact that is not to be trusted; the message says which file, and what is wrong with it."""


class Origin(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Where a forest comes from, as far as its maker tells."""

    rows: int = 0
    """Rows that it was trained on."""
    parameters: dict[str, Any] = {}
    """Of the training: seed, trees, samples."""
    offsets: dict[str, Any] = {}
    """Of the source: partition -> first and last."""
    events_until: str | None = None
    """How far the events go that it knows, in RFC 3339; when it was trained is not said: same events, same bytes."""


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


def read(directory: str | Path, *, key: bytes | None = None) -> Manifest:
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
    manifest = decode(path, read_file(path, LIMITS[path.name]), Manifest)
    if manifest.format != FORMAT:
        raise ArtifactError(f"{path}: format {manifest.format}, but this version reads {FORMAT}: train again")
    if key is not None:
        if manifest.hmac is None:
            raise ArtifactError(
                f"{path}: not signed, but a key is set: remove the version and let `streamguard retrain --fresh` "
                "publish a signed one, or do without models.key_file"
            )
        if not hmac.compare_digest(manifest.hmac.encode(), manifest.sign(key).encode()):
            raise ArtifactError(
                f"{path}: the signature does not fit the key that is set: set the key it was signed with, or "
                "remove the version and let `streamguard retrain --fresh` publish it anew"
            )
    if manifest.files.keys() != LIMITS.keys() - {"manifest.json"}:
        raise ArtifactError(f"{path}: files {sorted(manifest.files)} are not those of an artifact")
    return manifest


def events_until(about: Manifest) -> float | None:
    """How far a forest's events go, in epoch seconds; None if its manifest does not say so, or not in RFC 3339.

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
    """JSON for people and programs: sorted keys, indented, the same bytes for the same value."""
    return msgspec.json.format(msgspec.json.encode(value, order="sorted")) + b"\n"


def decode(path: Path, data: bytes, kind: type[Kind]) -> Kind:
    """The content of a JSON file.

    Raises
    ------
    ArtifactError
        If it is not JSON or not of this kind; the message names the file and the place in it.
    """
    try:
        return msgspec.json.decode(data, type=kind)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise ArtifactError(f"{path}: {error}") from None


def read_file(path: Path, limit: int) -> bytes:
    """The content of a file of so many bytes at the most; a pipe in its place does not block.

    Raises
    ------
    ArtifactError
        If it is missing, not a regular file, or larger.
    """
    try:
        with os.fdopen(os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC), "rb") as file:
            about = os.fstat(file.fileno())
            if not stat.S_ISREG(about.st_mode):
                raise ArtifactError(f"{path}: not a regular file")
            if about.st_size > limit:
                raise ArtifactError(f"{path}: {about.st_size} bytes, but at most {limit} are read")
            return file.read(limit)
    except OSError as error:
        raise ArtifactError(f"{path}: {error.strerror}") from None
