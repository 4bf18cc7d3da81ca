"""The query service as one caller sees it: masked, or with a record of every name that is shown.

Each class stands for one of `serving.query` and has none of its state, so a method that is added there and not here
fails instead of showing names.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from streamguard.serving.decisions.record import CaseAction, Target
from streamguard.serving.decisions.transaction import Record
from streamguard.serving.decisions.unmasking import State, Unmasking
from streamguard.serving.log.freshness import AsOf
from streamguard.serving.masking.seen_people import (
    SeenAddresses,
    SeenArchive,
    SeenBatch,
    SeenCompare,
    SeenDetection,
    SeenEvents,
    SeenUsers,
)
from streamguard.serving.masking.viewer import Viewer
from streamguard.serving.query.actions import ActionQueries
from streamguard.serving.query.answers import (
    Audit,
    BulkAnswer,
    BulkPreview,
    CampaignAnswer,
    EarlierIncidents,
    Facets,
    IncidentAnswer,
    Incidents,
    RankedUsers,
    Statistics,
    Unmaskings,
)
from streamguard.serving.query.cases import CaseDesk
from streamguard.serving.query.filters import IncidentFilter, Sort
from streamguard.serving.query.incidents import IncidentQueries
from streamguard.serving.query.mutes import MutePreview, MuteQueries
from streamguard.serving.query.requests import ActionRequest
from streamguard.serving.query.service import QueryService, Sources
from streamguard.serving.query.totals import Totals
from streamguard.serving.query.unmasking import NameQueries, UnmaskDesk


class SeenService(QueryService):
    """The query service as a caller sees it.

    Parameters
    ----------
    service
        The whole service.
    viewer
        Who looks.
    """

    def __init__(self, service: QueryService, viewer: Viewer) -> None:
        self._followers = service._followers
        self.incidents = SeenIncidents(service.incidents, viewer)
        self.totals = SeenTotals(service.totals, viewer)
        self.actions = SeenActions(service.actions, viewer)
        self.mutes = SeenMutes(service.mutes, viewer)
        self.cases = SeenCases(service.cases, viewer) if service.cases is not None else None
        self.names = SeenNames(service.names, viewer)
        self.unmasking = SeenUnmaskDesk(service.unmasking, viewer) if service.unmasking is not None else None
        self.audit_log = service.audit_log
        self.sources = _sources(service.sources, viewer) if service.sources is not None else None


def _sources(sources: Sources, viewer: Viewer) -> Sources:
    return Sources(
        users=SeenUsers(sources.users, viewer),
        events=SeenEvents(sources.events, viewer),
        batch=SeenBatch(sources.batch, viewer),
        models=sources.models,  # versions and judgements, which know no people
        detection=SeenDetection(sources.detection, viewer),
        compare=SeenCompare(sources.compare),
        archived=SeenArchive(sources.archived, viewer),
        addresses=SeenAddresses(sources.addresses, viewer),
        dead_letters=lambda: viewer.listed(sources.dead_letters),
    )


class SeenIncidents(IncidentQueries):
    """Lists, counts, incidents and campaigns as a caller sees them."""

    def __init__(self, inner: IncidentQueries, viewer: Viewer) -> None:
        self._inner, self._viewer = inner, viewer

    def page(
        self, wanted: IncidentFilter, sort: Sort = "evidence", limit: int = 50, after: str | None = None
    ) -> Incidents:
        """A page of incidents. An incident that is unmasked for the caller is masked here all the same."""
        own = self._viewer.wanted(wanted)
        return self._viewer.listed(lambda: self._inner.page(own, sort, limit, after))

    def facets(self, wanted: IncidentFilter) -> Facets:
        """Counts of a list, which name nobody but those who act on incidents."""
        return self._viewer.shown(self._inner.facets(self._viewer.wanted(wanted)))

    def incident(self, id: str) -> IncidentAnswer:
        """One incident, masked unless it is unmasked for the caller."""
        return self._viewer.of_incident(id, lambda: self._inner.incident(id))

    def earlier(self, id: str) -> EarlierIncidents:
        """How incidents like one were closed: others than this one, so they are masked even if it is unmasked."""
        return self._viewer.listed(lambda: self._inner.earlier(id), id)

    def publications(self, user: str) -> list[tuple[bytes, str]]:
        """Publications of a user's incidents."""
        self._viewer.read_user(user)
        return self._inner.publications(user)

    def published_for(
        self, topic: str, events: Sequence[tuple[int, int, str]]
    ) -> dict[tuple[int, int], tuple[str, ...]]:
        """Ids of the incidents that were published for some events."""
        return self._inner.published_for(topic, events)

    def campaign(self, id: str) -> CampaignAnswer:
        """One campaign."""
        return self._viewer.listed(lambda: self._inner.campaign(id), id)


