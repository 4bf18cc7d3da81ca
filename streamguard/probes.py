"""A small HTTP server for metrics and probes, which idle, slow and hostile clients cannot exhaust."""

from __future__ import annotations

import asyncio
import http
import ipaddress
import re
import socket
import threading
from collections import Counter
from collections.abc import Callable, Container
from typing import NamedTuple

MAX_CONNECTIONS = 64
"""Concurrent connections. One more replaces the connection that has been without an answer for the longest time, of the
client address with the most connections: so one client cannot keep others away."""
REQUEST_SECONDS = 5.0
"""Time for a request and its answer, from the connection or from the first byte on."""
IDLE_SECONDS = 75.0
"""An answered connection without a further request is closed. Many scrapers send a request once a minute."""
MAX_REQUEST_BYTES = 8192
"""Maximum size of a request: its line and headers. A request has no body."""
BACKLOG = 128
"""Connections that the system holds until they are accepted."""

_SINGLE_LABEL = re.compile(r"[a-z0-9_-]{1,63}")


class Answer(NamedTuple):
    """Answer to a GET request."""

    status: int
    content_type: str
    body: bytes


def bind(host: str, port: int) -> socket.socket:
    """A socket that listens on an IPv4 or IPv6 address, or on the address of a name; empty: on all IPv4 addresses.

    Raises
    ------
    OSError
        If the address or the port cannot be used.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listener = socket.create_server((host, port), family=family, backlog=BACKLOG)
    # Connections inherit it. Otherwise the second part of an answer waits 40 ms for an acknowledgement of the first.
    listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return listener


class Server:
    """Answers GET and HEAD requests in a thread of its own.

    A request must name this machine in its Host header: otherwise a web page could have its own name resolved to
    this address and read the answers in a browser (DNS rebinding). Such a page cannot name an IP address or a name
    without a dot, so these are served, too.

    Parameters
    ----------
    page
        Returns the answer for a path, without its query; called in the server's thread.
    host, port
        Address; port 0 selects any free port.
    allowed_hosts
        Further names under which this machine is asked, separated by commas.

    Raises
    ------
    OSError
        If the address or the port cannot be used.
    """

    def __init__(self, page: Callable[[str], Answer], host: str, port: int, allowed_hosts: str = "") -> None:
        self.page = page
        names = [host, socket.gethostname(), *allowed_hosts.split(",")]
        self.names = {name.strip().lower().rstrip(".") for name in names}
        self._socket = bind(host, port)
        self._connections: set[_Connection] = set()

    @property
    def port(self) -> int:
        """The port in use."""
        return int(self._socket.getsockname()[1])

    def start(self, name: str) -> None:
        """Serve requests in a thread with this name until the process ends."""
        threading.Thread(target=asyncio.run, args=(self._serve(),), name=name, daemon=True).start()

    async def _serve(self) -> None:
        server = await asyncio.get_running_loop().create_server(
            lambda: _Connection(self), sock=self._socket, backlog=BACKLOG
        )
        await server.serve_forever()

    def admit(self, connection: _Connection) -> None:
        """Add a connection; if there are too many, replace one."""
        self._connections.add(connection)
        if len(self._connections) > MAX_CONNECTIONS:
            of = Counter(other.peer for other in self._connections)
            replaced = min(self._connections, key=lambda other: (-of[other.peer], other.since))
            self._connections.remove(replaced)
            replaced.abort()

    def forget(self, connection: _Connection) -> None:
        """Remove a connection that is closed."""
        self._connections.discard(connection)


def is_own(host: str, names: Container[str]) -> bool:
    """Whether the value of a Host header is an IP address, a name without a dot, or one of the given names.

    Examples
    --------
    >>> own = {"worker.example.com"}
    >>> [is_own(host, own) for host in ("10.0.0.7:9464", "[::1]:9464", "worker-1:9464", "Worker.example.com.")]
    [True, True, True, True]
    >>> [is_own(host, own) for host in ("attacker.example", "worker.example.com.attacker.example", "", "::1", "a:b:c")]
    [False, False, False, False, False]
    """
    bracketed = re.fullmatch(r"\[([0-9a-f:.]+)\](:\d+)?", host, re.IGNORECASE)
    name = (bracketed[1] if bracketed else re.sub(r":\d+\Z", "", host)).lower().rstrip(".")
    if _SINGLE_LABEL.fullmatch(name) or (name and name in names):
        return True
    try:
        return (ipaddress.ip_address(name).version == 6) == (bracketed is not None)
    except ValueError:
        return False


class _Reply(NamedTuple):
    """An answer, whether the connection ends after it, and whether its body is left out (HEAD)."""

    answer: Answer
    close: bool
    head: bool


def _refused(status: int, detail: str) -> _Reply:
    return _Reply(Answer(status, "text/plain; charset=utf-8", f"{detail}\n".encode()), close=True, head=False)


class _Connection(asyncio.Protocol):
    """One connection: answers one request after the other, each within its deadline.

    Attributes
    ----------
    peer
        Address of the client.
    since
        When the connection was made, or its last request was answered.
    """

    def __init__(self, server: Server) -> None:
        self._server = server
        self._received = bytearray()
        self._sending = self._idle = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport
        self._loop = asyncio.get_running_loop()
        self.peer = str((transport.get_extra_info("peername") or ("",))[0])
        self.since = self._loop.time()
        self._deadline = self._loop.call_later(REQUEST_SECONDS, self.abort)
        transport.set_write_buffer_limits(high=0)  # so that one answer is sent before the next is made
        self._server.admit(self)

    def connection_lost(self, error: Exception | None) -> None:  # noqa: ARG002
        self._deadline.cancel()
        self._server.forget(self)

    def abort(self) -> None:
        """Close the connection at once, whether or not its answer is sent."""
        self._transport.abort()

    def data_received(self, data: bytes) -> None:
        if self._idle:
            self._idle = False
            self._end_after(REQUEST_SECONDS)
        self._received += data
        self._answer_next()

    def pause_writing(self) -> None:
        self._sending = True
        self._transport.pause_reading()

    def resume_writing(self) -> None:
        self._sending = False
        if not self._transport.is_closing():
            self._transport.resume_reading()
            self._answered()

    def _end_after(self, seconds: float) -> None:
        self._deadline.cancel()
        self._deadline = self._loop.call_later(seconds, self.abort)

    def _answered(self) -> None:
        self.since = self._loop.time()
        self._idle = not self._received
        self._end_after(IDLE_SECONDS if self._idle else REQUEST_SECONDS)
        if self._received:
            self._loop.call_soon(self._answer_next)  # other connections come first

    def _answer_next(self) -> None:
        """Answer the next request, if it is complete and the last answer is sent."""
        if self._sending or self._transport.is_closing():
            return
        if len(self._received) > MAX_REQUEST_BYTES:
            self._send(_refused(431, f"a request may have {MAX_REQUEST_BYTES} bytes"))
            return
        head, ended, rest = self._received.partition(b"\r\n\r\n")
        if ended:
            self._received = rest
            self._send(self._reply(bytes(head)))

    def _reply(self, request: bytes) -> _Reply:
        lines = request.decode("latin-1").split("\r\n")
        matched = re.fullmatch(r"([A-Z]+) (\S+) HTTP/1\.([01])", lines[0])
        if matched is None:
            return _refused(400, "this is not a request in HTTP/1.1")
        method, target, minor = matched.groups()
        headers: dict[str, str] = {}
        for line in lines[1:]:
            name, colon, value = line.partition(":")
            if not colon or not re.fullmatch(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+", name):
                return _refused(400, "a header of the request is not valid")
            if name.lower() in headers and name.lower() == "host":
                return _refused(400, "the request has more than one Host header")
            headers[name.lower()] = value.strip()
        if minor == "1" and "host" not in headers:
            return _refused(400, "the request has no Host header")
        if "host" in headers and not is_own(headers["host"], self._server.names):
            return _refused(
                421,
                "the Host header does not name this machine: use its IP address, or set metrics_allowed_hosts",
            )
        if method not in ("GET", "HEAD"):
            return _refused(405, "use GET")
        if headers.get("content-length", "0") != "0" or "transfer-encoding" in headers:
            return _refused(400, "a request has no body here")
        answer = self._server.page(target.partition("?")[0])
        close = minor == "0" or "close" in headers.get("connection", "").lower()
        return _Reply(answer, close, head=method == "HEAD")

    def _send(self, reply: _Reply) -> None:
        answer, close, head = reply
        lines = [
            f"HTTP/1.1 {answer.status} {http.HTTPStatus(answer.status).phrase}",
            f"Content-Type: {answer.content_type}",
            f"Content-Length: {len(answer.body)}",
            "Cache-Control: no-store",
            "X-Content-Type-Options: nosniff",
            *(["Connection: close"] if close else []),
        ]
        self._transport.write("\r\n".join([*lines, "", ""]).encode() + (b"" if head else answer.body))
        if close:
            self._transport.close()
        elif not self._sending:
            self._answered()
