"""Campaigns: one row for one attack, whatever the order of its incidents; and which rows are raised."""

from __future__ import annotations

import random
from collections.abc import Iterable, Sequence
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from streamguard.alerts.explain import Reason
from streamguard.alerts.incident import (
    SCHEMA_VERSION,
    Entity,
    Incident,
    Model,
    Names,
    Origin,
    PatternMatch,
    rfc3339,
)
from streamguard.campaigns import budget
from streamguard.campaigns.budget import CERTAIN_BITS, FLOOR_BITS, QUOTA, busy_days, decide, decide_one
from streamguard.campaigns.campaign import Campaign, alone, campaigns
from streamguard.campaigns.name_set import MAX_NAMES, NameSet, union
from streamguard.campaigns.participants import Participants
from streamguard.campaigns.sighting import DAY, HOUR, MINUTE, Sighting
from streamguard.cli.campaign_text import table, warning
from streamguard.fold.patterns import PATTERNS
from streamguard.risk import risk, severity
from streamguard.settings.schema import Detection
from tests.streams import START

TECHNIQUE = {pattern.name: pattern.technique for pattern in PATTERNS}
NOON = START - START % DAY + 12 * HOUR


def incident(
    user: str,
    at: int,
    bits: dict[str, float],
    *patterns: str,
    lasts: int = 0,
    kind: str = "user",
    source: str = "192.0.2.1",
    status: str = "failed",
    type: str = "login",
    host: str = "laptop",
    agent: str = "Firefox",
    place: str = "DE-Berlin",
    count: int = 1,
    strongest: int = 0,
    event: Any = None,
) -> Incident:
    """An incident whose reasons have these bits, as a worker publishes it."""
    evidence = round(sum(bits.values()), 1)
    names = {"user": user, "source": source, "crowd": "partition 0"}
    return Incident(
        schema_version=SCHEMA_VERSION,
        id=f"0-{user}-{kind}-{at:x}",
        entity=Entity(kind, names[kind]),  # type: ignore[arg-type]
        first_seen=rfc3339(at),
        last_seen=rfc3339(at + lasts),
        count=count,
        risk=risk(evidence),
        severity=severity(risk(evidence)),
        evidence_bits=evidence,
        technique=TECHNIQUE[patterns[0]] if patterns else None,
        patterns=tuple(PatternMatch(name, TECHNIQUE[name], "") for name in patterns),
        reasons=tuple(
            Reason(name, "", "", weight, weight / sum(bits.values())) for name, weight in bits.items()
        ),
        model=Model(None, None),
        origin=Origin(None, 0, 0),
        event=event
        if event is not None
        else {
            "timestamp": at + strongest,
            "event_type": type,
            "user": user,
            "source_ip": source,
            "status": status,
            "metadata": {"hostname": host, "geo_location": place, "user_agent": agent},
        },
    )


def spray(
    start: int, users: Iterable[str], agent: str = "python-requests", entered: str = ""
) -> list[Incident]:
    """One incident for each user, seconds apart, each from an address of its own."""
    found = []
    for k, user in enumerate(users):
        at, source = start + 20_000 * k, f"198.51.100.{k + 1}"
        bits = {"crowd_new_source_failure": 15.0, "source": 6.0}
        found.append(incident(user, at, bits, "password_spray", source=source, agent=agent))
        if user == entered:
            bits = {"source": 6.0, "location": 5.0, "host": 5.0, "agent": 5.0}
            found.append(incident(user, at + 5_000, bits, source=source, agent=agent, status="success"))
    return found


def lone(user: str, at: int, component: str = "resource", bits: float = 12.0, **fields: Any) -> Incident:
    return incident(user, at, {component: bits}, type="file_access", status="success", **fields)


def members(found: Sequence[Campaign]) -> list[set[str]]:
    return [set(one.incidents) for one in found]


def users_of(k: int) -> list[str]:
    return [f"user-{i:03}" for i in range(k)]


def test_a_spray_is_one_row_that_names_who_was_tried_and_who_was_entered() -> None:
    (row,) = campaigns(spray(NOON, users_of(20), entered="user-007"))
    assert (row.kind, row.technique) == ("password_spray", TECHNIQUE["password_spray"])
    assert row.tried == tuple(users_of(20))
    assert row.entered == ("user-007",)
    assert (row.users, row.accounts, row.addresses, row.size, row.alerts) == (20, 1, 20, 21, 21)
    assert (row.first_seen, row.last_seen) == (rfc3339(NOON), rfc3339(NOON + 19 * 20_000))
    assert row.score == 21.0 + 2 * 2.0


