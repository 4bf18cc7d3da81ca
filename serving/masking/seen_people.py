"""Users, events, runs and decisions about values as one caller sees them; each of these answers is about people."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence

from streamguard.serving.log.freshness import AsOf
from streamguard.serving.masking.viewer import Viewer
from streamguard.serving.peers.answers import Coverage, Held, HeldCrowd, HeldNames, HeldProfiles, HeldSources
from streamguard.serving.peers.profiles import FoundProfiles, Profiles
from streamguard.serving.peers.signing import Asker
from streamguard.serving.peers.sources import FoundCrowd, FoundSources, SourceStates
from streamguard.serving.query.archived import ArchivedQueries, UserEvents
from streamguard.serving.query.compare import CompareQueries, TotalsAnswer
from streamguard.serving.query.detection import (
    DetectionAnswer,
    DetectionDesk,
    DetectionPreview,
    DetectionRequest,
)
from streamguard.serving.query.events import EventQueries, IncidentEvents
from streamguard.serving.query.sources import CrowdAnswer, SourceAnswer, SourceList, SourceQueries
from streamguard.serving.query.users import Timeline, UserAnswer, UserNames, UserQueries
from streamguard.serving.results.answers import Unavailable
from streamguard.serving.results.batch import BatchResults
from streamguard.serving.results.comparison import BatchCounts, Comparison, LiveCounts
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
from streamguard.serving.results.totals import LiveTotals


class SeenUsers(UserQueries):
    """Users as a caller sees them: all, or those of an incident that is unmasked for the caller."""

    def __init__(self, inner: UserQueries, viewer: Viewer) -> None:
        self._inner, self._viewer = inner, viewer
        self.profiles = SeenProfiles(inner.profiles, viewer)

    def user(self, name: str, asker: Asker | None = None) -> UserAnswer:
        """Everything about one user."""
        self._viewer.read_user(name)
        return self._inner.user(name, asker)

    def names(self, after: str = "", limit: int = 100, asker: Asker | None = None) -> UserNames:
        """Names of users with a profile."""
        self._viewer.read_people()
        return self._inner.names(after, limit, asker)

    def timeline(self, name: str) -> Timeline:
        """What happened with the incidents of a user."""
        self._viewer.read_user(name)
        return self._inner.timeline(name)


class SeenProfiles(Profiles):
    """Profiles as another server asks for them on behalf of a caller, and which server holds which of them."""

    def __init__(self, inner: Profiles, viewer: Viewer) -> None:
        self._inner, self._viewer = inner, viewer

    def of(self, user: str, asker: Asker | None) -> FoundProfiles:
        """The profiles of a user in all partitions."""
        self._viewer.read_user(user)
        return self._inner.of(user, asker)

    def names(self, after: str, limit: int, asker: Asker | None) -> tuple[tuple[str, ...], AsOf]:
        """Names of users."""
        self._viewer.read_people()
        return self._inner.names(after, limit, asker)

    def as_of(self) -> AsOf:
        """How far the changelog is reflected."""
        return self._inner.as_of()

    def counts(self) -> tuple[int, int, int]:
        """Numbers of partitions by who answers for them."""
        return self._inner.counts()

    def held(self) -> Held:
        """What this server holds."""
        return self._inner.held()

    def held_profiles(self, user: str, partitions: Collection[int]) -> HeldProfiles:
        """Profiles of a user that are held here."""
        self._viewer.read_user(user)
        return self._inner.held_profiles(user, partitions)

    def held_names(self, after: str, limit: int, partitions: Collection[int]) -> HeldNames:
        """Names of users that are held here."""
        self._viewer.read_people()
        return self._inner.held_names(after, limit, partitions)

    def coverage(self) -> Coverage:
        """Which server answers for which partitions."""
        return self._inner.coverage()


class SeenEvents(EventQueries):
    """Raw events as a caller sees them: those of incidents that are not masked."""

    def __init__(self, inner: EventQueries, viewer: Viewer) -> None:
        self._inner, self._viewer = inner, viewer

    def of_incident(self, id: str) -> IncidentEvents:
        """The events of the publications of an incident."""
        self._viewer.read_incident(id)
        return self._inner.of_incident(id)


class SeenDetection(DetectionDesk):
    """Decides about values of incidents that are not masked, because a decision names the value and the user."""

    def __init__(self, inner: DetectionDesk, viewer: Viewer) -> None:
        self._inner, self._viewer = inner, viewer

    def preview(self, id: str, wanted: DetectionRequest) -> DetectionPreview:
        """What a decision about an incident would have changed."""
        self._viewer.read_incident(id)
        return self._inner.preview(id, wanted)

    def decide(self, id: str, wanted: DetectionRequest, by: str, request: str = "") -> DetectionAnswer:
        """Sign the decision and write it."""
        self._viewer.read_incident(id)
        return self._inner.decide(id, wanted, by, request)

    def missing_key(self) -> str:
        """What the server lacks to sign decisions; the answer has no names."""
        return self._inner.missing_key()

    def revoke(self, decision: str, reason: str, by: str) -> DetectionAnswer:
        """End a decision; the answer names the decision, and no value."""
        return self._inner.revoke(decision, reason, by)


class SeenBatch(BatchResults):
    """Runs as a caller sees them: totals, and for those who may see people all of it."""

    def __init__(self, inner: BatchResults, viewer: Viewer) -> None:
        self._inner, self._viewer = inner, viewer

    def runs(self) -> tuple[RunEntry, ...] | Unavailable:
        """All published runs."""
        return self._viewer.shown(self._inner.runs())

    def latest(self) -> BatchRun | Unavailable:
        """The latest run with its report, which ranks users."""
        self._viewer.read_people()
        return self._inner.latest()

    def anomalies(self, limit: int, after: AnomalyCursor | None = None) -> AnomalyPage | Unavailable:
        """One page of the users at risk."""
        self._viewer.read_people()
        return self._inner.anomalies(limit, after)

    def user(self, name: str) -> BatchUserAnswer | Unavailable:
        """One user in the latest run."""
        self._viewer.read_user(name)
        return self._inner.user(name)

    def of_source(self, address: str) -> SourceUsers | Unavailable:
        """Users of an address among the events that the latest run has kept."""
        self._viewer.read_people()
        return self._inner.of_source(address)

    def totals(self) -> BatchTotals | Unavailable:
        """Totals of the latest run."""
        return self._viewer.shown(self._inner.totals())

    def compare(self, user: str, live: LiveCounts) -> Comparison | Unavailable:
        """Compare the latest run with what the speed layer has counted of a user."""
        self._viewer.read_user(user)
        return self._inner.compare(user, live)

    def counts(self, user: str, partition: int) -> BatchCounts | Unavailable:
        """What the latest run has counted of a user in one partition."""
        self._viewer.read_user(user)
        return self._inner.counts(user, partition)

    def compare_totals(
        self,
        live: Sequence[LiveTotals],
        opened: Callable[[Mapping[int, tuple[int, int]]], Mapping[int, int]],
        *,
        model: bool = True,
    ) -> TotalsOfRun | Unavailable:
        """Compare the latest run with what the speed layer has counted of all users."""
        return self._inner.compare_totals(live, opened, model=model)


class SeenArchive(ArchivedQueries):
    """Archived events of a user as a caller sees them: for those who may open the user's profile."""

    def __init__(self, inner: ArchivedQueries, viewer: Viewer) -> None:
        self._inner, self._viewer = inner, viewer

    def of_user(
        self, name: str, since: int | None, until: int | None, limit: int, after: str | None
    ) -> UserEvents | Unavailable:
        """A page of the archived events of a user."""
        self._viewer.read_user(name)
        return self._inner.of_user(name, since, until, limit, after)


