"""The subject of an event: events without a user belong to their source, and sources share no profile."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from streamguard.events.subject import profile_key, subject_of, subject_of_key
from streamguard.history.files import Batch
from streamguard.history.layout import Layout
from tests.streams import HOUR, START, Partition, event, habit


def test_subjects_and_their_keys_are_different_for_users_and_addresses() -> None:
    subjects = [
        subject_of(*one) for one in (("", "10.0.0.1"), ("10.0.0.1", ""), ("\0a10.0.0.1", ""), ("\0", ""))
    ]
    assert len(set(subjects)) == len({profile_key(subject) for subject in subjects}) == 4


@given(st.text(), st.text(), st.booleans())
def test_a_key_states_its_subject(user: str, source: str, named: bool) -> None:
    subject = subject_of(user if named else "", source)
    assert subject_of_key(profile_key(subject)) == subject


@pytest.mark.parametrize("page", ["\0\0", "\0\1", "\0\7", "\0\377"])
def test_no_address_has_the_key_of_another_value(page: str) -> None:
    """Whoever names a source like a page must not replace that page."""
    partition = Partition()
    partition.run([*habit(50), event(START + HOUR, None, source_ip=page), *habit(50, START + 2 * HOUR)])
    assert Partition(dict(partition.saved)).state.next_offset == 101


def test_key_of_a_long_address_is_bounded_and_stays_different() -> None:
    keys = {profile_key(subject_of("", "x" * 100_000 + end)) for end in "ab"}
    assert len(keys) == 2
    assert max(map(len, keys)) < 300


def test_failures_of_many_sources_without_a_user_are_no_streak_of_one() -> None:
    ordinary = [event(START + k * 30_000, None, source_ip=f"10.2.0.{k % 20}") for k in range(600)]
    late = START + 600 * 30_000 + HOUR
    failures = [event(late + k * 2000, None, source_ip=f"10.3.{k}.7", status="failed") for k in range(20)]
    partition = Partition()
    incidents = partition.run(ordinary + failures)
    assert not any(pattern["name"] == "brute_force" for one in incidents for pattern in one["patterns"])
    assert {b"a10.3.0.7", b"a10.2.0.1"} <= partition.saved.keys()
    assert b"u" not in partition.saved


def test_guesses_from_one_source_without_a_user_are_an_incident_of_the_source() -> None:
    attack = [
        event(START + 2000 * 20_000 + k * 1000, None, source_ip="203.0.113.9", status="failed")
        for k in range(40)
    ]
    incidents = Partition().run(habit(2000) + attack)
    assert {(one["entity"]["kind"], one["entity"]["value"]) for one in incidents} == {
        ("source", "203.0.113.9")
    }


def test_row_without_a_user_is_placed_by_its_address_in_any_spelling() -> None:
    from streamguard.events.event import parse

    spelled = ["10.0.0.1", "10.0.0.1:443", "::ffff:10.0.0.1"]
    values = [event(START, None, source_ip=one) for one in spelled] + [b'{"source_ip": "10.0.0.1"}']
    batch = Batch(1, range(1, len(values) + 1), values, *parse(values), {})
    assert [placed.rows.tolist() for placed in Layout(64).place(batch)] == [[0, 1, 2, 3]]