def test_what_an_incident_has_in_common_with_the_crowd_does_not_count_for_a_lone_row() -> None:
    (row,) = campaigns([incident("ann", NOON, {"crowd_failure": 12.0, "source": 6.0}, type="dns_query")])
    assert row.score == pytest.approx(6.0)
    assert row.evidence_bits == 18.0


@pytest.mark.parametrize(("pause", "agents", "rows"), [
    (9 * MINUTE, ("Firefox", "Chrome"), 1),
    (11 * MINUTE, ("Firefox", "Chrome"), 2),
    (5 * HOUR, ("rare-tool", "rare-tool"), 1),
    (5 * HOUR, ("rare-tool", "other-tool"), 2),
    (7 * HOUR, ("rare-tool", "rare-tool"), 2),
])  # fmt: skip
def test_waves_end_after_ten_silent_minutes_and_rounds_share_a_rare_agent(
    pause: int, agents: tuple[str, str], rows: int
) -> None:
    usual = [lone(f"quiet-{k}", NOON - 2 * DAY + k * HOUR, agent=f"agent {k % 3}") for k in range(40)]
    first = spray(NOON, users_of(10), agents[0])
    end = NOON + 9 * 20_000
    second = spray(end + pause, [f"late-{user}" for user in users_of(10)], agents[1])
    found = campaigns([*usual, *first, *second])
    assert len([row for row in found if row.kind == "password_spray"]) == rows
    assert len(found) == rows + 40


def test_rounds_of_an_agent_that_others_have_too_stay_apart() -> None:
    usual = [lone(f"quiet-{k}", NOON - 2 * DAY + k * HOUR, agent="Firefox") for k in range(40)]
    first, second = spray(NOON, users_of(10), "Firefox"), spray(NOON + 3 * HOUR, users_of(30)[20:], "Firefox")
    assert len([row for row in campaigns([*usual, *first, *second]) if row.kind == "password_spray"]) == 2


def test_a_wave_without_a_dominant_agent_is_no_round() -> None:
    usual = [lone(f"quiet-{k}", NOON - 2 * DAY + k * HOUR, agent=f"agent {k % 3}") for k in range(40)]
    rows = []
    for start in (NOON, NOON + 3 * HOUR):
        users = [f"{start}-{user}" for user in users_of(9)]
        rows += [
            one
            for k in range(3)
            for one in spray(start, users[3 * k : 3 * k + 3], f"tool {start if k else ''}{k}")
        ]
    assert len(campaigns([*usual, *rows])) == 2 + 40


def test_a_user_who_was_tried_in_two_waves_from_one_source_joins_them() -> None:
    first, second = spray(NOON, users_of(5)), spray(NOON + 2 * HOUR, ["user-000", "x", "y", "z"])
    assert len(campaigns([*first, *second])) == 1
    assert len(campaigns([*first, *second[1:]])) == 2


def test_a_wave_is_named_by_what_was_tried_on_many_users() -> None:
    guessed = incident("ann", NOON, {"crowd_new_source_failure": 15.0}, "brute_force", "password_spray")
    again = [
        incident(user, NOON + MINUTE, {"crowd_new_source_failure": 15.0}, "brute_force")
        for user in ("bob", "eve", "zoe")
    ]
    (row,) = campaigns([guessed, *again])
    assert (row.kind, row.technique) == ("password_spray", TECHNIQUE["password_spray"])
    assert TECHNIQUE["brute_force"] != TECHNIQUE["password_spray"]
    assert row.patterns == ("brute_force", "password_spray")


def test_the_incident_of_a_source_is_in_the_wave_of_its_strongest_alert() -> None:
    early, late = spray(NOON, users_of(5), "a"), spray(NOON + 5 * HOUR, ["v", "w", "x", "y", "z"], "b")
    source = incident(
        "",
        NOON,
        {"source_spread": 14.0},
        kind="source",
        source="203.0.113.9",
        lasts=5 * HOUR,
        strongest=5 * HOUR,
    )
    assert members(campaigns([*early, *late, source])) == [
        {source.id, *(one.id for one in late)},
        {one.id for one in early},
    ]


