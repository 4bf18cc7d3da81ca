"""Asks one other server: verified, within a time limit, and within a size limit."""

from __future__ import annotations

import functools
import http.client
import io
import ipaddress
import re
import socket
import ssl
import time
from typing import Any, NamedTuple, TypeVar
from urllib.parse import urlencode, urlsplit

import msgspec

from streamguard.errors import ConfigurationError, DataError, TemporaryError
from streamguard.serving.peers.signing import HEADER, Asker, PeerKey
from streamguard.text import printable

TIMEOUT_SECONDS = 2.0
"""How long a peer may take to connect, and for the whole answer: its lookup takes less than a millisecond."""
MAX_ANSWER_BYTES = 8 << 20
"""Size of an answer: a page of names has 50 KB, a profile 20 KB."""
MAX_PEERS = 256
"""Number of peers that are asked."""
_READ_BYTES = 1 << 16
_OF_THE_PEER = (401, 421)
"""Statuses by which a peer accepts no question at all: the signature is not one of its key, or its name is wrong."""
_KIND = re.compile(r"/problems/([a-z-]{1,40})")
_MAX_DETAIL = 1_000

T = TypeVar("T")


class PeerUnavailableError(TemporaryError):
    """A peer does not answer, or not as a peer answers."""


class UnknownQuestionError(PeerUnavailableError):
    """A peer does not know this question, although it may know others."""


class PeerRefusedError(DataError):
    """A peer refuses the question of this caller; others, and other questions, may be answered.

    Attributes
    ----------
    status
        HTTP status, 400 to 499.
    kind
        Kind of the problem: the last part of its `type`; empty if it has none.
    """

    def __init__(self, status: int, kind: str, detail: str) -> None:
        super().__init__(detail)
        self.status, self.kind = status, kind


class _Problem(msgspec.Struct):
    """Of a problem detail, what is passed on."""

    title: str
    detail: str = ""
    type: str = "about:blank"


