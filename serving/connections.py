"""Connections of the page and the API: how long they may be silent or slow, and how many one client may have."""

from __future__ import annotations

import asyncio
import ipaddress
import resource
from collections.abc import Iterable
from typing import Any

import h11
import uvicorn
from uvicorn.protocols.http.h11_impl import H11Protocol

from streamguard.errors import ConfigurationError
from streamguard.settings.schema import Serve
from streamguard.settings.sign_in import Network, networks

MAX_CONNECTIONS = 1000
"""Concurrent connections. One more replaces an idle one; if none is idle, requests are answered with 503."""
MAX_CLIENT_CONNECTIONS = 200
"""Connections of one address, behind which there may be an office. One more replaces an idle one of the same address.
Trusted proxies have no such limit."""
READ_SECONDS = 15.0
"""Time for a request with its body, from the connection or from the first byte of a further request on."""
IDLE_SECONDS = 15
"""How long an answered connection stays open without a further request."""
WRITE_SECONDS = 30.0
"""How long a client may take nothing of an answer, after buffers are full."""
HANDSHAKE_SECONDS = 10.0
"""Time for TLS to agree; until then a connection is not counted."""
MAX_FILES = 65_536
"""Files and connections that the process lets itself open, if its user may."""
_PREFIX = 64
"""A client with IPv6 usually has all addresses with the same first bits."""


class Clients:
    """The open connections by address.

    uvicorn counts every open connection, also one that has sent nothing, and refuses requests while there are too many.
    So an idle connection has to make room for a new one.

    Parameters
    ----------
    proxies
        Networks whose addresses may have any number of connections.
    """

    def __init__(self, proxies: Iterable[Network] = ()) -> None:
        self._proxies = tuple(proxies)
        self._of: dict[str, dict[BoundedProtocol, None]] = {}
        self.total = 0

    def add(self, connection: BoundedProtocol, host: str, network: str) -> None:
        """Add a connection, and close an idle one if there are too many."""
        own = self._of.setdefault(network, {})
        own[connection] = None
        self.total += 1
        if len(own) > MAX_CLIENT_CONNECTIONS and not self._is_proxy(host):
            _close_idle(own, connection)
        elif self.total > MAX_CONNECTIONS:
            # Of the address with the most connections, or of the next one if all of them are busy.
            most = sorted(self._of.values(), key=len, reverse=True)
            any(_close_idle(connections, connection) for connections in most)

    def remove(self, connection: BoundedProtocol, network: str) -> None:
        """Remove a connection that is closed; it may have been removed."""
        own = self._of.get(network, {})
        if connection in own:
            del own[connection]
            self.total -= 1
            if not own:
                del self._of[network]

    def _is_proxy(self, host: str) -> bool:
        try:
            address = ipaddress.ip_address(host)
        except ValueError:
            return False
        return any(address in network for network in self._proxies)


def _close_idle(connections: Iterable[BoundedProtocol], new: BoundedProtocol) -> bool:
    """Close the oldest idle connection except the one that was just added."""
    found = next((one for one in connections if one is not new and one.is_idle), None)
    if found is not None:
        found.abort()
    return found is not None


class BoundedProtocol(H11Protocol):
    """uvicorn's protocol with ends for clients that send slowly or not at all, or do not take answers."""

    clients: Clients

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Begin."""
        super().connection_made(transport)
        host = self.client[0] if self.client else ""
        self._network = _network(host)
        self._reading: asyncio.TimerHandle | None = None
        self._writing: asyncio.TimerHandle | None = None
        self._read_within()
        self.clients.add(self, host, self._network)

    def connection_lost(self, exc: Exception | None) -> None:
        """End."""
        self._cancel()
        self.clients.remove(self, self._network)
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Receive a part of a request: its end does not move with each byte."""
        super().data_received(data)
        if self.conn.their_state in (h11.IDLE, h11.SEND_BODY):
            self._read_within()
        elif self._reading is not None:
            self._reading.cancel()
            self._reading = None

    def pause_writing(self) -> None:
        """Wait for the client to take what was written."""
        super().pause_writing()
        if self._writing is None:
            self._writing = self.loop.call_later(WRITE_SECONDS, self.abort)

    def resume_writing(self) -> None:
        """Go on."""
        if self._writing is not None:
            self._writing.cancel()
            self._writing = None
        super().resume_writing()

    @property
    def is_idle(self) -> bool:
        """Whether no complete request waits for its answer."""
        return self._reading is not None or self.cycle is None or self.cycle.response_complete

    def abort(self) -> None:
        """Close the connection at once."""
        self._cancel()
        self.clients.remove(self, self._network)
        self.connections.discard(self)
        self.transport.abort()

    def _read_within(self) -> None:
        if self._reading is None and not self.transport.is_closing():
            self._reading = self.loop.call_later(READ_SECONDS, self.abort)

    def _cancel(self) -> None:
        for timer in (self._reading, self._writing):
            if timer is not None:
                timer.cancel()
        self._reading = self._writing = None


