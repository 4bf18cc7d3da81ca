"""What `streamguard serve` says at its start while Kafka does not answer."""

from __future__ import annotations

import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from streamguard.testing.broker import free_port


@pytest.fixture
def alone(tmp_path: Path) -> Iterator[tuple[subprocess.Popen[str], str]]:
    """A server whose Kafka does not exist, and the address of that Kafka."""
    address = f"127.0.0.1:{free_port()}"
    words = [
        "serve",
        "--bootstrap-servers",
        address,
        "--port",
        "0",
        "--metrics-port",
        "0",
        "--log-format",
        "text",
    ]
    process = subprocess.Popen(
        [sys.executable, "-m", "streamguard.cli", *words, "--data-dir", str(tmp_path / "data")],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    yield process, address
    if process.poll() is None:
        process.kill()
        process.wait()


def test_server_says_once_that_it_waits_for_kafka_before_it_says_why(
    alone: tuple[subprocess.Popen[str], str],
) -> None:
    process, address = alone
    assert process.stderr is not None
    lines = []
    for line in process.stderr:
        lines.append(line)
        if "cannot be read" in line:
            break
    process.send_signal(signal.SIGTERM)
    lines += process.stderr.readlines()
    waiting = [number for number, line in enumerate(lines) if f"waiting for Kafka at {address}" in line]
    refused = [number for number, line in enumerate(lines) if "check that the brokers answer" in line]
    assert len(waiting) == 1 and waiting[0] < refused[0], lines
    assert process.wait() == 0
