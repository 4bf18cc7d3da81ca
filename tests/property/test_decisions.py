"""Decisions in the fold: the oracle agrees, and neither chunks, evictions nor crashes change a bit."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import msgspec
import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from streamguard.events.columns import TEXTS, columns
from streamguard.events.decision import FIELDS, Decision
from streamguard.events.event import Value
from streamguard.events.hashing import hash_texts
from streamguard.fold.decisions import DECISION
from streamguard.fold.patterns import PATTERNS
from streamguard.settings.schema import Detection
from streamguard.state.decisions import DECISIONS_KEY, id_hash
from tests.property.test_fold import CLOSE, assert_same_population, assert_same_profile
from tests.reference import Decided, Reference
from tests.streams import DAY, START, Partition, runs

USERS = ("user0", "user1", "user2", "user3")
CONFIRMED = [pattern.name for pattern in PATTERNS].index("confirmed_before")


def decision(number: int, kind: str, **fields: Any) -> Decision:
    return Decision(version=1, id=f"0-{number:024x}", decision=kind, **fields)  # type: ignore[arg-type]


@st.composite
def decided_runs(draw: Callable[..., Any], max_runs: int = 8) -> list[Value]:
    """Runs of events with decisions between them, about values that the events have; some are repeated or revoked."""
    values: list[Value] = list(draw(runs(max_runs=max_runs)))
    parsed = [msgspec.json.decode(value) for value in values if isinstance(value, bytes)]
    seen = {
        "source": sorted({one["source_ip"] for one in parsed})[:12],
        "location": ["DE-Berlin", "US-Ohio"],
        "host": ["laptop", "server"],
        "agent": ["curl", "firefox"],
        "resource": ["password", "/srv/a", "a.example"],
        "action": ["auth_attempt", "auth_attempt (failed)", "file_access read", "dns_query"],
        "command": ["whoami"],
    }
    for _ in range(draw(st.integers(1, 8))):
        number, at = draw(st.integers(0, 4)), draw(st.integers(0, len(values)))
        kind = draw(st.sampled_from(["expected", "expected", "attack", "attack", "revoke"]))
        if kind == "revoke":
            made = decision(100 + number, kind, revokes=f"0-{number:024x}")
        else:
            field = draw(st.sampled_from(list(FIELDS)))
            until = START + draw(st.sampled_from([1, 40_500, 5 * DAY, 900 * DAY]))
            made = decision(
                number,
                kind,
                user=USERS[number % 4],
                field=field,
                value=draw(st.sampled_from(seen[field])),
                until=until if kind == "expected" else 0,
            )
        values.insert(at, made)
    return values


def of_reference(one: Decision) -> Decided:
    """A decision as the oracle knows it."""
    if one.field is None:
        return Decided(one.revokes, "revoke")
    texts = [""] * len(TEXTS)
    texts[FIELDS[one.field]] = one.value
    value = int(hash_texts(texts, len(TEXTS))[0][0, FIELDS[one.field]])
    return Decided(one.id, one.decision, int(hash_texts([one.user], 1)[0][0, 0]), one.field, value, one.until)


def assert_reference_agrees(values: Sequence[Value], chunk: int) -> int:
    """Fold the values compiled and plain; compare results and state; return the patterns found."""
    detection = Detection(alert_risk=50.0)
    partition, reference = Partition(detection=detection), Reference(detection)
    patterns = 0
    for number, folded in enumerate(partition.chunks(values, chunk=chunk)):  # type: ignore[arg-type]
        c = columns(folded.events)
        users = hash_texts(c.users, 1)[0][:, 0].tolist()
        places = {record: i for i, record in enumerate(folded.index)}
        done = []
        for k, value in enumerate(values[number * chunk : (number + 1) * chunk]):
            if isinstance(value, Decision):
                reference.decide(of_reference(value), value.user)
            elif k in places:
                done.append(reference._event(c, places[k], users[places[k]], number * chunk + k, 0))
        assert all(one is not None for one in done)
        if done:
            for name in ("features", "raw", "excess", "score", "tail"):
                expected = [getattr(one, name) for one in done]
                np.testing.assert_allclose(getattr(folded, name), expected, **CLOSE, err_msg=name)
            assert folded.patterns.tolist() == [one.patterns for one in done if one]
            assert folded.kind.tolist() == [one.kind for one in done if one]
            np.testing.assert_allclose(folded.evidence, [one.strength for one in done if one], **CLOSE)
        patterns |= int(np.bitwise_or.reduce(folded.patterns)) if folded.count else 0
    partition.save()
    for user, profile in reference.profiles.items():
        assert_same_profile(partition.profile(user), profile)
    assert_same_population(partition, reference)
    stored = np.frombuffer(partition.saved.get(DECISIONS_KEY, b"\x01"), DECISION, offset=1)
    assert set(stored["id"].tolist()) == {id_hash(name) for name in reference.decisions}
    keys = list(zip(stored["user"].tolist(), stored["id"].tolist(), strict=True))
    assert keys == sorted(keys)
    return patterns


@settings(max_examples=60)
@given(decided_runs(), st.sampled_from([3, 500]))
def test_reference_equals_kernel_with_decisions(values: list[Value], chunk: int) -> None:
    assert_reference_agrees(values, chunk)


@given(decided_runs())
def test_state_and_incidents_do_not_depend_on_chunks(values: list[Any]) -> None:
    lone, few, whole = Partition(), Partition(), Partition()
    incidents = whole.run(values, chunk=500)
    assert lone.run(values, chunk=1) == incidents
    assert few.run(values, chunk=7) == incidents
    assert lone.saved == few.saved == whole.saved


@given(decided_runs(), st.integers(1, 3))
def test_evicted_profiles_are_restored_unchanged(values: list[Any], save_every: int) -> None:
    large, small = Partition(), Partition(resident=32)
    incidents = large.run(values)
    assert small.run(values, chunk=5, save_every=save_every) == incidents
    assert small.saved == large.saved


@given(decided_runs(), st.data())
def test_refolding_from_any_checkpoint_gives_the_same_bytes(values: list[Any], data: st.DataObject) -> None:
    whole = Partition()
    incidents = whole.run(values)
    cut = data.draw(st.integers(1, len(values)), "checkpoint at")
    crash = data.draw(st.integers(cut, len(values)), "crash at")
    before = Partition()
    first = before.run(values[:cut], chunk=7)
    before.state.fold(values[cut:crash], np.arange(cut, crash))  # lost in the crash
    after = Partition(dict(before.saved))
    assert first + after.run(values, chunk=7, start=cut) == incidents
    assert after.saved == whole.saved
