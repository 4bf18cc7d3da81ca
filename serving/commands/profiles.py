"""Users straight from Kafka: the state changelog is read into a temporary copy when a profile is asked for."""

from __future__ import annotations

import threading
import time
from contextlib import ExitStack
from pathlib import Path
from tempfile import TemporaryDirectory

import click

from streamguard.errors import UnavailableError
from streamguard.kafka.connection import Brokers
from streamguard.serving.commands.extra import of_serve
from streamguard.serving.commands.progress import slow
from streamguard.serving.log.reader import topic_state
from streamguard.serving.peers.holders import Holders
from streamguard.serving.peers.profiles import Profiles
from streamguard.serving.query.answers import RankedUsers
from streamguard.serving.query.filters import EntityKind, IncidentFilter
from streamguard.serving.query.service import QueryService
from streamguard.serving.query.users import Timeline, UserAnswer, UserQueries, timeline_of
from streamguard.serving.replica.replica import Replica
from streamguard.serving.results.batch import BatchResults
from streamguard.settings.schema import Settings
from streamguard.text import counted

SILENCE_SECONDS = 30.0
"""Time without a record after which reading the changelog fails."""
START_SECONDS = 120.0
"""Time within which the first records arrive; what reads profiles is compiled before, once on a machine."""
SETTLED_SECONDS = 3.0
"""Time at the end of the changelog after which a copy that is not ready is not waited for."""
PROGRESS_SECONDS = 1.0
"""Interval at which progress is printed."""
POLL_SECONDS = 0.05


class ProfileUsers:
    """Answers about users from the topics, the runs of `batch.output`, and the projection of incidents.

    Parameters
    ----------
    settings
        Brokers, topics, and the directory of runs.
    service
        Answers about incidents.
    used
        Ends the copy of the changelog, and removes it.
    """

    def __init__(self, settings: Settings, service: QueryService, used: ExitStack) -> None:
        self._settings = settings
        self._service = service
        self._used = used
        self._queries: UserQueries | None = None

    def ranked(self, kind: EntityKind, limit: int, wanted: IncidentFilter) -> RankedUsers:
        """Entities by the risk of their incidents."""
        return self._service.totals.ranked(kind, limit, wanted)

    def user(self, name: str) -> UserAnswer:
        """Everything about one user.

        Raises
        ------
        UnavailableError
            If the changelog cannot be read.
        ConfigurationError
            If the results of a retrain cannot be read without further packages.
        """
        if self._queries is None:
            batch = BatchResults(self._settings.batch.output)
            self._queries = UserQueries(self._service.incidents, Profiles(Holders(self._read())), batch)
        with slow("the results of the latest retrain"), of_serve("the result of a retrain"):
            return self._queries.user(name)

    def timeline(self, name: str) -> Timeline:
        """What happened with the incidents of a user, the latest first."""
        return timeline_of(self._service.incidents, name)

    def _read(self) -> Replica:
        """A copy of the changelog that has reached its end, and goes on to be followed."""
        directory = self._used.enter_context(TemporaryDirectory(prefix="streamguard-profiles-"))
        replica = Replica(self._settings, Path(directory))
        described = topic_state(Brokers.of(self._settings), replica.topic)
        if described is None:
            return replica  # which says that it has read nothing
        stop, failed = threading.Event(), list[BaseException]()

        def follow() -> None:
            try:
                replica.follow(stop)
            except BaseException as error:  # noqa: BLE001 - raised in the thread that waits
                failed.append(error)

        thread = threading.Thread(target=follow, name=replica.topic, daemon=True)
        thread.start()
        self._used.callback(thread.join)
        self._used.callback(stop.set)
        _await(replica, failed, sum(one.end - one.start for one in described.bounds.values()))
        return replica


def _await(replica: Replica, failed: list[BaseException], total: int) -> None:
    """Wait until the copy has reached the end; print progress if that takes longer than a second.

    A copy that has reached the end and is not ready lacks deleted records: the answer says why.
    """
    begun = shown = moved = time.monotonic()
    before = -1
    with slow("the state changelog, after what reads it is compiled once"):
        while not (failed or replica.as_of().positions):
            if time.monotonic() - begun > START_SECONDS:
                raise _silent(replica, START_SECONDS)
            time.sleep(POLL_SECONDS)
    while not replica.ready:
        if failed:
            raise failed[0]
        now, left = time.monotonic(), replica.counters().lag
        if left != before:
            before, moved = left, now
        elif not left and now - moved > SETTLED_SECONDS:
            return
        elif now - moved > SILENCE_SECONDS:
            raise _silent(replica, SILENCE_SECONDS)
        if now - shown >= PROGRESS_SECONDS:
            shown = now
            click.echo(
                f"reading {replica.topic}: {max(total - left, 0):,} of {counted(total, 'offset')}", err=True
            )
        time.sleep(POLL_SECONDS)


def _silent(replica: Replica, seconds: float) -> UnavailableError:
    return UnavailableError(
        f"no record of {replica.topic} has arrived for {seconds:.0f} s: check that all partitions have a leader, then "
        "try again"
    )
