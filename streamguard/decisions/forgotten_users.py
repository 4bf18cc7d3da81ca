"""Looks up whether a record of the alerts topic is about a user who was forgotten after it."""

from __future__ import annotations

from collections.abc import Iterable
from functools import lru_cache

from streamguard.decisions import forgotten
from streamguard.decisions.forgotten import Forgotten

MAX_NAMES = 16_384
"""Users of whom an index remembers which records are about them: 1 MB of names."""


class ForgottenUsers:
    """Records of users who are forgotten, by the hash of the name.

    The records about one topic have one salt, so a name is hashed once, whatever their number. Records of earlier
    versions have a salt each, and a name is hashed with each of them, once for as long as the name is remembered.

    Parameters
    ----------
    records
        Those about the alerts topic that is followed.

    Examples
    --------
    >>> salt = "5a" * 16
    >>> record = Forgotten(
    ...     version=1, at="2026-11-30T09:00:00.000Z", topic_id="id", ends=(3,), salt=salt,
    ...     digest=forgotten.digest_of("ann", salt),
    ... )
    >>> users = ForgottenUsers([record])
    >>> users.has("ann", 0, 2), users.has("ann", 0, 3), users.has("bob", 0, 2)
    (True, False, False)
    """

    def __init__(self, records: Iterable[Forgotten] = ()) -> None:
        self._of: dict[str, dict[str, list[Forgotten]]] = {}
        for one in records:
            self._of.setdefault(one.salt, {}).setdefault(one.digest, []).append(one)
        self._about = lru_cache(MAX_NAMES)(self._looked_up)

    def __bool__(self) -> bool:
        return bool(self._of)

    def has(self, user: str, partition: int, offset: int) -> bool:
        """Whether what a record of the alerts topic says of a user is forgotten.

        Parameters
        ----------
        partition, offset
            Place of the record.
        """
        return bool(self._of) and any(one.reaches(partition, offset) for one in self._about(user))

    def _looked_up(self, user: str) -> tuple[Forgotten, ...]:
        return tuple(
            record
            for salt, by_digest in self._of.items()
            for record in by_digest.get(forgotten.digest_of(user, salt), ())
        )
