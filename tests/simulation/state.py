"""A state that is cheap to fold and sensitive to every mistake: a chain of digests for each user, with their order."""

from __future__ import annotations

from collections.abc import Sequence
from hashlib import blake2b
from types import SimpleNamespace
from typing import Any

import msgspec
import numpy as np

from streamguard.alerts.incident import Entity, Incident, Model, Origin
from streamguard.events.event import Refusal
from streamguard.fold.profile import VERSION
from streamguard.state.partition import HASH_KEY, META, IncidentUpdate
from streamguard.state.profile_cache import user_key

_NO_FLAGS = SimpleNamespace(flags=np.zeros(0, np.uint32))
_TEMPLATE = Incident(
    schema_version=1,
    id="",
    entity=Entity("user", ""),
    first_seen="2025-01-01T00:00:00.000Z",
    last_seen="2025-01-01T00:00:00.000Z",
    count=1,
    risk=80.0,
    severity="high",
    evidence_bits=0.0,
    technique=None,
    patterns=(),
    reasons=(),
    model=Model(None, None),
    origin=Origin("", 0, 0),
    event=None,
)


def link(hash_key: bytes, before: bytes | None, offset: int, value: bytes) -> bytes:
    """The next digest of a chain."""
    return blake2b(b"%d %b %b" % (offset, value, before or b""), digest_size=8, key=hash_key).digest()


def user_of(value: bytes | None) -> str | None:
    """The user of an event; None for a record that is refused."""
    if value is None or value.startswith(b"?"):
        return None
    return value.partition(b" ")[0].decode()


def incident(digest: bytes, user: str, topic: str, partition: int, offset: int) -> Incident | None:
    """The incident of an event, if its digest means an alert; it depends on all earlier events of the user."""
    if digest[0] % 3:
        return None
    return msgspec.structs.replace(
        _TEMPLATE,
        id=f"{partition}-{offset}",
        entity=Entity("user", user),
        evidence_bits=float(int.from_bytes(digest[1:5], "big")),
        origin=Origin(topic, partition, offset),
    )


class ChainState:
    """The interface of `streamguard.state.partition.PartitionState`, as far as a partition task uses it.

    It forgets every saved value at once, so that each later read has to find it in the checkpoint or in the store.
    """

    resident_limit = 6

    def __init__(
        self,
        partition: int,
        read: Any,
        *,
        resident: int,
        detection: Any,
        topic: str,
        hash_key: bytes,
        identity: bytes,
    ) -> None:
        self.partition = partition
        self._read = read
        self._topic = topic
        self._identity = identity
        self.stored_identity = b""
        self.next_offset: int | None = None
        self._changed: dict[bytes, bytes] = {}
        meta, self._population, saved_key = read([b"m", b"p", HASH_KEY])
        self.hash_key, self._hash_key_saved = saved_key or hash_key, saved_key is not None
        if meta is not None:
            self.next_offset = META.unpack_from(meta)[1]
            self.stored_identity = meta[META.size :]

    def fold(self, values: Sequence[Any], offsets: Any, forest: Any = None, append_ms: Any = None) -> Any:
        """Fold one chunk, event by event."""
        refused, incidents, events = [], [], []
        for index, (value, offset) in enumerate(zip(values, offsets.tolist(), strict=True)):
            user = user_of(value)
            if user is None:
                refused.append(Refusal(index, "not_json", "no event"))
                continue
            key = user_key(user)
            before = self._changed.get(key)
            if before is None:
                (before,) = self._read([key])
            self._changed[key] = digest = link(self.hash_key, before, offset, value)
            self._population = link(self.hash_key, self._population, offset, value)
            if (found := incident(digest, user, self._topic, self.partition, offset)) is not None:
                incidents.append(IncidentUpdate(len(events), found))
            events.append(index)
        if len(offsets):
            self.next_offset = int(offsets[-1]) + 1
        return SimpleNamespace(
            count=len(events),
            index=events,
            kind=np.zeros(0, np.int8),
            columns=_NO_FLAGS,
            incidents=incidents,
            refused=refused,
            repaired=[],
            clamped=0,
        )

    @property
    def unsaved_hash_key(self) -> bytes | None:
        return None if self._hash_key_saved else self.hash_key

    @property
    def full(self) -> bool:
        return len(self._changed) >= self.resident_limit

    @property
    def profile_lookups(self) -> dict[str, int]:
        return {}

    def changes(self) -> list[tuple[bytes, bytes]]:
        if self.next_offset is None:
            return []
        changes = list(self._changed.items())
        if not self._hash_key_saved:
            changes.append((HASH_KEY, self.hash_key))
        if self._population is not None:
            changes.append((b"p", self._population))
        changes.append((b"m", META.pack(VERSION, self.next_offset) + self._identity))
        return changes

    def clean(self) -> None:
        self._hash_key_saved = True
        self._changed.clear()
