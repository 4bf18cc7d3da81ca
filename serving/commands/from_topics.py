"""Incidents and users straight from Kafka: topics are read to their ends into a temporary store, and followed."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from typing import NamedTuple

import click

from streamguard.errors import ConfigurationError, UnavailableError
from streamguard.kafka import topics
from streamguard.kafka.connection import Brokers
from streamguard.serving.commands.extra import of_serve
from streamguard.serving.commands.profiles import ProfileUsers
from streamguard.serving.commands.source import Source
from streamguard.serving.commands.temporary_store import temporary
from streamguard.serving.commands.topic_desk import TopicDesk
from streamguard.serving.log.reader import TopicState, topic_state
from streamguard.serving.projection import projector
from streamguard.serving.projection.projector import Follower
from streamguard.serving.query.events import EventQueries, IncidentEvents
from streamguard.serving.query.service import QueryService
from streamguard.serving.results.archive import ArchivedEvents
from streamguard.settings.schema import Settings
from streamguard.text import counted

SILENCE_SECONDS = 30.0
"""Time without a record after which reading to the end fails."""
PROGRESS_SECONDS = 1.0
"""Interval at which progress is printed while the topics are read."""
POLL_SECONDS = 0.05
"""Interval at which the followers are asked for a change."""
_log = logging.getLogger("streamguard.serving")


class _Plain(logging.Formatter):
    """Messages alone: a person reads them beside the result."""

    def format(self, record: logging.LogRecord) -> str:
        return record.getMessage()


@contextmanager
def opened(settings: Settings) -> Iterator[Source]:
    """The incidents, campaigns and decisions that the topics have now, and those that follow; the users on demand.

    Raises
    ------
    UnavailableError
        If Kafka does not answer, or refuses this user.
    ConfigurationError
        If there is no topic of incidents.
    """
    brokers, names = Brokers.of(settings), topics.names(settings)
    states = _states(brokers, names)
    with temporary(settings.detection.floor_bits) as store, _plain_log(), ExitStack() as used:
        followers = (
            projector.incidents(brokers, names["alerts"], store),
            projector.campaigns(brokers, names["campaigns"], store),
            projector.decisions(brokers, names["decisions"], store),
        )
        stop = threading.Event()
        threads = [
            threading.Thread(target=one.run, args=(stop,), name=one.topic, daemon=True) for one in followers
        ]
        for thread in threads:
            thread.start()
        try:
            await_ends(followers, states)
            service = QueryService(store, followers)
            users = ProfileUsers(settings, service, used)
            archive = ArchivedEvents(settings.serve.archive_dir or None)
            queries = EventQueries(service.incidents, brokers, archive)

            def events(id: str) -> IncidentEvents:
                with of_serve("the archive"):
                    return queries.of_incident(id)

            desk = TopicDesk(brokers, names["decisions"], service, used)
            yield Source(
                f"Kafka at {brokers}",
                service.incidents,
                users,
                events,
                lambda: _changes(followers),
                desk,
            )
        finally:
            used.close()
            stop.set()
            for thread in threads:
                thread.join()


def _states(brokers: Brokers, names: Mapping[str, str]) -> dict[str, TopicState]:
    """What the brokers say of the topics that exist; the followers log a warning about others."""
    found = {names[role]: topic_state(brokers, names[role]) for role in ("alerts", "campaigns", "decisions")}
    if found[names["alerts"]] is None:
        raise ConfigurationError(
            f"the topic {names['alerts']} does not exist at {brokers}: run `streamguard topics create`, or give the "
            "settings of the workers with --config"
        )
    return {topic: state for topic, state in found.items() if state is not None}


class _Reached(NamedTuple):
    records: int
    at: float


def await_ends(followers: Sequence[Follower], states: Mapping[str, TopicState]) -> None:
    """Wait until every topic was read to its end; print progress if that takes longer than a second.

    Raises
    ------
    UnavailableError
        If a topic cannot be read, or no record arrives for `SILENCE_SECONDS`.
    """
    bounds = {topic: state.bounds for topic, state in states.items()}
    total = sum(bound.end - bound.start for one in bounds.values() for bound in one.values())
    shown = time.monotonic()
    reached = _Reached(-1, shown)
    while reading := [one for one in followers if not one.caught_up.is_set()]:
        for one in reading:
            if one.trouble and one.topic in states:
                raise UnavailableError(f"{one.topic} cannot be read: {one.trouble}")
        now = time.monotonic()
        read = sum(
            place.offset - bounds[one.topic][place.partition].start
            for one in followers
            for place in one.progress.as_of().positions
            if place.partition in bounds.get(one.topic, ())
        )
        if read != reached.records:
            reached = _Reached(read, now)
        elif now - reached.at > SILENCE_SECONDS:
            raise UnavailableError(
                f"no record of {', '.join(one.topic for one in reading)} has arrived for {SILENCE_SECONDS:.0f} s: "
                "check that all partitions have a leader, then try again"
            )
        if now - shown >= PROGRESS_SECONDS:
            shown = now
            click.echo(
                f"reading {', '.join(one.topic for one in reading)}: {read:,} of {counted(total, 'offset')}",
                err=True,
            )
        reading[0].caught_up.wait(POLL_SECONDS)


def _changes(followers: Sequence[Follower]) -> Iterator[None]:
    seen = -1
    while True:
        if (now := sum(one.progress.sequence for one in followers)) != seen:
            seen = now
            yield
        time.sleep(POLL_SECONDS)


@contextmanager
def _plain_log() -> Iterator[None]:
    """Print warnings of the followers on standard error while they run."""
    handler = logging.StreamHandler()
    handler.setLevel(logging.WARNING)
    handler.setFormatter(_Plain())
    propagated, _log.propagate = _log.propagate, False
    _log.addHandler(handler)
    try:
        yield
    finally:
        _log.removeHandler(handler)
        _log.propagate = propagated
