"""Exit code and message of each error that ends a worker."""

from __future__ import annotations

import subprocess
import sys

import pytest
from aiokafka.errors import (
    GroupAuthorizationFailedError,
    InconsistentGroupProtocolError,
    InvalidSessionTimeoutError,
    OffsetOutOfRangeError,
)
from aiokafka.structs import TopicPartition

from streamguard.agents.consumer.fetch_thread import offset_error, rejected_by_group
from streamguard.agents.task import changelog
from streamguard.errors import ExitCode
from streamguard.events.event import Withheld
from streamguard.records.reader import DamagedLogError


def ended(error: str) -> tuple[int, str]:
    code = (
        "import logging; logging.basicConfig(format='%(message)s')\n"
        "from aiokafka import errors\nfrom confluent_kafka import KafkaError, KafkaException\n"
        "from streamguard.agents import errors as ours\n"
        "def raised(error, cause):\n    error.__cause__ = cause\n    return error\n"
        f"ours.end({error})"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    return done.returncode, done.stderr


@pytest.mark.parametrize(
    ("error", "code"),
    [
        ("ours.FencedError('why')", ExitCode.TEMPORARY),
        ("ours.RefusedError('why')", ExitCode.CONFIGURATION),
        ("errors.NodeNotReadyError('why')", ExitCode.UNAVAILABLE),
        ("errors.KafkaTimeoutError('why')", ExitCode.UNAVAILABLE),
        ("errors.RequestTimedOutError('why')", ExitCode.UNAVAILABLE),
        ("KafkaException(KafkaError(KafkaError._TRANSPORT, 'why'))", ExitCode.UNAVAILABLE),
        ("KafkaException(KafkaError(KafkaError._TIMED_OUT, 'why'))", ExitCode.UNAVAILABLE),
        ("OSError(28, 'why')", ExitCode.CANNOT_WRITE),
        ("OSError(24, 'why')", ExitCode.CANNOT_WRITE),
        ("Exception('IO error: While open a file: why: Too many open files')", ExitCode.CANNOT_WRITE),
        ("TimeoutError('why')", ExitCode.UNAVAILABLE),
        ("ConnectionRefusedError(111, 'why')", ExitCode.UNAVAILABLE),
        ("__import__('socket').gaierror(-2, 'why')", ExitCode.UNAVAILABLE),
        ("__import__('ssl').SSLError(1, 'why')", ExitCode.UNAVAILABLE),
        ("errors.KafkaError('why')", ExitCode.UNAVAILABLE),
        ("errors.TransactionalIdAuthorizationFailed('why')", ExitCode.UNAVAILABLE),
        ("errors.SaslAuthenticationFailed('why')", ExitCode.UNAVAILABLE),
        ("KafkaException(KafkaError(KafkaError.TOPIC_AUTHORIZATION_FAILED, 'why'))", ExitCode.UNAVAILABLE),
        ("errors.InvalidProducerIdMapping('why')", ExitCode.TEMPORARY),
        ("raised(errors.KafkaError('x'), errors.InvalidProducerIdMapping('why'))", ExitCode.TEMPORARY),
        (
            "raised(RuntimeError('x'), KafkaException(KafkaError(KafkaError._TRANSPORT, 'why')))",
            ExitCode.UNAVAILABLE,
        ),
        ("raised(errors.KafkaError('x'), OSError(28, 'why'))", ExitCode.CANNOT_WRITE),
        ("ExceptionGroup('x', [ValueError('x'), OSError(30, 'why')])", ExitCode.CANNOT_WRITE),
        (
            "Exception('IO error: No space left on device: While appending to file: why')",
            ExitCode.CANNOT_WRITE,
        ),
    ],
)
def test_expected_errors_end_with_one_message(error: str, code: int) -> None:
    exit_code, stderr = ended(error)
    assert exit_code == code
    assert "why" in stderr
    assert "Traceback" not in stderr


@pytest.mark.parametrize(
    "error", ["ValueError('why')", "OSError(9, 'why')", "errors.OutOfOrderSequenceNumber('why')"]
)
def test_unexpected_errors_keep_their_traceback(error: str) -> None:
    exit_code, stderr = ended(error)
    assert exit_code == ExitCode.SOFTWARE
    assert stderr.startswith(f"unexpected {error.partition('(')[0].rpartition('.')[2]}: the worker ends")
    assert "why" in stderr.splitlines()[-1]


def test_condition_that_a_restart_may_end_has_a_code_with_which_it_is_restarted() -> None:
    place = TopicPartition("events", 3)
    expired = offset_error(OffsetOutOfRangeError({place: 7}))
    assert "partition 3 of events at offset 7" in str(expired)
    batch = Withheld("unreadable_batch", "why", b"", 1, "", 4, 5)
    unreadable = changelog.damaged(batch, place)
    assert "at the offsets 4 to 5 (why)" in str(unreadable)
    damaged = DamagedLogError(place, 7, memoryview(b""), "why")
    for error, command in ((expired, "worker"), (unreadable, "worker"), (damaged, "command")):
        assert f"start the {command} again" in str(error)
        assert error.exit_code == ExitCode.TEMPORARY


def test_missing_right_on_the_group_has_the_code_of_every_missing_right() -> None:
    missing = rejected_by_group(GroupAuthorizationFailedError("streamguard"), "streamguard")
    assert missing.exit_code == ExitCode.UNAVAILABLE
    assert "streamguard topics acls worker" in str(missing)
    other = rejected_by_group(InvalidSessionTimeoutError(), "streamguard")
    assert other.exit_code == ExitCode.CONFIGURATION
    assert "worker.session_timeout_seconds" in str(other)
    mixed = rejected_by_group(InconsistentGroupProtocolError(), "streamguard")
    assert mixed.exit_code == ExitCode.CONFIGURATION
