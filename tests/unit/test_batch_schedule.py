"""A series goes on after a failed run, and a stop lets the run that is under way end."""

from __future__ import annotations

import signal

import pytest

from streamguard.batch.schedule import repeat


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_stop_lets_the_run_end_and_a_second_one_does_not(number: signal.Signals) -> None:
    before, said, runs = signal.getsignal(number), [], []

    def once() -> int:
        runs.append(len(runs))
        if len(runs) == 1:
            raise RuntimeError("no luck")
        if len(runs) == 3:
            signal.raise_signal(number)
            assert signal.getsignal(number) is before
        return 7

    repeat(once, 0.001, 0.0, said.append)

    assert len(runs) == 3
    assert "no luck" in said[0] and "; the next one starts at 20" in said[0]
    assert said[1].startswith("run ended with code 7; the next one starts at 20")
    assert said[2] == "run ended with code 7; stopped"
    assert signal.getsignal(number) is before
