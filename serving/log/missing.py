"""Why the event at an offset cannot be shown."""

from __future__ import annotations

from typing import Annotated, Literal

import msgspec

Reason = Literal[
    "expired", "not_committed", "not_archived", "another_topic", "no_topic", "unreadable", "timed_out", "busy"
]


class MissingEvent(msgspec.Struct, frozen=True):
    """An event that cannot be read, and why."""

    partition: int
    offset: int
    reason: Annotated[
        Reason,
        msgspec.Meta(
            description="`expired`: Kafka has deleted it; `not_committed`: the offset has no committed record; "
            "`not_archived`: the archive does not reach to it; `another_topic`: the topic was created again since; "
            "`no_topic`: the topic does not exist; `unreadable`: its batch is damaged; `timed_out`: Kafka has not "
            "answered in time; `busy`: too many events are being read at the same time"
        ),
    ]
    message: str