class Server(uvicorn.Server):
    """uvicorn's server, which a client cannot keep busy with unfinished TLS handshakes."""

    async def startup(self, sockets: Any = None) -> None:
        """Listen, with a shorter end of handshakes than asyncio's minute."""
        loop = asyncio.get_running_loop()
        create = loop.create_server

        async def bounded(*arguments: Any, **options: Any) -> asyncio.Server:
            if options.get("ssl") is not None:
                options["ssl_handshake_timeout"] = HANDSHAKE_SECONDS
            return await create(*arguments, **options)

        loop.create_server = bounded  # type: ignore[method-assign]
        try:
            await super().startup(sockets)
        finally:
            loop.create_server = create  # type: ignore[method-assign]


def bounded_server(app: Any, settings: Serve, stop_seconds: float) -> Server:
    """A server of an application; it listens when `serve` is called.

    Parameters
    ----------
    app
        The ASGI application.
    settings
        Certificate and trusted proxies.
    stop_seconds
        How long open requests may take to end when it stops.

    Raises
    ------
    ConfigurationError
        If the certificate or its key cannot be used.
    """
    proxies = tuple(networks(settings.trusted_proxies))
    made = Server(
        uvicorn.Config(
            app,
            log_config=None,
            access_log=False,
            server_header=False,
            lifespan="on",
            http=type("Connection", (BoundedProtocol,), {"clients": Clients(proxies)}),
            ws="none",
            # Otherwise uvicorn believes programs on this machine, and those that the environment names.
            proxy_headers=bool(proxies),
            forwarded_allow_ips=[str(one) for one in proxies],
            timeout_keep_alive=IDLE_SECONDS,
            timeout_graceful_shutdown=round(stop_seconds),
            limit_concurrency=MAX_CONNECTIONS + 1,
            ssl_certfile=settings.certificate_file or None,
            ssl_keyfile=settings.private_key_file or None,
        )
    )
    try:
        made.config.load()
    except OSError as error:  # SSLError is one, too
        raise ConfigurationError(
            f"serve.certificate_file {settings.certificate_file} and serve.private_key_file "
            f"{settings.private_key_file} cannot be used: {error.strerror or error}; both must be PEM files, and the "
            "key must be that of the certificate and have no password"
        ) from None
    return made


def raise_file_limit() -> None:
    """Let this process open as many files as its user may: every connection is one, beside those of the stores."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = MAX_FILES if hard == resource.RLIM_INFINITY else min(hard, MAX_FILES)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))


def _network(host: str) -> str:
    """The address of a client, or its network with IPv6.

    Examples
    --------
    >>> _network("10.0.0.7"), _network("2001:db8::1:2"), _network("::ffff:10.0.0.7")
    ('10.0.0.7', '2001:db8::/64', '10.0.0.7')
    """
    try:
        address = ipaddress.ip_address(host.partition("%")[0])
    except ValueError:
        return host
    if isinstance(address, ipaddress.IPv4Address):
        return str(address)
    if address.ipv4_mapped is not None:
        return str(address.ipv4_mapped)
    if address.is_loopback:
        return str(address)
    return str(ipaddress.ip_network((int(address), _PREFIX), strict=False))
