"""Connections over real sockets: silent, slow and many ones do not keep others away, and TLS protects the cookie."""

from __future__ import annotations

import contextlib
import json
import socket
import ssl
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from streamguard.polling import poll_until
from streamguard.serving import connections
from streamguard.serving.api import keys, stream
from streamguard.serving.query.service import QueryService
from streamguard.settings.load import load
from streamguard.settings.schema import SettingsError
from tests.certificates import Authority
from tests.serving_http import HttpSite

GET = b"GET /sign-in HTTP/1.1\r\nHost: 127.0.0.1\r\n"


@pytest.fixture
def site(tmp_path: Path) -> Iterator[HttpSite]:
    with HttpSite(tmp_path).running() as site:
        yield site


def connected(site: HttpSite, count: int, stack: contextlib.ExitStack) -> list[socket.socket]:
    """Connections that the server has accepted."""
    place = urlsplit(site.address)
    return [
        stack.enter_context(socket.create_connection((place.hostname or "", place.port or 0), 30.0))
        for _ in range(count)
    ]


def await_end(opened: socket.socket, drip: bytes = b"") -> None:
    """Read, and send something again and again, until the server has closed the connection."""
    opened.settimeout(0.02)
    while True:
        try:
            if not opened.recv(65536):
                return
        except TimeoutError:
            pass
        except ConnectionError:
            return
        if drip:
            try:
                opened.sendall(drip)
            except ConnectionError:
                return


@pytest.mark.parametrize("proxies", ["", "127.0.0.1"], ids=["one address", "behind a proxy"])
def test_more_silent_connections_than_are_possible_leave_the_page_usable(
    tmp_path: Path, proxies: str
) -> None:
    with HttpSite(tmp_path, trusted_proxies=proxies).running() as site, contextlib.ExitStack() as stack:
        connected(site, 1100, stack)
        for _ in range(3):
            with site.client() as client:
                assert client.get("/sign-in").status_code == 200
        assert len(site.server.server_state.connections) <= connections.MAX_CONNECTIONS


