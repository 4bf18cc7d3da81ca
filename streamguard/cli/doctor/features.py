"""What a broker says of its features: the one answer that neither Kafka client hands out."""

from __future__ import annotations

import io
import socket
import ssl
import struct
from contextlib import ExitStack

_API_VERSIONS, _VERSION = 18, 3
_FINALIZED = 2
"""Tag of the features that all brokers of the cluster have agreed on."""
_MOST_BYTES = 1 << 20


class FeaturesUnknownError(RuntimeError):
    """The broker did not tell; the message says why."""


def features(host: str, port: int, patience: float, tls: ssl.SSLContext | None = None) -> dict[str, int]:
    """The level of each feature that the cluster has agreed on, by an ApiVersions request, which needs no password.

    Raises
    ------
    FeaturesUnknownError
        If the broker does not answer within `patience` seconds, or not so: it may want TLS, or be an old one.
    """
    name = b"streamguard"
    request = struct.pack(">hhih", _API_VERSIONS, _VERSION, 1, len(name)) + name + b"\0"
    request += bytes([len(name) + 1]) + name + b"\x021" + b"\0"
    try:
        with ExitStack() as stack:
            broker = stack.enter_context(socket.create_connection((host, port), patience))
            if tls is not None:
                broker = stack.enter_context(tls.wrap_socket(broker, server_hostname=host))
            broker.sendall(struct.pack(">i", len(request)) + request)
            with broker.makefile("rb") as answer:
                (size,) = struct.unpack(">i", answer.read(4))
                if not 10 <= size <= _MOST_BYTES:
                    raise FeaturesUnknownError("it answers in another language")
                return finalized(answer.read(size))
    except (OSError, struct.error, IndexError) as error:
        raise FeaturesUnknownError(str(error) or type(error).__name__) from None


def finalized(answer: bytes) -> dict[str, int]:
    """The features in an ApiVersions response of version 3.

    Raises
    ------
    FeaturesUnknownError
        If the broker does not know this version.
    struct.error, IndexError
        If it ends too early.

    Examples
    --------
    >>> tag = b"\\2" + b"\\5abcd" + b"\\0\\2" + b"\\0\\1" + b"\\0"
    >>> finalized(b"\\0\\0\\0\\1" + b"\\0\\0" + b"\\1" + b"\\0\\0\\0\\0" + b"\\1\\2" + bytes([len(tag)]) + tag)
    {'abcd': 2}
    """
    stream = io.BytesIO(answer)
    _, error = struct.unpack(">ih", stream.read(6))
    if error:
        raise FeaturesUnknownError(f"it answers with error {error}")
    for _ in range(_varint(stream) - 1):
        stream.read(6)
        _tags(stream)
    stream.read(4)
    feature = io.BytesIO(_tags(stream).get(_FINALIZED, b"\1"))
    found = {}
    for _ in range(_varint(feature) - 1):
        name = feature.read(_varint(feature) - 1).decode(errors="replace")
        found[name], _ = struct.unpack(">hh", feature.read(4))
        _tags(feature)
    return found


def _tags(stream: io.BytesIO) -> dict[int, bytes]:
    return {_varint(stream): stream.read(_varint(stream)) for _ in range(_varint(stream))}


def _varint(stream: io.BytesIO) -> int:
    value = shift = 0
    while True:
        byte = stream.read(1)[0]
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value
        shift += 7
