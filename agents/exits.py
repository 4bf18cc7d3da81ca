"""How a worker ends when it must: one exit code and one sentence per cause."""

from __future__ import annotations

import errno
import logging
import os
import sys
from typing import NoReturn

from aiokafka.errors import KafkaError, KafkaTimeoutError
from confluent_kafka import KafkaError as LibrdkafkaError
from confluent_kafka import KafkaException

from streamguard.exit_codes import MISFIT, TAKEN, UNAVAILABLE, UNEXPECTED, UNWRITABLE

_SILENCE = (
    LibrdkafkaError._ALL_BROKERS_DOWN,
    LibrdkafkaError._TRANSPORT,
    LibrdkafkaError._RESOLVE,
    LibrdkafkaError._TIMED_OUT,
    LibrdkafkaError.REQUEST_TIMED_OUT,
)

_log = logging.getLogger(__name__)


class WorkerError(RuntimeError):
    """Ends the worker; the message is for a person and needs no traceback."""

    code = UNEXPECTED


class UnavailableError(WorkerError):
    """No broker answers."""

    code = UNAVAILABLE


class UnwritableError(WorkerError):
    """The disk takes nothing more."""

    code = UNWRITABLE


class FencedError(WorkerError):
    """The broker gave this worker's partition to another one."""

    code = TAKEN


class RefusedError(WorkerError):
    """What is stored and what Kafka has do not fit together, or a setting is wrong."""

    code = MISFIT


def _of_silence(error: BaseException) -> bool:
    """Whether it is of brokers that do not answer, in the words of either client."""
    if isinstance(error, KafkaException):
        return error.args[0].code() in _SILENCE
    return isinstance(error, KafkaError) and (error.retriable or isinstance(error, KafkaTimeoutError))


def of_disk(error: BaseException) -> bool:
    """Whether the disk refuses: RocksDB says so in words alone."""
    if isinstance(error, OSError):
        return error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EIO, errno.EROFS)
    return type(error) is Exception and str(error).startswith("IO error")


def end(error: BaseException) -> NoReturn:
    """Log why and leave at once, without the clean-up that would let half-done work look finished."""
    if _of_silence(error):
        error = UnavailableError(
            f"Kafka does not answer any more ({error}); started again, the worker folds again "
            "what it has not saved"
        )
    elif of_disk(error):
        error = UnwritableError(
            f"the disk refuses what is to be saved ({error}): make room, or mend it; nothing is lost, started again "
            "the worker folds again what it has not saved"
        )
    if isinstance(error, WorkerError):
        _log.critical("%s", error, extra={"exit_code": error.code})
        code = error.code
    else:
        _log.critical("unexpected %s: the worker ends", type(error).__name__, exc_info=error)
        code = UNEXPECTED
    logging.shutdown()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)
