"""What the campaigns process computes: a pure function of the set of records, in bounded memory."""

from __future__ import annotations

import asyncio
import random
from types import SimpleNamespace
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from streamguard.agents.campaigns import window as window_module
from streamguard.agents.campaigns.incidents import REASONS, update_of
from streamguard.agents.campaigns.progress import STALL_ROUNDS, STALL_SECONDS, CampaignsProgress
from streamguard.agents.campaigns.projection import OPEN_MS, differences, project
from streamguard.agents.campaigns.rounds import PAUSE_PER_ROUND, Rounds
from streamguard.agents.campaigns.topic_log import TopicLog
from streamguard.agents.campaigns.window import HORIZON_MS, RETIRED_MS, UPDATE_COST, Update, Window
from streamguard.agents.consumer.liveness import BEAT_SECONDS, SILENT_SECONDS
from streamguard.alerts.incident import Incident, decode, encode, rfc3339
from streamguard.alerts.published import MAX_ENTRIES, MAX_TEXT
from streamguard.campaigns.budget import decide
from streamguard.campaigns.campaign import Campaign, campaigns
from streamguard.campaigns.record import decode as decode_record
from streamguard.campaigns.sighting import DAY, HOUR
from streamguard.decisions import forgotten
from streamguard.decisions.forgotten import Forgotten
from streamguard.decisions.forgotten_users import ForgottenUsers
from streamguard.events.event import Withheld
from streamguard.records.record import Record
from streamguard.testing.clock import ManualClock
from tests.unit.test_campaigns import NOON, incident, lone, spray, users_of


def record(value: Any, offset: int = 0, partition: int = 0, timestamp: int = -1) -> Record:
    return Record("alerts", partition, offset, timestamp, b"k", value)


def updates(incidents: list[Incident]) -> list[Update]:
    """Updates of incidents in the order of a topic."""
    found = [update_of(record(encode(one), offset)) for offset, one in enumerate(incidents)]
    assert all(isinstance(one, Update) for one in found)
    return [one for one in found if isinstance(one, Update)]


def window_of(found: list[Update], **limits: int) -> Window:
    window = Window(**limits)
    for one in found:
        window.add(one)
    return window


# The window


ADDED = st.lists(
    st.builds(
        Update,
        st.integers(0, 60),
        st.integers(0, 2),
        st.integers(0, 1000),
        st.sampled_from([b"", b"x" * 300, b"x" * 900]),
    ),
    max_size=40,
    unique_by=lambda one: (one.partition, one.offset),
)


@given(ADDED, st.integers(0, 1 << 16), st.integers(5, 80), st.integers(500, 20_000))
def test_window_depends_on_the_set_alone_whenever_it_is_trimmed(
    added: list[Update], seed: int, horizon: int, size: int
) -> None:
    draw, shuffled = random.Random(seed), list(added)
    draw.shuffle(shuffled)
    often = Window(horizon, size)
    for one in shuffled:
        often.add(one)
        if draw.random() < 0.4:
            often.updates()
    assert often.updates() == window_of(added, horizon_ms=horizon, max_bytes=size).updates()


@given(ADDED, st.integers(5, 80), st.integers(500, 20_000))
def test_window_is_the_newest_that_fit_within_the_horizon(
    added: list[Update], horizon: int, size: int
) -> None:
    kept = window_of(added, horizon_ms=horizon, max_bytes=size).updates()
    newest = sorted(added, key=lambda one: (one.at, one.partition, one.offset), reverse=True)
    assert list(kept) == newest[: len(kept)]
    assert sum(one.cost for one in kept) <= size
    assert all(one.at >= newest[0].at - horizon for one in kept)
    if len(kept) < len(newest):
        left_out = newest[len(kept)]
        assert left_out.at < newest[0].at - horizon or sum(one.cost for one in kept) + left_out.cost > size


