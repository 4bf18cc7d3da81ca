"""Pseudonyms of users and addresses: a name always has the same one, and without the key neither leads to the other."""

from __future__ import annotations

import base64
import hashlib
import hmac
import os
import re
import secrets
from pathlib import Path

from streamguard.errors import ConfigurationError
from streamguard.text import counted

BYTES = 10
"""Bytes of a pseudonym: two of 100 million names have the same 80 bits with a probability of 1 in 240 million."""
MIN_KEY_BYTES = 16
MAX_KEY_BYTES = 4096
KEY_NAME = "pseudonym.key"
"""File in the data directory that holds the key, unless the settings name another one."""
_READABLE = str.maketrans("abcdefghijklmnopqrstuvwxyz234567", "0123456789abcdefghjkmnpqrstvwxyz")
"""From the digits of base32 to those of Crockford, among which no two look alike."""
_SHAPE = re.compile(r"(?:user|source)-[0-9a-hjkmnp-tv-z]{16}")


class Pseudonyms:
    """Pseudonyms under one key.

    Parameters
    ----------
    key
        At least 16 random bytes.

    Examples
    --------
    >>> Pseudonyms(bytes(32)).of("user", "ann")
    'user-xsqafs31gkjddh1d'
    """

    def __init__(self, key: bytes) -> None:
        self._key = hmac.new(key, b"streamguard pseudonyms", hashlib.sha256)

    def of(self, kind: str, name: str) -> str:
        """The pseudonym of a user or an address; another kind of entity is no person, and keeps its name."""
        if kind not in ("user", "source"):
            return name
        made = self._key.copy()
        made.update(f"{kind}\0{name}".encode("utf-8", "surrogatepass"))
        text = base64.b32encode(made.digest()[:BYTES]).decode().lower()
        return f"{kind}-{text.translate(_READABLE)}"

    @property
    def fingerprint(self) -> str:
        """A text that differs for another key and reveals nothing of it."""
        made = self._key.copy()
        made.update(b"fingerprint")
        return made.hexdigest()[:16]


def is_pseudonym(text: str) -> bool:
    """Whether a text has the form of a pseudonym.

    Examples
    --------
    >>> is_pseudonym("user-xsqafs31gkjddh1d"), is_pseudonym("user-00064")
    (True, False)
    """
    return _SHAPE.fullmatch(text) is not None


def key_of(file: str, directory: Path) -> bytes:
    """The key of a deployment.

    Parameters
    ----------
    file
        Setting `serve.pseudonym_key_file`; empty: a random key, which is made once and kept in the directory.
    directory
        The data directory of the server.

    Raises
    ------
    ConfigurationError
        If the file cannot be read or written, or is not a key.
    """
    path = Path(file) if file else directory / KEY_NAME
    try:
        if not file:
            _make(path)
        with path.open("rb") as source:
            key = source.read(MAX_KEY_BYTES + 1)
    except OSError as error:
        raise ConfigurationError(
            f"the key of the pseudonyms, {path}, cannot be used: {error.strerror}; create it with `openssl rand -out "
            "FILE 32`, readable for the server only, and set serve.pseudonym_key_file"
        ) from None
    if not MIN_KEY_BYTES <= len(key) <= MAX_KEY_BYTES:
        raise ConfigurationError(
            f"the key of the pseudonyms, {path}, has {counted(len(key), 'byte')}; {MIN_KEY_BYTES} to {MAX_KEY_BYTES} "
            "are required: create it with `openssl rand -out FILE 32`"
        )
    return key


def _make(path: Path) -> None:
    """Write a random key, readable for its owner only, unless there is one."""
    if path.exists():
        return
    temporary = path.with_name(f".{path.name}")
    temporary.unlink(missing_ok=True)
    handle = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(handle, "wb") as file:
        file.write(secrets.token_bytes(32))
        file.flush()
        os.fsync(file.fileno())
    temporary.replace(path)
