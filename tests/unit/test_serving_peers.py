"""Servers that ask each other: texts of partitions, signatures, addresses, certificates, and choice among holders."""

from __future__ import annotations

import contextlib
import http.server
import socket
import ssl
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import msgspec
import pytest

from streamguard.errors import ConfigurationError
from streamguard.serving.api.keys import Principal
from streamguard.serving.api.peers import PeerAccess, peer_group, with_peers
from streamguard.serving.api.problems import described
from streamguard.serving.log.freshness import AsOf
from streamguard.serving.peers import client as module
from streamguard.serving.peers import group as group_module
from streamguard.serving.peers.answers import Held, HeldNames, HeldProfiles
from streamguard.serving.peers.client import (
    Client,
    PeerRefusedError,
    PeerUnavailableError,
    addresses,
    trusted,
)
from streamguard.serving.peers.group import HELD_PATH, MAX_WAITING, Asked, BusyError, PeerGroup
from streamguard.serving.peers.partitions import parse, ranges
from streamguard.serving.peers.profiles import NAMES_PATH, PROFILES_PATH
from streamguard.serving.peers.signing import HEADER, VALID_SECONDS, PeerError, PeerKey
from streamguard.settings.schema import Serve
from tests.certificates import Authority

ANN = Principal("ann", "analyst")
KEY = PeerKey(b"k" * 32)
NOWHERE = AsOf("changelog", (), 0)


def test_partitions_as_text_and_back() -> None:
    for text in ("0", "0-31", "0-2,7,9-10"):
        assert ranges(parse(text)) == text
    assert ranges(parse("3,1,2-4")) == "1-4"
    for wrong in ("", "a", "1-", "-1", "1,,2", "3-1", "1 2", "0-3\n", "1" * 6, ",".join("1" * 1001)):
        with pytest.raises(ConfigurationError, match=r"serve\.partitions"):
            parse(wrong)


def test_header_is_good_for_its_request_only() -> None:
    header = KEY.header(ANN, "A:1", "/v1/peer/users?x=1", 1000.0)
    assert KEY.statement(header, "a:1", "/v1/peer/users?x=1", 1000.0 + VALID_SECONDS).role == "analyst"
    wrong: list[tuple[PeerKey, str, str, str, float]] = [
        (PeerKey(b"q" * 32), header, "a:1", "/v1/peer/users?x=1", 1000),
        (KEY, header, "b:1", "/v1/peer/users?x=1", 1000),
        (KEY, header, "a:1", "/v1/peer/users?x=2", 1000),
        (KEY, header, "a:1", "/v1/peer/users?x=1", 1000 + VALID_SECONDS + 1),
        (KEY, header, "a:1", "/v1/peer/users?x=1", 1000 - VALID_SECONDS - 1),
        (KEY, header[:-1], "a:1", "/v1/peer/users?x=1", 1000),
        (KEY, "é" + header, "a:1", "/v1/peer/users?x=1", 1000),
        (KEY, "", "a:1", "/v1/peer/users?x=1", 1000),
    ]
    for key, text, host, target, now in wrong:
        with pytest.raises(PeerError):
            key.statement(text, host, target, now)


def test_addresses_are_encrypted_unless_they_stay_on_the_machine() -> None:
    assert not addresses("", plain=False)
    assert [one.authority for one in addresses("http://[::1]:1,https://b", plain=False)] == [
        "[::1]:1",
        "b:443",
    ]
    for wrong in (
        "b", "ftp://b", "https://", "https://b/path", "https://ann:x@b", "https://b?x", "https://b:99999",
        "http://b:1", "http://10.0.0.1:1", ",".join(f"https://b:{k + 1}" for k in range(module.MAX_PEERS + 1)),
    ):  # fmt: skip
        with pytest.raises(ConfigurationError, match=r"serve\.peers"):
            addresses(wrong, plain=False)
    assert addresses("http://b:1", plain=True)[0].port == 1


