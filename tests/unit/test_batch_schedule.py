"""A series of runs continues after a failed run, and a stop signal lets the current run finish."""

from __future__ import annotations

import signal

import pytest

from streamguard.batch.schedule import repeat


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_first_stop_signal_lets_the_run_finish_and_the_second_does_not(number: signal.Signals) -> None:
    before, lines, runs = signal.getsignal(number), [], []

    def once() -> int:
        runs.append(len(runs))
        if len(runs) == 1:
            raise RuntimeError("no luck")
        if len(runs) == 3:
            signal.raise_signal(number)
            assert signal.getsignal(number) is before
        return 7

    repeat(once, 0.001, 0.0, lines.append)

    assert len(runs) == 3
    assert "no luck" in lines[0] and "; the next one starts at 20" in lines[0]
    assert lines[1].startswith("run ended with code 7; the next one starts at 20")
    assert lines[2] == "run ended with code 7; stopped"
    assert signal.getsignal(number) is before
