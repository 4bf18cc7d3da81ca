"""The types of answers about runs of the batch layer."""

from __future__ import annotations

from typing import Annotated

import msgspec

from streamguard.runs.report import PeerGroup, Report
from streamguard.serving.log.freshness import AsOf
from streamguard.serving.results.totals import BatchPartition, TotalComparison
from streamguard.serving.results.users import BatchUser, BatchUserDetail, Place, SourceUser


class RunEntry(msgspec.Struct, frozen=True):
    """A published run."""

    run_id: Annotated[str, msgspec.Meta(description="UTC time of its start and a random suffix")]
    latest: bool


class BatchRun(msgspec.Struct, frozen=True):
    """The latest run and its report."""

    as_of: AsOf
    report: Report


class AnomalyCursor(msgspec.Struct, frozen=True):
    """Where the next page of users at risk begins; it stays valid as long as its run exists."""

    run_id: str
    place: Place


class AnomalyPage(msgspec.Struct, frozen=True):
    """Users at risk, the most evidence first."""

    as_of: AsOf
    total: Annotated[int, msgspec.Meta(description="Users at risk in the run")]
    users: tuple[BatchUser, ...]
    next: Annotated[
        AnomalyCursor | None, msgspec.Meta(description="Cursor of the next page; null on the last")
    ]


class BatchUserAnswer(msgspec.Struct, frozen=True):
    """What a run says of a user: one entry for each partition that has events of the user."""

    as_of: AsOf
    entries: Annotated[
        tuple[BatchUserDetail, ...], msgspec.Meta(description="Empty if the run has no event of the user")
    ]
    groups: Annotated[tuple[PeerGroup, ...], msgspec.Meta(description="The peer groups of the entries")]
    why: Annotated[
        tuple[str, ...],
        msgspec.Meta(description="Reasons, if the user is among the worst of the run's report"),
    ]


class BatchTotals(msgspec.Struct, frozen=True):
    """Totals of a run."""

    as_of: AsOf
    topic_id: Annotated[
        str | None, msgspec.Meta(description="Kafka's id of the events topic; null if the run read files")
    ]
    users: int
    users_at_risk: int
    events: Annotated[int, msgspec.Meta(description="Events of these users, including those of earlier runs")]
    partitions: tuple[BatchPartition, ...]


class SourceUsers(msgspec.Struct, frozen=True):
    """Users of an address in the sample of a run."""

    as_of: AsOf
    users: tuple[SourceUser, ...]


class TotalsOfRun(msgspec.Struct, frozen=True):
    """A run compared with the speed layer."""

    as_of: AsOf
    comparison: TotalComparison
