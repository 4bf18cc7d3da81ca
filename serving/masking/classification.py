"""What each text of an answer is: it may be shown to everybody, names a person, or is free text that could name one."""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache
from typing import Literal

import msgspec

from streamguard.alerts.explain import Reason
from streamguard.alerts.incident import Entity, Incident, Model, Names, Origin, PatternMatch
from streamguard.campaigns.budget import Decision
from streamguard.campaigns.campaign import Campaign
from streamguard.serving.decisions.case import Case, Remark, Reopening
from streamguard.serving.decisions.growth import Growth
from streamguard.serving.decisions.ledger import Entry
from streamguard.serving.decisions.mute import Breach, MuteInForce
from streamguard.serving.decisions.record import (
    Acknowledge,
    Assign,
    Close,
    Comment,
    Mute,
    MutedReason,
    Reopen,
    Scope,
    Snooze,
    Target,
    Undo,
    Unmask,
    UnmaskAnswer,
)
from streamguard.serving.decisions.unmasking import Unmasking
from streamguard.serving.log.freshness import AsOf, Position
from streamguard.serving.query.answers import (
    AuditEntry,
    BulkAnswer,
    BulkPreview,
    Count,
    IncidentAnswer,
    IncidentRow,
    Incidents,
)
from streamguard.serving.query.mutes import MutePreview
from streamguard.serving.results.answers import Unavailable
from streamguard.serving.results.dead_letters import RefusedReason, Sample
from streamguard.serving.results.run_answers import BatchTotals, RunEntry
from streamguard.serving.results.totals import BatchPartition

Kind = Literal["shown", "user", "source", "hidden", "written"]
"""`shown`: a closed set, an id, a time, or the name of somebody who uses StreamGuard. `user`, `source`: a pseudonym
stands for it. `hidden`: free text, or a value of an event. `written`: free text of a person who uses StreamGuard, shown
if its author saw pseudonyms only, because it can then name nobody whom the author did not know."""


def _of(
    shown: str = "", *, user: str = "", source: str = "", hidden: str = "", written: str = ""
) -> dict[str, Kind]:
    """The classes of the fields of one type; each argument lists fields, with spaces between them."""
    kinds: dict[Kind, str] = {
        "shown": shown, "user": user, "source": source, "hidden": hidden, "written": written,
    }  # fmt: skip
    return {name: kind for kind, names in kinds.items() for name in names.split()}


_ACTION = "version id by at"
CLASSES: Mapping[type, Mapping[str, Kind]] = {
    AsOf: _of("source"),
    Position: _of("event_time"),
    Incidents: _of("next"),
    IncidentRow: _of(
        "id severity first_seen last_seen technique kind patterns status assignee classification snoozed_until "
        "campaign last_action"
    ),
    Entity: _of("kind"),  # `value` is the name of the kind that the entity has
    Reason: _of("feature", hidden="actual typical"),
    Count: _of("value"),  # facets count severities, patterns, statuses, assignees; statistics count days
    IncidentAnswer: _of("token"),
    Incident: _of("id first_seen last_seen severity technique", hidden="event repaired"),
    PatternMatch: _of("name technique description"),
    Model: _of("version"),
    Origin: _of("topic"),
    Names: _of(hidden="names"),
    Campaign: _of(
        "id kind technique first_seen last_seen severity incidents patterns",
        user="tried entered",
        source="sources",
    ),
    Decision: _of("why"),
    Case: _of(
        "status assignee acknowledged_by classification duplicate_of snoozed_until mutes_applied last_action",
        written="reason",
    ),
    Remark: _of("id by at", written="text"),
    Entry: _of("id kind by at value rejected undone_by", written="text"),
    Reopening: _of("action"),
    Growth: _of("why patterns"),
    Breach: _of("mute why"),
    MuteInForce: _of("id incident by at", hidden="reason"),
    Scope: _of("entity_kind patterns until"),  # so is `entity`
    MutedReason: _of("feature", hidden="actual"),
    Target: _of("id expected"),
    Acknowledge: _of(f"{_ACTION} assignee", written="reason"),
    Assign: _of(f"{_ACTION} assignee", written="reason"),
    Comment: _of(_ACTION, written="reason text"),
    Snooze: _of(f"{_ACTION} until", written="reason"),
    Mute: _of(_ACTION, written="reason"),
    Close: _of(f"{_ACTION} classification duplicate_of", written="reason"),
    Reopen: _of(_ACTION, written="reason"),
    Undo: _of(f"{_ACTION} undoes", written="reason"),
    MutePreview: _of("incident until incidents message"),
    Unmask: _of(f"{_ACTION} severity", written="reason"),
    UnmaskAnswer: _of(f"{_ACTION} request", written="reason"),
    Unmasking: _of("id incident by at state until answered_by answered_at", written="reason answer_reason"),
    AuditEntry: _of("incident"),
    BulkPreview: _of("fingerprint"),
    BulkAnswer: _of("action token"),
    RunEntry: _of("run_id"),
    BatchPartition: _of("event_time"),
    BatchTotals: _of("topic_id"),
    RefusedReason: _of("reason"),
    Sample: _of("topic", hidden="detail subject head"),
    Unavailable: _of("why message"),
}
"""By type and field. A text that is not listed is hidden, so a new field of an answer reveals nothing by itself."""


@lru_cache(512)
def classes(kind: type[msgspec.Struct]) -> Mapping[str, Kind]:
    """The classes of the fields of a type, those of the types that it is derived from included."""
    found: dict[str, Kind] = {}
    for one in reversed(kind.__mro__):
        found |= CLASSES.get(one, {})
    return found
