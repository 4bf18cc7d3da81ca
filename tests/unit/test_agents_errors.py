"""How a worker ends: exit code and sentence of each cause."""

from __future__ import annotations

import subprocess
import sys

import pytest

from streamguard.errors import ExitCode


def ended(error: str) -> tuple[int, str]:
    code = (
        "import logging; logging.basicConfig(format='%(message)s')\n"
        "from aiokafka import errors\nfrom confluent_kafka import KafkaError, KafkaException\n"
        "from streamguard.agents import errors as ours\n"
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
        (
            "Exception('IO error: No space left on device: While appending to file: why')",
            ExitCode.CANNOT_WRITE,
        ),
    ],
)
def test_what_can_be_foreseen_is_a_sentence(error: str, code: int) -> None:
    ended_with, said = ended(error)
    assert ended_with == code
    assert "why" in said
    assert "Traceback" not in said


@pytest.mark.parametrize(
    "error", ["ValueError('why')", "OSError(9, 'why')", "errors.OutOfOrderSequenceNumber('why')"]
)
def test_anything_else_keeps_its_traceback_for_the_report(error: str) -> None:
    ended_with, said = ended(error)
    assert ended_with == ExitCode.SOFTWARE
    assert said.startswith(f"unexpected {error.partition('(')[0].rpartition('.')[2]}: the worker ends")
    assert "why" in said.splitlines()[-1]
