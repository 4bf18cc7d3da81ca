"""Profiles age out by the log alone: cut, evicted, saved, refolded or swept at any moment, results are the same."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from streamguard.events.subject import profile_key
from streamguard.settings.schema import Detection
from streamguard.state.expiry import PROFILE_KINDS, last_active
from tests.property.test_fold import assert_same
from tests.streams import DAY, HOUR, START, Partition, event, runs

SHORT = Detection(alert_risk=50.0, forget_after_days=2.0)
"""Users are forgotten so soon that generated streams contain it."""


@st.composite
def absences(draw: Callable[..., Any]) -> list[bytes]:
    """Events of users, one in four a source without a user, who come back after hours or days."""
    now, out = START, []
    for _ in range(draw(st.integers(20, 90))):
        now += draw(st.sampled_from([0, HOUR, 10 * HOUR, 23 * HOUR]))
        user = draw(st.integers(0, 7))
        status = draw(st.sampled_from(["success", "success", "failed"]))
        name = f"user{user}" if user % 4 else None
        out.append(event(now, name, source_ip=f"10.0.0.{user}", status=status))
    return out


def alive(partition: Partition) -> dict[bytes, bytes]:
    """What a partition has saved, without profiles that have aged out."""
    limit = partition.state.expired_before
    return {k: v for k, v in partition.saved.items() if k[:1] not in PROFILE_KINDS or last_active(v) >= limit}


@settings(max_examples=60)
@given(absences())
def test_reference_equals_kernel(values: list[bytes]) -> None:
    assert_same(values, SHORT)


@settings(max_examples=30)
@given(runs(), st.sampled_from([1.0, 3.0]))
def test_reference_equals_kernel_with_jumps_in_time(values: list[bytes], days: float) -> None:
    assert_same(values, Detection(alert_risk=50.0, forget_after_days=days))


@given(absences(), st.sampled_from([1, 3, 7]), st.integers(0, 3))
def test_results_do_not_depend_on_chunks_evictions_and_checkpoints(
    values: list[bytes], chunk: int, save_every: int
) -> None:
    whole, cut = Partition(detection=SHORT), Partition(detection=SHORT, resident=30 if save_every else 4000)
    incidents = whole.run(values)
    assert cut.run(values, chunk=chunk, save_every=save_every) == incidents
    assert cut.saved == whole.saved == alive(whole)


@given(absences(), st.data())
def test_refolding_from_any_checkpoint_gives_the_same_bytes(values: list[bytes], data: st.DataObject) -> None:
    whole = Partition(detection=SHORT)
    incidents = whole.run(values)
    at = data.draw(st.integers(1, len(values)), "checkpoint at")
    crash = data.draw(st.integers(at, len(values)), "crash at")
    before = Partition(detection=SHORT)
    first = before.run(values[:at], chunk=7)
    before.state.fold(values[at:crash], np.arange(at, crash))  # lost in the crash
    after = Partition(dict(before.saved), detection=SHORT)
    assert first + after.run(values, chunk=7, start=at) == incidents
    assert after.saved == whole.saved


@given(absences(), st.integers(1, 10), st.data())
def test_the_moment_of_a_deletion_changes_nothing(
    values: list[bytes], chunk: int, data: st.DataObject
) -> None:
    """A store that deletes any of the profiles that have aged out, at any checkpoint, as a worker's sweep does."""
    whole, swept = Partition(detection=SHORT), Partition(detection=SHORT)
    incidents, found = whole.run(values), []
    for a in range(0, len(values), chunk):
        b = min(a + chunk, len(values))
        found += [update.incident.id for update in swept.state.fold(values[a:b], np.arange(a, b)).incidents]
        swept.saved.update(swept.state.changes())
        swept.state.clean()
        expired = sorted(swept.saved.keys() - alive(swept).keys())
        chosen = data.draw(st.lists(st.sampled_from(expired), unique=True)) if expired else []
        for key in chosen:
            del swept.saved[key]
        swept.state.drop(chosen)
    assert found == [incident["id"] for incident in incidents]
    assert alive(swept) == whole.saved


def days_of(user: str, days: list[int]) -> list[bytes]:
    return [event(START + day * DAY + k * HOUR, user, source_ip="10.0.0.1") for day in days for k in range(3)]


def colleagues(days: range) -> list[bytes]:
    """Two users who work on each of these days."""
    return [
        event(START + day * DAY + hour * HOUR, name, source_ip="10.0.0.2")
        for day in days
        for hour in range(8, 18)
        for name in ("bob", "carol")
    ]


@pytest.mark.parametrize(("absent", "forgotten"), [(400, False), (402, True)])
def test_a_user_is_forgotten_after_the_default_of_400_days(absent: int, forgotten: bool) -> None:
    partition = Partition()
    partition.run(days_of("ann", [0]) + colleagues(range(absent)))
    assert (profile_key("ann") not in partition.saved) == forgotten
    partition.state.fold(days_of("ann", [absent])[:1], np.array([10**6]))
    partition.save()
    assert partition.profile("ann")["events"] == (1.0 if forgotten else 4.0)


def test_a_gap_of_the_whole_log_forgets_nobody() -> None:
    partition = Partition(detection=Detection(forget_after_days=30.0))
    partition.run(days_of("ann", [0]) + colleagues(range(2)) + colleagues(range(1000, 1002)))
    assert profile_key("ann") in partition.saved


def test_forged_times_forget_nobody() -> None:
    """Two users who agree on a date years ahead move the active time by a day each, not by years."""
    partition = Partition(detection=Detection(forget_after_days=30.0))
    forged = [event(START + 900 * DAY + k, f"mallory{k % 2}", source_ip="10.0.0.9") for k in range(50)]
    partition.run(days_of("ann", [0]) + colleagues(range(2)) + forged)
    assert profile_key("ann") in partition.saved


def test_the_event_that_begins_a_new_profile_is_marked() -> None:
    """The event that begins a new profile is marked, once."""
    partition = Partition(detection=SHORT)
    partition.run(days_of("ann", [0]) + colleagues(range(9)))
    folded = partition.state.fold(days_of("ann", [9]), np.arange(10**6, 10**6 + 3))
    assert not folded.expired.any()  # the saved profile was deleted before: the user is new
    lazy = Partition(detection=SHORT)
    values = days_of("ann", [0]) + colleagues(range(9)) + days_of("ann", [9])
    folded = lazy.state.fold(values, np.arange(len(values)))
    assert np.flatnonzero(folded.expired).tolist() == [len(values) - 3]


def test_an_event_that_was_folded_before_is_skipped_also_after_the_profile_has_begun_again() -> None:
    partition = Partition(detection=SHORT)
    values = days_of("ann", [0]) + colleagues(range(9)) + days_of("ann", [9])
    offsets = np.arange(len(values))
    partition.state.fold(values, offsets)
    again = partition.state.fold(values[-3:], offsets[-3:])
    assert again.score.tolist() == [-1.0] * 3
    assert not again.expired.any()
