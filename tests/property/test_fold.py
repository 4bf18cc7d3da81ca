"""The compiled fold compared with the plain-Python reference, and with itself: cut, saved, evicted, refolded."""

from __future__ import annotations

from itertools import islice

import msgspec
import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from streamguard.events.ceiling import UNKNOWN
from streamguard.events.columns import columns
from streamguard.events.hashing import hash_texts
from streamguard.events.subject import profile_key
from streamguard.fold import components
from streamguard.fold import dimensions as layout
from streamguard.fold import population as crowd
from streamguard.fold.patterns import PATTERNS
from streamguard.settings.schema import Detection
from streamguard.simulate import SCENARIOS, Simulation
from streamguard.state.codec import pack, unpack
from tests.reference import Incident, Profile, Reference
from tests.streams import DAY, HOUR, START, Partition, event, habit, runs

CLOSE = {"rtol": 1e-6, "atol": 1e-6}


@pytest.fixture(scope="session")
def company() -> list[bytes]:
    """A day of a simulated company under every attack, with twenty single records of other kinds in between."""
    simulation = Simulation(
        users=14, seed=5, duration_ms=DAY, events_per_day=120, scenarios=sorted(SCENARIOS)
    )
    values = [e.value for e in islice(iter(simulation), 4000)]
    for k in range(20):
        values.insert(150 * k, [b"?", event(START + k * HOUR, None, source_ip="9.9.9.9")][k % 2])
    assert len(values) > 1500
    return values


UNUSED = layout.PATTERN_SLOTS - len(PATTERNS)
"""Patterns that a profile has room for and that do not exist yet."""


def assert_same(
    values: list[bytes], detection: Detection, chunk: int = 500, append_ms: np.ndarray | None = None
) -> tuple[int, int]:
    """Fold the values twice, compiled and plain, and compare all results and the saved state.

    Returns
    -------
    alerts, patterns
        Number of alerts, and the patterns found as a bit set.
    """
    partition, reference = Partition(detection=detection), Reference(detection)
    times = np.full(len(values), UNKNOWN) if append_ms is None else append_ms
    alerts = patterns = 0
    for number, folded in enumerate(partition.chunks(values, chunk=chunk, append_ms=append_ms)):
        c = columns(folded.events)
        offsets = [number * chunk + i for i in folded.index]
        users = hash_texts(c.users, 1)[0][:, 0].tolist()
        expected = reference.fold(c, users, offsets, times[offsets].tolist())
        done = [o for o in expected if o is not None]
        assert len(done) == folded.count
        if not done:
            continue
        for name in ("features", "raw", "excess", "score", "tail"):
            np.testing.assert_allclose(
                getattr(folded, name), [getattr(o, name) for o in done], **CLOSE, err_msg=name
            )
        np.testing.assert_allclose(folded.evidence, [o.strength for o in done], **CLOSE)
        assert folded.patterns.tolist() == [o.patterns for o in done]
        assert folded.kind.tolist() == [o.kind for o in done]
        for i, outcome in enumerate(done):
            if outcome.incident is not None:
                np.testing.assert_allclose(folded.incident[i].tolist(), outcome.incident, **CLOSE)
                alerts += 1
            patterns |= outcome.patterns
    partition.save()
    for user, profile in reference.profiles.items():
        if reference.forgets(profile):
            assert profile_key(user) not in partition.saved
            continue
        assert_same_profile(partition.profile(user), profile)
    assert_same_population(partition, reference)
    return alerts, patterns