def test_settings_that_cannot_work_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match=r"serve\.peer_key_file is not"):
        peer_group(Serve(peers="https://b"), "changelog")
    short = tmp_path / "short"
    short.write_bytes(b"x" * 15)
    for file in (short, tmp_path / "none"):
        with pytest.raises(ConfigurationError, match=r"serve\.peer_key_file"):
            PeerAccess.of(Serve(peer_key_file=str(file)))
    with pytest.raises(ConfigurationError, match=r"serve\.peer_ca_file"):
        trusted(str(tmp_path / "none"))
    assert peer_group(Serve(), "changelog") is None
    names = with_peers(Serve(peers="https://b:8080, https://[::1]", allowed_hosts="guard.example.com")).split(
        ","
    )
    assert names == ["guard.example.com", "b", "::1"]


class Hanging:
    """In place of an answer: the connection stays open, and nothing is sent until `let_go` is set."""

    def __init__(self) -> None:
        self.begun, self.let_go = threading.Event(), threading.Event()


class Peer:
    """A server that answers with given bodies, and remembers what it was asked."""

    def __init__(self, answers: dict[str, Any], certificate: Path | None = None) -> None:
        self.asked: list[str] = []
        peer = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                assert KEY.statement(self.headers[HEADER], self.headers["Host"], self.path, time.time())
                path, _, parameters = self.path.partition("?")
                if path != HELD_PATH:
                    peer.asked.append(parameters)
                status, found = 200, answers.get(path)
                if isinstance(found, Hanging):
                    found.begun.set()
                    found.let_go.wait(60)
                    return
                if isinstance(found, tuple):
                    status, found = found
                body = found if isinstance(found, bytes) else msgspec.json.encode(found)
                self.send_response(503 if found is None else status)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *_: Any) -> None:
                pass

        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        if certificate is not None:
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            context.load_cert_chain(certificate)
            self.server.socket = context.wrap_socket(self.server.socket, server_side=True)
        scheme = "http" if certificate is None else "https"
        self.address = addresses(f"{scheme}://127.0.0.1:{self.server.server_port}", plain=False)[0]
        self.thread = threading.Thread(target=self.server.serve_forever, args=(0.01,))
        self.thread.start()

    def close(self) -> None:
        self.server.shutdown()
        self.server.server_close()
        self.thread.join()


@contextmanager
def peers(*made: Peer) -> Iterator[PeerGroup]:
    group = PeerGroup([one.address for one in made], Client(KEY, trusted("")), "changelog", ANN)
    try:
        group.poll()
        yield group
    finally:
        for one in made:
            one.close()


def held(*ready: int, topic: str = "changelog", server: str = "other") -> Held:
    return Held(server, topic, 8, ready)


def names(*users: str) -> HeldNames:
    return HeldNames(users, NOWHERE)


def test_overlapping_holders_are_asked_once_and_another_one_if_the_first_fails() -> None:
    wide = Peer({HELD_PATH: held(0, 1, 2, 3), NAMES_PATH: None})  # answers 503 when it is asked
    low = Peer({HELD_PATH: held(0, 1), NAMES_PATH: names("a")})
    high = Peer({HELD_PATH: held(2, 3, 4), NAMES_PATH: names("b")})
    with peers(wide, low, high) as group:
        found = group.ask({0, 1, 2, 3, 4, 5}, NAMES_PATH, {}, ANN, HeldNames)
        assert wide.asked == ["partitions=0-3"]
        assert high.asked == ["partitions=4", "partitions=2-3"]
        assert sorted(ranges(own) for own, _ in found.answers) == ["0-1", "2-3", "4"]
        assert found.missing == {5}
        assert found.reasons == (f"{wide.address.text} answers 503",)
        assert "answers 503" in group.states()[0].trouble  # until it is checked again
        group.poll()
        assert [one.partitions for one in group.states()] == ["0-3", "0-1", "2-4"]


