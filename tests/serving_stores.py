"""Stores of the serving layer that are filled in memory, and incidents with their places in the topics."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path

import msgspec

from streamguard.alerts.incident import Incident, Origin, encode
from streamguard.campaigns.budget import decide
from streamguard.campaigns.campaign import campaigns
from streamguard.campaigns.record import decode
from streamguard.campaigns.record import encode as encode_campaign
from streamguard.serving.audit.record import AuditError
from streamguard.serving.masking.pseudonyms import Pseudonyms
from streamguard.serving.masking.viewer import Privacy
from streamguard.serving.projection.store import Store
from streamguard.serving.projection.update import Update
from streamguard.serving.query.incidents import IncidentQueries

ALERTS, CAMPAIGNS = "security-alerts", "security-campaigns"


def placed(incidents: Iterable[Incident]) -> list[Update]:
    """Incidents as records of one partition, each about an event of its own."""
    return [at(k, one) for k, one in enumerate(incidents)]


def at(offset: int, incident: Incident, origin: int | None = None, partition: int = 0) -> Update:
    """An incident as the record at an offset, about an event at another one."""
    place = Origin("security-events", 0, offset if origin is None else origin)
    own = msgspec.structs.replace(incident, origin=place)
    return Update(partition, offset, own, encode(own))


PSEUDONYMS = Pseudonyms(bytes(range(32)))


class Recorded:
    """An audit log in memory."""

    def __init__(self) -> None:
        self.records: list[tuple[str, str, str, str, str]] = []
        self.broken = False

    def record(
        self, by: str, role: str, what: str, subject: str = "", detail: str = "", *, repeated: bool = False
    ) -> None:
        if self.broken:
            raise AuditError("the audit log cannot be written")
        self.records.append((by, role, what, subject, detail))


def privacy() -> Privacy:
    """What a server needs to show anything: pseudonyms, and an audit log, which is in memory."""
    return Privacy(PSEUDONYMS, Recorded())


def filled(directory: Path, updates: Sequence[Update], *, grouped: bool = True, batch: int = 100) -> Store:
    """A store with updates, and with their campaigns unless `grouped` is false."""
    store = Store(directory, 18.0, PSEUDONYMS.of, PSEUDONYMS.fingerprint)
    add(store, updates, batch)
    if grouped:
        put_campaigns(store, [one.incident for one in updates])
    return store


def add(store: Store, updates: Sequence[Update], batch: int = 100) -> None:
    """Add updates as they are read, a batch at a time."""
    for first in range(0, len(updates), batch):
        part = updates[first : first + batch]
        store.add_updates(ALERTS, part, {one.partition: (one.offset + 1, 1) for one in part})


def put_campaigns(store: Store, incidents: Iterable[Incident]) -> None:
    """Put the campaigns of incidents, as the campaigns process publishes them."""
    rows = campaigns(incidents)
    decisions = decide(rows)
    values = {row.id: encode_campaign(row, decisions[row.id]) for row in rows}
    store.put_campaigns(
        CAMPAIGNS, {id: decode(value) for id, value in values.items()}, {0: (len(values), 1)}, values
    )


def queries(store: Store) -> IncidentQueries:
    """Questions to a store."""
    return IncidentQueries(store, lambda: ())
