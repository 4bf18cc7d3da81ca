"""How a worker ends on an error: one exit code and one sentence for each cause."""

from __future__ import annotations

import errno
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

_SILENCE_CODES = (
    LibrdkafkaError._ALL_BROKERS_DOWN,
    LibrdkafkaError._TRANSPORT,
    LibrdkafkaError._RESOLVE,
    LibrdkafkaError._TIMED_OUT,
    LibrdkafkaError.REQUEST_TIMED_OUT,
)

_log = logging.getLogger(__name__)


class FencedError(TemporaryError):
    """The broker gave this worker's partition to another worker."""


class RefusedError(ConfigurationError):
    """Stored state and topics contradict each other, or a setting is wrong."""


def _is_silence(error: BaseException) -> bool:
    """Whether the error of either client means that no broker answers."""
    if isinstance(error, KafkaException):
        return error.args[0].code() in _SILENCE_CODES
    return isinstance(error, KafkaError) and (error.retriable or isinstance(error, KafkaTimeoutError))


def is_disk_failure(error: BaseException) -> bool:
    """Whether the disk refuses to write; RocksDB reports that in its message alone."""
    if isinstance(error, OSError):
        return error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EIO, errno.EROFS)
    return type(error) is Exception and str(error).startswith("IO error")


def end(error: BaseException) -> NoReturn:
    """Log the cause and exit at once, without the clean-up that would let half-done work look finished."""
    if _is_silence(error):
        error = UnavailableError(
            f"Kafka does not answer any more ({error}); after a restart the worker folds again what it had not saved"
        )
    elif is_disk_failure(error):
        error = CannotWriteError(
            f"the disk refuses to save the state ({error}): free space or repair it; nothing is lost, after a restart "
            "the worker folds again what it had not saved"
        )
    code = error.exit_code if isinstance(error, StreamGuardError) else ExitCode.SOFTWARE
    if code == ExitCode.SOFTWARE:
        _log.critical("unexpected %s: the worker ends", type(error).__name__, exc_info=error)
    else:
        _log.critical("%s", error, extra={"exit_code": int(code)})
    logging.shutdown()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)