class Address(NamedTuple):
    """Where a peer is.

    Attributes
    ----------
    text
        As the settings have it, without a final slash.
    host, port
        What is connected to.
    encrypted
        Whether TLS is used.
    """

    text: str
    host: str
    port: int
    encrypted: bool

    @property
    def authority(self) -> str:
        """Value of the header Host."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{host}:{self.port}"


def addresses(text: str, *, plain: bool) -> tuple[Address, ...]:
    """The addresses of the setting `serve.peers`.

    Parameters
    ----------
    plain
        Whether http is allowed to other machines.

    Raises
    ------
    ConfigurationError
        If one of them is not `https://name:port`, or there are more than 256.

    Examples
    --------
    >>> [one.authority for one in addresses("https://a.example.com, http://127.0.0.1:8081/", plain=False)]
    ['a.example.com:443', '127.0.0.1:8081']
    """
    given = [one.strip() for one in text.split(",") if one.strip()]
    if len(given) > MAX_PEERS:
        raise ConfigurationError(f"serve.peers has {len(given)} addresses, the maximum is {MAX_PEERS}")
    return tuple(_address(one.rstrip("/"), plain=plain) for one in given)


def _address(text: str, *, plain: bool) -> Address:
    try:
        parts = urlsplit(text)
        host, port = parts.hostname, parts.port
    except ValueError:
        parts, host, port = urlsplit(""), None, None
    if (
        not host
        or parts.scheme not in ("http", "https")
        or any((parts.path, parts.query, parts.fragment, parts.username, parts.password))
    ):
        raise ConfigurationError(
            f"serve.peers has {printable(text[:200])!r}: write the address of a server without a path, such as "
            "https://serve-1.example.com:8080"
        )
    encrypted = parts.scheme == "https"
    if not encrypted and not plain and not _is_loopback(host):
        raise ConfigurationError(
            f"serve.peers has {printable(text[:200])!r}, so profiles of people would cross the network without "
            "encryption: write https, or set serve.peer_http if the network itself is encrypted"
        )
    return Address(text, host, port or (443 if encrypted else 80), encrypted)


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def trusted(ca_file: str) -> ssl.SSLContext:
    """What certificates of peers are verified against: the authorities of a file, or those of the system.

    Raises
    ------
    ConfigurationError
        If the file cannot be used.
    """
    try:
        return ssl.create_default_context(cafile=ca_file or None)
    except OSError as error:
        raise ConfigurationError(f"serve.peer_ca_file {ca_file}: {error.strerror or error}") from None


class Client:
    """Asks peers.

    Parameters
    ----------
    key
        Signs what is asked.
    context
        Verifies certificates.
    """

    def __init__(self, key: PeerKey, context: ssl.SSLContext) -> None:
        self._key, self._context = key, context

    def ask(
        self,
        address: Address,
        path: str,
        parameters: dict[str, str],
        asker: Asker,
        kind: type[T],
        seconds: float = TIMEOUT_SECONDS,
    ) -> T:
        """The answer of a peer.

        Parameters
        ----------
        seconds
            How long the peer may take for the whole answer.

        Raises
        ------
        PeerUnavailableError
            If it does not answer in time, does not accept the signature, or answers with something else.
        PeerRefusedError
            If it refuses what is asked for this caller.
        """
        target = f"{path}?{urlencode(parameters)}" if parameters else path
        try:
            status, body = self._answered(address, target, asker, seconds)
        except ssl.SSLCertVerificationError as error:
            raise PeerUnavailableError(
                f"the certificate of {address.text} is not trusted ({error.verify_message}): see serve.peer_ca_file"
            ) from None
        except (OSError, http.client.HTTPException, UnicodeError) as error:
            reason = str(error) or type(error).__name__
            raise PeerUnavailableError(
                f"{address.text} does not answer ({printable(reason)[:200]})"
            ) from None
        if status != 200:
            raise _error(address, status, body)
        try:
            return msgspec.json.decode(body, type=kind)
        except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
            raise PeerUnavailableError(
                f"{address.text} answers with something that this version does not know: run one version"
            ) from None

    def _answered(self, address: Address, target: str, asker: Asker, seconds: float) -> tuple[int, bytes]:
        ends = time.monotonic() + seconds
        common: dict[str, Any] = {"host": address.host, "port": address.port, "timeout": seconds}
        connection = (
            http.client.HTTPSConnection(**common, context=self._context)
            if address.encrypted
            else http.client.HTTPConnection(**common)
        )
        connection.response_class = functools.partial(_Answer, ends=ends)  # type: ignore[assignment]
        header = self._key.header(asker, address.authority, target, time.time())
        try:
            connection.request("GET", target, headers={"Host": address.authority, HEADER: header})
            answer = connection.getresponse()
            parts, size = [], 0
            while part := answer.read1(_READ_BYTES):
                size += len(part)
                if size > MAX_ANSWER_BYTES:
                    raise http.client.HTTPException(f"the answer is larger than {MAX_ANSWER_BYTES:,} bytes")
                parts.append(part)
            return answer.status, b"".join(parts)
        finally:
            connection.close()


class _Answer(http.client.HTTPResponse):
    """An answer whose bytes have to arrive before a moment, also if they come one by one."""

    def __init__(self, sock: socket.socket, *args: Any, ends: float, **kwargs: Any) -> None:
        super().__init__(sock, *args, **kwargs)
        self.fp.close()
        self.fp = io.BufferedReader(_Until(sock, ends))


class _Until(io.RawIOBase):
    """Reads a connection until a moment."""

    def __init__(self, sock: socket.socket, ends: float) -> None:
        self._sock, self._ends = sock, ends
        self._raw = sock.makefile("rb", buffering=0)

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int | None:
        left = self._ends - time.monotonic()
        if left <= 0:
            raise TimeoutError("it does not answer in time")
        self._sock.settimeout(left)
        return self._raw.readinto(buffer)

    def close(self) -> None:
        if not self.closed:
            self._raw.close()
        super().close()


def _error(address: Address, status: int, body: bytes) -> PeerUnavailableError | PeerRefusedError:
    """What another status than 200 is: the fault of the peer, or a refusal that concerns this question only."""
    try:
        found = msgspec.json.decode(body, type=_Problem)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        return PeerUnavailableError(f"{address.text} answers {status}")
    kind = _KIND.fullmatch(found.type)
    detail = printable(found.detail[:_MAX_DETAIL])
    text = f"{address.text} answers {status}" + (f": {detail}" if detail else "")
    if status == 404 and kind is None:
        return UnknownQuestionError(f"{text}: it does not know this question, so run one version")
    if 400 <= status < 500 and status in http.client.responses and status not in _OF_THE_PEER:
        return PeerRefusedError(status, kind[1] if kind is not None else "", detail or text)
    return PeerUnavailableError(text)
