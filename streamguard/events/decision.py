"""A person's decision about a value of a user: it is a record of the events topic, but not an event."""

from __future__ import annotations

import re
from enum import IntEnum
from typing import Annotated, Literal

import msgspec

from streamguard.errors import DataError

MAX_BODY_BYTES = 16 << 10
"""Bytes of the body of a decision: the longest value is a path; 16 KiB hold one with its reason."""
MAX_VALUE_CHARACTERS = 4096
"""Characters of the value: the longest path that Linux accepts."""
MAX_REASON_CHARACTERS = 1000
"""Characters of the reason that a person states."""
VERSION = 1
"""Version of the body; a program refuses any other, because it cannot know its meaning."""
FIELDS = {"source": 0, "location": 1, "host": 2, "agent": 3, "resource": 4, "action": 7, "command": 8}
"""Field of a decision -> its place among `streamguard.fold.profile.SKETCHES` and `streamguard.events.columns.TEXTS`."""

Field = Literal["source", "location", "host", "agent", "resource", "action", "command"]
_ID = re.compile(r"(\d{1,9})-[0-9a-f]{24}")
_Id = Annotated[str, msgspec.Meta(pattern=rf"^{_ID.pattern}\Z")]
_Name = Annotated[str, msgspec.Meta(max_length=256)]


class Kind(IntEnum):
    """What a decision means; the numbers are stored in the state."""

    EXPECTED = 1
    ATTACK = 2
    REVOKE = 3


class DecisionError(DataError):
    """A decision cannot be read; the message says which part of it is wrong."""


class Decision(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """The body of a control record. It has no `timestamp`, so an older worker refuses it instead of scoring it.

    Attributes
    ----------
    version
        `VERSION`.
    id
        Partition and a random number; the same id is applied once.
    decision
        What it means.
    user, field, value
        The user, and the value in the spelling of incidents; empty if it revokes another decision.
    until
        Event time at which an expectation ends, epoch milliseconds.
    revokes
        Id of the decision that it removes.
    incident, reason, by
        For people: the incident, the reason, and who decided.
    """

    version: Literal[1]
    id: _Id
    decision: Literal["expected", "attack", "revoke"]
    user: _Name = ""
    field: Field | None = None
    value: Annotated[str, msgspec.Meta(max_length=MAX_VALUE_CHARACTERS)] = ""
    until: Annotated[int, msgspec.Meta(ge=0, le=4_102_444_800_000)] = 0
    revokes: Annotated[str, msgspec.Meta(pattern=rf"^(?:{_ID.pattern})?\Z")] = ""
    incident: _Name = ""
    reason: Annotated[str, msgspec.Meta(max_length=MAX_REASON_CHARACTERS)] = ""
    by: _Name = ""

    @property
    def kind(self) -> Kind:
        """The kind as a number."""
        return Kind[self.decision.upper()]

    @property
    def partition(self) -> int:
        """The partition for which it was made."""
        return partition_of(self.id)

    def encoded(self) -> bytes:
        """The decision as JSON."""
        return msgspec.json.encode(self)


_decode = msgspec.json.Decoder(Decision).decode


def decoded(body: bytes) -> Decision:
    """Decode and check the body of a control record.

    Raises
    ------
    DecisionError
        If a part is missing, has another type, or contradicts the kind of the decision.

    Examples
    --------
    >>> decoded(b'{"version":1,"id":"3-0123456789abcdef01234567","decision":"attack","user":"ann"}')
    Traceback (most recent call last):
    streamguard.events.decision.DecisionError: a decision about a value needs `user`, `field` and `value`
    """
    if len(body) > MAX_BODY_BYTES:
        raise DecisionError(f"the decision has {len(body)} bytes, the maximum is {MAX_BODY_BYTES}")
    try:
        decision = _decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise DecisionError(f"the decision cannot be read ({error})") from None
    if decision.kind == Kind.REVOKE:
        if not decision.revokes:
            raise DecisionError("a revocation needs `revokes`, the id of another decision")
        if decision.user or decision.field or decision.value or decision.until:
            raise DecisionError("a revocation has neither `user`, `field`, `value` nor `until`")
        if partition_of(decision.revokes) != decision.partition:
            raise DecisionError("a revocation belongs to the partition of the decision that it removes")
    elif not (decision.user and decision.field and decision.value):
        raise DecisionError("a decision about a value needs `user`, `field` and `value`")
    elif decision.revokes:
        raise DecisionError("only a revocation has `revokes`")
    elif (decision.kind == Kind.EXPECTED) != (decision.until > 0):
        raise DecisionError("an expectation needs `until`, and no other decision has it")
    return decision


def partition_of(decision_id: str) -> int:
    """The partition that the id of a decision names.

    Raises
    ------
    DecisionError
        If the text is not the id of a decision.

    Examples
    --------
    >>> partition_of("3-0123456789abcdef01234567")
    3
    """
    found = _ID.fullmatch(decision_id)
    if found is None:
        raise DecisionError(
            f"{decision_id[:100]!r} is not the id of a decision: `streamguard decide` prints it, and it is a partition "
            "and 24 hexadecimal digits, such as 3-0123456789abcdef01234567"
        )
    return int(found[1])
