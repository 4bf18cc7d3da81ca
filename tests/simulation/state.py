"""A state that is cheap to fold and sensitive to every mistake: a chain of digests for each user, with their order."""

from __future__ import annotations

from collections.abc import Sequence
from hashlib import blake2b
from types import SimpleNamespace
from typing import Any
from zlib import crc32

import msgspec
import numpy as np

from streamguard.alerts.incident import Entity, Incident, Model, Origin
from streamguard.events.event import Refusal
from streamguard.events.indicators import AUTHENTICATION, FAILED, SUCCEEDED
from streamguard.fold.dimensions import VERSION
from streamguard.state.partition import HASH_KEY, META, IncidentUpdate
from streamguard.state.profile_cache import user_key
from tests.simulation.network import network

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


LIFE = 8
"""Offsets after which a user without events is forgotten; a partition's active time is its source offset."""


def last_active(value: bytes) -> int:
    """Offset of the last event in the value of a user, which precedes the digest."""
    return int.from_bytes(value[:8], "big")


def extended(hash_key: bytes, before: bytes | None, offset: int, value: bytes) -> bytes:
    """The next value of a user; a user without events for `LIFE` offsets starts over."""
    if before is not None and last_active(before) < offset - LIFE:
        before = None
    return offset.to_bytes(8, "big") + link(hash_key, before, offset, value)


def remaining(values: dict[bytes, bytes], reached: int) -> dict[bytes, bytes]:
    """The values without those of forgotten users."""
    return {k: v for k, v in values.items() if k[:1] != b"u" or last_active(v) >= reached - LIFE}


def user_of(value: bytes | None) -> str | None:
    """The user of an event; None for a record that is refused."""
    if value is None or value.startswith(b"?"):
        return None
    return value.partition(b" ")[0].decode()


def incident(value: bytes, user: str, topic: str, partition: int, offset: int) -> Incident | None:
    """The incident of an event, if the user's value means an alert; it depends on the user's earlier events."""
    digest = value[8:]
    if digest[0] % 3:
        return None
    return msgspec.structs.replace(
        _TEMPLATE,
        id=f"{partition}-{offset}",
        entity=Entity("user", user),
        evidence_bits=float(int.from_bytes(digest[1:5], "big")),
        origin=Origin(topic, partition, offset),
    )


def traits(value: bytes) -> tuple[int, str]:
    """Flags and source address of an event; some events have both, and are forwarded, and some have one of them."""
    digest = crc32(value)
    flags = (FAILED, AUTHENTICATION, FAILED | AUTHENTICATION, SUCCEEDED)[digest % 4]
    return flags, f"10.0.0.{digest % 3}" if digest % 5 else ""


def forwarded_key(value: bytes | None) -> bytes | None:
    """Key under which the record of an event is forwarded; None if it is not."""
    if value is None or user_of(value) is None:
        return None
    flags, source = traits(value)
    return source.encode() if source and flags != SUCCEEDED else None


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
        seen: list[tuple[int, str]] = []
        for index, (value, offset) in enumerate(zip(values, offsets.tolist(), strict=True)):
            user = user_of(value)
            if user is None:
                refused.append(Refusal(index, "not_json", "no event"))
                continue
            key = user_key(user)
            before = self._changed.get(key)
            if before is None:
                (before,) = self._read([key])
            self._changed[key] = extended(self.hash_key, before, offset, value)
            self._population = link(self.hash_key, self._population, offset, value)
            if (found := incident(self._changed[key], user, self._topic, self.partition, offset)) is not None:
                incidents.append(IncidentUpdate(len(events), found))
            events.append(index)
            seen.append(traits(value))
        if len(offsets):
            self.next_offset = int(offsets[-1]) + 1
        return SimpleNamespace(
            count=len(events),
            index=events,
            kind=np.zeros(0, np.int8),
            expired=np.zeros(0, np.bool_),
            columns=SimpleNamespace(
                flags=np.array([flags for flags, _ in seen], np.uint32),
                text=lambda _: [source for _, source in seen],
            ),
            incidents=incidents,
            refused=refused,
            repaired=[],
            clamped=0,
            decided=[],
        )

    @property
    def unsaved_hash_key(self) -> bytes | None:
        return None if self._hash_key_saved else self.hash_key

    @property
    def full(self) -> bool:
        return len(self._changed) >= self.resident_limit

    @property
    def active_ms(self) -> int:
        return self.next_offset or 0

    @property
    def expired_before(self) -> int:
        return self.active_ms - LIFE

    def drop(self, keys: Any) -> None:
        for key in keys:
            assert key not in self._changed, "a profile with unsaved changes was swept"
            network().happened("profiles swept")

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
