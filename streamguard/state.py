"""What one partition's log amounts to: profiles, population and dictionary, folded event by event and saved whole."""

from __future__ import annotations

import struct
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import msgspec
import numpy as np
from numpy.typing import NDArray

from streamguard.settings import Detection

Read = Callable[[list[bytes]], list[bytes | None]]
"""Looks up stored values: keys -> value or None, in order."""


class StateError(RuntimeError):
    """Stored state that this version cannot continue from; the message says what and what to do."""


@dataclass(frozen=True, slots=True)
class Refusal:
    """An event that cannot be scored: its place in the chunk, a slug out of a fixed set, and the particulars."""

    index: int
    reason: str
    detail: str


@dataclass(frozen=True, slots=True)
class Incident:
    """One entity's alerts within a window, as published: a new incident or a risen one."""

    id: str
    entity_kind: str
    entity: str
    severity: str
    patterns: tuple[str, ...]
    index: int
    body: dict[str, object]

    def encode(self) -> bytes:
        return msgspec.json.encode(self.body)


@dataclass(slots=True)
class Folded:
    """What one chunk came to."""

    count: int
    incidents: list[Incident] = field(default_factory=list)
    refused: list[Refusal] = field(default_factory=list)


class PartitionState:
    """The state of one partition: a fold over its log, resident in bounded memory.

    Parameters
    ----------
    partition
        Its number; part of incident ids.
    read
        Looks up what the last checkpoint saved.
    resident
        Profiles held in memory at the most.
    detection
        What is alerted.
    """

    def __init__(self, partition: int, read: Read, *, resident: int, detection: Detection) -> None:
        self.partition = partition
        self._read = read
        self._users: dict[bytes, list[int]] = {}
        self._dirty: set[bytes] = set()
        (meta,) = read([b"m"])
        self.next_offset: int | None = struct.unpack("<q", meta)[0] if meta else None
        """The first source offset that is not in this state; None before the first event."""

    def fold(self, values: Sequence[bytes | None], offsets: NDArray[np.int64], forest: object | None = None) -> Folded:
        """Fold one chunk of consecutive records; state changes in memory only."""
        out = Folded(0)
        for i, (value, offset) in enumerate(zip(values, offsets.tolist(), strict=True)):
            self.next_offset = offset + 1
            try:
                event = msgspec.json.decode(value or b"")
                user = str(event["user"])
            except (msgspec.DecodeError, UnicodeDecodeError, KeyError, TypeError) as error:
                out.refused.append(Refusal(i, "not_json", str(error)))
                continue
            key = b"u" + user.encode()
            if key not in self._users:
                (saved,) = self._read([key])
                self._users[key] = list(struct.unpack("<qq", saved)) if saved else [0, 0]
            profile = self._users[key]
            self._dirty.add(key)
            profile[0] += 1
            profile[1] = profile[1] + 1 if event.get("status") == "failed" else 0
            out.count += 1
            if profile[1] == 5:
                body = {"id": f"{self.partition}-{offset}", "entity": {"kind": "user", "value": user}, "risk": 80.0}
                out.incidents.append(Incident(f"{self.partition}-{offset}", "user", user, "high", ("brute_force",), i, body))
        return out

    @property
    def full(self) -> bool:
        """Whether the next chunk may find no room: time for a checkpoint."""
        return False

    def changes(self) -> list[tuple[bytes, bytes]]:
        """All (key, value) that differ from the last checkpoint, the source offset they stand for included."""
        return [(k, struct.pack("<qq", *self._users[k])) for k in sorted(self._dirty)] + [
            (b"m", struct.pack("<q", self.next_offset or 0))
        ]

    def clean(self) -> None:
        """The changes are durable."""
        self._dirty.clear()
