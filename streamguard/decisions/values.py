"""The values of an event about which a decision can be made, in the spelling in which the fold knows them."""

from __future__ import annotations

from streamguard.events.address import ADDRESS
from streamguard.events.columns import columns, without_particulars
from streamguard.events.decision import FIELDS
from streamguard.events.event import parse
from streamguard.events.place import PLACE


def canonical(field: str, value: str) -> str:
    """A value as a person writes it, in the spelling of the fold.

    Examples
    --------
    >>> canonical("source", "::ffff:10.0.0.1"), canonical("command", "tar -x backup-2025.tar")
    ('10.0.0.1', 'tar -x backup-#.tar')
    """
    if field == "source":
        return ADDRESS[value][0]
    if field == "location":
        return PLACE[value][0]
    if field == "command":
        return without_particulars(value)
    return value


def of_event(value: bytes) -> tuple[str, dict[str, str]]:
    """The user of an event, and its values by field; both are empty if the record is not an event."""
    events = parse([value]).events
    if not events:
        return "", {}
    c = columns(events)
    return c.users[0], {field: text for field in FIELDS if (text := c.text(field)[0])}
