"""Sessions of browsers: signed texts in cookies, which every server with the same key accepts until they end."""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import secrets
import threading
import time
from bisect import insort
from collections.abc import Callable
from pathlib import Path

import msgspec

from streamguard.errors import ConfigurationError
from streamguard.serving.api.keys import Keyring, Principal, digest
from streamguard.serving.masking.roles import ROLES

SESSION_SECONDS = 12 * 3600
"""How long a browser stays signed in: a working day."""
PRINTED_SECONDS = 15 * 60.0
"""How long the address that a server prints at its start can be opened more than once."""
MIN_KEY_BYTES, MAX_KEY_BYTES = 32, 4096
"""Size of the file that signs sessions."""
MAX_ENDED = 100_000
"""Sessions that were ended before their time and are remembered."""
MAX_COOKIE = 2000


class Session(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    """What a cookie says.

    Attributes
    ----------
    ends
        Unix time in seconds.
    id
        Random, so that one session can be ended.
    key
        Hash of the access key with which it began; empty: with the provider.
    name, role, policy
        Who signed in with the provider, and by which settings the role was given.
    """

    ends: int
    id: str
    key: str = ""
    name: str = ""
    role: str = ""
    policy: str = ""


class Sessions:
    """Begins, recognises and ends sessions; every method may be called from any thread.

    Parameters
    ----------
    keyring
        The access keys; a session of a key ends with the key.
    secret
        Signs the sessions; None: random, so that no other server accepts them.
    policy
        Of the settings that give roles to people from the provider; sessions with another one have ended.
    """

    def __init__(self, keyring: Keyring, secret: bytes | None = None, policy: str = "") -> None:
        self._keyring, self._policy = keyring, policy
        self._secret = hmac.digest(secret or secrets.token_bytes(32), b"streamguard session", "sha256")
        self._lock = threading.Lock()
        self._ended: set[str] = set()
        self._order: list[tuple[int, str]] = []
        self._refused_until = 0

    def begin(self, key: str) -> str | None:
        """The cookie of a new session for an access key; None for a wrong one."""
        if self._keyring.principal(key) is None:
            return None
        return self._signed(Session(_end(), secrets.token_urlsafe(12), digest(key)))

    def begin_for(self, person: Principal) -> str:
        """The cookie of a new session for a person whom the provider has named."""
        return self._signed(
            Session(_end(), secrets.token_urlsafe(12), "", person.name, person.role, self._policy)
        )

    def principal(self, cookie: str) -> Principal | None:
        """Who is signed in; None if the cookie is forged, or the session or what it began with has ended."""
        found = self._read(cookie)
        if found is None or found.ends <= time.time():
            return None
        with self._lock:
            if found.id in self._ended or found.ends <= self._refused_until:
                return None
        if found.key:
            return self._keyring.of_digest(found.key)
        role = next((role for role in ROLES if role == found.role), None)
        if not self._policy or found.policy != self._policy or role is None:
            return None
        return Principal(found.name, role)

    def end(self, cookie: str) -> None:
        """End a session, also for whoever has a copy of the cookie.

        At most `MAX_ENDED` are remembered. When there are more, every session that would end as early as the earliest
        of them is refused, so that an ended one never comes back.
        """
        found = self._read(cookie)
        if found is None:
            return
        now = time.time()
        with self._lock:
            if found.id in self._ended:
                return
            self._ended.add(found.id)
            insort(self._order, (found.ends, found.id))
            gone = 0
            for ends, id in self._order:
                full = len(self._order) - gone > MAX_ENDED
                if ends > now and not full:
                    break
                if ends > now:
                    self._refused_until = max(self._refused_until, ends)
                self._ended.discard(id)
                gone += 1
            del self._order[:gone]

    def _read(self, cookie: str) -> Session | None:
        body, _, signature = cookie.rpartition(".")
        if len(cookie) > MAX_COOKIE or not hmac.compare_digest(
            signature.encode(), self._signature(body).encode()
        ):
            return None
        try:
            return msgspec.msgpack.decode(base64.urlsafe_b64decode(body), type=Session)
        except (binascii.Error, ValueError):  # signed, and of another version
            return None

    def _signed(self, session: Session) -> str:
        body = base64.urlsafe_b64encode(msgspec.msgpack.encode(session)).decode()
        return f"{body}.{self._signature(body)}"

    def _signature(self, body: str) -> str:
        return hmac.new(self._secret, body.encode(), hashlib.sha256).hexdigest()


class Access(msgspec.Struct, frozen=True):
    """How a request was recognised, for answers that last longer than a moment.

    Attributes
    ----------
    current
        Who it is now; None if the key or the session has ended meanwhile.
    """

    current: Callable[[], Principal | None]


class PrintedAddress:
    """Whether the address with the key, which a server without a file of keys prints, may still be opened.

    It may be opened as often as needed within `PRINTED_SECONDS` of the start, and afterwards once if it was not opened
    before: a copy in the history of a browser or in the log of a proxy is then worth nothing.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock, self._used = clock, False
        self._until = clock() + PRINTED_SECONDS

    def use(self) -> bool:
        """Open it; false if it is too late."""
        allowed = not self._used or self._clock() < self._until
        self._used = True
        return allowed


def session_secret(file: str) -> bytes | None:
    """The key of `serve.session_key_file`; None if the setting is empty.

    Raises
    ------
    ConfigurationError
        If the file cannot be read, or is too short or too long.
    """
    if not file:
        return None
    try:
        with Path(file).open("rb") as opened:
            key = opened.read(MAX_KEY_BYTES + 1)
    except OSError as error:
        raise ConfigurationError(
            f"serve.session_key_file: {file} cannot be read: {error.strerror}; `openssl rand -out FILE 32` creates one"
        ) from None
    if not MIN_KEY_BYTES <= len(key) <= MAX_KEY_BYTES:
        raise ConfigurationError(
            f"serve.session_key_file: {file} must have {MIN_KEY_BYTES} to {MAX_KEY_BYTES:,} bytes: `openssl rand -out "
            "FILE 32` creates one"
        )
    return key


def _end() -> int:
    return int(time.time()) + SESSION_SECONDS
