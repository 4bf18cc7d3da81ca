"""Ends a worker on an error, with one exit code and one sentence for each cause."""

from __future__ import annotations

import logging
import os
import sys
from typing import NoReturn

from aiokafka.errors import KafkaError, KafkaTimeoutError
from confluent_kafka import KafkaError as LibrdkafkaError
from confluent_kafka import KafkaException

from streamguard.errors import (
    CannotWriteError,
    ConfigurationError,
    ExitCode,
    StreamGuardError,
    TemporaryError,
    UnavailableError,
)
from streamguard.files.disk import is_unwritable

_NO_BROKER_CODES = (
    LibrdkafkaError._ALL_BROKERS_DOWN,
    LibrdkafkaError._TRANSPORT,
    LibrdkafkaError._RESOLVE,
    LibrdkafkaError._TIMED_OUT,
    LibrdkafkaError.REQUEST_TIMED_OUT,
)

_log = logging.getLogger(__name__)


class FencedError(TemporaryError):
    """Another process has registered as the writer of this worker's changelog partition."""


class RefusedError(ConfigurationError):
    """Stored state and topics contradict each other, or a setting is wrong."""


def _is_no_broker(error: BaseException) -> bool:
    """Whether the error, of aiokafka or of librdkafka, means that no broker answers."""
    if isinstance(error, KafkaException):
        return error.args[0].code() in _NO_BROKER_CODES
    return isinstance(error, KafkaError) and (error.retriable or isinstance(error, KafkaTimeoutError))


def is_disk_failure(error: BaseException) -> bool:
    """Whether the disk refuses writes. RocksDB reports that only in the text of its message."""
    if isinstance(error, OSError):
        return is_unwritable(error)
    return type(error) is Exception and str(error).startswith("IO error")


def end(error: BaseException) -> NoReturn:
    """Log the cause and exit at once, without a clean-up that could make half-done work look finished."""
    if _is_no_broker(error):
        error = UnavailableError(
            f"Kafka no longer answers ({error}): check the brokers and the network, then start the worker again; no "
            "event is lost, it folds everything after its last checkpoint again"
        )
    elif is_disk_failure(error):
        error = CannotWriteError(
            f"the state cannot be written to disk ({error}): free space, repair the disk or permit the worker to write "
            "there, then start it again; no event is lost, it folds everything after its last checkpoint again"
        )
    code = error.exit_code if isinstance(error, StreamGuardError) else ExitCode.SOFTWARE
    if code == ExitCode.SOFTWARE:
        _log.critical(
            "unexpected %s: the worker ends; start it again, and report this traceback if the error repeats",
            type(error).__name__, exc_info=error,
        )  # fmt: skip
    else:
        _log.critical("%s", error, extra={"exit_code": int(code)})
    logging.shutdown()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)