def assert_same_profile(kept: np.void, s: Profile) -> None:
    exact = {
        "version": layout.VERSION, "last_offset": s.offset, "first_ts": s.first, "last_ts": s.last,
        "active_ms": s.active, "first_active_ms": s.first_active,
        "streak": s.streak, "last_failure_ts": s.last_failure, "last_day": s.last_day,
        "last_hour": s.last_hour, "last_area": s.last_area, "last_area_ts": s.last_area_ts,
        "last_type": s.last_type, "pattern_last_day": s.pattern_last_day + [0] * UNUSED,
        "unheard_ts": s.unheard_ts, "tried_incident": s.tried_incident, "entered_incident": s.entered_incident,
        "dns_domain": [s.names[q][0] if q in s.names else 0 for q in range(layout.DNS_SLOTS)],
        "dns_names": [bitmap(s.names[q][1]) if q in s.names else 0 for q in range(layout.DNS_SLOTS + 1)],
        "dns_ts": [s.names[q][2] if q in s.names else 0 for q in range(layout.DNS_SLOTS + 1)],
        "sketch_proven": [bitmap(k.proven) for k in s.sketches.values()],
    }  # fmt: skip
    for name, value in exact.items():
        np.testing.assert_array_equal(kept[name], np.array(value, kept[name].dtype), err_msg=name)
    close = {
        "events": s.events, "active_days": s.active_days, "count": s.count, "failures": s.failures,
        "volume": s.volume, "reads": s.reads, "changes": s.changes, "encrypted": s.encrypted,
        "aged_events": s.aged_events, "unheard": s.unheard,
        "learned": s.learned, "learned_failures": s.learned_failures,
        "hour_weight": s.hour_weight, "hours": s.hours, "hours_total": s.hours_total, "typical": s.typical,
        "moments": [m.weight for m in (s.interval, s.bytes, s.threat)],
        "mean": [m.mean for m in (s.interval, s.bytes, s.threat)],
        "variance": [m.variance for m in (s.interval, s.bytes, s.threat)],
        "pattern_days": s.pattern_days + [0.0] * UNUSED,
        "seen": [k.seen for k in s.sketches.values()],
        "unheard_of": [k.unheard_of for k in s.sketches.values()],
        "sketch_total": [k.total for k in s.sketches.values()], "novel": [k.novel for k in s.sketches.values()],
        "sketch_weight": [k.weights for k in s.sketches.values()],
        "suspicion": s.sketches["source"].suspicion,
    }  # fmt: skip
    for name, value in close.items():
        np.testing.assert_allclose(kept[name], value, **CLOSE, err_msg=name)
    assert kept["sketch_hash"].tolist() == [k.hashes for k in s.sketches.values()]
    assert kept["suspicion_ts"].tolist() == s.sketches["source"].suspicion_ts
    assert_same_incident(kept, s.incident)


