"""Compares what the speed layer and the batch layer have counted: the same log up to the same offset has one result."""

from __future__ import annotations

from typing import Annotated, Literal

import msgspec

from streamguard.text import counted

Newer = Literal["live", "batch", "same"]
Verdict = Literal["agree", "differ", "age", "explained", "unexplained", "not_comparable"]


class LiveCounts(msgspec.Struct, frozen=True):
    """What the speed layer has counted of a user in one partition."""

    partition: int
    offset: Annotated[int, msgspec.Meta(description="Offset of the first event that is not counted")]
    topic_id: Annotated[str, msgspec.Meta(description="Kafka's id of the events topic")]
    events: Annotated[int, msgspec.Meta(description="Events of the user; 0 if the user is unknown")] = 0
    sources: Annotated[
        int | None, msgspec.Meta(description="Source addresses that the profile holds, at most 16")
    ] = None
    failure_share: Annotated[
        float | None, msgspec.Meta(description="Share of failures among the events of about a month")
    ] = None
    last_seen_ms: int | None = None


class BatchCounts(msgspec.Struct, frozen=True):
    """What a run of the batch layer has counted of a user in one partition."""

    run_id: str
    partition: int
    offset: Annotated[int, msgspec.Meta(description="Offset of the first event that is not counted")]
    topic_id: Annotated[
        str | None, msgspec.Meta(description="Kafka's id of the events topic; null if the run read files")
    ]
    events: Annotated[int, msgspec.Meta(description="Events of the user; 0 if the user is unknown")] = 0
    sources: Annotated[int | None, msgspec.Meta(description="Distinct source addresses ever")] = None
    failure_share: Annotated[
        float | None, msgspec.Meta(description="Share of failed logins among all logins")
    ] = None
    last_seen_ms: int | None = None


class Comparison(msgspec.Struct, frozen=True):
    """Speed against batch for a user in one partition, or for all users of a partition."""

    verdict: Annotated[
        Verdict,
        msgspec.Meta(
            description="`agree`: same offset, same number of events; `differ`: same offset, another number, which is "
            "a fault; `age`: one side is newer, which explains the difference; `unexplained`: one side is newer, but "
            "the offsets between them are fewer than the events; `explained`: the layers count by different rules, "
            "which the message names; `not_comparable`: the sides read different topics"
        ),
    ]
    newer: Newer | None
    offsets: Annotated[
        int | None,
        msgspec.Meta(description="Offsets by which the newer side is ahead; null if not comparable"),
    ]
    events: Annotated[
        int | None, msgspec.Meta(description="Events of the speed layer less those of the batch layer")
    ]
    message: str


def compare(live: LiveCounts, batch: BatchCounts) -> Comparison:
    """Compare what both layers know of a user of a partition.

    Both count every event of the user, so at the same offset the numbers of events are equal. Sources and failures are
    shown beside each other but not compared: a profile holds the 16 sources with the most weight and forgets, whereas a
    run counts all.

    Raises
    ------
    ValueError
        If the counts belong to different partitions.

    Examples
    --------
    >>> live = LiveCounts(0, 120, "id", events=12)
    >>> compare(live, BatchCounts("run", 0, 120, "id", events=12)).verdict
    'agree'
    >>> compare(live, BatchCounts("run", 0, 100, "id", events=10)).message
    'the speed layer is 20 offsets ahead and has 2 more events'
    """
    if live.partition != batch.partition:
        raise ValueError(
            f"counts of partition {live.partition} and of partition {batch.partition} have nothing in common"
        )
    if batch.topic_id is None:
        return not_comparable("the run read files, which have offsets of their own")
    if live.topic_id != batch.topic_id:
        return not_comparable("the run read another topic, or the topic was created again since")
    return compared(live.offset, batch.offset, live.events, batch.events)


def compared(live_offset: int, batch_offset: int, live: int, batch: int) -> Comparison:
    """Compare two numbers of events that were counted up to two offsets of one partition."""
    ahead, more = live_offset - batch_offset, live - batch
    if not ahead:
        if not more:
            return Comparison("agree", "same", 0, 0, f"both are at offset {live_offset:,} and agree")
        return Comparison(
            "differ",
            "same",
            0,
            more,
            f"both are at offset {live_offset:,}, but the speed layer has {_more(more)}: report this fault",
        )
    newer: Newer = "live" if ahead > 0 else "batch"
    layer = "the speed layer" if ahead > 0 else "the run"
    gained = more if ahead > 0 else -more
    text = f"{layer} is {counted(abs(ahead), 'offset')} ahead and has {_more(gained)}"
    if gained > abs(ahead):
        text += ", more than there are offsets in between: report this fault"
        return Comparison("unexplained", newer, abs(ahead), more, text)
    if gained < 0:
        text += ": the profile has expired or was deleted since, and has begun again"
    return Comparison("age", newer, abs(ahead), more, text)


def _more(events: int) -> str:
    if not events:
        return "the same number of events"
    return (
        f"{abs(events):,} more event{'s' if events > 1 else ''}" if events > 0 else f"{_less(-events)} less"
    )


def _less(events: int) -> str:
    return counted(events, "event")


def not_comparable(message: str) -> Comparison:
    """The comparison of two sides that have nothing in common."""
    return Comparison("not_comparable", None, None, None, message)