def test_the_beginning_of_a_long_incident_of_a_source_joins_no_waves() -> None:
    early = spray(NOON, users_of(4), "a")
    late = spray(NOON + 16 * MINUTE, ["w", "x", "y", "z"], "b")
    source = incident(
        "", NOON + 8 * MINUTE, {"source_spread": 14.0}, kind="source", source="203.0.113.9", lasts=5 * HOUR,
        strongest=5 * HOUR,
    )  # fmt: skip
    assert len(campaigns([*early, *late, source])) == 3


def test_tries_on_one_user_on_two_days_are_two_waves() -> None:
    days = [
        spray(NOON + k * 20 * HOUR, users_of(1) + [f"{k}-{user}" for user in users_of(5)]) for k in range(2)
    ]
    apart = [
        msgspec.structs.replace(one, event={**one.event, "source_ip": f"198.51.{k}.1"})
        for k, day in enumerate(days)
        for one in day
    ]
    assert len(campaigns(apart)) == 2


def test_an_incident_of_the_crowd_has_no_foothold_in_an_account() -> None:
    crowd = incident(
        "ann",
        NOON,
        {"crowd_failure": 15.0, "source": 6.0},
        kind="crowd",
        source="203.0.113.9",
        type="dns_query",
    )
    later = incident("ann", NOON + 30 * HOUR, {"source": 6.0}, source="203.0.113.9", type="dns_query")
    assert len(campaigns([crowd, later])) == 2


@pytest.mark.parametrize(("pause", "rows"), [(20 * HOUR, 1), (28 * HOUR, 2)])
def test_the_same_pattern_within_a_day_is_one_row(pause: int, rows: int) -> None:
    a = incident("ann", NOON, {"volume": 9.0}, "ransomware", type="file_access")
    b = incident("ann", NOON + pause, {"resource": 9.0}, "ransomware", type="file_access")
    assert len(campaigns([a, b])) == rows


def test_a_short_incident_within_a_long_one_does_not_end_it() -> None:
    long = incident("ann", NOON, {"volume": 9.0}, "ransomware", type="file_access", lasts=30 * HOUR)
    within = incident("ann", NOON + HOUR, {"hour": 9.0}, "ransomware", type="file_access")
    after = incident("ann", NOON + 50 * HOUR, {"resource": 9.0}, "ransomware", type="file_access")
    assert len(campaigns([long, within, after])) == 1


FOREIGN = {"source": 6.0, "location": 6.0, "host": 6.0, "agent": 6.0}


@pytest.mark.parametrize(("bits", "fields", "entered"), [
    (FOREIGN, {}, True),
    (FOREIGN, {"status": "failed"}, False),
    (FOREIGN, {"type": "file_access"}, False),
    ({**FOREIGN, "location": 4.0}, {}, False),  # a new laptop in the usual place
    ({"source": 18.0, "crowd_new_source": 60.0}, {}, False),  # the usual laptop elsewhere
    ({"source": 6.0}, {"host": "", "agent": "", "place": ""}, True),
    ({"source": 2.0, "crowd_new_source": 30.0}, {"host": "", "agent": "", "place": ""}, True),  # a hardly known user
    ({"source": 2.0}, {"host": "", "agent": "", "place": ""}, False),
    ({"source": 6.0}, {"kind": "source"}, True),
    ({"source": 6.0, "source_spread": 9.0}, {}, True),
    ({"source": 2.0}, {"kind": "source"}, False),
    ({"resource": 9.0}, {}, False),
])  # fmt: skip
def test_entered_is_who_succeeded_where_all_is_foreign(
    bits: dict[str, float], fields: dict[str, Any], entered: bool
) -> None:
    (row,) = campaigns([incident("ann", NOON, bits, **{"status": "success", **fields})])
    assert row.entered == (("ann",) if entered else ())
    assert row.accounts == len(row.entered)


def test_a_success_after_failures_alone_is_the_user_who_comes_back() -> None:
    tried = spray(NOON, users_of(10))
    back = incident(
        "user-003",
        NOON + 2 * MINUTE,
        {"transition": 5.0, "crowd_new_source": 9.0, "carried": 3.0},
        "success_after_failures",
        status="success",
    )
    assert [row.entered for row in campaigns([*tried, back])] == [(), ()]


def test_a_login_to_a_foreign_target_counts_beside_what_an_intruder_does() -> None:
    for patterns, entered in (
        (("credential_dumping",), ("ann",)),
        (("success_after_failures",), ()),
        ((), ()),
    ):
        (row,) = campaigns([incident("ann", NOON, {"resource": 12.0}, *patterns, status="success")])
        assert row.entered == entered


