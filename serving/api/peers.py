"""Routes that servers ask each other: what one holds, and the state that it holds. They never ask a further server."""

from __future__ import annotations

import socket
import time
from typing import Annotated, Any
from urllib.parse import urlsplit

import msgspec
from litestar import Router, get
from litestar.connection import ASGIConnection
from litestar.di import NamedDependency
from litestar.exceptions import NotAuthorizedException
from litestar.params import Parameter, QueryParameter

from streamguard.errors import ConfigurationError
from streamguard.serving.api.keys import Principal
from streamguard.serving.api.security import requires
from streamguard.serving.peers.answers import Held, HeldCrowd, HeldNames, HeldProfiles, HeldSources
from streamguard.serving.peers.client import Client, addresses, trusted
from streamguard.serving.peers.group import PATH, PeerGroup
from streamguard.serving.peers.partitions import PATTERN, parse
from streamguard.serving.peers.signing import HEADER, PeerError, PeerKey
from streamguard.serving.query.service import QueryService
from streamguard.settings.schema import Serve

MAX_NAMES = 201
"""Names of one answer: a page, and one more by which the next page is known."""
Partitions = Annotated[str, QueryParameter(pattern=PATTERN, max_length=12_000)]


class PeerAccess:
    """Recognises other servers by what they have signed.

    Parameters
    ----------
    key
        The key of all servers; None: no request is one of a peer.
    """

    def __init__(self, key: PeerKey | None) -> None:
        self._key = key

    @classmethod
    def of(cls, settings: Serve) -> PeerAccess:
        """The access that the settings describe.

        Raises
        ------
        ConfigurationError
            If the key cannot be read.
        """
        return cls(PeerKey.read(settings.peer_key_file) if settings.peer_key_file else None)

    def caller(self, connection: ASGIConnection[Any, Any, Any, Any]) -> Principal:
        """For whom a peer asks. The guards of the routes then decide by the role, as for a direct request.

        Raises
        ------
        NotAuthorizedException
            If the request is none of a peer.
        """
        header = connection.headers.get(HEADER, "")
        if self._key is None or not header:
            raise NotAuthorizedException(
                "only other servers of this installation may ask this (serve.peer_key_file)"
            )
        target = connection.scope["path"]
        if query := connection.scope["query_string"].decode("latin-1"):
            target += f"?{query}"
        try:
            stated = self._key.statement(header, connection.headers.get("host", ""), target, time.time())
            return msgspec.convert({"name": stated.name, "role": stated.role}, Principal)
        except PeerError as error:
            raise NotAuthorizedException(
                f"the header {HEADER} is refused, because {error}: all servers need the same serve.peer_key_file"
            ) from None
        except msgspec.ValidationError:
            raise NotAuthorizedException("the peer names a role that this version does not know") from None


def peer_group(settings: Serve, changelog: str) -> PeerGroup | None:
    """The peers that the settings name; None without any.

    Raises
    ------
    ConfigurationError
        If an address, the key or the authorities cannot be used.
    """
    found = addresses(settings.peers, plain=settings.peer_http)
    if not found:
        return None
    if not settings.peer_key_file:
        raise ConfigurationError(
            "serve.peers is set, and serve.peer_key_file is not: create a key with `openssl rand -out FILE 32`, and "
            "give the same file to every server"
        )
    client = Client(PeerKey.read(settings.peer_key_file), trusted(settings.peer_ca_file))
    return PeerGroup(found, client, changelog, Principal(f"server@{socket.gethostname()}"[:64], "viewer"))


def with_peers(settings: Serve) -> str:
    """The names under which this server may be asked: its own one is among its peers if all have the same settings."""
    hosts = [urlsplit(one.strip()).hostname or "" for one in settings.peers.split(",")]
    return ",".join([settings.allowed_hosts, *hosts])


@get("/partitions", sync_to_thread=True)
def held_partitions(service: NamedDependency[QueryService]) -> Held:
    """What this server holds."""
    return service.asked_users().profiles.held()


@get("/profiles", sync_to_thread=True)
def held_profiles(
    service: NamedDependency[QueryService],
    user: Annotated[str, QueryParameter(max_length=256)],
    partitions: Partitions,
) -> HeldProfiles:
    """Profiles of a user that this server holds."""
    return service.asked_users().profiles.held_profiles(user, parse(partitions))


@get("/users", sync_to_thread=True)
def held_names(
    service: NamedDependency[QueryService],
    partitions: Partitions,
    after: Annotated[str, QueryParameter(max_length=256)] = "",
    limit: Annotated[int, Parameter(ge=1, le=MAX_NAMES)] = 100,
) -> HeldNames:
    """Names of users whose profiles this server holds."""
    return service.asked_users().profiles.held_names(after, limit, parse(partitions))


@get("/sources", sync_to_thread=True)
def held_sources(
    service: NamedDependency[QueryService],
    partitions: Partitions,
    address: Annotated[str | None, QueryParameter(max_length=256)] = None,
) -> HeldSources:
    """Failing addresses of which this server holds the state, or one address."""
    return service.asked_sources().states.held_sources(address, parse(partitions))


@get("/crowd", sync_to_thread=True)
def held_crowd(service: NamedDependency[QueryService], partitions: Partitions) -> HeldCrowd:
    """Everybody together, in the partitions that this server holds."""
    return service.asked_sources().states.held_crowd(parse(partitions))


def router() -> Router:
    """The routes. What a person may see is decided here as it is for direct requests."""
    return Router(
        PATH.rstrip("/"),
        route_handlers=[held_partitions, held_profiles, held_names, held_sources, held_crowd],
        include_in_schema=False,
        guards=[requires("read")],
    )