class SeenTotals(Totals):
    """Rankings and totals as a caller sees them."""

    def __init__(self, inner: Totals, viewer: Viewer) -> None:
        self._inner, self._viewer = inner, viewer

    def ranked(
        self, kind: str = "user", limit: int = 50, wanted: IncidentFilter | None = None
    ) -> RankedUsers:
        """Entities of a kind by risk, for those who may see people."""
        self._viewer.read_people()
        return self._inner.ranked(kind, limit, None if wanted is None else self._viewer.wanted(wanted))

    def as_of(self) -> tuple[AsOf, ...]:
        """How far the projection is."""
        return self._inner.as_of()

    def opened(self, offsets: Mapping[int, tuple[int, int]]) -> dict[int, int]:
        """Incidents by the partition of the events topic in which they began."""
        return self._inner.opened(offsets)

    def techniques(self) -> tuple[dict[str, int], tuple[AsOf, ...]]:
        """Number of incidents by ATT&CK technique."""
        return self._inner.techniques()

    def statistics(self) -> Statistics:
        """Totals of the live results."""
        return self._inner.statistics()


class SeenActions(ActionQueries):
    """Actions of people as a caller sees them."""

    def __init__(self, inner: ActionQueries, viewer: Viewer) -> None:
        self._inner, self._viewer = inner, viewer

    def targets(self, wanted: IncidentFilter, limit: int) -> list[Target]:
        """The incidents of a list as an action names them."""
        return self._inner.targets(self._viewer.wanted(wanted), limit)

    def incidents_of(self, action: str) -> set[str]:
        """The incidents that an action is about."""
        return self._inner.incidents_of(action)

    def parts(self, action: str) -> list[tuple[str, CaseAction]]:
        """The actions on single incidents of an action on a list; only the desk needs them, for all incidents."""
        return self._viewer.listed(lambda: self._inner.parts(action))

    def accepted(self, action: str) -> int:
        """Number of incidents on which an action has an effect."""
        return self._inner.accepted(action)

    def audit(self, limit: int = 100, before: int | None = None) -> Audit:
        """Actions of people, the latest first; their texts are masked for those who see pseudonyms."""
        return self._viewer.listed(lambda: self._inner.audit(limit, before))


class SeenMutes(MuteQueries):
    """Previews of mutes, which count incidents and name their ids."""

    def __init__(self, inner: MuteQueries, viewer: Viewer) -> None:
        self._inner, self._viewer = inner, viewer

    def preview(self, id: str, until: str = "", seen: int | None = None) -> MutePreview:
        """What a mute of an incident would hide."""
        return self._viewer.shown(self._inner.preview(id, until, seen))


