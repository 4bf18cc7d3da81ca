"""The answers of the query service, as they appear in the API; the OpenAPI document is generated from them."""

from __future__ import annotations

from typing import Annotated

import msgspec

from streamguard.alerts.explain import Reason
from streamguard.alerts.incident import Entity, Incident
from streamguard.campaigns.budget import Decision
from streamguard.campaigns.campaign import Campaign
from streamguard.serving.decisions.case import Case
from streamguard.serving.decisions.ledger import Entry
from streamguard.serving.decisions.record import CaseAction
from streamguard.serving.decisions.unmasking import Unmasking
from streamguard.serving.log.freshness import AsOf


def _described(text: str) -> msgspec.Meta:
    return msgspec.Meta(description=text)


class IncidentRow(msgspec.Struct, frozen=True):
    """An incident in a list."""

    id: str
    entity: Entity
    severity: str
    risk: float
    evidence_bits: float
    first_seen: str
    last_seen: str
    alerts: Annotated[int, _described("Number of alerts so far")]
    technique: str | None
    kind: Annotated[str, _described("Name of the strongest pattern, or else of the strongest reason")]
    patterns: Annotated[tuple[str, ...], _described("Names of all patterns, the strongest first")]
    reasons: Annotated[tuple[Reason, ...], _described("The strongest reasons, at most three")]
    status: str
    assignee: str
    classification: Annotated[str, _described("How a closed incident was closed; empty for an open one")]
    snoozed_until: Annotated[
        str | None, _described("Notifications stop until this time; null if they do not")
    ]
    muted: Annotated[bool, _described("Whether a mute hides it")]
    raised: Annotated[bool, _described("Whether a person is called, see `detection.floor_bits`")]
    campaign: Annotated[str | None, _described("Id of its campaign; null for a lone incident")]
    campaign_incidents: Annotated[
        int, _described("Number of incidents of its campaign; 1 for a lone incident")
    ]
    entered: Annotated[int, _described("Number of accounts that a stranger entered in its campaign")]
    last_action: Annotated[
        str, _described("Id of the last action that changes it, for `expected`; empty without one")
    ] = ""


class Incidents(msgspec.Struct, frozen=True):
    """One page of a list of incidents."""

    incidents: tuple[IncidentRow, ...]
    next: Annotated[str | None, _described("Cursor of the next page; null at the end")]
    as_of: tuple[AsOf, ...]


class Count(msgspec.Struct, frozen=True):
    """A value of a facet, and how many incidents of the list have it."""

    value: str
    count: int


class Facets(msgspec.Struct, frozen=True):
    """How many incidents a list has, in total and by value."""

    total: int
    severity: tuple[Count, ...]
    status: tuple[Count, ...]
    kind: tuple[Count, ...]
    technique: tuple[Count, ...]
    pattern: tuple[Count, ...]
    assignee: tuple[Count, ...]
    as_of: tuple[AsOf, ...]


class PublishedUpdate(msgspec.Struct, frozen=True):
    """One publication of an incident: what it was then, and where the record is."""

    partition: int
    offset: int
    incident: Incident


class CampaignAnswer(msgspec.Struct, frozen=True):
    """A campaign with the decision of the budget."""

    campaign: Campaign
    decision: Decision
    as_of: tuple[AsOf, ...]


class IncidentAnswer(msgspec.Struct, frozen=True):
    """One incident with its history."""

    incident: Incident
    row: IncidentRow
    updates: tuple[PublishedUpdate, ...]
    campaign: Campaign | None
    decision: Annotated[Decision | None, _described("Of the budget; null while no campaign is published")]
    case: Annotated[Case, _described("What people have made of it")]
    token: Annotated[str, _described("Consistency token: a request with `at_least` sees at least this state")]
    as_of: tuple[AsOf, ...]
    masked: Annotated[
        bool, _described("Whether pseudonyms stand for names, and texts of events are left out")
    ] = False


class EarlierIncident(msgspec.Struct, frozen=True):
    """A closed incident that is like another one."""

    incident: IncidentRow
    closed: Annotated[Entry | None, _described("The action that has closed it: by whom, when, as what, why")]
    same_entity: bool
    same_kind: Annotated[bool, _described("Whether the strongest pattern or reason is the same")]


class EarlierIncidents(msgspec.Struct, frozen=True):
    """How incidents like one were closed: those of the entity first, the latest first."""

    earlier: tuple[EarlierIncident, ...]
    as_of: tuple[AsOf, ...]


class BulkPreview(msgspec.Struct, frozen=True):
    """What an action on a list would be about.

    Attributes
    ----------
    incidents
        Incidents of the list.
    fingerprint
        The same for two lists with the same incidents, and for no others.
    """

    incidents: int
    fingerprint: str


class BulkAnswer(msgspec.Struct, frozen=True):
    """What an action on a list did.

    Attributes
    ----------
    action
        Id of the action; empty if the list was empty.
    incidents
        Incidents of the list when the action was written.
    accepted
        Those on which it has an effect; on others somebody else has acted meanwhile.
    token
        Consistency token; empty if nothing was written.
    """

    action: str
    incidents: int
    accepted: int
    token: str


class AuditEntry(msgspec.Struct, frozen=True):
    """An action on an incident, as the log has it."""

    offset: int
    incident: str
    action: CaseAction


class Audit(msgspec.Struct, frozen=True):
    """Actions of people, the latest first."""

    actions: tuple[AuditEntry, ...]
    as_of: tuple[AsOf, ...]


class Unmaskings(msgspec.Struct, frozen=True):
    """Requests for names, the latest first."""

    requests: tuple[Unmasking, ...]
    as_of: tuple[AsOf, ...]


class RankedUser(msgspec.Struct, frozen=True):
    """An entity with the sum of the risks of its incidents, of which each further one counts less."""

    entity: Entity
    score: Annotated[float, _described("Sum of risk / i^1.5 over the incidents, the riskiest first")]
    incidents: int
    open: int
    severity: Annotated[str, _described("The highest of its incidents")]
    last_seen: str


class RankedUsers(msgspec.Struct, frozen=True):
    """Entities by risk."""

    users: tuple[RankedUser, ...]
    total: Annotated[
        int, _described("Entities of the kind that have such incidents, also those beyond the limit")
    ]
    as_of: tuple[AsOf, ...]


class Statistics(msgspec.Struct, frozen=True):
    """Totals of the live results."""

    incidents: int
    open: int
    raised: int
    campaigns: int
    alerts: int
    by_severity: tuple[Count, ...]
    by_day: Annotated[tuple[Count, ...], _described("Incidents by the day (UTC) of their latest alert")]
    as_of: tuple[AsOf, ...]
