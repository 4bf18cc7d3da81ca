"""What is said on the models topic: a version was promoted, or is used by a worker. All of it is hearsay."""

from __future__ import annotations

from typing import Annotated, TypeVar

import msgspec

PROMOTED_KEY = b"current"
"""Key of `Promoted` messages; every other key is a worker's own."""
MOST_BYTES = 1024
"""Longer messages are not looked at."""

Version = Annotated[str, msgspec.Meta(pattern=r"^[0-9a-f]{12}\Z")]


class Promoted(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A registry's pointer moved. Only a hint to look there: what is current, the registry decides."""

    version: Version
    previous: Version | None = None


class InUse(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What a worker of an application scores with."""

    app_id: Annotated[str, msgspec.Meta(max_length=255)]
    version: Version | None


Announcement = TypeVar("Announcement", Promoted, InUse)


def decode(value: bytes, kind: type[Announcement]) -> Announcement | None:
    """A message of this kind; None if it is too long or anything else.

    Examples
    --------
    >>> decode(b'{"version": "0123456789ab", "previous": null}', Promoted)
    Promoted(version='0123456789ab', previous=None)
    >>> decode(b'{"version": "../../elsewhere"}', Promoted) is None
    True
    """
    if len(value) > MOST_BYTES:
        return None
    try:
        return msgspec.json.decode(value, type=kind)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return None