def test_all_updates_name_who_was_tried_entered_and_from_where() -> None:
    def update(count: int, user: str, source: str, status: str = "failed") -> Incident:
        one = incident(
            user,
            NOON,
            {"source": 6.0, "source_spread": 14.0},
            kind="source",
            source=source,
            count=count,
            status=status,
        )
        return msgspec.structs.replace(one, id="0-7-1", entity=Entity("source", "203.0.113.9"))

    updates = [
        update(1, "ann", "203.0.113.9"), update(2, "bob", "203.0.113.9"), update(3, "bob", "203.0.113.9", "success"),
        update(4, "eve", "203.0.113.8"),
    ]  # fmt: skip
    (row,) = campaigns(updates)
    assert (row.tried, row.entered, row.sources) == (
        ("ann", "bob", "eve"),
        ("bob",),
        ("203.0.113.8", "203.0.113.9"),
    )
    assert (row.users, row.accounts, row.addresses, row.size, row.alerts) == (3, 1, 2, 1, 4)
    assert campaigns(updates[::-1] + updates) == [row]
    participants = Participants()
    for one in updates:
        Sighting(one).show(participants)
    whole = msgspec.structs.replace(updates[-1], involved=participants.involved())
    assert campaigns([whole]) == [row], "one record that names all is as good as all records"


def test_names_of_one_incident_beyond_the_bound_are_estimated() -> None:
    number = 20_000
    some, others = NameSet(), NameSet()
    for k in range(number):
        some.add(f"user-{k}")
        others.add(f"user-{number - 1 - k}")
    assert some.names() == others.names()
    found = some.names()
    assert len(found.names) == MAX_NAMES
    assert found.count == pytest.approx(number, rel=0.1)
    again = NameSet()
    again.merge(found)
    again.merge(found)
    assert again.names() == found
    assert union([found, Names(1, ("user-1",))]).count == pytest.approx(number, rel=0.1)


@given(st.lists(st.sampled_from([f"n{k}" for k in range(12)]), max_size=40), st.integers(0, 40))
def test_a_union_of_complete_sets_is_exact(names: list[str], cut: int) -> None:
    parts = []
    for part in (names[:cut], names[cut:]):
        one = NameSet()
        for name in part:
            one.add(name)
        parts.append(one.names())
    assert union(parts) == Names(len(set(names)), tuple(sorted(set(names))))


def test_a_chain_that_began_before_a_wave_is_not_swallowed_by_it() -> None:
    """A traveller's foreign logins of two days, one of them by chance at the time of a spray."""
    times = [NOON - 40 * HOUR, NOON - 20 * HOUR, NOON + MINUTE, NOON + 20 * HOUR]
    traveller = [incident("zoe", at, FOREIGN, source="203.0.113.9", status="success") for at in times]
    found = campaigns([*spray(NOON, users_of(10)), *traveller])
    assert {one.id for one in traveller} in members(found)
    alone = campaigns([*spray(NOON, users_of(10)), traveller[2]])
    assert len(alone) == 1, "without the others it looks like a part of the wave"


@pytest.mark.parametrize(("pause", "rows"), [(2 * DAY, 1), (4 * DAY, 2)])
def test_a_foothold_is_followed_for_three_days(pause: int, rows: int) -> None:
    a = incident("ann", NOON, {"source": 6.0, "hour": 4.0}, source="203.0.113.9", status="success")
    b = lone("ann", NOON + pause, "exfiltration", source="203.0.113.9")
    b = msgspec.structs.replace(b, reasons=(*b.reasons, Reason("source", "", "", 6.0, 0.3)))
    assert len(campaigns([a, b])) == rows


def test_the_same_address_does_not_join_users_to_whom_it_is_usual() -> None:
    a, b = lone("ann", NOON, source="10.0.0.1"), lone("bob", NOON + MINUTE, source="10.0.0.1")
    assert len(campaigns([a, b])) == 2
    rare = [lone(user, NOON, "source", source="203.0.113.9") for user in ("ann", "bob")]
    assert len(campaigns(rare)) == 1