MASKED = {"title": "Forbidden", "status": 403, "type": "/problems/masked", "detail": "it names people"}


@pytest.mark.parametrize(
    ("status", "body", "kind"),
    [
        (403, MASKED, "/problems/masked"),
        (404, MASKED | {"type": "/problems/not-found"}, "/problems/not-found"),
        (403, {"title": "Forbidden", "detail": "it names people"}, "about:blank"),
        (400, MASKED | {"type": "https://other.example.com/x"}, "about:blank"),
    ],
)
def test_refusal_of_a_peer_reaches_the_caller_and_the_peer_answers_others(
    status: int, body: dict[str, Any], kind: str
) -> None:
    answers: dict[str, Any] = {HELD_PATH: held(0, 1), NAMES_PATH: (status, body)}
    with peers(Peer(answers)) as group:
        with pytest.raises(PeerRefusedError) as refused:
            group.ask({0}, NAMES_PATH, {}, ANN, HeldNames)
        problem, _ = described(refused.value)
        assert (problem.status, problem.type, problem.detail) == (status, kind, "it names people")
        assert group.ready() == {0, 1} and not group.states()[0].trouble
        answers[NAMES_PATH] = names("a")
        assert not group.ask({0}, NAMES_PATH, {}, ANN, HeldNames).missing


def test_question_that_a_peer_does_not_know_says_nothing_about_other_questions() -> None:
    unknown = Peer({HELD_PATH: held(0, 1), NAMES_PATH: (404, {"title": "Not Found"})})
    with peers(unknown) as group:
        found = group.ask({0}, NAMES_PATH, {}, ANN, HeldNames)
        assert found.missing == {0} and "run one version" in found.reasons[0]
        assert group.ready() == {0, 1}


@pytest.mark.parametrize(
    "answered", [(401, MASKED), (421, MASKED), (500, MASKED), (403, b"<html>"), (499, MASKED), (302, b"")]
)
def test_answers_that_concern_the_peer_itself(answered: tuple[int, Any]) -> None:
    with peers(Peer({HELD_PATH: held(0), NAMES_PATH: answered})) as group:
        found = group.ask({0}, NAMES_PATH, {}, ANN, HeldNames)
        assert len(found.reasons) == 1 and f"answers {answered[0]}" in found.reasons[0]
        assert group.ready() == frozenset()


def test_peer_that_failed_is_not_asked_again_for_the_same_question(monkeypatch: pytest.MonkeyPatch) -> None:
    failing = Peer({HELD_PATH: held(0), NAMES_PATH: None})
    with peers(failing) as group:
        plain = PeerGroup._failed

        def and_checked(self: PeerGroup, address: Any, reason: str) -> None:
            plain(self, address, reason)
            if len(failing.asked) < 3:
                self._examine(address)  # as the regular check does at any moment

        monkeypatch.setattr(PeerGroup, "_failed", and_checked)
        found = group.ask({0}, NAMES_PATH, {}, ANN, HeldNames)
        assert len(failing.asked) == len(found.reasons) == 1 and found.missing == {0}


def test_longest_questions_are_asked() -> None:
    many = frozenset(range(0, 768, 2))
    peer = Peer(
        {HELD_PATH: Held("other", "changelog", 768, tuple(many)), PROFILES_PATH: HeldProfiles((), NOWHERE)}
    )
    with peers(peer) as group:
        asker = Principal("é" * 64, "privacy_officer")
        found = group.ask(many, PROFILES_PATH, {"user": "€" * 256}, asker, HeldProfiles)
        assert not found.missing, found.reasons
        assert len(peer.asked[0]) > 4000


def test_server_recognises_itself_and_refuses_one_of_other_topics() -> None:
    fresh: dict[str, Any] = {}
    own, other = Peer(fresh), Peer({HELD_PATH: held(0, topic="test-changelog")})
    with peers(own, other) as group:
        fresh[HELD_PATH] = held(0, 1, server=group.server)
        group.poll()
        (state,) = group.states()
        assert "follows test-changelog" in state.trouble
        assert group.ready() == frozenset()


