"""The HTTP server of metrics and probes, with real sockets: idle, slow, many and wrong clients."""

from __future__ import annotations

import socket
from collections.abc import Callable
from contextlib import ExitStack, suppress

import pytest

from streamguard import probes
from streamguard.probes import MAX_CONNECTIONS, MAX_REQUEST_BYTES, Answer, Server, bind

HEALTHZ = b"GET /healthz HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n"
LARGE = b"x" * 8_000_000


def page(path: str) -> Answer:
    return Answer(200, "text/plain", LARGE if path == "/large" else path.encode())


@pytest.fixture
def port() -> int:
    server = Server(page, "127.0.0.1", 0, "worker.example.com, Other.example.com")
    server.start("test")
    return server.port


def connect(port: int, address: str = "127.0.0.1") -> socket.socket:
    return socket.create_connection(("127.0.0.1", port), 30, (address, 0))


def answer_on(connection: socket.socket, request: bytes) -> bytes:
    """Send a request, and read until its answer ends with the path or the connection is closed."""
    connection.sendall(request)
    received = b""
    while not received.endswith(b"/healthz") and (part := connection.recv(65_536)):
        received += part
    return received


def ask(port: int, request: bytes = HEALTHZ, address: str = "127.0.0.1") -> bytes:
    with connect(port, address) as connection:
        return answer_on(connection, request)


def status(answer: bytes) -> int:
    return int(answer.split()[1])


def closed(connection: socket.socket) -> bool:
    """Wait until the server closes a connection on which it sends nothing."""
    try:
        return connection.recv(1) == b""
    except ConnectionError:
        return True


def idle(connection: socket.socket) -> None:
    """Send nothing."""


def half(connection: socket.socket) -> None:
    connection.sendall(HEALTHZ[:20])


def kept(connection: socket.socket) -> None:
    assert status(answer_on(connection, HEALTHZ)) == 200


@pytest.mark.parametrize("count", [32, 500])
@pytest.mark.parametrize("client", [idle, half, kept])
def test_probe_is_answered_among_many_silent_connections(
    port: int, client: Callable[[socket.socket], None], count: int
) -> None:
    with ExitStack() as opened:
        for _ in range(count):
            client(opened.enter_context(connect(port)))
        for _ in range(3):
            assert status(ask(port)) == 200


def test_connections_send_every_part_of_an_answer_at_once() -> None:
    with bind("127.0.0.1", 0) as listener, connect(listener.getsockname()[1]):
        accepted, _ = listener.accept()
        with accepted:
            assert accepted.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)


def test_client_with_many_connections_takes_none_from_another(port: int) -> None:
    with ExitStack() as opened, connect(port, "127.0.0.2") as scraper:
        kept(scraper)
        many = [opened.enter_context(connect(port)) for _ in range(4 * MAX_CONNECTIONS)]
        kept(scraper)
        assert all(closed(connection) for connection in many[: 3 * MAX_CONNECTIONS])
        kept(many[-1])
        kept(scraper)


@pytest.mark.parametrize("sent", [b"", b"G", HEALTHZ[:-1], b"\r\n"])
def test_request_that_is_not_complete_in_time_is_closed(
    port: int, sent: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(probes, "REQUEST_SECONDS", 0.2)
    with connect(port) as connection:
        connection.sendall(sent)
        assert closed(connection)
    with connect(port) as connection:
        kept(connection)
        connection.sendall(sent or b"G")
        assert closed(connection)


def test_slow_sender_gets_no_longer_deadline_by_sending_more(
    port: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(probes, "REQUEST_SECONDS", 0.5)
    with connect(port) as connection:
        connection.settimeout(0.05)  # the pace of the sender
        sent = 0
        with suppress(ConnectionError):
            while True:
                connection.sendall(b"G")
                sent += 1
                with suppress(TimeoutError):
                    assert connection.recv(1) == b""
                    break
        assert 1 < sent < 100


def test_idle_connection_is_closed_and_an_unread_answer_is_given_up(
    port: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(probes, "IDLE_SECONDS", 0.2)
    with connect(port) as connection:
        kept(connection)
        assert closed(connection)
    monkeypatch.setattr(probes, "REQUEST_SECONDS", 0.2)
    with connect(port) as connection:
        connection.sendall(HEALTHZ.replace(b"healthz", b"large"))
        with connect(port) as other:
            assert closed(other), "the deadline has passed"
        received = 0
        with suppress(ConnectionError):
            while part := connection.recv(65_536):
                received += len(part)
        assert received < len(LARGE)


def test_connection_serves_several_requests_also_at_once(port: int) -> None:
    with connect(port) as connection:
        for _ in range(3):
            kept(connection)
        connection.sendall(HEALTHZ * 3 + b"GET /end HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
        received = b""
        while part := connection.recv(65_536):
            received += part
    assert received.count(b"200 OK") == 4
    assert received.endswith(b"Connection: close\r\n\r\n/end")


def test_large_answer_is_complete_and_head_has_no_body(port: int) -> None:
    request = b"GET /large HTTP/1.0\r\n\r\n"
    assert ask(port, request).endswith(b"\r\n\r\n" + LARGE)
    head = ask(port, request.replace(b"GET", b"HEAD"))
    assert b"Content-Length: 8000000\r\n" in head and head.endswith(b"\r\n\r\n")


@pytest.mark.parametrize(
    ("host", "expected"),
    [
        (b"127.0.0.1:9464", 200), (b"10.1.2.3", 200), (b"[fd00::7]:9464", 200), (b"localhost", 200),
        (b"worker-1:9464", 200), (b"WORKER.example.com:1", 200), (b"other.example.com", 200),
        (b"attacker.example", 421), (b"127.0.0.1.attacker.example:9464", 421), (b"worker.example.com.evil.test", 421),
        (b"", 421), (b"fd00::7", 421), (b"a@127.0.0.1", 421), (b"127.0.0.1\r\nHost: attacker.example", 400),
    ],
)  # fmt: skip
def test_host_must_be_an_address_or_a_name_of_this_machine(port: int, host: bytes, expected: int) -> None:
    answer = ask(
        port, HEALTHZ.replace(b"127.0.0.1", host).replace(b"\r\n\r\n", b"\r\nConnection: close\r\n\r\n")
    )
    assert status(answer) == expected
    assert (b"/healthz" in answer) == (expected == 200)


@pytest.mark.parametrize(
    ("request_", "expected"),
    [
        (b"GET /healthz HTTP/1.1\r\n\r\n", 400),
        (b"\x16\x03\x01\x02\x00\r\n\r\n", 400),
        (b"GET  /healthz HTTP/1.1\r\nHost: x\r\n\r\n", 400),
        (b"GET /healthz HTTP/2.0\r\nHost: x\r\n\r\n", 400),
        (b"GET /healthz HTTP/1.1\r\nHost: x\r\n folded: y\r\n\r\n", 400),
        (b"GET /healthz HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\n\r\nhello", 400),
        (b"GET /healthz HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n", 400),
        (b"POST /healthz HTTP/1.1\r\nHost: x\r\n\r\n", 405),
        (b"GET /" + b"x" * MAX_REQUEST_BYTES, 431),
        (b"GET / HTTP/1.1\r\nHost: x\r\n" + b"A: b\r\n" * 2000, 431),
    ],
)
def test_wrong_request_is_answered_with_a_reason_and_closed(
    port: int, request_: bytes, expected: int
) -> None:
    answer = ask(port, request_)
    assert status(answer) == expected
    assert b"Connection: close" in answer
    assert answer.endswith(b"\n")
