"""A connection to the API of a server: requests with a key, waits that the server asks for, and problems as errors."""

from __future__ import annotations

import http.client
import ipaddress
import ssl
import time
import urllib.error
import urllib.request
from typing import Any, NoReturn, TypeVar
from urllib.parse import urlsplit

import click
import msgspec

from streamguard.errors import (
    ConfigurationError,
    DataError,
    StreamGuardError,
    TemporaryError,
    UnavailableError,
)
from streamguard.serving.commands.progress import slow
from streamguard.serving.query.reading import NotFoundError
from streamguard.serving.query.requests import ConflictError
from streamguard.text import printable, shortened

ANSWER_SECONDS = 30.0
"""How long the server may be silent while it answers."""
MAX_ANSWER_BYTES = 256 << 20
"""Size of an answer: an incident with all of its publications is the largest."""
MAX_PROBLEM_BYTES = 64 << 10
MAX_WAITS = 5
"""Times that one request waits because the server has asked for fewer requests."""
MAX_WAIT_SECONDS = 60.0
"""Longest of these waits."""
MAX_KEY = 200
MAX_DETAIL = 500
"""Characters of a problem's description that an error repeats."""

T = TypeVar("T")


class RefusedError(UnavailableError):
    """The server refuses the key, so asking again does not help."""


class _Problem(msgspec.Struct):
    """What an error says, of the problem details of RFC 9457."""

    title: str = ""
    detail: str = ""
    type: str = ""


class _NoRedirects(urllib.request.HTTPRedirectHandler):
    """Reports a redirect as an error: following it would send the key to another address."""

    def redirect_request(self, *_: Any) -> None:
        """Follow none."""