def test_answers_that_are_none_are_the_fault_of_the_peer(monkeypatch: pytest.MonkeyPatch) -> None:
    client = Client(KEY, trusted(""))
    for body in (b"", b"[]", b'{"users":3}', b"\xff"):
        peer = Peer({NAMES_PATH: body})
        try:
            with pytest.raises(PeerUnavailableError, match="does not know"):
                client.ask(peer.address, NAMES_PATH, {}, ANN, HeldNames)
        finally:
            peer.close()
    monkeypatch.setattr(module, "MAX_ANSWER_BYTES", 1000)
    peer = Peer({NAMES_PATH: b"[" * 2000})
    try:
        with pytest.raises(PeerUnavailableError, match="larger than 1,000 bytes"):
            client.ask(peer.address, NAMES_PATH, {}, ANN, HeldNames)
    finally:
        peer.close()
    with pytest.raises(PeerUnavailableError, match="does not answer"):
        client.ask(peer.address, NAMES_PATH, {}, ANN, HeldNames)


def test_certificate_of_a_peer_is_verified(tmp_path: Path) -> None:
    authority = Authority(tmp_path)
    peer = Peer({NAMES_PATH: names("a")}, authority.issue("peer"))
    try:
        known = Client(KEY, trusted(str(authority.file)))
        assert known.ask(peer.address, NAMES_PATH, {}, ANN, HeldNames).users == ("a",)
        with pytest.raises(PeerUnavailableError, match=r"is not trusted.*serve\.peer_ca_file"):
            Client(KEY, trusted("")).ask(peer.address, NAMES_PATH, {}, ANN, HeldNames)
    finally:
        peer.close()


def test_questions_that_wait_leave_threads_for_answers(monkeypatch: pytest.MonkeyPatch) -> None:
    begun, let_go = threading.Barrier(MAX_WAITING + 1), threading.Event()
    monkeypatch.setattr(group_module, "ASK_SECONDS", 60.0)
    monkeypatch.setattr(group_module, "TIMEOUT_SECONDS", 60.0)

    def ask(self: Client, address: Any, path: str, *_: Any) -> Any:
        if path == HELD_PATH:
            return held(0)
        begun.wait(30)
        let_go.wait(30)
        return names("a")

    monkeypatch.setattr(Client, "ask", ask)
    group = PeerGroup(
        addresses("http://127.0.0.1:1", plain=False), Client(KEY, trusted("")), "changelog", ANN
    )
    group.poll()
    found: list[Asked] = []
    threads = [
        threading.Thread(target=lambda: found.append(group.ask({0}, NAMES_PATH, {}, ANN, HeldNames)))
        for _ in range(MAX_WAITING)
    ]
    for one in threads:
        one.start()
    begun.wait(30)
    with pytest.raises(BusyError, match="ask again"):
        group.ask({0}, NAMES_PATH, {}, ANN, HeldNames)
    let_go.set()
    for one in threads:
        one.join()
    assert [one.missing for one in found] == [frozenset()] * MAX_WAITING
    monkeypatch.setattr(Client, "ask", lambda *_: names("a"))
    assert not group.ask({0}, NAMES_PATH, {}, ANN, HeldNames).missing, "questions that ended make room"