def assert_same_population(partition: Partition, reference: Reference) -> None:
    kept, p = partition.population, reference.crowd
    assert kept["clock"] == p.clock
    assert (kept["active_ms"], kept["aged_ms"]) == (p.active, p.aged)
    assert kept["active_debt"] == p.active - p.position
    assert (kept["leader"], kept["leader_events"], kept["leader_ms"]) == p.run
    assert (kept["ahead"], kept["behind"]) == (len(p.ahead), p.behind)
    close = {
        "events": p.events, "age": p.age_seconds, "fast": [p.fast[k] for k in crowd.CLASSES],
        "slow": [p.slow[k] for k in crowd.CLASSES], "fast_plain": p.fast["plain"], "slow_plain": p.slow["plain"],
        "failures": p.failures, "learned": p.learned, "field_total": p.total, "novel": p.novel,
        "novel_total": p.novel_total, "hours": p.hours, "hours_total": p.hours_total, "scores": p.scores,
        "scores_total": p.scores_total, "failed_users": p.failed_users, "aged_events": p.aged_events,
        "fast_stranger": p.strangers, "active": p.active_users[0], "active_week": p.active_users[1],
        "active_month": p.active_users[2], "returns": p.returns, "strange": p.strange, "recent": p.recent,
    }  # fmt: skip
    for name, value in close.items():
        np.testing.assert_allclose(kept[name], value, **CLOSE, err_msg=name)
    assert_same_incident(kept, p.incident)
    blank = pack(np.zeros(crowd.PAGE))
    table = np.concatenate(
        [
            unpack(partition.saved.get(b"f" + k.to_bytes(2, "big"), blank), np.dtype(np.float64), "page")
            for k in range(crowd.ROWS * crowd.WIDTH // crowd.PAGE)
        ]
    ).reshape(crowd.ROWS, crowd.WIDTH)
    expected = np.zeros_like(table)
    for cell, weight in p.table.items():
        expected[cell] = weight
    np.testing.assert_allclose(table, expected, **CLOSE)
    entries = [
        entry
        for k in range(crowd.SOURCES // crowd.SOURCES_PER_PAGE)
        if (page := partition.saved.get(b"s" + k.to_bytes(2, "big")))
        for entry in unpack(page, crowd.SOURCE_RECORD, "page")
        if entry["hash"]
    ]
    mine = {e.hash: e for ways in p.sources.values() for e in ways if e.hash}
    assert {int(e["hash"]) for e in entries} == set(mine)
    for entry in entries:
        e = mine[int(entry["hash"])]
        assert entry["last_ts"] == e.last
        np.testing.assert_allclose(entry["failures"], e.failures, **CLOSE)
        np.testing.assert_allclose(entry["successes"], e.successes, **CLOSE)
        assert cells(entry["users"]) == e.users
        assert cells(entry["welcome"]) == e.welcome
        assert_same_incident(entry, e.incident)
    adopted = [
        (int(entry["name"]), int(entry["last_ts"]), cells(entry["users"]))
        for k in range(crowd.ADOPTED // crowd.ADOPTED_PER_PAGE)
        if (page := partition.saved.get(b"v" + k.to_bytes(2, "big")))
        for entry in unpack(page, crowd.ADOPTED_RECORD, "page")
        if entry["name"]
    ]
    assert adopted == [(one.name, one.last, one.users) for _, one in sorted(p.adopted.items())]


def cells(words: np.ndarray) -> set[int]:
    """The bits that are set in a 256-bit bitmap."""
    return {64 * w + b for w in range(4) for b in range(64) if int(words[w]) >> b & 1}


def bitmap(places: set[int]) -> int:
    return sum(1 << place for place in places)


def assert_same_incident(kept: np.void, incident: Incident) -> None:
    assert kept["incident_offset"] == incident.offset
    if incident.offset >= 0:
        assert kept["incident_first_ts"] == incident.first
        assert kept["incident_last_ts"] == incident.last
        assert kept["incident_count"] == incident.count
        assert kept["incident_patterns"] == incident.patterns
        np.testing.assert_allclose(kept["incident_bits"], incident.bits, **CLOSE)


@settings(max_examples=60)
@given(runs(), st.sampled_from([50.0, 75.0]))
def test_reference_equals_kernel_on_generated_runs(values: list[bytes], risk: float) -> None:
    assert_same(values, Detection(alert_risk=risk))


@settings(max_examples=40)
@given(runs(), st.data())
def test_reference_equals_kernel_with_append_times(values: list[bytes], data: st.DataObject) -> None:
    """Records are appended hours before or after their events, or the broker's time is unknown."""
    hours = st.sampled_from([-48, -1, 0, 0, 0, 1, 7, 24 * 40])
    append = np.array([event_time(value) + data.draw(hours) * HOUR for value in values])
    append[data.draw(st.lists(st.integers(0, len(values) - 1), max_size=3))] = UNKNOWN
    assert_same(values, Detection(alert_risk=50.0), append_ms=append)


def event_time(value: bytes) -> int:
    return int(msgspec.json.decode(value)["timestamp"])


def test_reference_equals_kernel_on_a_company_under_attack(company: list[bytes]) -> None:
    alerts, patterns = assert_same(company, Detection(alert_risk=70.6))
    assert alerts > 50
    assert patterns.bit_count() >= 6


@given(runs(max_runs=8), st.integers(0, 2**31))
def test_state_and_incidents_do_not_depend_on_chunks(values: list[bytes], seed: int) -> None:
    lone, few, whole = Partition(), Partition(), Partition()
    incidents = whole.run(values, chunk=500)
    assert lone.run(values, chunk=1) == incidents
    assert few.run(values, chunk=7) == incidents
    assert lone.saved == few.saved == whole.saved


def test_state_and_incidents_of_a_company_do_not_depend_on_chunks(company: list[bytes]) -> None:
    detection = Detection(alert_risk=70.6)
    lone, few, whole = (Partition(detection=detection) for _ in range(3))
    incidents = whole.run(company, chunk=500)
    assert len(incidents) > 20
    assert few.run(company, chunk=7) == incidents
    assert lone.run(company, chunk=1) == incidents
    assert lone.saved == few.saved == whole.saved


@given(runs(max_runs=8), st.integers(1, 3))
def test_evicted_profiles_are_restored_unchanged(values: list[bytes], save_every: int) -> None:
    large, small = Partition(), Partition(resident=32)
    incidents = large.run(values)
    assert small.run(values, chunk=5, save_every=save_every) == incidents
    assert small.saved == large.saved
    assert small.state.resident <= 32


@given(runs(max_runs=8), st.data())
def test_refolding_from_any_checkpoint_gives_the_same_bytes(values: list[bytes], data: st.DataObject) -> None:
    whole = Partition()
    incidents = whole.run(values)
    cut = data.draw(st.integers(1, len(values)), "checkpoint at")
    crash = data.draw(st.integers(cut, len(values)), "crash at")
    before = Partition()
    first = before.run(values[:cut], chunk=7)
    before.state.fold(values[cut:crash], np.arange(cut, crash))  # lost in the crash
    after = Partition(dict(before.saved))
    assert after.state.next_offset == cut
    assert first + after.run(values, chunk=7, start=cut) == incidents
    assert after.saved == whole.saved


def test_refolding_a_company_from_a_checkpoint_gives_the_same_bytes(company: list[bytes]) -> None:
    whole = Partition()
    incidents = whole.run(company)
    before = Partition(resident=200)
    first = before.run(company[:1901], chunk=50, save_every=1)
    after = Partition(before.saved, resident=200)
    assert first + after.run(company, chunk=50, save_every=2, start=1901) == incidents
    assert after.saved == whole.saved


class Alarmist:
    """A forest that scores every row as highly anomalous."""

    version = "alarmist"
    weight = 1.0
    peers = None

    def bits(self, features: np.ndarray) -> np.ndarray:
        return np.full(len(features), 40.0)


@given(runs(max_runs=6))
@example(habit(300))
def test_state_does_not_depend_on_the_forest(values: list[bytes]) -> None:
    without, with_one = Partition(), Partition()
    plain = without.run(values)
    with_forest = with_one.run(values, forest=Alarmist())
    assert with_one.saved == without.saved
    assert [i["id"] for i in with_forest] == [i["id"] for i in plain]


@given(runs(max_runs=6))
def test_all_results_are_finite(values: list[bytes]) -> None:
    for folded in Partition().chunks(values):
        for name in ("features", "raw", "excess", "score", "tail", "evidence"):
            assert np.isfinite(getattr(folded, name)).all(), name
        assert (folded.excess >= 0).all()
        assert (folded.tail >= 0).all()


@given(st.permutations(range(6)))
def test_order_of_users_at_one_moment_does_not_change_their_profiles(order: list[int]) -> None:
    """A user's counters depend only on the user's own events, whichever other events come between."""
    start = habit(200, users=6)
    last = START + 200 * 20_000
    tail = [event(last, f"user{k}", source_ip=f"10.{k}.0.1", status="success") for k in range(6)]
    sorted_, shuffled = Partition(), Partition()
    sorted_.run(start + tail)
    shuffled.run(start + [tail[k] for k in order])
    for k in range(6):
        a, b = sorted_.profile(f"user{k}"), shuffled.profile(f"user{k}")
        for name in ("count", "failures", "volume", "last_ts", "streak", "sketch_hash", "hours"):
            np.testing.assert_array_equal(a[name], b[name], err_msg=name)
    for name in ("events", "fast", "slow", "hours", "field_total"):
        np.testing.assert_allclose(sorted_.population[name], shuffled.population[name])


def test_components_are_at_the_indices_of_the_kernel() -> None:
    assert components.COMPONENTS[
        components.FIRST_CROWD : components.FIRST_CROWD + len(crowd.CLASSES)
    ] == tuple(f"crowd_{name}" for name in crowd.CLASSES)
    assert components.COMPONENTS[components.SPREAD] == "source_spread"
    assert components.COMPONENTS[components.CARRIED] == "carried"
