"""The roles of callers, and what each of them may do."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

Role = Literal["viewer", "analyst", "investigator", "privacy_officer", "admin"]
ROLES: tuple[Role, ...] = ("viewer", "analyst", "investigator", "privacy_officer", "admin")
"""All roles; the first one has the fewest rights."""

Right = Literal["read", "act", "see_people", "ask_unmask", "answer_unmask", "read_audit"]

RIGHTS: Mapping[Right, tuple[Role, ...]] = {
    "read": ROLES,
    "act": ("analyst", "investigator", "admin"),
    "see_people": ("investigator", "admin"),
    "ask_unmask": ("analyst", "privacy_officer"),
    "answer_unmask": ("privacy_officer", "admin"),
    "read_audit": ("privacy_officer", "admin"),
}
"""By right, the roles that have it.

read
    Lists, incidents, totals, models and the state of the server. Without `see_people`, all of them have pseudonyms
    instead of names, and no text of an event.
act
    Acknowledge, assign, comment, snooze, mute, close, and decide about values of an incident that is not masked.
see_people
    Names and events; profiles of users, and rankings of people. Each such answer is recorded in the audit log.
ask_unmask, answer_unmask
    Ask for the names of one incident, and grant or refuse what somebody else has asked for.
read_audit
    The audit log, and the list of what people did with incidents.
"""


def may(role: Role, right: Right) -> bool:
    """Whether a role has a right.

    Examples
    --------
    >>> may("analyst", "act"), may("analyst", "see_people"), may("privacy_officer", "act")
    (True, False, False)
    """
    return role in RIGHTS[right]