def test_memory_is_bounded_while_records_arrive() -> None:
    window = Window(max_bytes=100_000)
    most = 0
    for offset in range(5000):
        window.add(Update(NOON + offset, 0, offset, b"x" * 600))
        most = max(most, len(window))
    assert most <= 1.25 * 100_000 / (600 + UPDATE_COST) + 1
    window.clear()
    assert window.updates() == ()


def test_time_of_the_far_future_moves_the_window_only_to_the_time_of_its_record() -> None:
    forged = msgspec.structs.replace(lone("eve", NOON), last_seen="2999-01-01T00:00:00.000Z")
    one = update_of(record(encode(forged), timestamp=NOON))
    assert isinstance(one, Update)
    assert one.at == NOON + 600_000
    late = update_of(record(encode(lone("ann", NOON - DAY)), timestamp=NOON))
    assert isinstance(late, Update)
    assert late.at == NOON - DAY


# Records


@pytest.mark.parametrize(
    ("value", "reason"),
    [
        (None, "empty"),
        (b"", "not_an_incident"),
        (b"\xff", "not_an_incident"),
        (b"[" * 100_000, "not_an_incident"),
        (b"x" * 1_048_589, "too_large"),
        (Withheld("unreadable_batch", "why", b"", 1, "", 3, 9), "unreadable_batch"),
        (Withheld("too_large", "why", b"", 1, "", 3, 3), "too_large"),
        ({"schema_version": 3}, "unknown_version"),
        ({"schema_version": 0}, "unknown_version"),
        ({"id": ""}, "out_of_bounds"),
        ({"id": "x" * (MAX_TEXT + 1)}, "out_of_bounds"),
        ({"first_seen": "2025-99-99T00:00:00Z"}, "out_of_bounds"),
        ({"count": 1 << 50}, "out_of_bounds"),
        ({"evidence_bits": 1e300}, "out_of_bounds"),
        ({"reasons": lone("ann", NOON).reasons * (MAX_ENTRIES + 1)}, "out_of_bounds"),
    ],
)  # fmt: skip
def test_record_that_is_no_incident_is_named(value: Any, reason: str) -> None:
    if isinstance(value, dict):
        value = encode(msgspec.structs.replace(lone("ann", NOON), **value))
    assert update_of(record(value)) == reason
    assert reason in REASONS