class SeenCases(CaseDesk):
    """Acts on incidents for a caller, and notes whether the caller sees pseudonyms only."""

    def __init__(self, inner: CaseDesk, viewer: Viewer) -> None:
        self._inner, self._viewer = inner, viewer

    def act(
        self, id: str, wanted: ActionRequest, by: str, action_id: str = "", *, masked: bool = False
    ) -> IncidentAnswer:
        """Act on one incident."""
        own = masked or not self._viewer.sees_incident(id)
        return self._viewer.of_incident(id, lambda: self._inner.act(id, wanted, by, action_id, masked=own))

    def act_on_list(
        self,
        filter: IncidentFilter,
        wanted: ActionRequest,
        by: str,
        action_id: str = "",
        *,
        confirmed: str = "",
        masked: bool = False,
    ) -> BulkAnswer:
        """Act on all incidents of a list."""
        own = self._viewer.wanted(filter)
        masked = masked or self._viewer.masked
        return self._inner.act_on_list(own, wanted, by, action_id, confirmed=confirmed, masked=masked)

    def preview_list(self, filter: IncidentFilter, wanted: ActionRequest) -> BulkPreview:
        """What an action on a list would be about; the answer has no names."""
        return self._inner.preview_list(self._viewer.wanted(filter), wanted)

    def undo_on_list(
        self, action: str, by: str, reason: str = "", action_id: str = "", *, masked: bool = False
    ) -> BulkAnswer:
        """Undo an action on a list."""
        masked = masked or self._viewer.masked
        return self._inner.undo_on_list(action, by, reason, action_id, masked=masked)

    def note(self, id: str, text: str, by: str, action_id: str, record: Record) -> int:
        """Write a record of another topic together with a comment on an incident that is not masked."""
        self._viewer.read_incident(id)
        return self._inner.note(id, text, by, action_id, record)

    def wait_for(self, offset: int) -> None:
        """Wait until the projection has the topic of decisions up to an offset."""
        self._inner.wait_for(offset)


class SeenNames(NameQueries):
    """Requests for names as a caller sees them: their own, or all for those who answer them."""

    def __init__(self, inner: NameQueries, viewer: Viewer) -> None:
        self._inner, self._viewer = inner, viewer

    def listed(self, states: tuple[State, ...] = (), limit: int = 100, asker: str = "") -> Unmaskings:
        """Requests in some states, the latest first."""
        if not self._viewer.may("answer_unmask"):
            asker = self._viewer.name
        return self._viewer.listed(lambda: self._inner.listed(states, limit, asker))

    def of_incident(self, id: str) -> tuple[Unmasking, ...]:
        """The requests for the names of an incident that the caller may see."""
        own = self._viewer.name
        every = self._viewer.may("answer_unmask")
        found = tuple(one for one in self._inner.of_incident(id) if every or one.by == own)
        return self._viewer.shown(found)

    def request(self, id: str) -> Unmasking:
        """A request."""
        return self._viewer.shown(self._inner.request(id))

    def shown_of(self, incident: str, person: str) -> bool:
        """Whether the names of an incident are shown to a person now."""
        return self._inner.shown_of(incident, person)

    def shown_user(self, user: str, person: str) -> bool:
        """Whether an incident of a user is unmasked for a person; whoever asks learns what they may see anyway."""
        return person == self._viewer.name and self._inner.shown_user(user, person)


class SeenUnmaskDesk(UnmaskDesk):
    """Asks for names and answers requests for a caller; both are recorded before they are done."""

    def __init__(self, inner: UnmaskDesk, viewer: Viewer) -> None:
        self._inner, self._viewer = inner, viewer

    def ask(
        self,
        incident: str,
        reason: str,
        by: str,
        *,
        masked: bool = True,  # noqa: ARG002 - the viewer knows it
    ) -> Unmasking:
        """Ask for the names of an incident."""
        self._viewer.record(incident, "asked")
        return self._viewer.shown(self._inner.ask(incident, reason, by, masked=self._viewer.masked))

    def answer(self, request: str, granted: bool, reason: str, by: str, *, masked: bool = True) -> Unmasking:
        """Grant or refuse a request."""
        self._viewer.record(request, "granted" if granted else "refused")
        masked = self._viewer.masked
        return self._viewer.shown(self._inner.answer(request, granted, reason, by, masked=masked))
