"""A record that a user is forgotten: servers drop the user's incidents up to it. It does not name the user."""

from __future__ import annotations

import hashlib
import secrets
from collections.abc import Iterable
from typing import Annotated, Final, Literal

import msgspec

from streamguard.errors import DataError

VERSION: Final = 1
KEY_PREFIX = b"\0forgotten/"
"""Beginning of the keys of these records. Keys of actions begin with a printable character."""
MAX_INCIDENTS = 1_000
"""Incidents that one record names."""
MAX_PARTITIONS = 100_000
_SALT_BYTES = 16
_MAX_RECORD_BYTES = 4 << 20
_Hex32 = Annotated[str, msgspec.Meta(pattern=r"^[0-9a-f]{32}\Z")]
_Hex64 = Annotated[str, msgspec.Meta(pattern=r"^[0-9a-f]{64}\Z")]
_Offset = Annotated[int, msgspec.Meta(ge=0, le=1 << 62)]


class ForgottenError(DataError):
    """A value is no record of this kind."""


class Forgotten(
    msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True, tag_field="kind", tag="forgotten"
):
    """A user is forgotten.

    Attributes
    ----------
    version
        `VERSION`.
    at
        When, RFC 3339.
    topic_id
        Kafka's id of the alerts topic; its offsets mean nothing in another one.
    ends
        By partition of the alerts topic, the offset from which on incidents of the user count again.
    salt, digest
        The name, as `digest_of` hashes it. Records about one topic have one salt, see `salt_of`; those that earlier
        versions have written have one each.
    incidents
        Ids of incidents of the user that records of decisions name together with those of others. These records
        stay, and what they say of these incidents is dropped.
    """

    version: Literal[1]
    at: Annotated[str, msgspec.Meta(max_length=40)]
    topic_id: Annotated[str, msgspec.Meta(max_length=100)]
    ends: Annotated[tuple[_Offset, ...], msgspec.Meta(max_length=MAX_PARTITIONS)]
    salt: _Hex32
    digest: _Hex64
    incidents: Annotated[
        tuple[Annotated[str, msgspec.Meta(min_length=1, max_length=200)], ...],
        msgspec.Meta(max_length=MAX_INCIDENTS),
    ] = ()

    def is_about(self, user: str) -> bool:
        """Whether this is the user."""
        return digest_of(user, self.salt) == self.digest

    def reaches(self, partition: int, offset: int) -> bool:
        """Whether a record of the alerts topic is old enough to be dropped."""
        return partition < len(self.ends) and offset < self.ends[partition]


_decode = msgspec.json.Decoder(Forgotten).decode


def salt_of(earlier: Iterable[Forgotten]) -> str:
    """The salt of a new record: that of the first record about the same topic, or a random one.

    Servers look up the user of every incident among these records, and with one salt they hash the name once.

    Parameters
    ----------
    earlier
        Records about the same topic, the oldest first.

    Examples
    --------
    >>> len(salt_of(()))
    32
    """
    return next((one.salt for one in earlier), None) or secrets.token_hex(_SALT_BYTES)


def digest_of(user: str, salt: str) -> str:
    """The hash of a name with a salt.

    Whoever guesses the name can check the guess, as with every hash. The salt is random, so a table of hashes that was
    made before, or for another deployment, does not serve. It is common to the records about one topic: two of these
    records show whether they are about the same user.

    Examples
    --------
    >>> digest_of("ann", "00" * 16) == digest_of("ann", "00" * 16) != digest_of("ann", "01" * 16)
    True
    """
    return hashlib.blake2b(
        user.encode("utf-8", "surrogatepass"), key=bytes.fromhex(salt), digest_size=32
    ).hexdigest()


def new_key() -> bytes:
    """Key of a new record."""
    return KEY_PREFIX + secrets.token_hex(8).encode()


def encode(record: Forgotten) -> bytes:
    """The value of a record."""
    return msgspec.json.encode(record)


def decode(value: bytes) -> Forgotten:
    """Decode and check the value of a record.

    Raises
    ------
    ForgottenError
        If it is none.
    """
    if len(value) > _MAX_RECORD_BYTES:
        raise ForgottenError("it is too large")
    try:
        return _decode(value)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise ForgottenError(str(error)) from None
