"""Requests to the provider: with a certificate, an end and a largest size, and never redirected."""

from __future__ import annotations

import ssl
import time
from collections.abc import Iterator
from pathlib import Path

import httpx

from streamguard.errors import ConfigurationError
from streamguard.settings.sign_in import is_safe

CONNECT_SECONDS = 5.0
READ_SECONDS = 5.0
"""Longest silence of the provider."""
ANSWER_SECONDS = 10.0
"""How long the body of an answer may take."""
MAX_ANSWER_BYTES = 512 << 10
"""Size of an answer: the largest are lists of keys, with a few KiB each."""
TIMEOUT = httpx.Timeout(READ_SECONDS, connect=CONNECT_SECONDS)
HEADERS = {"Accept": "application/json", "Accept-Encoding": "identity"}
"""Answers that are not compressed, so that their size is known as they are read."""


class _Bounded(httpx.SyncByteStream):
    """The body of an answer up to `MAX_ANSWER_BYTES` and `ANSWER_SECONDS`."""

    def __init__(self, stream: httpx.SyncByteStream) -> None:
        self._stream = stream

    def __iter__(self) -> Iterator[bytes]:
        size, end = 0, time.monotonic() + ANSWER_SECONDS
        for part in self._stream:
            size += len(part)
            if size > MAX_ANSWER_BYTES:
                raise httpx.ReadError(f"the answer is larger than {MAX_ANSWER_BYTES:,} bytes")
            if time.monotonic() > end:
                raise httpx.ReadTimeout(f"the answer takes longer than {ANSWER_SECONDS:g} s")
            yield part

    def close(self) -> None:
        """End the answer."""
        self._stream.close()


class Transport(httpx.HTTPTransport):
    """Asks safe addresses only, and refuses answers that redirect, are compressed or are too large.

    Parameters
    ----------
    authorities
        Which certificates are believed (`authorities`).
    """

    def __init__(self, authorities: ssl.SSLContext) -> None:
        super().__init__(verify=authorities, trust_env=False, retries=0)

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        """Send one request."""
        if not is_safe(str(request.url.copy_with(query=None))):
            raise httpx.UnsupportedProtocol("the address is not one of https")
        answer = super().handle_request(request)
        assert isinstance(answer.stream, httpx.SyncByteStream)
        problem = ""
        if answer.is_redirect:
            problem = "the answer redirects to another address, which is not followed"
        elif answer.headers.get("content-encoding", "identity") != "identity":
            problem = "the answer is compressed, although none was asked for"
        if problem:
            answer.stream.close()
            raise httpx.RemoteProtocolError(problem)
        return httpx.Response(
            answer.status_code,
            headers=answer.headers,
            stream=_Bounded(answer.stream),
            extensions=answer.extensions,
        )


def authorities(ca_file: str) -> ssl.SSLContext:
    """The authorities in a file, or those of the system.

    Raises
    ------
    ConfigurationError
        If the file has no certificates.
    """
    try:
        if ca_file:
            Path(ca_file).read_bytes()
        return ssl.create_default_context(cafile=ca_file or None)
    except OSError as error:  # an `ssl.SSLError` is one, too
        raise ConfigurationError(
            f"serve.oidc_ca_file: {ca_file} cannot be used: {error.strerror or error}; it must contain certificates in "
            "PEM format"
        ) from None
