"""How far a store has followed its topics: what every answer says about its source."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Annotated

import msgspec


class Position(msgspec.Struct, frozen=True):
    """How far one partition of a topic is reflected in an answer."""

    partition: Annotated[int, msgspec.Meta(description="Number of the partition", ge=0)]
    offset: Annotated[int, msgspec.Meta(description="Offset of the first record that is not reflected", ge=0)]
    event_time: Annotated[
        str | None,
        msgspec.Meta(description="Time of the latest reflected record, RFC 3339; null without one"),
    ] = None


class AsOf(msgspec.Struct, frozen=True):
    """Where a part of an answer comes from, how far it is, and how old."""

    source: Annotated[str, msgspec.Meta(description="Name of the topic, or id of the batch run")]
    positions: Annotated[
        tuple[Position, ...], msgspec.Meta(description="By partition; empty for a batch run")
    ]
    staleness_ms: Annotated[
        int,
        msgspec.Meta(
            description="Milliseconds since the store was last known to reflect the whole log", ge=0
        ),
    ]


class Progress:
    """What a follower of a topic reports, and readers in other threads see."""

    def __init__(self, source: str) -> None:
        self._source = source
        self._positions: tuple[Position, ...] = ()
        self._whole_at = time.monotonic()
        self.sequence = 0
        """Number of changes so far; rises with every change of the store."""

    def reached(self, positions: Mapping[int, Position], *, whole: bool, changed: bool) -> None:
        """Report the positions, whether the log was read to its end, and whether the store has changed."""
        self._positions = tuple(positions[p] for p in sorted(positions))
        if whole:
            self._whole_at = time.monotonic()
        self.sequence += changed

    def as_of(self) -> AsOf:
        """What an answer from the store says now."""
        return AsOf(self._source, self._positions, max(round((time.monotonic() - self._whole_at) * 1000), 0))
