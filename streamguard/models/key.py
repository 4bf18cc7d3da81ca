"""The key that signs published versions."""

from __future__ import annotations

from pathlib import Path

from streamguard.models.manifest import ArtifactError
from streamguard.settings.schema import Models
from streamguard.text import counted

_MIN_KEY = 16


def key_of(models: Models) -> bytes | None:
    """Return the key of the settings; None if they name no key file.

    Raises
    ------
    ArtifactError
        If the file cannot be read or has fewer than 16 bytes.
    """
    if not models.key_file:
        return None
    try:
        key = Path(models.key_file).read_bytes()
    except OSError as error:
        raise ArtifactError(f"models.key_file {models.key_file}: {error.strerror}") from None
    if len(key) < _MIN_KEY:
        raise ArtifactError(
            f"models.key_file {models.key_file} has {counted(len(key), 'byte')}, the minimum is {_MIN_KEY}: "
            "create a random key with `openssl rand -out FILE 32`"
        )
    return key
