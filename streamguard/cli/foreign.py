"""Translates exceptions of libraries and of the system to errors of StreamGuard: one table for every command."""

from __future__ import annotations

import socket
import ssl
import sys
from collections.abc import Iterator

from streamguard.errors import DataError, StreamGuardError, UnavailableError
from streamguard.files import disk
from streamguard.kafka.connection import Brokers, diagnosis

_REFUSED = "check that this user has the access rights (`streamguard topics acls` prints the commands that grant them)"
_CREDENTIALS = "check the section `security` of the settings, and the password file"


def causes(error: BaseException) -> Iterator[BaseException]:
    """The error, and every error that it was raised from: libraries wrap the one that says what happened.

    Examples
    --------
    >>> wrapped = RuntimeError("unexpected")
    >>> wrapped.__cause__ = OSError("no disk")
    >>> [str(one) for one in causes(wrapped)]
    ['unexpected', 'no disk']
    """
    seen: set[int] = set()
    queue: list[BaseException | None] = [error]
    while queue:
        one = queue.pop(0)
        if one is None or id(one) in seen:
            continue
        seen.add(id(one))
        yield one
        queue.append(one.__cause__)
        if isinstance(one, BaseExceptionGroup):
            queue.extend(one.exceptions)


def translated(error: BaseException, brokers: Brokers | None = None) -> StreamGuardError | None:
    """Error of StreamGuard for an exception that no code has explained where it happened.

    Parameters
    ----------
    error
        Any exception; the ones that it was raised from are looked at, too.
    brokers
        Brokers that the process uses. If one of them advertises an address that cannot be reached from here, the
        message names it.

    Returns
    -------
    StreamGuardError or None
        None if the exception is unexpected: it is a defect, and its traceback is needed.

    Examples
    --------
    >>> translated(socket.gaierror(-2, "Name or service not known")).exit_code.name
    'UNAVAILABLE'
    >>> translated(ValueError("why"))
    """
    for one in causes(error):
        if (known := _known(one, brokers)) is not None:
            return known
    return None


def silent(reason: object, brokers: Brokers | None) -> UnavailableError:
    """Error for a Kafka that does not answer; it names brokers that cannot be reached under their own address."""
    if brokers is not None and (unreachable := diagnosis(brokers)) is not None:
        return unreachable
    at = f" at {brokers}" if brokers is not None else ""
    return UnavailableError(
        f"Kafka{at} does not answer ({reason}): check the brokers and the network, then try again"
    )


def _known(error: BaseException, brokers: Brokers | None) -> StreamGuardError | None:
    if isinstance(error, StreamGuardError):
        return error
    if isinstance(error, TimeoutError):
        return silent(str(error) or "no answer in time", brokers)
    if isinstance(error, socket.gaierror):
        return UnavailableError(
            f"the name of a host does not resolve ({error.strerror}): check the names in the settings, DNS and "
            "/etc/hosts"
        )
    if isinstance(error, ssl.SSLError):  # its errno is one of OpenSSL
        return UnavailableError(f"TLS failed ({error.strerror or error}): {_CREDENTIALS}")
    if isinstance(error, ConnectionError) and not isinstance(error, BrokenPipeError):
        return UnavailableError(
            f"a connection failed ({error.strerror or error}): check the network, then try again"
        )
    if isinstance(error, OSError):
        return disk.translated(error)
    if isinstance(error, MemoryError):
        return UnavailableError(
            "this process has no memory left: give it more, or less work at a time, then try again"
        )
    if isinstance(error, RecursionError):
        return DataError("an input is nested too deeply: correct the file that the command reads")
    return _librdkafka(error, brokers) if "confluent_kafka" in sys.modules else None


def _librdkafka(error: BaseException, brokers: Brokers | None) -> StreamGuardError | None:
    from confluent_kafka import KafkaError, KafkaException

    if not isinstance(error, KafkaException) or not isinstance(error.args[0], KafkaError):
        return None
    cause: KafkaError = error.args[0]
    name, reason = str(cause.name()), cause.str()
    if "AUTHORIZATION" in name:
        return UnavailableError(f"Kafka refuses access ({reason}): {_REFUSED}")
    if name in ("_AUTHENTICATION", "_SSL", "SASL_AUTHENTICATION_FAILED", "UNSUPPORTED_SASL_MECHANISM"):
        return UnavailableError(f"Kafka refuses this user ({reason}): {_CREDENTIALS}")
    if cause.code() == KafkaError._INVALID_ARG:
        return None
    return silent(reason, brokers)
