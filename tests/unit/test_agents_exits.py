"""How a worker ends: exit code and sentence of each cause."""

from __future__ import annotations

import subprocess
import sys

import pytest

from streamguard.errors import MISFIT, TAKEN, UNAVAILABLE, UNEXPECTED, UNWRITABLE


def ended(error: str) -> tuple[int, str]:
    code = (
        "import logging; logging.basicConfig(format='%(message)s')\n"
        "from aiokafka import errors\nfrom confluent_kafka import KafkaError, KafkaException\n"
        "from agents import exits\n"
        f"exits.end({error})"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    return done.returncode, done.stderr


@pytest.mark.parametrize(
    ("error", "code"),
    [
        ("exits.FencedError('why')", TAKEN),
        ("exits.RefusedError('why')", MISFIT),
        ("errors.NodeNotReadyError('why')", UNAVAILABLE),
        ("errors.KafkaTimeoutError('why')", UNAVAILABLE),
        ("errors.RequestTimedOutError('why')", UNAVAILABLE),
        ("KafkaException(KafkaError(KafkaError._TRANSPORT, 'why'))", UNAVAILABLE),
        ("KafkaException(KafkaError(KafkaError._TIMED_OUT, 'why'))", UNAVAILABLE),
        ("OSError(28, 'why')", UNWRITABLE),
        ("Exception('IO error: No space left on device: While appending to file: why')", UNWRITABLE),
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
    assert ended_with == UNEXPECTED
    assert said.startswith(f"unexpected {error.partition('(')[0].rpartition('.')[2]}: the worker ends")
    assert "why" in said.splitlines()[-1]
