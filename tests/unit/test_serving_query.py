"""Lists, counts and rankings of incidents, compared with what plain Python computes from the same incidents."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from streamguard.alerts.incident import Incident, encode
from streamguard.campaigns.sighting import DAY
from streamguard.events.event_time import epoch_ms
from streamguard.serving.projection.store import Store
from streamguard.serving.query import cursor, matches
from streamguard.serving.query.cursor import CursorError
from streamguard.serving.query.filters import IncidentFilter, match
from streamguard.serving.query.incidents import IncidentQueries
from streamguard.serving.query.reading import NotFoundError
from streamguard.serving.query.totals import Totals
from tests.serving_stores import at, filled, placed, queries
from tests.unit.test_campaigns import NOON, incident

PATTERNS = ("brute_force", "exfiltration", "impossible_travel", "dns_tunnel")


def many(count: int = 600) -> list[Incident]:
    """Incidents of few users, of all severities, with none to two patterns, some of them equally strong."""
    draw = random.Random(5)
    found = []
    for k in range(count):
        bits = {"resource": float(draw.randrange(4, 20)), "hour": float(draw.randrange(1, 9))}
        names = draw.sample(PATTERNS, k=draw.randrange(3))
        at = NOON + draw.randrange(30 * DAY) + k
        found.append(incident(f"user-{draw.randrange(40)}", at, bits, *names, count=draw.randrange(1, 50)))
    return found


@pytest.fixture(scope="module")
def everything() -> list[Incident]:
    return many()


@pytest.fixture(scope="module")
def store(everything: list[Incident], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Store]:
    store = filled(tmp_path_factory.mktemp("store"), placed(everything), grouped=False)
    yield store
    store.close()


@pytest.fixture(scope="module")
def asked(store: Store) -> IncidentQueries:
    return queries(store)


def walked(asked: IncidentQueries, wanted: IncidentFilter, sort: Any, limit: int) -> list[str]:
    """Ids of all pages of a list."""
    ids, after = [], None
    while True:
        page = asked.page(wanted, sort, limit, after)
        ids += [row.id for row in page.incidents]
        if page.next is None:
            return ids
        after = page.next


def last_ms(one: Incident) -> int:
    return epoch_ms(one.last_seen) or 0


FILTERS: dict[str, tuple[IncidentFilter, Callable[[Incident], bool]]] = {
    "all": (IncidentFilter(), lambda one: True),
    "entity": (IncidentFilter(entity=("user-3", "user-5")), lambda one: one.entity.value in ("user-3", "user-5")),
    "kind": (IncidentFilter(kind=("source",)), lambda one: one.entity.kind == "source"),
    "severity": (IncidentFilter(severity=("high", "critical")), lambda one: one.severity in ("high", "critical")),
    "pattern": (
        IncidentFilter(pattern=("dns_tunnel",)), lambda one: "dns_tunnel" in [p.name for p in one.patterns],
    ),
    "technique": (
        IncidentFilter(technique=("T1048",)), lambda one: "T1048" in [p.technique for p in one.patterns],
    ),
    "time": (
        IncidentFilter(since=NOON + 5 * DAY, until=NOON + 9 * DAY),
        lambda one: NOON + 5 * DAY <= last_ms(one) < NOON + 9 * DAY,
    ),
    "most of the time": (
        IncidentFilter(since=NOON + 2 * DAY, until=NOON + 29 * DAY),
        lambda one: NOON + 2 * DAY <= last_ms(one) < NOON + 29 * DAY,
    ),
    "later": (IncidentFilter(since=NOON + 3 * DAY), lambda one: last_ms(one) >= NOON + 3 * DAY),
    "never": (IncidentFilter(since=NOON + 9 * DAY, until=NOON + 2 * DAY), lambda one: False),
    "text": (IncidentFilter(text="user-7"), lambda one: one.entity.value == "user-7"),
    "words": (
        IncidentFilter(text="brute_force user-1"),
        lambda one: one.entity.value.startswith("user-1") and "brute_force" in [p.name for p in one.patterns],
    ),
    "several": (
        IncidentFilter(severity=("critical",), pattern=("brute_force",), since=NOON + 3 * DAY),
        lambda one: one.severity == "critical" and "brute_force" in [p.name for p in one.patterns]
        and last_ms(one) >= NOON + 3 * DAY,
    ),
}  # fmt: skip


@pytest.mark.parametrize("gathered", [0, 10_000])
@pytest.mark.parametrize("sort", ["evidence", "time"])
@pytest.mark.parametrize("name", FILTERS)
def test_pages_of_a_list_are_what_plain_python_selects(
    asked: IncidentQueries,
    everything: list[Incident],
    name: str,
    sort: str,
    gathered: int,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(matches, "GATHERED", gathered)  # along the order, and as a whole
    wanted, holds = FILTERS[name]
    key: Callable[[Incident], float] = last_ms if sort == "time" else lambda one: one.evidence_bits
    if name == "text":  # the last word is a prefix
        holds = lambda one: one.entity.value.startswith("user-7")  # noqa: E731
    expected = [one.id for one in sorted(filter(holds, everything), key=lambda one: (-key(one), one.id))]
    assert walked(asked, wanted, sort, 37) == expected
    assert expected or name in ("kind", "never")


@pytest.mark.parametrize("name", FILTERS)
def test_counts_agree_with_the_list_and_with_the_list_of_each_value(
    asked: IncidentQueries, name: str
) -> None:
    wanted, _ = FILTERS[name]
    facets = asked.facets(wanted)
    ids = walked(asked, wanted, "evidence", 200)
    assert facets.total == len(ids)
    assert sum(one.count for one in facets.severity) == facets.total
    if name != "all":
        return
    for field in ("severity", "pattern", "technique", "status"):
        for one in getattr(facets, field):
            narrowed = IncidentFilter(**{field: (one.value,)})
            assert len(walked(asked, narrowed, "time", 200)) == one.count, (field, one.value)


def test_incident_shows_what_was_published(asked: IncidentQueries, everything: list[Incident]) -> None:
    one = everything[17]
    found = asked.incident(one.id)
    (update,) = found.updates
    assert encode(found.incident) == encode(update.incident)
    assert found.incident.reasons == one.reasons
    with pytest.raises(NotFoundError, match="there is no incident 'x'"):
        asked.incident("x")


def test_ranking_is_the_discounted_sum_of_risks(store: Store, everything: list[Incident]) -> None:
    by_user: dict[str, list[float]] = {}
    for one in everything:
        by_user.setdefault(one.entity.value, []).append(one.risk)
    expected = {
        user: sum(risk / i**1.5 for i, risk in enumerate(sorted(risks, reverse=True), 1))
        for user, risks in by_user.items()
    }
    ranked = Totals(store, lambda: ()).ranked(limit=200).users
    assert [one.entity.value for one in ranked] == sorted(expected, key=lambda user: (-expected[user], user))
    assert {one.entity.value: one.score for one in ranked} == pytest.approx(expected, abs=0.051)
    assert {one.entity.value: one.incidents for one in ranked} == Counter(
        one.entity.value for one in everything
    )


def test_totals_are_those_of_the_incidents(store: Store, everything: list[Incident]) -> None:
    found = Totals(store, lambda: ()).statistics()
    assert (found.incidents, found.open) == (len(everything), len(everything))
    assert found.alerts == sum(one.count for one in everything)
    assert {one.value: one.count for one in found.by_severity} == Counter(one.severity for one in everything)
    assert {one.value: one.count for one in found.by_day} == Counter(one.last_seen[:10] for one in everything)


def test_word_is_a_whole_word(tmp_path: Path) -> None:
    reasons = [
        (replace(one.reasons[0], actual=actual),)
        for one, actual in zip(many(3), ("from 10.0.0.1 now", "10.0.0.10", '"10.0.0.1"'), strict=True)
    ]
    made = [replace(one, reasons=reason) for one, reason in zip(many(3), reasons, strict=True)]
    store = filled(tmp_path, placed(made), grouped=False)
    asked = queries(store)

    def found(word: str) -> set[str]:
        return {one.id for one in asked.page(IncidentFilter(word=word)).incidents}

    assert found("10.0.0.1") == {made[0].id, made[2].id}
    assert found("10.0.0.10") == {made[1].id}
    assert found("10.0.0") == found('"') == found('10.0.0.1" OR "10.0.0.10') == set()
    store.close()


def test_incident_is_found_by_its_event(tmp_path: Path) -> None:
    opened, risen, other, bare = (
        replace(one, event=event)
        for one, event in zip(many(4), ({"event_id": "a:b 1"}, {"event_id": "2:7"}, {}, "x"), strict=True)
    )
    risen = replace(risen, id=opened.id, count=opened.count + 1)
    store = filled(
        tmp_path, [at(0, opened, 5), at(1, risen, 7, 0), at(2, other, 9), at(3, bare, 11)], grouped=False
    )
    asked = queries(store)

    def found(event: str) -> list[str]:
        wanted = IncidentFilter(event=event)
        rows = [one.id for one in asked.page(wanted).incidents]
        assert asked.facets(wanted).total == len(rows)
        return rows

    for event in ("a:b 1", "2:7", "0:5", "0:7", "security-events:0:7"):
        assert found(event) == [opened.id], event
    assert found("0:9") == [other.id] and found("security-events:0:11") == [bare.id]
    for event in ("", "2:5", "0:6", "other:0:5", "a:b", "0:5' OR 1", "9" * 600, "0:" + "9" * 18, "0:\u0665"):
        assert event == "" or found(event) == [], event
    both = {(0, 5): (opened.id,), (0, 7): (opened.id,)}
    places = [(0, 5, "a:b 1"), (0, 7, ""), (0, 6, ""), (1, 5, "a:b 1")]
    assert asked.published_for("security-events", places) == both
    assert asked.published_for("other-events", places) == {}
    # A topic of this name that was made again has other events at these places.
    assert asked.published_for("security-events", [(0, 5, "other"), (0, 7, "2:7"), (0, 9, "other")]) == {
        (0, 7): (opened.id,),
        (0, 9): (other.id,),
    }
    store.close()


def test_incidents_are_counted_by_the_offset_at_which_they_began(tmp_path: Path) -> None:
    begun = ("2-100", "2-199", "2-200", "0-150", "s2-150")
    named = [replace(one, id=f"{at}-18bcfe56800") for one, at in zip(many(5), begun, strict=True)]
    store = filled(tmp_path, placed(named), grouped=False)
    totals = Totals(store, lambda: ())
    assert totals.opened({2: (100, 200), 0: (0, 1000), 1: (0, 9)}) == {2: 2, 0: 1}
    assert totals.opened({2: (101, 201)}) == {2: 2}
    assert totals.opened({}) == {}
    store.close()


@pytest.mark.parametrize("wrong", ["", "x", "AAAA", "k6xhZGRiYTY4", "a" * 300])
def test_text_that_is_no_cursor_is_refused(asked: IncidentQueries, wrong: str) -> None:
    with pytest.raises(CursorError, match="begin again without it"):
        asked.page(IncidentFilter(), after=wrong)


def test_cursor_of_another_list_is_refused(asked: IncidentQueries) -> None:
    following = asked.page(IncidentFilter(), limit=5).next
    with pytest.raises(CursorError, match="another filter or order"):
        asked.page(IncidentFilter(), "time", after=following)


@given(st.floats(allow_nan=False, allow_infinity=False), st.text(max_size=200))
def test_cursor_is_read_as_it_was_written(key: float, id: str) -> None:
    assert cursor.decode("list", cursor.encode("list", key, id)) == (key, id)


@given(st.text(max_size=60))
def test_any_text_may_be_searched_for(text: str) -> None:
    assert match(text).count('"') % 2 == 0


@pytest.mark.parametrize(
    "text", ['" OR 1', "*", "NEAR(a b)", "a:b", "-x", "''; DROP TABLE incidents", "\x00", "(", "^a"]
)
def test_words_have_no_special_meaning_in_a_search(asked: IncidentQueries, text: str) -> None:
    assert asked.facets(IncidentFilter(text=text)).total >= 0
    assert asked.facets(IncidentFilter(word=text)).total >= 0
    assert asked.facets(IncidentFilter()).total == 600
