"""Similar incidents: vectors of unit length, an index of bounded size, and the same answer as a plain search."""

from __future__ import annotations

import msgspec
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from streamguard.alerts.incident import Incident
from streamguard.analyst.similar import DIMENSIONS, Similarity, vector
from tests.unit.test_analyst_facts import incidents
from tests.unit.test_campaigns import NOON, incident


def spray(user: str) -> Incident:
    bits = {"crowd_new_source_failure": 15.0, "source": 9.0, "host": 6.0}
    return incident(user, NOON, bits, "distributed_guessing")


def download(user: str) -> Incident:
    return incident(user, NOON, {"resource": 9.0, "volume": 6.0}, "mass_download", type="file_access")


@settings(max_examples=100, deadline=None)
@given(incidents())
def test_any_incident_has_a_vector_of_unit_length(one: Incident) -> None:
    made = vector(one)
    assert made.shape == (DIMENSIONS,) and made.dtype == np.float32
    assert float(np.linalg.norm(made)) == pytest.approx(1.0, abs=1e-5)
    assert (made >= 0).all()


def test_alike_incident_is_first_and_others_are_left_out() -> None:
    index = Similarity(10)
    for one in (spray("bob"), download("carl")):
        index.add(one.id, one)
    found = index.nearest(spray("ann"))
    assert [one.incident_id for one in found] == [spray("bob").id]
    assert found[0].similarity == 1.0
    both = index.nearest(spray("ann"), least=0.0)
    assert [one.incident_id for one in both] == [spray("bob").id, download("carl").id]
    assert both[1].similarity < 0.8


def test_incident_is_not_similar_to_itself_and_is_replaced_by_its_update() -> None:
    index, one = Similarity(10), spray("ann")
    index.add(one.id, one)
    assert index.nearest(one) == ()
    index.add(one.id, msgspec.structs.replace(download("ann"), id=one.id))
    assert len(index) == 1
    assert [found.incident_id for found in index.nearest(download("bob"))] == [one.id]


def test_full_index_forgets_the_incident_that_was_added_first() -> None:
    index = Similarity(3)
    for user in ("a", "b", "c", "d"):
        index.add(user, spray(user))
    assert len(index) == 3
    assert [one.incident_id for one in index.nearest(spray("x"))] == ["b", "c", "d"]


def test_discarded_incident_is_not_found_and_its_place_is_used_again() -> None:
    index = Similarity(2)
    index.add("a", spray("a"))
    index.discard("a")
    index.discard("a")
    assert index.nearest(spray("x"), least=0.0) == ()
    for user in ("b", "c", "d"):
        index.add(user, spray(user))
    assert [one.incident_id for one in index.nearest(spray("x"))] == ["c", "d"]


def test_empty_index_finds_nothing_and_capacity_is_checked() -> None:
    assert Similarity(1).nearest(spray("x")) == ()
    with pytest.raises(ValueError, match="capacity must be at least 1, not 0"):
        Similarity(0)


@settings(max_examples=50, deadline=None)
@given(st.lists(incidents(), min_size=1, max_size=12), incidents(id="asked"), st.integers(1, 5))
def test_search_equals_a_plain_one(known: list[Incident], asked: Incident, k: int) -> None:
    index = Similarity(20)
    for n, one in enumerate(known):
        index.add(f"{n:02}", one)
    likeness = [float(vector(one) @ vector(asked)) for one in known]
    found = index.nearest(asked, k, least=0.0)
    assert len(found) == min(k, len(known))
    plain = sorted(likeness, reverse=True)[: len(found)]
    assert [one.similarity for one in found] == pytest.approx(plain, abs=1e-3)


@settings(max_examples=20, deadline=None)
@given(st.lists(st.sampled_from("abcdef"), max_size=40))
def test_index_holds_the_latest_incidents_whatever_is_added_and_discarded(steps: list[str]) -> None:
    index, held = Similarity(3), []
    for n, step in enumerate(steps):
        if n % 5 == 4:
            index.discard(step)
            held = [one for one in held if one != step]
        else:
            index.add(step, spray(step))
            held = held if step in held else [*held, step]
    assert len(index) <= 3
    found = {one.incident_id for one in index.nearest(spray("x"), 10)}
    assert found <= set(held) and len(found) == len(index)
