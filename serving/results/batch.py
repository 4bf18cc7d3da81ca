"""The runs of the batch layer: the latest report, the users at risk, one user, and the comparison with live counts."""

from __future__ import annotations

import os
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import TypeVar

import msgspec

from streamguard.runs import report as run_report
from streamguard.runs.directory import REPORT, PublishedRuns
from streamguard.runs.report import Report
from streamguard.serving.log.freshness import AsOf, Position
from streamguard.serving.results.answers import Unavailable, Why
from streamguard.serving.results.comparison import (
    BatchCounts,
    Comparison,
    LiveCounts,
    compare,
)
from streamguard.serving.results.run_answers import (
    AnomalyCursor,
    AnomalyPage,
    BatchRun,
    BatchTotals,
    BatchUserAnswer,
    RunEntry,
    SourceUsers,
    TotalsOfRun,
)
from streamguard.serving.results.sandbox import UnreadableError
from streamguard.serving.results.totals import BatchPartition, LiveTotals, compare_totals
from streamguard.serving.results.users import (
    MAX_PAGE,
    BatchUser,
    Place,
    UserFiles,
)

MAX_REPORT_BYTES = 64 << 20
"""Size of the largest report that is read: 50 incidents with their events, 50 users and the ranges need 6 MB."""
MAX_OPEN = 2
"""Runs that are held open: the latest one, and the one before, whose list somebody is still paging through."""

MAX_SOURCE_USERS = 100
"""Users of one address, those with the most kept events."""

T = TypeVar("T")


class BatchResults:
    """Answers from the runs in a directory; several threads may ask at the same time.

    Every answer is that of the run that is the latest one at that moment. Whatever is wrong with a run is an answer,
    too (`Unavailable`), and never an exception.

    Parameters
    ----------
    directory
        Directory of runs (`batch.output`); None if this server has none.
    clock
        Seconds since 1970.
    """

    def __init__(self, directory: str | Path | None, clock: Callable[[], float] = time.time) -> None:
        self._runs = None if directory is None else PublishedRuns(directory)
        self._clock = clock
        self._open: OrderedDict[str, _OpenRun] = OrderedDict()
        self._lock = threading.Lock()

    def runs(self) -> tuple[RunEntry, ...] | Unavailable:
        """All published runs, the newest first; empty if there is none."""
        if self._runs is None:
            return _NOT_CONFIGURED
        try:
            latest = self._runs.latest()
            return tuple(
                RunEntry(id, latest is not None and id == latest.name)
                for id in reversed(self._runs.published())
            )
        except OSError as error:
            return self._unreadable(self._runs.directory, error)

    def latest(self) -> BatchRun | Unavailable:
        """The latest run with its report."""
        return self._ask(lambda run: BatchRun(run.as_of(self._clock()), run.report))

    def anomalies(self, limit: int, after: AnomalyCursor | None = None) -> AnomalyPage | Unavailable:
        """One page of the users at risk, the most evidence first.

        Parameters
        ----------
        limit
            Users of the page, at most `MAX_PAGE`.
        after
            The cursor of the page before; its run is read again, even if there is a newer one.
        """

        def page(run: _OpenRun) -> AnomalyPage:
            found = run.users.worst(limit + 1, None if after is None else after.place)
            shown = found[:limit]
            more = len(found) > limit
            cursor = AnomalyCursor(run.id, _place(shown[-1])) if more else None
            return AnomalyPage(
                run.as_of(self._clock()), run.report.totals.users_at_risk, tuple(shown), cursor
            )

        limit = max(1, min(limit, MAX_PAGE))
        return self._ask(page, None if after is None else after.run_id)

    def user(self, name: str) -> BatchUserAnswer | Unavailable:
        """What the latest run says of a user."""

        def found(run: _OpenRun) -> BatchUserAnswer:
            entries = tuple(run.users.named(name))
            numbers = {one.summary.peer_group for one in entries}
            return BatchUserAnswer(
                run.as_of(self._clock()),
                entries,
                tuple(group for group in run.report.groups if group.number in numbers),
                tuple(reason for one in run.report.users if one.user == name for reason in one.why),
            )

        return self._ask(found)

    def of_source(self, address: str) -> SourceUsers | Unavailable:
        """Users of an address among the events that the latest run has kept."""
        return self._ask(
            lambda run: SourceUsers(
                run.as_of(self._clock()), tuple(run.users.of_source(address, MAX_SOURCE_USERS))
            )
        )

    def totals(self) -> BatchTotals | Unavailable:
        """Totals of the latest run."""

        def added(run: _OpenRun) -> BatchTotals:
            partitions = run.partitions()
            return BatchTotals(
                run.as_of(self._clock()),
                run.topic_id,
                sum(one.users for one in partitions),
                sum(one.users_at_risk for one in partitions),
                sum(one.events for one in partitions),
                partitions,
            )

        return self._ask(added)

    def compare(self, user: str, live: LiveCounts) -> Comparison | Unavailable:
        """Compare the latest run with what the speed layer has counted of a user in one partition."""
        found = self.counts(user, live.partition)
        return found if isinstance(found, Unavailable) else compare(live, found)

    def counts(self, user: str, partition: int) -> BatchCounts | Unavailable:
        """What the latest run has counted of a user in one partition."""

        def counted(run: _OpenRun) -> BatchCounts:
            end = run.ends.get(partition)
            if end is None:
                raise UnreadableError(
                    f"run {run.id} did not read partition {partition}: run `streamguard retrain`"
                )
            counts = BatchCounts(run.id, partition, end, run.topic_id)
            for one in (detail.summary for detail in run.users.named(user)):
                if one.partition == partition:
                    return msgspec.structs.replace(
                        counts,
                        events=one.total_events,
                        sources=one.unique_ips,
                        failure_share=one.failed_auth_rate,
                        last_seen_ms=_milliseconds(one.last_seen),
                    )
            return counts

        return self._ask(counted)

    def compare_totals(
        self,
        live: Sequence[LiveTotals],
        opened: Callable[[Mapping[int, tuple[int, int]]], Mapping[int, int]],
        *,
        model: bool = False,
    ) -> TotalsOfRun | Unavailable:
        """Compare the latest run with what the speed layer has counted.

        Parameters
        ----------
        opened
            From the offsets of the run by partition, first and end, to the published incidents that began in them.
        model
            Whether workers have a model.
        """

        def found(run: _OpenRun) -> TotalsOfRun:
            offsets = {one.partition: (one.start, one.end) for one in run.report.ranges}
            continued = run.report.continues is not None
            comparison = compare_totals(
                live, run.partitions(), run.topic_id, opened(offsets), model=model, continued=continued
            )
            return TotalsOfRun(run.as_of(self._clock()), comparison)

        return self._ask(found)

    def close(self) -> None:
        """Close the runs."""
        with self._lock:
            for run in self._open.values():
                run.users.close()
            self._open.clear()

    def _ask(self, question: Callable[[_OpenRun], T], run_id: str | None = None) -> T | Unavailable:
        """Ask the latest run, or a certain one; once more if the run is deleted while it is asked."""
        for last in (False, True):
            run = self._opened(run_id)
            if isinstance(run, Unavailable):
                return run
            try:
                return question(run)
            except UnreadableError as error:
                if run.directory.is_dir():
                    why: Why = "busy" if error.busy else "unreadable"
                    return Unavailable(why, str(error))
                self._forget(run)
                if last or run_id is not None:
                    return _gone(run.id)
        raise AssertionError  # the second round returns

    def _opened(self, run_id: str | None) -> _OpenRun | Unavailable:
        if self._runs is None:
            return _NOT_CONFIGURED
        directory: Path | None
        try:
            if run_id is None:
                directory = self._runs.latest()
            else:
                directory = self._runs.directory / run_id if run_id in self._runs.published() else None
        except OSError as error:
            return self._unreadable(self._runs.directory, error)
        if directory is None and run_id is not None:
            return _gone(run_id)
        if directory is None:
            return Unavailable(
                "none", f"{self._runs.directory} has no run: run `streamguard retrain`, or check batch.output"
            )
        with self._lock:
            if directory.name not in self._open:
                try:
                    self._open[directory.name] = _OpenRun(directory)
                except UnreadableError as error:
                    return Unavailable("unreadable", str(error))
            self._open.move_to_end(directory.name)
            while len(self._open) > MAX_OPEN:
                self._open.popitem(last=False)  # a question that is being answered keeps its run alive
            return self._open[directory.name]

    def _forget(self, run: _OpenRun) -> None:
        with self._lock:
            self._open.pop(run.id, None)

    @staticmethod
    def _unreadable(directory: Path, error: OSError) -> Unavailable:
        return Unavailable(
            "unreadable", f"{directory} cannot be read ({error.strerror}): check that this user may read it"
        )