def test_like_behaviour_of_one_user_is_one_row_and_unlike_is_two() -> None:
    a, like = lone("ann", NOON), lone("ann", NOON + HOUR, bits=9.0)
    unlike, later = lone("ann", NOON + 2 * HOUR, "volume"), lone("ann", NOON + 40 * HOUR)
    assert members(campaigns([a, like, unlike, later])) == [{a.id, like.id}, {unlike.id}, {later.id}]


def test_a_source_and_its_users_are_one_row() -> None:
    entity = incident(
        "",
        NOON,
        {"source_spread": 14.0},
        "password_spray",
        kind="source",
        source="203.0.113.9",
        lasts=5 * HOUR,
    )
    wave = spray(NOON, users_of(5))
    assert len(campaigns([entity, *wave])) == 1


def test_the_latest_update_of_an_incident_counts() -> None:
    early, late = lone("ann", NOON, count=1), lone("ann", NOON, bits=20.0, count=3)
    for updates in ([early, late], [late, early], [late, early, late]):
        (row,) = campaigns(updates)
        assert (row.size, row.alerts, row.evidence_bits) == (1, 3, 20.0)


@pytest.mark.parametrize(
    "event", ["not json", {"truncated": True}, {}, {"user": ["\ud800"], "metadata": 7}, [1]]
)
def test_an_incident_whose_event_cannot_be_read_is_a_row_of_its_own(event: Any) -> None:
    if event == {"user": ["\ud800"], "metadata": 7}:
        event = {"user": ["\ufffd"], "metadata": 7}
    odd = incident("ann", NOON, {"resource": 12.0}, event=event)
    assert members(campaigns([odd, *spray(NOON, users_of(5))])) == [
        {one.id for one in spray(NOON, users_of(5))},
        {odd.id},
    ]


def test_names_are_bounded_and_all_are_counted() -> None:
    many = MAX_NAMES + 50
    (row,) = campaigns(
        incident(f"u{k:05}", NOON + k, {"crowd_new_source_failure": 15.0}, "password_spray")
        for k in range(many)
    )
    assert (row.users, row.size, len(row.tried), len(row.incidents)) == (many, many, MAX_NAMES, MAX_NAMES)


@st.composite
def sets_of_incidents(draw: st.DrawFn) -> list[Incident]:
    """Incidents of few users, sources, hosts and agents within two days, so that many of them share something."""
    found = {}
    for _ in range(draw(st.integers(1, 14))):
        component = st.sampled_from(
            ("source", "host", "resource", "crowd_new_source_failure", "source_spread")
        )
        bits = draw(st.dictionaries(component, st.sampled_from((3.0, 6.0, 9.0)), min_size=1, max_size=3))
        names = draw(
            st.lists(
                st.sampled_from(("password_spray", "ransomware", "impossible_travel")),
                max_size=2,
                unique=True,
            )
        )
        one = incident(
            draw(st.sampled_from(("ann", "bob", "eve"))),
            NOON + draw(st.integers(0, 48)) * 17 * MINUTE,
            bits,
            *names,
            lasts=draw(st.sampled_from((0, MINUTE, 3 * HOUR))),
            kind=draw(st.sampled_from(("user", "user", "source", "crowd"))),
            source=draw(st.sampled_from(("192.0.2.1", "192.0.2.2", "203.0.113.9"))),
            status=draw(st.sampled_from(("failed", "success"))),
            type=draw(st.sampled_from(("login", "file_access"))),
            agent=draw(st.sampled_from(("Firefox", "tool"))),
            count=draw(st.integers(1, 5)),
        )
        found[one.id] = one
    return list(found.values())


@given(sets_of_incidents(), st.integers())
def test_campaigns_are_a_partition_of_the_set_in_any_order(incidents: list[Incident], seed: int) -> None:
    expected = campaigns(incidents)
    assert sorted(id for row in expected for id in row.incidents) == sorted(one.id for one in incidents)
    again = [*incidents, *incidents[::2]]
    earlier = [msgspec.structs.replace(one, count=0) for one in incidents[::3]]
    assert campaigns([*earlier, *incidents]) == expected, "earlier updates with the same event add nothing"
    random.Random(seed).shuffle(again)
    assert campaigns(again) == expected
    assert [row.score for row in expected] == sorted((row.score for row in expected), reverse=True)
    for row in expected:
        assert set(row.entered) <= set(row.tried)
        assert row.first_seen <= row.last_seen