def test_incident_from_which_no_campaign_can_be_computed_is_passed_over(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def fails(_: Any) -> Any:
        raise ZeroDivisionError

    monkeypatch.setattr("streamguard.agents.campaigns.incidents.campaigns", fails)
    assert update_of(record(encode(lone("ann", NOON)))) == "not_computable"
    assert "ZeroDivisionError" in caplog.text


# The projection


def test_projection_is_campaigns_and_decisions_of_all_updates() -> None:
    made = [*spray(NOON, users_of(10), entered="user-003"), lone("ann", NOON + HOUR)]
    found = project(window_of(updates(made)).updates())
    rows = campaigns(made)
    decisions = decide(rows)
    assert {key: decode_record(value) for key, value in found.records.items()} == {
        row.id: decode_record(found.records[row.id]) for row in rows
    }
    for row in rows:
        one = decode_record(found.records[row.id])
        assert (one.campaign, one.decision) == (row, decisions[row.id])
    assert found.raised_last_day == sum(found.raised.values()) == sum(d.raised for d in decisions.values())
    assert project(()).records == {}


def random_incidents(draw: random.Random, days: int, count: int) -> list[Incident]:
    """Incidents over many days, in which rounds of an agent depend on how usual the agent is among all others."""
    made: list[Incident] = []
    for _ in range(count):
        at = NOON + draw.randrange(days * DAY)
        agent = draw.choice(("tool-a", "tool-b", "Firefox"))
        if draw.random() < 0.4:
            made += spray(at, [f"u{draw.randrange(40)}" for _ in range(draw.randrange(2, 6))], agent)
        else:
            made.append(
                lone(f"u{draw.randrange(40)}", at, draw.choice(("resource", "host", "source")), agent=agent)
            )
    return made


@given(st.integers(0, 1 << 32), st.integers(1, 60))
def test_rounds_over_arriving_updates_end_with_what_one_computation_gives(seed: int, days: int) -> None:
    """Whatever the order and the cuts: publishing the differences of each round leads to the same topic."""
    draw = random.Random(seed)
    found = updates(random_incidents(draw, days, 25))
    at_once = project(window_of(found).updates()).records
    draw.shuffle(found)
    window, topic = Window(), dict[str, bytes]()
    while found:
        size = draw.randrange(1, 30)
        part, found = found[:size], found[size:]
        for one in part:
            window.add(one)
        if draw.random() < 0.2:
            window = window_of(list(window.updates()))  # as after a restart, if Kafka kept only these
        for key, value in differences(topic, project(window.updates()).records):
            if value is None:
                del topic[key]
            else:
                topic[key] = value
    assert topic == at_once


def test_campaign_of_the_past_changes_when_its_agent_becomes_usual_so_none_is_frozen() -> None:
    """The rule of rounds compares with all other incidents, so later ones separate rounds that were joined."""
    usual = [lone(f"quiet-{k}", NOON - 2 * DAY + k * HOUR, agent=f"agent {k % 3}") for k in range(40)]
    first = spray(NOON, users_of(10), "tool")
    second = spray(NOON + 5 * HOUR, [f"late-{user}" for user in users_of(10)], "tool")
    early = project(window_of(updates([*usual, *first, *second])).updates()).records
    later = [lone(f"new-{k}", NOON + 10 * DAY + k * HOUR, agent="tool") for k in range(20)]
    late = project(window_of(updates([*usual, *first, *second, *later])).updates()).records
    assert second[0].id not in early
    assert second[0].id in late
    assert 10 * DAY > OPEN_MS


def test_campaign_is_retired_before_its_first_incident_is_dropped() -> None:
    old = spray(NOON, users_of(5))
    recent = [lone("ann", NOON + RETIRED_MS), lone("bob", NOON + RETIRED_MS + 10 * 60_000)]
    assert old[0].id in project(window_of(updates([*old, recent[0]])).updates()).records
    found = window_of(updates([*old, *recent])).updates()
    assert len(found) == len(old) + 2, "the incidents still count, so that their campaign keeps its id"
    assert old[0].id not in project(found).records
    assert HORIZON_MS - RETIRED_MS >= 7 * DAY


def test_limits_state_what_they_promise() -> None:
    assert window_module.MAX_BYTES <= 256 << 20
    assert decode(encode(lone("ann", NOON))).last_seen == rfc3339(NOON)


# Rounds and readiness


def test_rounds_take_at_most_a_quarter_of_the_time() -> None:
    clock = ManualClock()
    rounds = Rounds(1.0, clock)
    busy, elapsed = 0.0, 0.0
    for seconds in (0.1, 7.0, 20.0, 0.1, 3.0):
        rounds.changed()
        while not rounds.due():
            clock.advance(0.1)
            elapsed += 0.1
        rounds.begin()
        clock.advance(seconds)
        assert rounds.end() == pytest.approx(seconds)
        busy += seconds
        elapsed += seconds
    clock.advance(PAUSE_PER_ROUND * 3.0)
    assert busy / (elapsed + PAUSE_PER_ROUND * 3.0) <= 0.26


def test_what_arrives_during_a_round_waits_for_the_next_one() -> None:
    clock = ManualClock()
    rounds = Rounds(1.0, clock)
    rounds.changed()
    clock.advance(2.0)
    rounds.begin()
    assert rounds.waiting_seconds() == 2.0, "what the round contains is not published yet"
    rounds.changed()
    clock.advance(1.0)
    rounds.end()
    assert rounds.waiting_seconds() == 1.0
    assert not rounds.due()
    clock.advance(3.0)
    assert rounds.due()


def test_process_is_ready_from_its_first_round_on_unless_a_round_hangs() -> None:
    clock = ManualClock()
    rounds = Rounds(1.0, clock)
    progress = CampaignsProgress(rounds, clock)

    def reason() -> object:
        return (progress.not_ready() or {}).get("reason")

    def passes(seconds: float) -> None:
        clock.advance(seconds)
        progress.beat()
        progress.broker_answered()

    assert reason() == "reading"
    progress.reading(None)
    assert reason() is None
    rounds.changed()
    passes(STALL_SECONDS)
    assert reason() is None
    passes(1.0)
    assert reason() == "stalled"
    rounds.begin()
    rounds.end()
    assert reason() is None
    rounds.changed()
    rounds.begin()
    passes(20.0)
    rounds.end()
    rounds.changed()
    passes(STALL_ROUNDS * 20.0 - 1)
    assert reason() is None, "a long round needs long pauses"
    clock.advance(SILENT_SECONDS + 1)
    progress.beat()
    assert reason() == "no_broker"
    clock.advance(BEAT_SECONDS + 1)
    assert reason() == "hangs"


def test_question_to_a_broker_that_is_answered_while_it_is_cancelled_ends() -> None:
    """The process reads the topic again when this task has ended; a swallowed cancellation would stop it for ever."""

    async def cancelled() -> bool:
        answer: asyncio.Future[bool] = asyncio.get_running_loop().create_future()
        log = TopicLog.__new__(TopicLog)
        client = SimpleNamespace(force_metadata_update=lambda: answer)
        log._consumer = SimpleNamespace(_client=client)
        asking = asyncio.ensure_future(log.reaches_broker())
        await asyncio.sleep(0)
        answer.set_result(True)
        asking.cancel()
        await asyncio.wait([asking])
        return asking.cancelled()

    assert asyncio.run(cancelled())


def test_forgotten_user_is_neither_a_member_nor_a_participant_of_any_campaign() -> None:
    tried = ["ann", "bob", "cem"]
    made = [
        *spray(NOON, tried, entered="ann"),
        *(incident(who, NOON + 60_000, {"source": 9.0}, kind="source", status="success") for who in tried),
    ]
    own = {k for k, one in enumerate(made) if one.entity.value == "ann"}
    updates = [Update(NOON, 0, k, encode(one)) for k, one in enumerate(made)]
    salt = forgotten.salt_of(())
    everything = Forgotten(
        version=1, at=rfc3339(NOON), topic_id="id", ends=(len(made),), salt=salt,
        digest=forgotten.digest_of("ann", salt),
    )  # fmt: skip

    def campaigns(*records: Forgotten) -> list[Campaign]:
        found = project(updates, forgotten=ForgottenUsers(records)).records
        return [decode_record(value).campaign for value in found.values()]

    def names(found: list[Campaign]) -> set[str]:
        return {name for one in found for name in (*one.tried, *one.entered)}

    assert names(campaigns()) == set(tried)
    left = campaigns(everything)
    assert names(left) == {"bob", "cem"}
    assert {id for one in left for id in one.incidents} == {
        one.id for k, one in enumerate(made) if k not in own
    }
    assert sum(one.users for one in left) == sum(len(one.tried) for one in left)
    without_own = [one for k, one in enumerate(updates) if k not in own]
    assert [one.incidents for one in left] == [
        decode_record(value).campaign.incidents for value in project(without_own).records.values()
    ], "the campaigns are those of the other incidents"
    # What was published after the record counts: here the last incident but two, of the address, and its participant.
    earlier = msgspec.structs.replace(everything, ends=(len(made) - 3,))
    assert names(campaigns(earlier)) == set(tried)
    assert campaigns(msgspec.structs.replace(everything, ends=(0,))) == campaigns()