def test_idle_connections_make_room_and_busy_ones_stay(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(connections, "MAX_CLIENT_CONNECTIONS", 100)
    monkeypatch.setattr(connections, "MAX_CONNECTIONS", 8)
    changes = [0]
    monkeypatch.setattr(QueryService, "sequence", property(lambda _: changes[0]))
    with (
        HttpSite(tmp_path).running() as site,
        site.client().stream(
            "GET", "/v1/stream", headers={"Authorization": f"Bearer {site.key}", "Last-Event-ID": "999"}
        ) as answer,
        contextlib.ExitStack() as stack,
    ):
        events = answer.iter_lines()
        assert next(events).startswith("id:")
        for _ in range(3):
            connected(site, 10, stack)
            assert site.client().get("/sign-in").status_code == 200
        assert len(site.server.server_state.connections) <= 8
        changes[0] = 7
        assert any(line == "data: 7" for line in events)


def test_one_address_cannot_take_all_connections(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connections, "MAX_CLIENT_CONNECTIONS", 5)
    with HttpSite(tmp_path / "one").running() as site, contextlib.ExitStack() as stack:
        first, *_ = connected(site, 6, stack)
        await_end(first)
        assert len(site.server.server_state.connections) == 5
    with (
        HttpSite(tmp_path / "proxy", trusted_proxies="127.0.0.0/8").running() as site,
        contextlib.ExitStack() as stack,
    ):
        connected(site, 12, stack)
        poll_until(lambda: len(site.server.server_state.connections) == 12, 30.0)


@pytest.mark.parametrize(
    ("beginning", "drip"),
    [
        (b"", b""),
        (b"GET /sign-in HTTP/1.1\r\n", b""),
        (GET, b"X-Drip: x\r\n"),
        (
            b"POST /sign-in HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/x-www-form-urlencoded\r\n"
            b"Content-Length: 60000\r\n\r\n",
            b"k",
        ),
        (GET + b"\r\nGET /", b"x"),
    ],
    ids=["silent", "part of a head", "slow head", "slow body", "slow second request"],
)
def test_request_that_does_not_arrive_in_time_ends_the_connection(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    beginning: bytes,
    drip: bytes,
) -> None:
    monkeypatch.setattr(connections, "READ_SECONDS", 0.3)
    with HttpSite(tmp_path).running() as site, contextlib.ExitStack() as stack:
        (opened,) = connected(site, 1, stack)
        opened.sendall(beginning)
        await_end(opened, drip)
        assert site.client().get("/sign-in").status_code == 200
    assert not [one for one in caplog.records if one.levelname == "ERROR"], "a client cannot fill the log"


def test_answered_connection_stays_for_a_while_and_then_ends(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(connections, "IDLE_SECONDS", 1)
    monkeypatch.setattr(connections, "READ_SECONDS", 1000.0)
    with HttpSite(tmp_path).running() as site, contextlib.ExitStack() as stack:
        (opened,) = connected(site, 1, stack)
        for _ in range(2):
            opened.sendall(GET + b"\r\n")
            assert opened.recv(17).startswith(b"HTTP/1.1 200 OK")
            poll_until(lambda: b"</html>" in opened.recv(65536), 10.0)
        await_end(opened)


def test_client_that_takes_no_answers_is_disconnected(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(connections, "WRITE_SECONDS", 0.3)
    with HttpSite(tmp_path).running() as site, contextlib.ExitStack() as stack:
        (opened,) = connected(site, 1, stack)
        opened.settimeout(0.1)
        with contextlib.suppress(TimeoutError, ConnectionError):
            while True:
                opened.sendall((GET + b"\r\n") * 100)
        poll_until(lambda: not site.server.server_state.connections, 30.0)


def test_streams_of_one_name_are_bounded(site: HttpSite) -> None:
    headers = {"Authorization": f"Bearer {site.key}", "Last-Event-ID": "999"}
    with contextlib.ExitStack() as stack:
        lines = []
        for _ in range(stream.MAX_OWN_STREAMS):
            opened = stack.enter_context(site.client().stream("GET", "/v1/stream", headers=headers))
            lines.append(opened.iter_lines())
            assert next(lines[-1]).startswith("id:")
        refused = site.client().get("/v1/stream", headers=headers)
        assert refused.status_code == 429 and refused.headers["retry-after"] == "5"
        assert "ann has 8 open streams" in refused.json()["detail"]
    again = site.client(headers=headers)

    def opens() -> bool:
        with again.stream("GET", "/v1/stream") as answer:
            return answer.status_code == 200

    poll_until(opens, 10.0)


def test_stream_ends_with_the_key_or_the_session(site: HttpSite, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stream, "CHECK_SECONDS", 0.1)
    signed = site.client()
    assert signed.post("/sign-in", data={"key": site.key}).status_code == 200
    for client, end in (
        (signed, lambda: site.client(cookies=signed.cookies).post("/sign-out")),
        (site.client(headers={"Authorization": f"Bearer {site.key}"}), lambda: keys.write(site.file, [])),
    ):
        with client.stream("GET", "/v1/stream", headers={"Last-Event-ID": "999"}) as opened:
            lines = opened.iter_lines()
            assert next(lines).startswith("id:")
            end()
            assert not any(line.startswith("data: x") for line in lines), "it ends"


def test_tls_marks_the_cookie_and_the_answers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connections, "HANDSHAKE_SECONDS", 0.5)
    authority = Authority(tmp_path)
    certificate = str(authority.issue("serve"))
    trusting = ssl.create_default_context(cafile=str(authority.file))
    with HttpSite(tmp_path / "site", certificate_file=certificate).running() as site:
        client = site.client(verify=trusting)
        signed = client.post("/sign-in", data={"key": site.key})
        assert signed.status_code == 200 and "; Secure" in signed.headers["set-cookie"]
        for path in ("/", "/sign-in", "/nowhere", "/v1/incidents"):
            assert client.get(path).headers["strict-transport-security"] == "max-age=31536000", path
        with contextlib.ExitStack() as stack:
            (silent,) = connected(site, 1, stack)
            await_end(silent)


def test_proxy_is_believed_only_if_it_is_trusted(tmp_path: Path) -> None:
    forwarded = {"X-Forwarded-Proto": "https", "X-Forwarded-For": "203.0.113.7"}
    for name, proxies, secure in (
        ("none", "", False),
        ("other", "10.0.0.0/8", False),
        ("own", "127.0.0.1", True),
    ):
        with HttpSite(tmp_path / name, trusted_proxies=proxies).running() as site:
            signed = site.client().post("/sign-in", data={"key": site.key}, headers=forwarded)
            assert ("; Secure" in signed.headers["set-cookie"]) == secure, name
            assert ("strict-transport-security" in signed.headers) == secure, name
            plain = site.client().get("/sign-in")
            assert "strict-transport-security" not in plain.headers, "by http"


def test_environment_does_not_make_a_proxy_trusted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FORWARDED_ALLOW_IPS", "*")
    with HttpSite(tmp_path).running() as site:
        answer = site.client().get("/sign-in", headers={"X-Forwarded-Proto": "https"})
        assert "strict-transport-security" not in answer.headers


@pytest.mark.parametrize(
    "wrong", ["*", "proxy.example.com", "10.0.0.1/8", "10.0.0.0/33", ",".join(["10.0.0.1"] * 101)]
)
def test_trusted_proxies_are_addresses_and_networks(wrong: str) -> None:
    with pytest.raises(SettingsError, match=r"serve\.trusted_proxies"):
        load(environ={"STREAMGUARD_SERVE_TRUSTED_PROXIES": wrong})


def test_key_is_accepted_in_the_form_and_not_in_an_address(tmp_path: Path) -> None:
    with HttpSite(tmp_path / "file").running() as site:
        client = site.client()
        refused = client.get("/sign-in", params={"key": site.key})
        assert refused.status_code == 403 and "keys revoke" in refused.text
        assert client.get("/").status_code == 401
    with HttpSite(tmp_path / "given", given=True).running() as site:
        assert site.client().get("/sign-in", params={"key": "sg_wrong"}).status_code == 403
        client = site.client()
        assert client.get("/sign-in", params={"key": site.key}).status_code == 200
        assert client.get("/").status_code == 200
        assert json.loads(client.get("/v1/statistics").text)
