"""Ends a worker on an error, with one exit code and one sentence for each cause."""

from __future__ import annotations

import logging
import os
import sys
from typing import NoReturn

from aiokafka import errors as aiokafka
from aiokafka.errors import KafkaError, KafkaTimeoutError

from streamguard.cli import foreign
from streamguard.errors import (
    CannotWriteError,
    ConfigurationError,
    ExitCode,
    StreamGuardError,
    TemporaryError,
    UnavailableError,
)
from streamguard.files.disk import is_unwritable
from streamguard.kafka.connection import Brokers, diagnosis

_log = logging.getLogger(__name__)

_FENCED = (
    aiokafka.ProducerFenced,
    aiokafka.InvalidProducerEpoch,
    aiokafka.InvalidProducerIdMapping,
    aiokafka.InvalidTxnState,
    aiokafka.TransactionCoordinatorFenced,
    aiokafka.UnknownProducerId,
)
_UNAUTHORIZED = (
    aiokafka.TopicAuthorizationFailedError,
    aiokafka.GroupAuthorizationFailedError,
    aiokafka.ClusterAuthorizationFailedError,
    aiokafka.TransactionalIdAuthorizationFailed,
)
_UNAUTHENTICATED = (
    aiokafka.SaslAuthenticationFailed,
    aiokafka.AuthenticationFailedError,
    aiokafka.AuthenticationMethodNotSupported,
    aiokafka.UnsupportedSaslMechanismError,
    aiokafka.IllegalSaslStateError,
)


class FencedError(TemporaryError):
    """Another process has registered as the writer of this worker's changelog partition."""


class RefusedError(ConfigurationError):
    """Stored state and topics contradict each other, or a setting is wrong."""


class Ending:
    """What this process reports when it ends; set once at its start."""

    brokers: Brokers | None = None
    """Brokers of the process, to find out which of their addresses cannot be reached."""
    program = "worker"
    """What messages call the process."""
    part = "worker"
    """Its name in `streamguard topics acls`."""
    kept = "no event is lost: the worker folds everything after its last checkpoint again"
    """Why it may be started again."""
    rivals = "another worker or `streamguard forget` has taken a partition over"
    """Who may have taken over what this process writes."""

    @classmethod
    def again(cls) -> str:
        """The end of a message: start the process again, nothing is lost."""
        return f"then start the {cls.program} again; {cls.kept}"


def is_disk_failure(error: BaseException) -> bool:
    """Whether the disk refuses writes. RocksDB reports that only in the text of its message."""
    if isinstance(error, OSError):
        return is_unwritable(error)
    return type(error) is Exception and str(error).startswith("IO error")


def _aiokafka(error: BaseException) -> StreamGuardError | None:
    """Error of StreamGuard for one of aiokafka; its base class only wraps another error, or means a missing broker."""
    if not isinstance(error, KafkaError):
        return None
    reason = str(error) or type(error).__name__
    if isinstance(error, _FENCED):
        return FencedError(
            f"the brokers no longer accept this {Ending.program}'s transactions ({reason}): {Ending.rivals}, or "
            "nothing was written for so long that the brokers forgot the transactional id "
            f"(transactional.id.expiration.ms); start the {Ending.program} again: {Ending.kept}"
        )
    if isinstance(error, _UNAUTHORIZED):
        return UnavailableError(
            f"Kafka refuses access ({reason}): grant this user the rights that `streamguard topics acls "
            f"{Ending.part}` prints, {Ending.again()}"
        )
    if isinstance(error, _UNAUTHENTICATED):
        return UnavailableError(
            f"Kafka refuses this {Ending.program}'s user ({reason}): check the section `security` of the settings and "
            f"the password file, {Ending.again()}"
        )
    bare = type(error) is KafkaError and error.__cause__ is None
    if error.retriable or isinstance(error, KafkaTimeoutError) or bare:
        return _silent(reason)
    return None


def _silent(reason: object) -> StreamGuardError:
    if Ending.brokers is not None and (unreachable := diagnosis(Ending.brokers)) is not None:
        return unreachable
    return UnavailableError(
        f"Kafka no longer answers ({reason}): check the brokers and the network, {Ending.again()}"
    )


def translated(error: BaseException) -> StreamGuardError | None:
    """Error of StreamGuard for any exception in a worker; None if it is unexpected.

    Libraries wrap errors: the first one of the chain that is known determines the sentence and the exit code.
    """
    for one in foreign.causes(error):
        if isinstance(one, StreamGuardError):
            return one
        if (known := _aiokafka(one)) is not None:
            return known
        if is_disk_failure(one):
            return CannotWriteError(
                f"the state cannot be written to disk ({one}): free space, repair the disk or permit the worker to "
                f"write there, {Ending.again()}"
            )
    return foreign.translated(error, Ending.brokers)


def report(error: BaseException) -> ExitCode:
    """Log the cause as the last line, with the exit code, and return the code."""
    known = translated(error)
    code = known.exit_code if known is not None else ExitCode.SOFTWARE
    fields = {"reason": code.name.lower(), "exit_code": int(code)}
    if known is None or code == ExitCode.SOFTWARE:
        _log.critical(
            "unexpected %s: the %s ends; start it again, and report this traceback if the error repeats",
            type(error).__name__, Ending.program, exc_info=error, extra=fields,
        )  # fmt: skip
    else:
        _log.critical("%s", known, extra=fields)
    return code


def end(error: BaseException) -> NoReturn:
    """Log the cause and exit at once, without a clean-up that could make half-done work look finished."""
    code = report(error)
    logging.shutdown()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)