class SeenAddresses(SourceQueries):
    """Addresses and the crowd, for those who may see people: both name users, places and hosts."""

    def __init__(self, inner: SourceQueries, viewer: Viewer) -> None:
        self._inner, self._viewer = inner, viewer
        self.states = SeenSourceStates(inner.states, viewer)

    def listed(self, limit: int = 50, asker: Asker | None = None) -> SourceList:
        """Addresses with incidents, and addresses that fail now."""
        self._viewer.read_people()
        return self._inner.listed(limit, asker)

    def source(self, address: str, asker: Asker | None = None) -> SourceAnswer:
        """Everything about one address."""
        self._viewer.read_people()
        return self._inner.source(address, asker)

    def crowd(self, asker: Asker | None = None) -> CrowdAnswer:
        """Everybody together."""
        self._viewer.read_people()
        return self._inner.crowd(asker)


class SeenSourceStates(SourceStates):
    """State of addresses and the crowd as another server asks for it on behalf of a caller."""

    def __init__(self, inner: SourceStates, viewer: Viewer) -> None:
        self._inner, self._viewer = inner, viewer

    def as_of(self) -> AsOf:
        """How far the changelog is reflected."""
        return self._inner.as_of()

    def of(self, address: str | None, asker: Asker | None) -> FoundSources:
        """What is known of one address, or which addresses fail."""
        self._viewer.read_people()
        return self._inner.of(address, asker)

    def crowds(self, asker: Asker | None) -> FoundCrowd:
        """All users together."""
        self._viewer.read_people()
        return self._inner.crowds(asker)

    def held_sources(self, address: str | None, partitions: Collection[int]) -> HeldSources:
        """What is held here of one address or of those that fail."""
        self._viewer.read_people()
        return self._inner.held_sources(address, partitions)

    def held_crowd(self, partitions: Collection[int]) -> HeldCrowd:
        """What is held here of everybody."""
        self._viewer.read_people()
        return self._inner.held_crowd(partitions)


class SeenCompare(CompareQueries):
    """Speed against batch in total: the answer has counts only."""

    def __init__(self, inner: CompareQueries) -> None:
        self._inner = inner

    def totals(self) -> TotalsAnswer | Unavailable:
        """Compare everything that both layers have counted."""
        return self._inner.totals()