@given(sets_of_incidents(), sets_of_incidents(), st.randoms(use_true_random=False))
def test_campaigns_do_not_depend_on_the_order_or_repetition_of_updates(
    latest: list[Incident], others: list[Incident], draw: random.Random
) -> None:
    """Each incident of the first set gets earlier updates, which show what those of the second set show."""
    earlier = [
        msgspec.structs.replace(other, id=one.id, entity=one.entity, count=0)
        for one, other in zip(latest, others, strict=False)
    ]
    updates = [*latest, *earlier]
    expected = campaigns(updates)
    again = updates + draw.choices(updates, k=5)
    draw.shuffle(again)
    assert campaigns(again) == expected
    named = {one.event["user"] for one in updates} | {
        one.entity.value for one in latest if one.entity.kind == "user"
    }
    assert {user for row in expected for user in row.tried} == named
    assert {id for row in expected for id in row.incidents} == {one.id for one in latest}


@given(sets_of_incidents(), st.floats(0.0, 60.0))
def test_an_incident_alone_is_decided_as_a_set_of_it(incidents: list[Incident], floor: float) -> None:
    for id in {one.id for one in incidents}:
        updates = [one for one in incidents if one.id == id]
        (row,) = campaigns(updates)
        assert alone(updates) == (row.score, row.accounts)
        assert decide_one(*alone(updates), floor=floor) == decide([row], floor)[row.id]


def test_an_earlier_update_joins_what_the_latest_would_not() -> None:
    """A stranger logs in during a spray, and the latest published event is something else that they do."""
    inside = incident("user-003", NOON + 70_000, {"resource": 12.0}, type="file_access", count=2)
    login = incident("user-003", NOON + 70_000, FOREIGN, status="success")
    assert login.id == inside.id
    tried = spray(NOON, users_of(10))
    assert len(campaigns([*tried, inside])) == 2
    (row,) = campaigns([*tried, inside, login])
    assert row.entered == ("user-003",)


def row(score: float, at: int = NOON, kind: str = "resource", id: str = "") -> Campaign:
    (one,) = campaigns([lone("ann", at)])
    return msgspec.structs.replace(one, id=id or f"{kind}-{at}-{score}", score=score, kind=kind)


def test_a_row_is_raised_from_the_floor_with_a_quota_for_its_kind_and_day() -> None:
    scores = [17.9, 18.0, 19.0, 18.5, 20.0, 31.0, 30.0, 18.0]
    rows = [row(score, NOON + k * MINUTE, id=str(k)) for k, score in enumerate(scores)]
    decisions = decide(rows)
    assert [decisions[str(k)].why for k in range(len(rows))] == [
        "below the floor", "above the floor", "above the floor", "stronger than others of its kind today",
        "stronger than others of its kind today", "stronger than others of its kind today",
        "stronger than others of its kind today", "quota",
    ]  # fmt: skip
    assert [decisions[str(k)].raised for k in range(len(rows))] == [False, *[True] * 6, False]
    assert decisions["7"].level == 30.0
    tomorrow = row(18.0, NOON + DAY)
    assert decide([*rows, tomorrow])[tomorrow.id] == budget.Decision(True, FLOOR_BITS, "above the floor")


@given(
    st.lists(st.tuples(st.floats(10.0, 60.0), st.integers(0, 47), st.sampled_from("abc")), max_size=30),
    st.floats(CERTAIN_BITS, 60.0),
    st.floats(FLOOR_BITS, CERTAIN_BITS),
)
def test_planted_rows_never_hide_a_certain_row_nor_one_of_another_kind(
    planted: list[tuple[float, int, str]], certain: float, plain: float
) -> None:
    smoke = [row(score, NOON + hour * HOUR, kind, id=f"{k}") for k, (score, hour, kind) in enumerate(planted)]
    real = [
        row(certain, NOON + 5 * HOUR, "a", id="certain"),
        row(plain, NOON + 5 * HOUR, "d", id="other kind"),
    ]
    decisions = decide([*smoke, *real])
    assert decisions["certain"].raised
    assert decisions["other kind"].raised


@given(
    st.lists(st.tuples(st.floats(10.0, 60.0), st.integers(0, 47)), min_size=1, max_size=20),
    st.integers(0, 19),
)
def test_a_later_row_changes_no_decision(scores: list[tuple[float, int]], cut: int) -> None:
    rows = [row(score, NOON + hour * HOUR, id=f"{k:02}") for k, (score, hour) in enumerate(scores)]
    rows.sort(key=lambda one: (one.first_seen, one.id))
    before, after = decide(rows[:cut]), decide(rows)
    assert all(after[id] == decision for id, decision in before.items())
    raised = [one for one in rows if after[one.id].raised and one.score < CERTAIN_BITS]
    assert len(raised) >= min(QUOTA, sum(FLOOR_BITS <= one.score < CERTAIN_BITS for one in rows[:QUOTA]))


