"""A case action, which is what a person does with incidents without changing detection, as a record of its topic."""

from __future__ import annotations

import secrets
from typing import Annotated, Final, Literal

import msgspec

from streamguard.alerts.explain import EntityKind
from streamguard.risk import SEVERITIES

VERSION: Final = 1
"""Version of the records; a server passes over any other, because it cannot know its meaning."""
MAX_TEXT = 2_000
"""Characters of a comment or of a reason: a page of text."""
MAX_NAME = 256
"""Characters of the name of a person or of an entity, and of a value that an incident shows."""
MAX_ID = 200
"""Characters of the id of an incident or of an action."""
MAX_INCIDENTS = 1_000
"""Incidents of one record: with ids as workers write them, they take a tenth of the largest record."""
MAX_PATTERNS = 100
"""Patterns that a mute names; workers know fewer."""
MAX_REASONS = 256
"""Reasons that a mute names, each once; an incident with more is too wide for a mute."""
MAX_COUNT = 1 << 40
"""Alerts of one incident."""
MAX_BITS = 1e6
"""Evidence of one incident; a few hundred bits are much."""

Text = Annotated[str, msgspec.Meta(max_length=MAX_TEXT)]
Name = Annotated[str, msgspec.Meta(max_length=MAX_NAME)]
Person = Annotated[str, msgspec.Meta(max_length=MAX_NAME, pattern=r"\S")]
ActionId = Annotated[str, msgspec.Meta(pattern=rf"^[!-~]{{1,{MAX_ID}}}\Z")]
IncidentId = Annotated[str, msgspec.Meta(min_length=1, max_length=MAX_ID)]
Time = Annotated[
    str, msgspec.Meta(pattern=r"^[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2}\.[0-9]{3}Z\Z")
]
"""RFC 3339 in UTC with milliseconds, so that texts order as times do."""
Bits = Annotated[float, msgspec.Meta(ge=0.0, le=MAX_BITS)]
Classification = Literal["true_positive", "benign_positive", "false_positive", "undetermined", "duplicate"]
"""What a closed incident was. A benign positive is right and harmless, as a penetration test is."""


class _Record(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    pass


class Target(_Record, frozen=True, kw_only=True):
    """An incident that an action is about, as its author saw it.

    Attributes
    ----------
    id
        Id of the incident.
    seen
        Number of alerts of the last update that the author saw.
    expected
        `Case.last_action` that the author saw; empty for an incident without actions.
    """

    id: IncidentId
    seen: Annotated[int, msgspec.Meta(ge=0, le=MAX_COUNT)]
    expected: Annotated[str, msgspec.Meta(pattern=rf"^[!-~]{{0,{MAX_ID}}}\Z")] = ""


class _Action(_Record, frozen=True, kw_only=True, tag_field="kind"):
    """What all actions have.

    Attributes
    ----------
    version
        `VERSION`.
    id
        Id of the action; the same id is applied once.
    incidents
        The incidents, each once.
    by, at
        Who acts, and when by the server's clock.
    reason
        Why, for other people.
    masked
        Whether the author saw pseudonyms only. Then the texts cannot name anybody whom the author did not know before,
        and people who see pseudonyms only may read them.
    """

    version: Literal[1]
    id: ActionId
    incidents: Annotated[tuple[Target, ...], msgspec.Meta(min_length=1, max_length=MAX_INCIDENTS)]
    by: Person
    at: Time
    reason: Text = ""
    masked: bool = False


class Acknowledge(_Action, frozen=True, kw_only=True, tag="acknowledge"):
    """Somebody looks at the incidents; with an assignee they are also assigned."""

    assignee: Name = ""


class Assign(_Action, frozen=True, kw_only=True, tag="assign"):
    """The incidents belong to a person; without a name they belong to nobody."""

    assignee: Name


class Comment(_Action, frozen=True, kw_only=True, tag="comment"):
    """A text below the incidents."""

    text: Annotated[str, msgspec.Meta(max_length=MAX_TEXT, pattern=r"\S")]


class Snooze(_Action, frozen=True, kw_only=True, tag="snooze"):
    """Notifications of the incidents stop until a time of the server's clock."""

    until: Time


class MutedReason(_Record, frozen=True, kw_only=True):
    """A reason that a mute covers, as the incident shows it."""

    feature: Name
    actual: Name


class Scope(_Record, frozen=True, kw_only=True):
    """What a mute hides, as it was when a person decided.

    Attributes
    ----------
    entity_kind, entity
        Whose updates.
    patterns, reasons
        Names of the patterns, and the reasons that may appear.
    bits
        Evidence of the incident.
    until
        Event time at which the mute ends.
    """

    entity_kind: EntityKind
    entity: Name
    patterns: Annotated[tuple[Name, ...], msgspec.Meta(max_length=MAX_PATTERNS)]
    reasons: Annotated[tuple[MutedReason, ...], msgspec.Meta(min_length=1, max_length=MAX_REASONS)]
    bits: Bits
    until: Time


class Mute(_Action, frozen=True, kw_only=True, tag="mute"):
    """The incident and others that are like it are hidden; it has exactly one incident, from which its scope is."""

    scope: Scope


class Close(_Action, frozen=True, kw_only=True, tag="close"):
    """The incidents are done; `duplicate_of` names the incident of which they are duplicates."""

    classification: Classification
    duplicate_of: Annotated[str, msgspec.Meta(max_length=MAX_ID)] = ""


class Reopen(_Action, frozen=True, kw_only=True, tag="reopen"):
    """The incidents are new again."""


class Undo(_Action, frozen=True, kw_only=True, tag="undo"):
    """Another action has no effect on the incidents, as if it had not been done."""

    undoes: ActionId


class Unmask(_Action, frozen=True, kw_only=True, tag="unmask"):
    """Somebody asks for the names of one incident; of one of this severity, as the server saw it then."""

    severity: Literal[SEVERITIES]  # type: ignore[valid-type]


class UnmaskAnswer(_Action, frozen=True, kw_only=True, tag="unmask_answer"):
    """Somebody else grants or refuses what a request has asked for, or ends what was granted at once."""

    request: ActionId
    granted: bool


CaseAction = Acknowledge | Assign | Comment | Snooze | Mute | Close | Reopen | Undo | Unmask | UnmaskAnswer
"""What a record can be."""
ABOUT_NAMES = (Unmask, UnmaskAnswer)
"""Actions about who may see names: they never conflict, change no status, and cannot be undone."""

KINDS = tuple(sorted(str(one.__struct_config__.tag) for one in CaseAction.__args__))
"""Kinds of actions, in alphabetical order."""


def new_id() -> str:
    """A new id of an action: 24 hexadecimal digits."""
    return secrets.token_hex(12)


def kind_of(action: CaseAction) -> str:
    """The kind of an action, as its record states it.

    Examples
    --------
    >>> target = Target(id="3-17-18bcfe5687b", seen=4)
    >>> kind_of(Reopen(version=1, id="a", incidents=(target,), by="ann", at="2026-11-30T06:00:00.000Z"))
    'reopen'
    """
    return str(action.__struct_config__.tag)