class _OpenRun:
    """A run whose report was read and whose files are known."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.id = directory.name
        self.report = _read(directory / REPORT)
        self.users = UserFiles(directory)
        self.ends = {one.partition: one.end for one in self.report.ranges}
        topic_id = self.report.source.get("topic_id")
        self.topic_id = topic_id if isinstance(topic_id, str) else None
        self._finished = _milliseconds(self.report.finished)
        self._partitions: tuple[BatchPartition, ...] | None = None

    def as_of(self, now: float) -> AsOf:
        """The end offsets of the run, and its age."""
        positions = tuple(
            Position(one.partition, one.end, one.last_seen)
            for one in sorted(self.report.ranges, key=lambda one: one.partition)
        )
        return AsOf(self.id, positions, max(round(now * 1000) - self._finished, 0))

    def partitions(self) -> tuple[BatchPartition, ...]:
        """Users and events by partition; computed once, because a run never changes."""
        if self._partitions is None:
            ranges = {one.partition: one for one in self.report.ranges}
            self._partitions = tuple(
                msgspec.structs.replace(
                    one,
                    start=ranges[one.partition].start,
                    incidents=ranges[one.partition].opened,
                    event_time=ranges[one.partition].last_seen,
                )
                for one in self.users.partitions(self.ends)
            )
        return self._partitions


def _read(path: Path) -> Report:
    try:
        with path.open("rb") as file:
            size = os.fstat(file.fileno()).st_size
            if size > MAX_REPORT_BYTES:
                raise UnreadableError(f"{path} has {size:,} bytes, at most {MAX_REPORT_BYTES:,} are read")
            report = run_report.decode(file.read())
        _milliseconds(report.finished)
        return report
    except OSError as error:
        raise UnreadableError(
            f"{path} cannot be read ({error.strerror}): run `streamguard retrain`"
        ) from None
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError, ValueError) as error:
        raise UnreadableError(f"{path} is damaged ({error}): run `streamguard retrain`") from None


def _place(user: BatchUser) -> Place:
    return Place(user.evidence_bits, user.user, user.partition)


def _milliseconds(moment: str) -> int:
    return round(datetime.fromisoformat(moment).timestamp() * 1000)


def _gone(run_id: str) -> Unavailable:
    return Unavailable("gone", f"run {run_id[:40]} was deleted: ask for the first page of the latest run")


_NOT_CONFIGURED = Unavailable(
    "not_configured",
    "this server has no directory of runs: set batch.output to that of `streamguard retrain`",
)