def test_peer_that_hangs_is_missing_in_time_and_another_holder_is_asked(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(group_module, "TIMEOUT_SECONDS", 0.3)
    hanging = Hanging()
    slow = Peer({HELD_PATH: held(0, 1, 2), NAMES_PATH: hanging})
    quick = Peer({HELD_PATH: held(1), NAMES_PATH: names("a")})
    try:
        with peers(slow, quick) as group:
            found = group.ask({0, 1, 2}, NAMES_PATH, {}, ANN, HeldNames)
            assert found.answers == [(frozenset({1}), names("a"))] and found.missing == {0, 2}
            assert len(found.reasons) == 1 and f"{slow.address.text} does not answer" in found.reasons[0]
            assert [one.partitions for one in group.states()] == ["", "1"]
            hanging.let_go.set()
    finally:
        hanging.let_go.set()


def test_question_that_hangs_delays_no_check(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("ASK_SECONDS", "TIMEOUT_SECONDS"):
        monkeypatch.setattr(group_module, name, 60.0)
    monkeypatch.setattr(group_module, "THREADS", 1)
    hanging = Hanging()
    answers: dict[str, Any] = {HELD_PATH: held(0), NAMES_PATH: hanging}
    found: list[Asked] = []
    with peers(Peer(answers)) as group:
        asking = threading.Thread(target=lambda: found.append(group.ask({0}, NAMES_PATH, {}, ANN, HeldNames)))
        asking.start()
        try:
            assert hanging.begun.wait(30)
            answers[HELD_PATH] = held(0, 1)
            group.poll()
            assert group.ready() == {0, 1} and not found
        finally:
            hanging.let_go.set()
            asking.join()
    assert found[0].missing == {0}


def test_request_that_never_ends_holds_up_neither_questions_nor_checks(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Such as the search for an address, which has no limit of its own."""
    let_go, stuck, quick = threading.Event(), *addresses("http://127.0.0.1:1,http://127.0.0.1:2", plain=False)
    ready, hangs = [held(1), held(1, 2)], [False]

    def ask(self: Client, address: Any, path: str, *_: Any) -> Any:
        if address == stuck and hangs[0]:
            let_go.wait(60)
        return (held(0) if address == stuck else ready.pop(0)) if path == HELD_PATH else names("a")

    monkeypatch.setattr(Client, "ask", ask)
    monkeypatch.setattr(group_module, "TIMEOUT_SECONDS", 0.3)
    group = PeerGroup((stuck, quick), Client(KEY, trusted("")), "changelog", ANN)
    try:
        group.poll()
        hangs[0] = True
        found = group.ask({0, 1}, NAMES_PATH, {}, ANN, HeldNames)
        assert found.missing == {0} and f"{stuck.text} does not answer within" in found.reasons[0]
        group.poll()
        assert group.ready() == {0, 1, 2}
    finally:
        let_go.set()


def test_answer_that_comes_byte_by_byte_ends_in_time() -> None:
    stop = threading.Event()

    def drip(listener: socket.socket) -> None:
        connection, _ = listener.accept()
        with connection, contextlib.suppress(OSError):
            connection.sendall(b"HTTP/1.1 200 OK\r\nx: ")
            while not stop.wait(0.01):
                connection.sendall(b"x")

    with socket.create_server(("127.0.0.1", 0)) as listener:
        thread = threading.Thread(target=drip, args=(listener,))
        thread.start()
        try:
            (address,) = addresses(f"http://127.0.0.1:{listener.getsockname()[1]}", plain=False)
            with pytest.raises(PeerUnavailableError, match=r"in time|timed out"):
                Client(KEY, trusted("")).ask(address, NAMES_PATH, {}, ANN, HeldNames, 0.3)
        finally:
            stop.set()
            thread.join()


def test_peers_are_asked_again_after_an_unexpected_error(monkeypatch: pytest.MonkeyPatch) -> None:
    asked, stop = [0], threading.Event()

    def ask(*_: Any) -> Any:
        asked[0] += 1
        if asked[0] == 1:
            raise RuntimeError
        stop.set()
        return held(0)

    monkeypatch.setattr(Client, "ask", ask)
    monkeypatch.setattr("streamguard.serving.peers.group.POLL_SECONDS", 0.0)
    group = PeerGroup(
        addresses("http://127.0.0.1:1", plain=False), Client(KEY, trusted("")), "changelog", ANN
    )
    group.watch(stop)
    assert group.ready() == {0}
