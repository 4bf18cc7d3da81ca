"""Speed against batch in total: events, users and incidents of each partition, and what a difference means."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Annotated, Literal

import msgspec

from streamguard.serving.results.comparison import Comparison, Verdict, compared, not_comparable
from streamguard.text import counted


class LiveTotals(msgspec.Struct, frozen=True):
    """What the speed layer has counted in one partition."""

    partition: int
    offset: Annotated[int, msgspec.Meta(description="Offset of the first event that is not counted")]
    topic_id: Annotated[str, msgspec.Meta(description="Kafka's id of the events topic")]
    users: Annotated[
        int | None,
        msgspec.Meta(description="Profiles that have not aged out; null if there are too many to count them"),
    ]
    events: Annotated[int, msgspec.Meta(description="All events so far")]
    may_have_aged_out: Annotated[
        bool, msgspec.Meta(description="Whether the partition is old enough for profiles to have aged out")
    ] = False
    event_time: Annotated[
        str | None, msgspec.Meta(description="Clock of the partition: the time of its latest event")
    ] = None


class BatchPartition(msgspec.Struct, frozen=True):
    """What a run has counted in one partition."""

    partition: int
    offset: Annotated[int, msgspec.Meta(description="Offset of the first event that is not counted")]
    users: int
    users_at_risk: int
    events: Annotated[int, msgspec.Meta(description="Events of these users, including those of earlier runs")]
    start: Annotated[
        int, msgspec.Meta(description="First offset that the run has read; what is before is of earlier runs")
    ] = 0
    incidents: Annotated[
        int | None,
        msgspec.Meta(description="Incidents that began in the offsets of the run; null in an old report"),
    ] = None
    event_time: Annotated[str | None, msgspec.Meta(description="Time of the latest event of the run")] = None


class Amounts(msgspec.Struct, frozen=True):
    """Totals of one layer over the partitions that both have."""

    events: int
    users: Annotated[int | None, msgspec.Meta(description="Null if a partition has too many to count them")]
    incidents: Annotated[
        int | None,
        msgspec.Meta(
            description="Incidents that began in the offsets of the run; null if the run has no number"
        ),
    ]


class Difference(msgspec.Struct, frozen=True):
    """Users or incidents of a partition, speed layer less batch layer."""

    verdict: Verdict
    more: Annotated[int | None, msgspec.Meta(description="Speed less batch; null if a side is unknown")]
    message: str


class PartitionComparison(msgspec.Struct, frozen=True):
    """Speed against batch for one partition."""

    partition: int
    live: LiveTotals
    batch: BatchPartition
    live_incidents: Annotated[
        int, msgspec.Meta(description="Published incidents that began in the offsets of the run")
    ]
    events: Comparison
    users: Difference
    incidents: Difference


class TotalComparison(msgspec.Struct, frozen=True):
    """Speed against batch for everything that both have counted."""

    verdict: Annotated[Verdict, msgspec.Meta(description="The worst verdict of a partition")]
    live: Amounts
    batch: Amounts
    partitions: tuple[PartitionComparison, ...]
    live_only: Annotated[tuple[int, ...], msgspec.Meta(description="Partitions that the run does not have")]
    batch_only: Annotated[
        tuple[int, ...], msgspec.Meta(description="Partitions that this instance does not follow")
    ]


_WORST: tuple[Verdict, ...] = ("differ", "unexplained", "not_comparable", "age", "explained", "agree")
Noun = Literal["user", "incident"]


def compare_totals(
    live: Sequence[LiveTotals],
    batch: Sequence[BatchPartition],
    topic_id: str | None,
    incidents: Mapping[int, int],
    *,
    model: bool = False,
    continued: bool = True,
) -> TotalComparison:
    """Compare both layers partition by partition.

    Parameters
    ----------
    topic_id
        Topic of the run, see `streamguard.serving.results.comparison.BatchCounts.topic_id`.
    incidents
        By partition, the published incidents that began in the offsets of the run.
    model
        Whether workers have a model, with which they judge some events as a run without one does not.
    continued
        Whether the run continues an earlier one. If not, it knows nothing of what is before its first offset.

    Examples
    --------
    >>> live = [LiveTotals(0, 120, "id", users=3, events=90), LiveTotals(1, 50, "id", users=1, events=50)]
    >>> found = compare_totals(live, [BatchPartition(0, 120, 3, 0, 91)], "id", {})
    >>> found.verdict, found.partitions[0].events.message, found.live_only
    ('differ', 'both are at offset 120, but the speed layer has 1 event less: report this fault', (1,))
    """
    theirs = {one.partition: one for one in batch}
    found = []
    for one in sorted(live, key=lambda one: one.partition):
        other = theirs.pop(one.partition, None)
        if other is None:
            continue
        opened = incidents.get(one.partition, 0)
        events = _events(one, other, topic_id, continued)
        if events.verdict == "not_comparable":
            users = known = Difference("not_comparable", None, events.message)
        else:
            users, known = _users(one, other), _incidents(one, other, opened, model)
        found.append(PartitionComparison(one.partition, one, other, opened, events, users, known))
    verdicts = {
        verdict for one in found for verdict in (one.events.verdict, one.users.verdict, one.incidents.verdict)
    }
    known_partitions = {one.partition for one in batch}
    return TotalComparison(
        next((verdict for verdict in _WORST if verdict in verdicts), "not_comparable"),
        Amounts(
            sum(one.live.events for one in found),
            _sum([one.live.users for one in found]),
            sum(one.live_incidents for one in found),
        ),
        Amounts(
            sum(one.batch.events for one in found),
            sum(one.batch.users for one in found),
            _sum([one.batch.incidents for one in found]),
        ),
        tuple(found),
        tuple(sorted(one.partition for one in live if one.partition not in known_partitions)),
        tuple(sorted(theirs)),
    )


def _events(live: LiveTotals, batch: BatchPartition, topic_id: str | None, continued: bool) -> Comparison:
    if topic_id is None:
        return not_comparable("the run read files, which have offsets of their own")
    if live.topic_id != topic_id:
        return not_comparable("the run read another topic, or the topic was created again since")
    found = compared(live.offset, batch.offset, live.events, batch.events)
    if (
        not continued
        and batch.start
        and found.verdict in ("differ", "unexplained")
        and live.events > batch.events
    ):
        return not_comparable(
            f"the run begins at offset {batch.start:,}, and the speed layer has counted events before it"
        )
    return found


def _users(live: LiveTotals, batch: BatchPartition) -> Difference:
    if live.users is None:
        return Difference("not_comparable", None, "the speed layer has too many profiles to count them")
    more = live.users - batch.users
    if not more and live.offset == batch.offset:
        return Difference("agree", 0, f"both have {counted(live.users, 'user')}")
    if live.offset != batch.offset and (more >= 0) == (live.offset > batch.offset):
        return Difference("age", more, f"{_newer(live, batch)} is newer")
    if more < 0 and live.may_have_aged_out:
        return Difference(
            "age", more, "profiles have aged out, and the run counts everybody whom it has ever seen"
        )
    if more > 0 and live.offset < batch.offset:
        text = "the run is newer and has fewer users: report this fault"
    else:
        text = f"the speed layer has {_more(more, 'user')}: a user was forgotten since, or report this fault"
    return Difference("differ", more, text)


def _incidents(live: LiveTotals, batch: BatchPartition, opened: int, model: bool) -> Difference:
    if batch.incidents is None:
        return Difference("not_comparable", None, "the report of the run has no number of incidents")
    more = opened - batch.incidents
    if not more:
        return Difference(
            "agree", 0, f"both have {counted(opened, 'incident')} that began in the offsets of the run"
        )
    if live.offset < batch.offset and more < 0:
        return Difference("age", more, "the run is newer")
    if model:
        return Difference(
            "explained",
            more,
            "workers add the evidence of a model and of peers, and a run counts without them",
        )
    return Difference(
        "differ",
        more,
        f"the speed layer has {_more(more, 'incident')}: the alerts topic has deleted old ones, or report this fault",
    )


def _newer(live: LiveTotals, batch: BatchPartition) -> str:
    return "the speed layer" if live.offset > batch.offset else "the run"


def _more(number: int, noun: Noun) -> str:
    return f"{counted(abs(number), noun)} {'more' if number > 0 else 'less'}"


def _sum(numbers: Sequence[int | None]) -> int | None:
    known = [one for one in numbers if one is not None]
    return sum(known) if len(known) == len(numbers) else None
