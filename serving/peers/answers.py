"""What servers answer each other, and what a server knows of where the partitions are."""

from __future__ import annotations

from typing import Annotated

import msgspec

from streamguard.serving.log.freshness import AsOf
from streamguard.serving.replica.crowd import Crowd, FailingSource
from streamguard.serving.replica.profile import UserProfile


def _described(text: str) -> msgspec.Meta:
    return msgspec.Meta(description=text)


class Held(msgspec.Struct, frozen=True):
    """What a server holds.

    Attributes
    ----------
    server
        Random id of the process, by which a server recognises itself among its peers.
    topic
        The state changelog that it follows.
    partitions
        Number of partitions of the changelog; 0 before Kafka has answered.
    ready
        Partitions of which it has exact profiles now.
    """

    server: str
    topic: str
    partitions: int
    ready: tuple[int, ...]


class HeldProfiles(msgspec.Struct, frozen=True):
    """Profiles of a user in the partitions that were asked for."""

    profiles: tuple[UserProfile, ...]
    as_of: AsOf


class HeldNames(msgspec.Struct, frozen=True):
    """Names of users in the partitions that were asked for, in the order of their bytes."""

    users: tuple[str, ...]
    as_of: AsOf


class HeldSources(msgspec.Struct, frozen=True):
    """Failing addresses in the partitions that were asked for; of one address, its profiles, too."""

    failing: tuple[FailingSource, ...]
    profiles: tuple[UserProfile, ...]
    as_of: AsOf


class HeldCrowd(msgspec.Struct, frozen=True):
    """All users together, for each of the partitions that were asked for."""

    crowds: tuple[Crowd, ...]
    as_of: AsOf


class PeerState(msgspec.Struct, frozen=True):
    """Another server, as this one last saw it."""

    address: str
    partitions: Annotated[str, _described("What it holds and can answer for, such as `0-31`; empty: nothing")]
    trouble: Annotated[str, _described("Why it cannot be asked; empty if it can")]


class Coverage(msgspec.Struct, frozen=True):
    """Which server answers for which partitions of the profiles."""

    partitions: Annotated[int, _described("Number of partitions; 0 before Kafka has answered")]
    here: Annotated[str, _described("What this server holds and can answer for, such as `0-31`")]
    missing: Annotated[str, _described("Partitions for which no server can answer now; empty: none")]
    peers: tuple[PeerState, ...]
