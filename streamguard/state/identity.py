"""What the state of a partition belongs to: an application, a partition, and two topics with Kafka's ids."""

from __future__ import annotations

import msgspec


class TopicIdentity(msgspec.Struct, frozen=True):
    """The topic whose events are folded into the state.

    A topic that is deleted and created again under the same name has another id.
    """

    topic: str
    id: str


class StateIdentity(msgspec.Struct, frozen=True):
    """What a state belongs to. Every checkpoint carries it, in the changelog and in each local copy."""

    app_id: str
    partition: int
    source: TopicIdentity
    changelog_id: str

    def encoded(self) -> bytes:
        """The identity as JSON, as the state stores it."""
        return msgspec.json.encode(self)

    @classmethod
    def decoded(cls, stored: bytes) -> StateIdentity | None:
        """Decode `encoded`; None for a state that was stored before checkpoints had an identity.

        Raises
        ------
        msgspec.DecodeError
            If the bytes are no identity.

        Examples
        --------
        >>> identity = StateIdentity("streamguard", 3, TopicIdentity("events", "a"), "b")
        >>> StateIdentity.decoded(identity.encoded()) == identity, StateIdentity.decoded(b"")
        (True, None)
        """
        return msgspec.json.decode(stored, type=cls) if stored else None
