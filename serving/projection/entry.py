"""One incident as lists show it: a pure function of its updates, of its campaign and of what people decided."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, NamedTuple

import msgspec

from streamguard.alerts.incident import Incident
from streamguard.campaigns.budget import decide_one
from streamguard.campaigns.campaign import alone
from streamguard.campaigns.record import CampaignRecord
from streamguard.events.event_time import epoch_ms
from streamguard.risk import SEVERITIES
from streamguard.serving.decisions.case import Case

MAX_EVENT_ID = 512
"""Characters of an event's id by which it is found."""


class Membership(NamedTuple):
    """The campaign of an incident.

    Attributes
    ----------
    campaign
        Its id; empty if the incident is its only one.
    incidents, entered
        Its numbers of incidents and of accounts that a stranger entered.
    lead
        Whether the incident stands for the campaign in a list.
    raised
        Whether a person is called for the campaign.
    """

    campaign: str
    incidents: int
    entered: int
    lead: bool
    raised: bool


class Entry(NamedTuple):
    """The columns of an incident, in the order of the table `incidents`.

    Attributes
    ----------
    severity
        Place in `streamguard.risk.SEVERITIES`.
    patterns
        Names, each between spaces.
    kind
        Name of the strongest pattern, or else of the strongest reason.
    last_action
        Id of the last action that changes the state, which the next one names as `expected`.
    origin_partition, origin_offset
        Place of the origin of the current update, by which the table `updates` has it.
    """

    id: str
    entity_kind: str
    entity: str
    severity: int
    risk: float
    evidence: float
    first_ms: int
    last_ms: int
    alerts: int
    updates: int
    technique: str
    patterns: str
    kind: str
    status: str
    assignee: str
    classification: str
    snoozed_until: str
    muted: bool
    last_action: str
    campaign: str
    campaign_incidents: int
    entered: int
    lead: bool
    raised: bool
    origin_partition: int
    origin_offset: int


_encoder = msgspec.json.Encoder()


def current(updates: Iterable[Incident]) -> Incident:
    """The latest state of an incident: the update with most alerts.

    Two updates of one incident have different numbers of alerts, unless a worker that started again published one of
    them a second time with another model; then the stronger one counts.
    """
    known = list(updates)
    if len(known) == 1:
        return known[0]
    return max(known, key=lambda one: (one.count, one.evidence_bits, _encoder.encode(one)))


def entry(
    updates: list[Incident], now: Incident, case: Case, membership: Membership | None, floor: float
) -> Entry:
    """The columns of an incident.

    Parameters
    ----------
    updates
        Its updates, at least one, in any order.
    now
        The current one of them.
    case
        What people have made of it.
    membership
        Its campaign; None while no campaign of it is published. Then the incident is raised as a campaign of its own
        would be.
    floor
        Setting `detection.floor_bits`.
    """
    if membership is None:
        score, accounts = alone(updates)
        membership = Membership("", 1, accounts, True, decide_one(score, accounts, floor=floor).raised)
    patterns = [pattern.name for pattern in now.patterns]
    kind = patterns[0] if patterns else now.reasons[0].feature if now.reasons else "none"
    return Entry(
        id=now.id,
        entity_kind=now.entity.kind,
        entity=now.entity.value,
        severity=SEVERITIES.index(now.severity),
        risk=now.risk,
        evidence=now.evidence_bits,
        first_ms=min(epoch_ms(one.first_seen) or 0 for one in updates),
        last_ms=max(epoch_ms(one.last_seen) or 0 for one in updates),
        alerts=now.count,
        updates=len(updates),
        technique=now.technique or "",
        patterns=f" {' '.join(patterns)} " if patterns else "",
        kind=kind,
        status=case.status,
        assignee=case.assignee,
        classification=case.classification or "",
        snoozed_until=case.snoozed_until or "",
        muted=case.muted,
        last_action=case.last_action,
        campaign=membership.campaign,
        campaign_incidents=membership.incidents,
        entered=membership.entered,
        lead=membership.lead,
        raised=membership.raised,
        origin_partition=now.origin.partition,
        origin_offset=now.origin.offset,
    )


def membership(record: CampaignRecord) -> Membership:
    """The place of an incident in a campaign, for which it stands only if it is the only one."""
    campaign = record.campaign
    several = campaign.size > 1
    return Membership(
        campaign.id if several else "", campaign.size, campaign.accounts, not several, record.decision.raised
    )


def event_id(event: Any) -> str:
    """The id that a sender has given an event, by which it is searched; empty without one.

    Examples
    --------
    >>> event_id({"event_id": "e-17"}), event_id({"event_id": 17}), event_id("no object")
    ('e-17', '17', '')
    """
    found = event.get("event_id") if isinstance(event, dict) else None
    return str(found)[:MAX_EVENT_ID] if isinstance(found, str | int) else ""


def texts(incident: Incident) -> str:
    """What a search for text looks at: names, values and descriptions of an incident."""
    shown = [incident.id, incident.entity.value, incident.technique or ""]
    shown += [text for one in incident.patterns for text in (one.name, one.technique, one.description)]
    shown += [text for one in incident.reasons for text in (one.feature, one.actual)]
    return "\n".join(shown)
