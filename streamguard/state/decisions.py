"""The decisions of a partition: how they are stored, and the control records of a chunk as the fold reads them."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from streamguard.events.address import with_network
from streamguard.events.columns import TEXTS
from streamguard.events.decision import FIELDS, Decision, Kind
from streamguard.events.event import Value
from streamguard.events.hashing import UNKEYED, hash_texts
from streamguard.fold.decisions import CAPACITY, CONTROL, DECISION, NEVER, Outcome
from streamguard.state.codec import StateError, other_layout

DECISIONS_KEY = b"d"
"""Key of the decisions of a partition; the state of a partition without any does not have it."""
LAYOUT_FLAG = 1 << 16
"""Is added to the layout version of a state with decisions, so that a version that does not know them refuses it
instead of scoring without them."""
_FORMAT = b"\x01"
"""First byte of the stored value; the decisions follow, uncompressed, because hashes do not compress."""


@dataclass(frozen=True, slots=True)
class Decided:
    """A decision that the fold has met.

    Attributes
    ----------
    record
        Its place among the records of the chunk.
    """

    record: int
    decision: Decision
    outcome: Outcome


class DecisionTable:
    """The decisions in force.

    Attributes
    ----------
    rows
        `DECISION` (4096,), of which `count`, int64 (1,), are in use.
    """

    def __init__(self) -> None:
        self.rows = np.zeros(CAPACITY, DECISION)
        self.count = np.zeros(1, np.int64)
        self.stored = False
        """Whether a checkpoint has the decisions or must get them: from the first decision on that was applied."""
        self._saved = b""

    def __len__(self) -> int:
        return int(self.count[0])

    def load(self, value: bytes, what: str) -> None:
        """Take over a stored value.

        Raises
        ------
        StateError
            If it is damaged or was written by another version.
        """
        rows = _rows(value, what)
        self.count[0] = len(rows)
        self.rows[: len(rows)] = rows
        self._saved, self.stored = value, True

    def changes(self) -> list[tuple[bytes, bytes]]:
        """(key, value) if the decisions differ from the stored ones."""
        value = self._value()
        return [(DECISIONS_KEY, value)] if self.stored and value != self._saved else []

    def clean(self) -> None:
        """Mark the decisions as saved."""
        if self.stored:
            self._saved = self._value()

    def _value(self) -> bytes:
        return _FORMAT + self.rows[: len(self)].tobytes()


def without(value: bytes, user: str, hash_key: bytes) -> bytes | None:
    """A stored value without the decisions about a user; None if it has none about the user."""
    rows = _rows(value, "the decisions")
    kept = rows[rows["user"] != _hash(user, 0, 1, hash_key)]
    return _FORMAT + kept.tobytes() if len(kept) < len(rows) else None


def decisions_about(value: bytes | None, user: str, hash_key: bytes | None) -> NDArray[Any]:
    """The decisions about a user in a stored value, `DECISION` (n,), in the order of their ids.

    Parameters
    ----------
    value
        None: the state has no decisions.
    user
        Empty for an event without a user, about which nobody decides.
    hash_key
        Key of the hashes of the state; None: it hashes without one.

    Raises
    ------
    StateError
        If the value is damaged or was written by another version.
    """
    if value is None or not user:
        return np.zeros(0, DECISION)
    rows = _rows(value, "the decisions")
    about: NDArray[Any] = rows[rows["user"] == _hash(user, 0, 1, UNKEYED if hash_key is None else hash_key)]
    return about


def controls(
    values: Sequence[Value], index: Sequence[int], hash_key: bytes
) -> tuple[list[tuple[int, Decision]], NDArray[Any]]:
    """The decisions among the records of a chunk with their places, and as `CONTROL` (m,) without rows of profiles.

    Parameters
    ----------
    index
        Place of each event among the records.
    """
    if len(index) == len(values):
        return [], np.zeros(0, CONTROL)  # every record is an event, as in most chunks
    found = [(k, value) for k, value in enumerate(values) if isinstance(value, Decision)]
    out = np.zeros(len(found), CONTROL)
    out["row"] = -1
    if found:
        out["events"] = np.searchsorted(np.asarray(index, np.int64), [k for k, _ in found])
    for one, (_, decision) in zip(out, found, strict=True):
        one["kind"] = decision.kind
        if decision.kind == Kind.REVOKE:
            one["id"] = id_hash(decision.revokes)
            continue
        assert decision.field is not None
        one["id"] = id_hash(decision.id)
        one["user"] = _hash(decision.user, 0, 1, hash_key)
        one["field"] = FIELDS[decision.field]
        one["value"] = _hash(decision.value, FIELDS[decision.field], len(TEXTS), hash_key)
        one["until"] = decision.until // 1000 if decision.kind == Kind.EXPECTED else NEVER
    return found, out


def id_hash(decision_id: str) -> int:
    """The number by which the state knows a decision: 64 bits of the SHA-256 digest of its id."""
    return int.from_bytes(hashlib.sha256(decision_id.encode()).digest()[:8], "little")


def _hash(text: str, column: int, columns: int, hash_key: bytes) -> int:
    """Hash of a text as the columns of events have it."""
    texts = [""] * columns
    texts[column] = with_network(text) if columns > 1 and column == 0 and ":" in text else text
    return int(hash_texts(texts, columns, hash_key)[0][0, column])


def _rows(value: bytes, what: str) -> NDArray[Any]:
    size = len(value) - len(_FORMAT)
    if not value.startswith(_FORMAT) or size % DECISION.itemsize or size > CAPACITY * DECISION.itemsize:
        raise StateError(other_layout(f"{what} have another layout than this program's"))
    return np.frombuffer(value, DECISION, offset=len(_FORMAT))
