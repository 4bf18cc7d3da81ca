"""Sessions: valid on every server with the same key, ended for every copy, and never longer than the key."""

from __future__ import annotations

import threading
import time
from pathlib import Path

import pytest

from streamguard.errors import ConfigurationError
from streamguard.serving import process
from streamguard.serving.api import keys, sessions
from streamguard.serving.api.keys import Keyring, Principal, new_key
from streamguard.serving.api.sessions import SESSION_SECONDS, PrintedAddress, Sessions, session_secret
from streamguard.settings.schema import Serve, Settings

SECRET = b"k" * 32
ANN = Principal("ann", "analyst")


class Clock:
    """A clock that a test sets."""

    now = 1_000_000.0

    def time(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(time, "time", clock.time)
    return clock


def started(sessions: Sessions, key: str) -> str:
    cookie = sessions.begin(key)
    assert cookie is not None
    return cookie


def test_session_is_valid_on_servers_with_the_same_key_only() -> None:
    key, stored = new_key("ann", "analyst", 3600)
    one, other, foreign = (Sessions(Keyring(None, stored), secret) for secret in (SECRET, SECRET, b"x" * 32))
    cookie = started(one, key)
    assert one.principal(cookie) == other.principal(cookie) == ANN
    assert foreign.principal(cookie) is None
    assert Sessions(Keyring(None, stored)).principal(cookie) is None
    assert one.begin(key + "x") is None


@pytest.mark.parametrize("wrong", ["", ".", "x", "x.y", "a" * 5000, "é.é", "====.00"])
def test_forged_session_is_refused(wrong: str) -> None:
    key, stored = new_key("ann", "analyst", 3600)
    own = Sessions(Keyring(None, stored), SECRET)
    cookie = started(own, key)
    assert own.principal(wrong) is None
    assert own.principal(cookie[:-1] + ("0" if cookie[-1] != "0" else "1")) is None
    assert own.principal("A" + cookie) is None
    own.end(wrong)
    assert own.principal(cookie) == ANN


def test_signing_out_ends_every_copy_and_no_other_session() -> None:
    key, stored = new_key("ann", "analyst", 3600)
    own = Sessions(Keyring(None, stored), SECRET)
    stolen, other = started(own, key), started(own, key)
    own.end(stolen)
    assert own.principal(stolen) is None and own.principal(other) == ANN


def test_session_ends_after_its_time_and_with_its_key(clock: Clock, tmp_path: Path) -> None:
    short, shorter = new_key("ann", "analyst", 60, clock.now)
    long, longer = new_key("vera", "viewer", 10 * SESSION_SECONDS, clock.now)
    file = tmp_path / "keys.json"
    keys.write(file, [shorter, longer])
    own = Sessions(Keyring(file), SECRET)
    of_short, of_long = started(own, short), started(own, long)
    clock.now += 61
    assert own.principal(of_short) is None and own.principal(of_long) is not None
    again = started(own, long)
    clock.now += SESSION_SECONDS - 30
    assert own.principal(of_long) is None and own.principal(again) is not None
    keys.write(file, [])
    assert own.principal(again) is None


def test_ended_sessions_are_bounded_and_never_come_back(
    clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sessions, "MAX_ENDED", 3)
    key, stored = new_key("ann", "analyst", 10 * SESSION_SECONDS, clock.now)
    own = Sessions(Keyring(None, stored), SECRET)
    cookies = []
    for _ in range(6):
        cookies.append(started(own, key))
        clock.now += 10
    for cookie in cookies[:5]:
        own.end(cookie)
    assert [own.principal(one) for one in cookies] == [None] * 5 + [ANN]
    assert len(own._order) == len(own._ended) == 3
    clock.now += SESSION_SECONDS
    last = started(own, key)
    own.end(last)
    assert len(own._order) == len(own._ended) == 1, "those that have ended by themselves are forgotten"


def test_person_from_the_provider_keeps_the_role_as_long_as_the_settings_give_it() -> None:
    _, stored = new_key("x", "viewer", 60)
    own = Sessions(Keyring(None, stored), SECRET, "policy")
    cookie = own.begin_for(ANN)
    assert own.principal(cookie) == ANN
    assert Sessions(Keyring(None, stored), SECRET, "policy").principal(cookie) == ANN
    for other in ("", "another policy"):
        assert Sessions(Keyring(None, stored), SECRET, other).principal(cookie) is None
    assert own.principal(own.begin_for(Principal("ann", "emperor"))) is None  # type: ignore[arg-type]


def test_file_of_the_key_is_checked(tmp_path: Path) -> None:
    file = tmp_path / "session.key"
    with pytest.raises(ConfigurationError, match=r"session_key_file: .* cannot be read: No such file"):
        session_secret(str(file))
    for size in (0, 31, 5000):
        file.write_bytes(b"x" * size)
        with pytest.raises(ConfigurationError, match="must have 32 to 4,096 bytes"):
            session_secret(str(file))
    file.write_bytes(SECRET)
    assert session_secret(str(file)) == SECRET and session_secret("") is None


def test_printed_address_opens_often_at_the_start_and_once_later() -> None:
    now = [0.0]
    early, late = PrintedAddress(lambda: now[0]), PrintedAddress(lambda: now[0])
    assert early.use() and early.use()
    now[0] = sessions.PRINTED_SECONDS + 1
    assert not early.use()
    assert late.use() and not late.use()


def test_start_says_that_nobody_can_sign_in(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    file = tmp_path / "file"
    file.write_text("")
    own = Serve(keys_file=str(tmp_path / "keys.json"), data_dir=str(file / "below"))
    with pytest.raises(ConfigurationError, match=r"serve\.data_dir"):
        process.run(Settings(serve=own))
    assert "nobody can sign in" in caplog.text and "streamguard keys add" in caplog.text
    caplog.clear()
    keys.write(tmp_path / "keys.json", [new_key("ann", "analyst", 60)[1]])
    with pytest.raises(ConfigurationError, match=r"serve\.data_dir"):
        process.run(Settings(serve=own))
    assert "nobody" not in caplog.text


def test_certificate_that_cannot_be_used_ends_the_start_before_anything_runs(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "no.pem").write_text("no certificate")
    own = Serve(
        port=0, metrics_port=0, data_dir=str(tmp_path / "data"), certificate_file=str(tmp_path / "no.pem")
    )
    threads = threading.active_count()
    with pytest.raises(ConfigurationError, match=r"serve\.certificate_file .*no\.pem .* cannot be used"):
        process.run(Settings(serve=own))
    assert threading.active_count() == threads
    assert "sign-in?key=" not in capsys.readouterr().out
    process._directory(tmp_path / "data").__enter__()  # the lock is free again


def test_file_of_keys_that_is_damaged_while_the_server_runs_lets_nobody_in(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    key, stored = new_key("ann", "analyst", 60)
    keys.write(tmp_path / "keys.json", [stored])
    keyring = Keyring(tmp_path / "keys.json")
    assert keyring.principal(key) is not None
    (tmp_path / "keys.json").write_text("{")
    assert keyring.principal(key) is None and keyring.principal(key) is None
    assert caplog.text.count("no access key is valid until the file can be read") == 1
    keys.write(tmp_path / "keys.json", [stored])
    assert keyring.principal(key) is not None


@pytest.mark.parametrize(
    ("settings", "text"),
    [
        ({"oidc_issuer": "https://id.example"}, "oidc_client_id is not"),
        ({"oidc_issuer": "https://id.example", "oidc_client_id": "x"}, "oidc_roles is not"),
        ({"private_key_file": "key.pem"}, "certificate_file is not"),
        ({"session_key_file": "none"}, "session_key_file: none cannot be read"),
    ],
)
def test_incomplete_settings_stop_the_start(settings: dict[str, str], text: str) -> None:
    with pytest.raises(ConfigurationError, match=text):
        process.run(Settings(serve=Serve(**settings)))  # type: ignore[arg-type]
