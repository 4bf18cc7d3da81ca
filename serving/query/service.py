"""The query service: what the API, the page and the command line ask, and the freshness that they can demand."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from streamguard.errors import TemporaryError
from streamguard.serving.audit.record import AuditRecord
from streamguard.serving.decisions.writer import ActionWriter
from streamguard.serving.log.freshness import AsOf
from streamguard.serving.projection.projector import Follower
from streamguard.serving.projection.store import Store
from streamguard.serving.query.actions import ActionQueries
from streamguard.serving.query.archived import ArchivedQueries
from streamguard.serving.query.cases import CaseDesk, NotUpToBoundError
from streamguard.serving.query.compare import CompareQueries
from streamguard.serving.query.detection import DetectionDesk
from streamguard.serving.query.events import EventQueries
from streamguard.serving.query.incidents import IncidentQueries
from streamguard.serving.query.mutes import MuteQueries
from streamguard.serving.query.reading import NotFoundError
from streamguard.serving.query.sources import SourceQueries
from streamguard.serving.query.totals import Totals
from streamguard.serving.query.unmasking import NameQueries, UnmaskDesk
from streamguard.serving.query.users import UserQueries
from streamguard.serving.results.answers import Unavailable
from streamguard.serving.results.batch import BatchResults
from streamguard.serving.results.dead_letters import DeadLetterSummary
from streamguard.serving.results.models import Models

MAX_AHEAD = 1000
"""Offsets by which a token may be ahead of this server: others have written them a moment ago."""


class TooStaleError(TemporaryError):
    """The answer would be older than the request allows."""


class Sources(NamedTuple):
    """What a server has besides incidents; a command may have none of it.

    Attributes
    ----------
    users, events
        Questions about users, and about raw events.
    batch, models
        Runs of retrains, and the registry.
    detection
        Decisions that change detection.
    compare
        Speed against batch in total.
    archived
        Events that the archive keeps.
    addresses
        Questions about source addresses and the crowd.
    dead_letters
        Returns a summary of the refused records.
    """

    users: UserQueries
    events: EventQueries
    batch: BatchResults
    models: Models
    detection: DetectionDesk
    compare: CompareQueries
    archived: ArchivedQueries
    addresses: SourceQueries
    dead_letters: Callable[[], DeadLetterSummary | Unavailable]


class QueryService:
    """Everything that can be asked.

    Parameters
    ----------
    store
        The projection.
    followers
        What keeps it equal to its topics; the topic of decisions is the last one.
    writer
        Writes actions of people; None for a service that only answers.

    Attributes
    ----------
    incidents, totals, actions
        Questions about incidents and campaigns, about all of them together, and about actions of people.
    mutes
        What a mute would hide.
    cases
        Acts on incidents; None without a writer.
    names, unmasking
        Who may see the names of which incidents, and the desk at which this is asked for; None without a writer.
    sources
        What is known besides incidents; None if nothing is.
    audit_log
        Returns the latest records of the audit log, given how many are looked at; None if there is none.
    privacy
        `streamguard.serving.masking.viewer.Privacy`; None: the service is asked by nobody but its own process.
    """

    def __init__(
        self, store: Store, followers: Sequence[Follower] = (), writer: ActionWriter | None = None
    ) -> None:
        self._followers = tuple(followers)
        self.incidents = IncidentQueries(store, self.as_of)
        self.totals = Totals(store, self.as_of)
        self.actions = ActionQueries(store, self.as_of)
        self.mutes = MuteQueries(store, self.as_of, self.incidents)
        self.cases = (
            CaseDesk(self.incidents, self.actions, writer, self.decided_offset)
            if writer is not None
            else None
        )
        self.names = NameQueries(store, self.as_of)
        self.unmasking = (
            UnmaskDesk(self.incidents, self.names, self.cases, writer)
            if writer is not None and self.cases is not None
            else None
        )
        self.sources: Sources | None = None
        self.privacy: Any = None
        self.audit_log: Callable[[int], tuple[AuditRecord, ...]] | None = None

    def _source(self) -> Sources:
        if self.sources is None:
            raise NotFoundError("this server knows incidents only")
        return self.sources

    def asked_users(self) -> UserQueries:
        """Questions about users."""
        return self._source().users

    def asked_events(self) -> EventQueries:
        """Questions about raw events."""
        return self._source().events

    def asked_batch(self) -> BatchResults:
        """Runs of retrains."""
        return self._source().batch

    def asked_detection(self) -> DetectionDesk:
        """Decisions that change detection."""
        return self._source().detection

    def asked_archived(self) -> ArchivedQueries:
        """Events that the archive keeps."""
        return self._source().archived

    def asked_sources(self) -> SourceQueries:
        """Questions about source addresses and the crowd."""
        return self._source().addresses

    def asked_compare(self) -> CompareQueries:
        """Speed against batch in total."""
        return self._source().compare

    def asked_models(self) -> Models:
        """The model registry."""
        return self._source().models

    def dead_letters(self) -> DeadLetterSummary | Unavailable:
        """A summary of the refused records."""
        return self._source().dead_letters()

    def as_of(self) -> tuple[AsOf, ...]:
        """How far the projection is, by topic."""
        return tuple(follower.progress.as_of() for follower in self._followers)

    def decided_offset(self) -> int:
        """Offset up to which the projection has the topic of decisions."""
        positions = self._followers[-1].progress.as_of().positions if self._followers else ()
        return positions[0].offset if positions else 0

    @property
    def sequence(self) -> int:
        """Rises with every change of the projection."""
        return sum(follower.progress.sequence for follower in self._followers)

    @property
    def ready(self) -> str:
        """Why answers would be incomplete; empty when the topics were read to their ends once."""
        reading = [follower.topic for follower in self._followers if not follower.caught_up.is_set()]
        return f"{', '.join(reading)}: being read from the beginning" if reading else ""

    def require_fresh(self, max_staleness_ms: int | None, at_least: str | None = None) -> None:
        """Check that answers are as fresh as a request demands.

        Parameters
        ----------
        max_staleness_ms
            Greatest age in milliseconds; None: any.
        at_least
            Consistency token of an earlier answer, whose state has to be included; None: any.

        Raises
        ------
        TooStaleError
            If answers may be older.
        NotUpToBoundError
            If the state of the token is not reached in time.
        """
        if at_least is not None and self.cases is not None:
            wanted = int(at_least[1:])
            if wanted > self.decided_offset() + MAX_AHEAD:
                raise NotUpToBoundError("the token is not one that a server of this topic has returned")
            self.cases.wait_for(wanted)
        for one in self.as_of():
            if max_staleness_ms is not None and one.staleness_ms > max_staleness_ms:
                raise TooStaleError(
                    f"{one.source} was last known to be complete {one.staleness_ms:,} ms ago, and the request allows "
                    f"{max_staleness_ms:,} ms: ask another instance, or allow more"
                )