@given(st.lists(st.tuples(st.floats(10.0, 60.0), st.integers(1, 5)), max_size=30), st.floats(10.0, 60.0))
def test_rows_planted_before_never_hide_that_an_account_was_entered(
    planted: list[tuple[float, int]], score: float
) -> None:
    smoke = [row(bits, NOON + k, id=f"{k}") for k, (bits, _) in enumerate(planted)]
    entry = msgspec.structs.replace(row(score, NOON + HOUR, id="entry"), accounts=1, entered=("ann",))
    assert decide([*smoke, entry])["entry"].raised == (score >= FLOOR_BITS)
    full = [row(29.0, NOON + k, id=f"full {k}") for k in range(QUOTA)]
    weak = msgspec.structs.replace(entry, score=20.0)
    assert decide([*full, weak])["entry"] == budget.Decision(True, FLOOR_BITS, "an account was entered")


@given(st.lists(st.tuples(st.floats(10.0, 60.0), st.integers(1, 5)), max_size=30), st.floats(10.0, 60.0))
def test_rows_planted_on_other_days_change_nothing(planted: list[tuple[float, int]], score: float) -> None:
    """A level that follows the traffic could be raised by them for weeks."""
    numbing = [row(bits, NOON - days * DAY + k, id=f"{k}") for k, (bits, days) in enumerate(planted)]
    real = row(score, NOON, id="real")
    assert decide([*numbing, real])["real"] == decide([real])["real"]


def test_a_thousand_rows_below_the_certain_score_raise_two_and_all_stay_in_the_list() -> None:
    smoke = [row(29.0, NOON + k, id=f"{k:04}") for k in range(1000)]
    decisions = decide(smoke)
    assert sum(one.raised for one in decisions.values()) == QUOTA
    assert len(decisions) == 1000


def test_days_with_more_rows_than_promised_are_named_with_the_lever() -> None:
    rows = [row(40.0, NOON + k, id=f"a{k}") for k in range(3)] + [row(40.0, NOON + DAY, id="b")]
    decisions = decide(rows)
    assert busy_days(rows, decisions, 3) == {}
    days = busy_days(rows, decisions, 2.5)
    assert days == {rfc3339(NOON)[:10]: 3}
    text = warning(days, Detection(incidents_per_day=2.5, floor_bits=17.0))
    assert text is not None
    for part in (
        f"{rfc3339(NOON)[:10]} (3)",
        "more rows were raised than 2.5 a day",
        "on 1 day",
        "detection.floor_bits than 17",
    ):
        assert part in text
    assert warning({}, Detection()) is None
    many = {f"2025-01-{day:02}": day for day in range(1, 20)}
    assert "on 19 days: most on 2025-01-15 (15), 2025-01-16 (16)" in (warning(many, Detection()) or "")


def test_the_floor_is_a_setting() -> None:
    rows = [row(17.0, id="a")]
    assert not decide(rows)["a"].raised
    assert decide(rows, 16.5)["a"] == budget.Decision(True, 16.5, "above the floor")
    assert FLOOR_BITS == Detection().floor_bits == 18.0


def test_the_floor_and_the_budget_do_not_change_the_folded_state() -> None:
    assert Detection(floor_bits=1.0, incidents_per_day=9.0).of_the_fold == Detection().of_the_fold
    assert Detection(alert_risk=80.0).of_the_fold != Detection().of_the_fold
    assert Detection(incident_gap_seconds=80.0).of_the_fold != Detection().of_the_fold


def test_table_fits_and_shows_no_control_characters() -> None:
    found = campaigns(
        [*spray(NOON, [f"\x1b[2J{user}" * 20 for user in users_of(9)]), lone("ann", NOON - DAY)]
    )
    text = table(found, decide(found), 5)
    assert "tried: 9 users" in text
    assert "... and 3 more" in text
    assert all(line.isprintable() for line in text.splitlines())
    assert max(map(len, text.splitlines())) <= 100
    assert table([], {}, 0) == "no incidents\n"
