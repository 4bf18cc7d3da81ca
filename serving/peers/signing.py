"""Signs what one server asks another: for whom, what, where and when, so that nobody without the key can ask."""

from __future__ import annotations

import base64
import hashlib
import hmac
from pathlib import Path
from typing import Protocol

import msgspec

from streamguard.errors import ConfigurationError, DataError
from streamguard.text import counted

HEADER = "streamguard-peer"
"""Header of a request of one server to another."""
MAX_HEADER = 2_000
"""Characters of its value: names, roles and hosts are short, and of the target it has a hash."""
VALID_SECONDS = 60
"""By how much the clocks of two servers may differ, and so how long a request can be repeated."""
MIN_KEY = 16
_PURPOSE = b"streamguard-peer-1"


class PeerError(DataError):
    """A request claims to be of a peer, and is not."""


class Asker(Protocol):
    """Who asks: a principal has these."""

    @property
    def name(self) -> str:
        """Name of the person or program."""

    @property
    def role(self) -> str:
        """Role of the person or program."""


class Statement(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What a peer states about a request.

    Attributes
    ----------
    name, role
        For whom it asks.
    host
        The server that it asks.
    sha256
        Hash of the path with its parameters, which may be longer than a header.
    at
        Unix time.
    """

    name: str
    role: str
    host: str
    sha256: str
    at: int


_decode = msgspec.json.Decoder(Statement).decode


class PeerKey:
    """The key that all servers of one installation share.

    Parameters
    ----------
    secret
        Its bytes.
    """

    def __init__(self, secret: bytes) -> None:
        # A key of its own: a file that also signs models or decisions never yields a valid signature of a request.
        self._key = hmac.new(secret, _PURPOSE, hashlib.sha256).digest()

    @classmethod
    def read(cls, path: str) -> PeerKey:
        """The key of a file.

        Raises
        ------
        ConfigurationError
            If the file cannot be read or has fewer than 16 bytes.
        """
        try:
            secret = Path(path).read_bytes()
        except OSError as error:
            raise ConfigurationError(f"serve.peer_key_file {path}: {error.strerror}") from None
        if len(secret) < MIN_KEY:
            raise ConfigurationError(
                f"serve.peer_key_file {path} has {counted(len(secret), 'byte')}, the minimum is {MIN_KEY}: create a "
                "random key with `openssl rand -out FILE 32`, and give the same file to every server"
            )
        return cls(secret)

    def header(self, asker: Asker, host: str, target: str, now: float) -> str:
        """The value of the header of a request with the method GET.

        Parameters
        ----------
        host
            Value of the header Host.
        target
            Path with its parameters, as it is sent.
        now
            Unix time.
        """
        statement = Statement(asker.name, asker.role, host.lower(), _hashed(target), int(now))
        body = base64.urlsafe_b64encode(msgspec.json.encode(statement)).decode()
        return f"{body}.{self._signature(body)}"

    def statement(self, header: str, host: str, target: str, now: float) -> Statement:
        """What a header states, if it was made with this key, for this request, a moment ago.

        Raises
        ------
        PeerError
            Otherwise.
        """
        body, _, signature = header.partition(".")
        if len(header) > MAX_HEADER or not hmac.compare_digest(
            signature.encode(), self._signature(body).encode()
        ):
            raise PeerError("its signature is not one of this key")
        try:
            found = _decode(base64.urlsafe_b64decode(body))
        except (ValueError, msgspec.MsgspecError):
            raise PeerError("it is not one that this version writes") from None
        if (found.host, found.sha256) != (host.lower(), _hashed(target)):
            raise PeerError("it was made for another request")
        if abs(found.at - now) > VALID_SECONDS:
            raise PeerError(
                f"its time differs by more than {VALID_SECONDS} s from that of this server: synchronise the clocks"
            )
        return found

    def _signature(self, body: str) -> str:
        return hmac.new(self._key, body.encode(), hashlib.sha256).hexdigest()


def _hashed(target: str) -> str:
    return hashlib.sha256(target.encode()).hexdigest()
