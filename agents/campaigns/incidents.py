"""From a record of the alerts topic to an update of an incident; anything else is named and passed over."""

from __future__ import annotations

import logging

from streamguard.agents.campaigns.window import Update
from streamguard.alerts.incident import Incident
from streamguard.alerts.published import REFUSALS, published
from streamguard.campaigns.budget import decide
from streamguard.campaigns.campaign import campaigns
from streamguard.campaigns.record import encode
from streamguard.events.ceiling import TOLERANCE_MS
from streamguard.events.event import Withheld
from streamguard.events.event_time import epoch_ms
from streamguard.metrics import CAMPAIGN_RECORDS
from streamguard.records.record import Record

_log = logging.getLogger(__name__)

REASONS = {
    **REFUSALS,
    "unreadable_batch": "its batch cannot be read",
    "not_computable": "no campaign can be computed from it",
}
"""Why a record is passed over."""


def update_of(record: Record) -> Update | str:
    """The update that a record holds, or the reason why the record is passed over, a key of `REASONS`."""
    found = _update_of(record)
    count = record.value.count if isinstance(record.value, Withheld) else 1
    CAMPAIGN_RECORDS.labels(found if isinstance(found, str) else "incident").inc(count)
    return found


def _update_of(record: Record) -> Update | str:
    value = record.value
    if isinstance(value, Withheld):
        return "too_large" if value.reason == "too_large" else "unreadable_batch"
    incident = published(value)
    if isinstance(incident, str):
        return incident
    if not _computable(incident):
        return "not_computable"
    seen = epoch_ms(incident.last_seen) or 0
    # A time of the far future would move the window past everything else.
    at = min(seen, record.timestamp + TOLERANCE_MS) if record.timestamp > 0 else seen
    return Update(at, record.partition, record.offset, value or b"")


def _computable(incident: Incident) -> bool:
    """Whether the incident alone becomes a campaign: one that does not would end every round with an exception."""
    try:
        rows = campaigns([incident])
        decisions = decide(rows)
        for row in rows:
            encode(row, decisions[row.id])
    except Exception:  # noqa: BLE001 - whatever it is, the next record has to be read
        _log.exception(
            "incident %s: no campaign can be computed from it; report this traceback", ascii(incident.id)
        )
        return False
    return True
