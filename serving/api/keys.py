"""Access keys: who may ask what, until when. A file holds their hashes only."""

from __future__ import annotations

import hashlib
import logging
import os
import secrets
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import msgspec

from streamguard.errors import CannotWriteError, ConfigurationError
from streamguard.serving.masking.roles import ROLES as ROLES
from streamguard.serving.masking.roles import Right, Role, may

KEY_BYTES = 24
"""Random bytes of a key: too many to guess, few enough to paste."""
MAX_KEYS = 10_000
MAX_FILE_BYTES = 4 << 20


_log = logging.getLogger(__name__)


class Principal(msgspec.Struct, frozen=True):
    """Who asks."""

    name: str
    role: Role

    def may(self, right: Right) -> bool:
        """Whether the role of the principal has a right."""
        return may(self.role, right)


class Key(msgspec.Struct, frozen=True):
    """An access key as the file holds it.

    Attributes
    ----------
    name
        Who uses it; decisions carry this name.
    sha256
        Hash of the key. Keys are random, so the hash needs no salt.
    expires
        Unix time at which the key ends.
    """

    name: Annotated[str, msgspec.Meta(min_length=1, max_length=64, pattern=r"^[\w.@-]+\Z")]
    role: Role
    sha256: Annotated[str, msgspec.Meta(pattern="^[0-9a-f]{64}$")]
    expires: float


def new_key(name: str, role: Role, seconds: float, now: float | None = None) -> tuple[str, Key]:
    """A random key, and what the file holds of it."""
    key = "sg_" + secrets.token_urlsafe(KEY_BYTES)
    return key, Key(name, role, digest(key), (time.time() if now is None else now) + seconds)


def read(path: Path) -> list[Key]:
    """The keys of a file; none if it is missing.

    Raises
    ------
    ConfigurationError
        If the file cannot be read or is not one of keys.
    """
    try:
        with path.open("rb") as file:
            text = file.read(MAX_FILE_BYTES + 1)
        if len(text) > MAX_FILE_BYTES:
            raise ConfigurationError(
                f"serve.keys_file: {path} is larger than {MAX_FILE_BYTES:,} bytes: it is not a list of keys"
            )
        return msgspec.json.decode(text, type=list[Key])
    except FileNotFoundError:
        return []
    except (OSError, msgspec.MsgspecError, UnicodeDecodeError) as error:
        raise ConfigurationError(
            f"serve.keys_file: {path} cannot be read as a list of keys ({error}): restore it, or delete it and add the "
            "keys again with `streamguard keys add`"
        ) from None


def write(path: Path, keys: Sequence[Key]) -> None:
    """Replace the file, readable for its owner only.

    Raises
    ------
    CannotWriteError
        If it cannot be written.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
        with os.fdopen(handle, "wb") as file:
            file.write(msgspec.json.format(msgspec.json.encode(list(keys)), indent=1) + b"\n")
            file.flush()
            os.fsync(file.fileno())
        Path(temporary).replace(path)
    except OSError as error:
        raise CannotWriteError(f"serve.keys_file: {path} cannot be written: {error.strerror}") from None


class Keyring:
    """Recognises keys; every method may be called from any thread.

    Parameters
    ----------
    path
        File of the keys, read again when it changes; None: only the given key.
    given
        A key that is valid besides those of the file.
    """

    def __init__(self, path: Path | None, given: Key | None = None) -> None:
        self._path, self._given = path, given
        self._stamp = self._stat()
        self._keys = self._read()

    def _stat(self) -> tuple[int, int] | None:
        try:
            found = self._path.stat() if self._path is not None else None
        except OSError:
            return None
        return (found.st_mtime_ns, found.st_size) if found is not None else None

    def _read(self) -> dict[str, Key]:
        keys = read(self._path) if self._path is not None else []
        return {one.sha256: one for one in [*keys, *([self._given] if self._given else [])]}

    def _reload(self) -> None:
        """Read the file again if it has changed; while it cannot be read, no key of it is valid."""
        if (stamp := self._stat()) == self._stamp:
            return
        self._stamp = stamp
        try:
            self._keys = self._read()
        except ConfigurationError as error:
            _log.error("no access key is valid until the file can be read: %s", error)
            self._keys = {}

    def principal(self, key: str) -> Principal | None:
        """The owner of this key; None if nobody has, or the key has expired."""
        return self.of_digest(digest(key))

    def of_digest(self, digest: str) -> Principal | None:
        """The owner of the key with this hash, as a session holds it; None if there is none, or the key has expired."""
        self._reload()
        found = self._keys.get(digest)
        return (
            Principal(found.name, found.role) if found is not None and found.expires > time.time() else None
        )

    def is_given(self, key: str) -> bool:
        """Whether this is the key that the server made for itself."""
        return self._given is not None and self._given.sha256 == digest(key)

    def has_keys(self) -> bool:
        """Whether any key is valid now."""
        self._reload()
        return any(one.expires > time.time() for one in self._keys.values())


def digest(key: str) -> str:
    """Hash of a key, as the file has it."""
    return hashlib.sha256(key.encode()).hexdigest()
