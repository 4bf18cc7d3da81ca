"""An update of an incident with the place of its record."""

from __future__ import annotations

import msgspec

from streamguard.alerts.incident import Incident


class Update(msgspec.Struct, frozen=True):
    """An incident as it was published, with the place of its record."""

    partition: int
    offset: int
    incident: Incident
    value: bytes
