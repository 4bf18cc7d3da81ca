"""The key that signs publications."""

from __future__ import annotations

from pathlib import Path

from streamguard.models.manifest import ArtifactError
from streamguard.settings.schema import Models

_MIN_KEY = 16


def key_of(models: Models) -> bytes | None:
    """The key that the settings name; None if they name none.

    Raises
    ------
    ArtifactError
        If it cannot be read, or has fewer than 16 bytes.
    """
    if not models.key_file:
        return None
    try:
        key = Path(models.key_file).read_bytes()
    except OSError as error:
        raise ArtifactError(f"models.key_file {models.key_file}: {error.strerror}") from None
    if len(key) < _MIN_KEY:
        raise ArtifactError(
            f"models.key_file {models.key_file} has {len(key)} bytes, {_MIN_KEY} are needed: "
            "write random ones, such as `openssl rand -out FILE 32` makes"
        )
    return key