class Connection:
    """Asks a server.

    Parameters
    ----------
    address
        `http://host:port` or `https://host`, with a path if a proxy serves it below one.
    key
        Access key.

    Raises
    ------
    DataError
        If the address or the key cannot be one.
    """

    def __init__(self, address: str, key: str) -> None:
        parts = urlsplit(address)
        if parts.scheme not in ("http", "https") or not parts.hostname or parts.query or parts.fragment:
            raise DataError(
                f"{address[:200]!r} is not the address of a server: write https://guard.example.com or "
                "http://127.0.0.1:8080"
            )
        if parts.username is not None:
            raise DataError(
                "the address of the server contains a name or a password: remove them, and give the key in the "
                "environment or by --key-file"
            )
        if not 0 < len(key) <= MAX_KEY or not key.isascii() or not key.isprintable() or " " in key:
            raise DataError(
                "the access key has other characters than a key has: give the one that `streamguard keys add` printed"
            )
        self.address = address.rstrip("/")
        self._key = key
        handlers: list[Any] = [_NoRedirects]
        if _is_loopback(parts.hostname):
            handlers.append(urllib.request.ProxyHandler({}))
        elif parts.scheme == "http":
            click.echo(
                f"warning: the access key is sent to {printable(self.address)} without encryption: use https",
                err=True,
            )
        self._opener = urllib.request.build_opener(*handlers)

    def ask(self, path: str, type: type[T], body: object = None, key: str = "") -> T:
        """The answer to a request.

        Parameters
        ----------
        body
            What is sent as JSON by POST; None: the request is a GET.
        key
            `Idempotency-Key` of a POST: a repeated request with the same key acts once.

        Raises
        ------
        StreamGuardError
            If the server does not answer, refuses the request, or answers in an unknown way.
        """
        try:
            with slow(self.address), self.open(path, ANSWER_SECONDS, body, key) as answer:
                value = answer.read(MAX_ANSWER_BYTES + 1)
                missing = answer.length or 0  # Python reports this only for a read without a limit
                if missing and len(value) <= MAX_ANSWER_BYTES:
                    raise http.client.IncompleteRead(value, missing)
        except (OSError, http.client.HTTPException) as error:
            self._silent(error)
        if len(value) > MAX_ANSWER_BYTES:
            raise DataError(f"the answer of {self.address} is larger than {MAX_ANSWER_BYTES:,} bytes")
        try:
            return msgspec.json.decode(value, type=type)
        except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
            raise DataError(
                f"{self.address} has answered {path.partition('?')[0]} in a way that this version does not know "
                f"({shortened(str(error), MAX_DETAIL)}): check the address, and use the version of the server"
            ) from None

    def open(self, path: str, seconds: float, body: object = None, key: str = "") -> http.client.HTTPResponse:
        """The beginning of an answer, which may be silent for so many seconds; see `ask` for the rest."""
        headers = {"Authorization": f"Bearer {self._key}", "Accept": "*/*"}
        data = None
        if body is not None:
            data = msgspec.json.encode(body)
            headers |= {"Content-Type": "application/json", "Idempotency-Key": key}
        request = urllib.request.Request(self.address + path, data, headers)  # noqa: S310 - the scheme was checked
        waits = 0
        while True:
            try:
                answer: http.client.HTTPResponse = self._opener.open(request, timeout=seconds)
                return answer
            except urllib.error.HTTPError as error:
                with error:
                    pause = _pause(error)
                    if pause is None or waits == MAX_WAITS:
                        raise self._refused(error) from None
                waits += 1
                click.echo(f"waiting {pause:g} s, as {printable(self.address)} asks", err=True)
                time.sleep(pause)
            except (OSError, http.client.HTTPException, ValueError) as error:
                self._silent(error)

    def _refused(self, error: urllib.error.HTTPError) -> StreamGuardError:
        """The error for an answer that is none."""
        problem = _problem(error)
        reason = shortened(problem.detail or problem.title or str(error.reason), MAX_DETAIL)
        if problem.type == "/problems/masked":
            return DataError(f"{self.address} refuses the question: {reason}")
        if error.code == 403:
            return RefusedError(f"{self.address} does not allow this: {reason}")
        if error.code == 401:
            return RefusedError(
                f"{self.address} refuses the access key: {reason}; an administrator makes keys with `streamguard keys "
                "add`"
            )
        if problem.type == "/problems/not-found":
            return NotFoundError(reason)
        if error.code == 409 or problem.type == "/problems/precondition":
            return ConflictError(reason)
        if error.code == 501:
            return ConfigurationError(f"{self.address} is not configured for this: {reason}")
        if error.code == 400:
            return DataError(f"{self.address} refuses the question: {reason}")
        if error.code in (429, 503):
            return TemporaryError(f"{self.address} does not answer now: {reason}; try again later")
        if 300 <= error.code < 400:
            to = shortened(error.headers.get("Location", ""), MAX_DETAIL)
            return UnavailableError(
                f"{self.address} redirects to {to}, and the key is not sent there: give the address of the server"
            )
        return UnavailableError(
            f"{self.address} has answered with {error.code} ({reason}): check that it is the address of `streamguard "
            "serve`, and its log"
        )

    def _silent(self, error: Exception) -> NoReturn:
        reason = error.reason if isinstance(error, urllib.error.URLError) else error
        if isinstance(reason, ssl.SSLCertVerificationError):
            raise UnavailableError(
                f"the certificate of {self.address} is not trusted ({reason.verify_message}): set SSL_CERT_FILE to the "
                "certificate of the authority that has signed it"
            ) from None
        text = getattr(reason, "strerror", None) or str(reason) or type(reason).__name__
        raise UnavailableError(
            f"{self.address} does not answer ({text}): check the address, and that `streamguard serve` runs there"
        ) from None


def _pause(error: urllib.error.HTTPError) -> float | None:
    """Seconds after which a request that the server has refused for now may be sent again; None for another error."""
    after = error.headers.get("Retry-After", "") if error.code == 429 else ""
    if not (after.isascii() and after.isdigit() and len(after) < 6):
        return None
    return float(after) if float(after) <= MAX_WAIT_SECONDS else None


def _problem(error: urllib.error.HTTPError) -> _Problem:
    try:
        return msgspec.json.decode(error.read(MAX_PROBLEM_BYTES), type=_Problem)
    except (msgspec.MsgspecError, UnicodeDecodeError, OSError, http.client.HTTPException):
        return _Problem()


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
