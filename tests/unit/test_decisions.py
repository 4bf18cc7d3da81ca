"""What a decision does: to the score, to what is learned, to the stored state; and how it is signed."""

from __future__ import annotations

from typing import Any

import msgspec
import numpy as np
import pytest

from streamguard.decisions.signing import HEADER, Binding, values_of
from streamguard.events.decision import MAX_BODY_BYTES, Decision, DecisionError, decoded
from streamguard.events.event import Withheld, parse
from streamguard.fold import decisions as layout
from streamguard.fold.components import COMPONENTS
from streamguard.fold.decisions import CAPACITY, Outcome
from streamguard.fold.dimensions import VERSION
from streamguard.fold.patterns import PATTERNS
from streamguard.records.record import Record
from streamguard.state.codec import StateError
from streamguard.state.decisions import DECISIONS_KEY, LAYOUT_FLAG, without
from streamguard.state.partition import META
from tests.streams import DAY, HOUR, MINUTE, START, Partition, event, habit

NEW = "203.0.113.9"
SOURCE = COMPONENTS.index("source")
CONFIRMED = 1 << [pattern.name for pattern in PATTERNS].index("confirmed_before")
TRAVEL = 1 << [pattern.name for pattern in PATTERNS].index("impossible_travel")
BEFORE = habit(2000)
NOW = START + 2000 * 20_000


def decision(number: int, kind: str, **fields: Any) -> Decision:
    return Decision(version=1, id=f"0-{number:024x}", decision=kind, **fields)  # type: ignore[arg-type]


def expected(number: int = 1, field: str = "source", value: str = NEW, until: int = NOW + DAY) -> Decision:
    return decision(number, "expected", user="user3", field=field, value=value, until=until)


def attack(number: int = 2, field: str = "source", value: str = NEW) -> Decision:
    return decision(number, "attack", user="user3", field=field, value=value)


def login(at: int = NOW, source: str = NEW, place: str = "DE-Berlin", user: str = "user3") -> bytes:
    details = {"geo_location": place, "hostname": "laptop-3"}
    return event(at, user, source_ip=source, status="success", metadata=details)


def folded(*values: Any) -> tuple[Partition, Any]:
    """A partition after its habits and these values, and the result of the values."""
    partition = Partition()
    partition.run(BEFORE)
    out = partition.state.fold(list(values), np.arange(len(BEFORE), len(BEFORE) + len(values)))
    partition.save()
    return partition, out


def test_expected_value_has_the_bits_that_are_typical_of_the_user() -> None:
    partition = Partition()
    partition.run(BEFORE)
    typical = float(partition.profile("user3")["typical"][SOURCE])
    _, without_one = folded(login())
    _, with_one = folded(expected(), login())
    assert without_one.raw[0, SOURCE] > 8
    assert with_one.raw[0, SOURCE] == pytest.approx(typical, rel=1e-6)
    assert with_one.score[0] < without_one.score[0] - 5
    assert with_one.decided[0].outcome == Outcome.APPLIED


def test_expected_value_becomes_a_habit_through_use_and_stays_one_after_the_end() -> None:
    uses = [login(NOW + k * MINUTE) for k in range(40)]
    after = login(NOW + 2 * DAY)
    _, out = folded(expected(), *uses, after)
    _, never = folded(after)
    assert out.raw[40, SOURCE] < never.raw[0, SOURCE] - 4
    assert not out.kind[:40].any()


def test_expectation_holds_for_one_user_one_value_and_until_its_end() -> None:
    _, others = folded(expected(), login(user="user4"), login(source="203.0.113.10"))
    _, plain = folded(login(user="user4"), login(source="203.0.113.10"))
    np.testing.assert_array_equal(others.raw, plain.raw)
    _, late = folded(expected(until=NOW), login())
    _, none = folded(login())
    np.testing.assert_array_equal(late.raw, none.raw)


@pytest.mark.parametrize(("field", "value"), [("source", NEW), ("location", "US-Ohio")])
def test_travel_to_an_expected_place_is_no_pattern(field: str, value: str) -> None:
    home, away = login(NOW, source="10.3.0.1"), login(NOW + MINUTE, place="US-Ohio")
    _, without_one = folded(home, away)
    _, with_one = folded(expected(field=field, value=value), home, away)
    _, other = folded(expected(field="host", value="laptop-3"), home, away)
    assert without_one.patterns[1] & TRAVEL
    assert not with_one.patterns[1] & TRAVEL
    assert other.patterns[1] & TRAVEL


def test_denied_value_is_confirmed_before_and_teaches_the_profile_nothing() -> None:
    first, out = folded(attack(), login(), login(NOW + 2 * DAY), login(NOW + 4 * DAY), login(NOW + 6 * DAY))
    assert (out.patterns & CONFIRMED).all()
    assert (out.evidence - out.tail >= 10.0).all()  # it never becomes a habit
    assert (out.kind != 0).all()
    reasons = out.incidents[0].incident.reasons
    shown = [(r.actual, r.typical) for r in reasons if r.feature == "confirmed_before"]
    assert shown == [(f"source {NEW}", "a person has decided that this is part of an attack")]
    unchanged, _ = folded(attack())
    now, before = first.profile("user3"), unchanged.profile("user3")
    assert now["learned"] < before["learned"] + 1e-9
    for name in ("sketch_hash", "typical", "mean"):
        np.testing.assert_array_equal(now[name], before[name], err_msg=name)


def test_denied_value_leaves_the_sketch_if_it_is_rare_and_stays_if_it_is_usual() -> None:
    rare, _ = folded(login())
    held = rare.profile("user3")["sketch_hash"][0].copy()
    after, _ = folded(login(), attack())
    removed = set(held.tolist()) - set(after.profile("user3")["sketch_hash"][0].tolist())
    assert len(removed) == 1
    profile = after.profile("user3")
    assert profile["sketch_total"][0] == pytest.approx(profile["sketch_weight"][0].sum())
    plain, _ = folded()
    usual, _ = folded(attack(value="10.3.0.1"))
    np.testing.assert_array_equal(
        usual.profile("user3")["sketch_hash"], plain.profile("user3")["sketch_hash"]
    )


def test_first_event_of_a_user_may_have_a_denied_value() -> None:
    denial = decision(3, "attack", user="nobody-yet", field="source", value=NEW)
    partition, out = folded(denial)
    assert b"unobody-yet" not in partition.saved
    partition, out = folded(
        denial, login(user="nobody-yet"), login(NOW + HOUR, "10.9.9.9", user="nobody-yet")
    )
    assert out.patterns[0] & CONFIRMED and not out.patterns[1] & CONFIRMED
    profile = partition.profile("nobody-yet")
    assert profile["events"] == 2
    assert all(np.isfinite(profile[name]).all() for name in ("typical", "mean", "variance", "learned"))


def test_denial_outweighs_an_expectation_and_a_revocation_ends_each() -> None:
    revoke = decision(9, "revoke", revokes=attack().id)
    _, both = folded(expected(), attack(), login())
    _, after = folded(expected(), attack(), revoke, login())
    _, only = folded(expected(), login())
    assert both.patterns[0] & CONFIRMED and both.raw[0, SOURCE] > 8
    np.testing.assert_array_equal(after.raw, only.raw)
    _, again = folded(expected(), expected(), revoke, login())
    assert [one.outcome for one in again.decided] == [Outcome.APPLIED, Outcome.REPEATED, Outcome.UNKNOWN]


def test_full_partition_refuses_a_decision_unless_an_expectation_has_ended() -> None:
    many = [expected(k, value=f"10.77.{k // 256}.{k % 256}") for k in range(CAPACITY)]
    _, out = folded(*many, expected(CAPACITY), login())
    assert [r.reason for r in out.refused] == ["decisions_full"]
    assert out.refused[0].index == CAPACITY and out.raw[0, SOURCE] > 8
    many[7] = expected(7, value="10.77.0.7", until=NOW - HOUR)
    _, out = folded(*many, expected(CAPACITY), login())
    assert not out.refused and out.raw[0, SOURCE] < 8


def test_state_with_decisions_states_another_layout_and_without_any_the_usual_one() -> None:
    partition, _ = folded(expected())
    assert META.unpack_from(partition.saved[b"m"])[0] == VERSION | LAYOUT_FLAG
    assert len(partition.saved[DECISIONS_KEY]) == 1 + layout.DECISION.itemsize
    assert layout.DECISION.itemsize == 32
    partition.state.fold([decision(9, "revoke", revokes=expected().id)], np.array([9000]))
    partition.save()
    assert META.unpack_from(partition.saved[b"m"])[0] == VERSION
    plain, _ = folded(login())
    assert DECISIONS_KEY not in plain.saved
    with pytest.raises(StateError, match="the decisions of partition 0"):
        Partition({**partition.saved, DECISIONS_KEY: b"\x02"})


def test_decisions_about_a_user_are_removed_from_a_stored_value() -> None:
    other = decision(5, "attack", user="user4", field="host", value="x")
    partition, _ = folded(expected(), other, attack())
    stored, key = partition.saved[DECISIONS_KEY], partition.state.hash_key
    kept = without(stored, "user3", key)
    assert kept is not None and len(kept) == 1 + layout.DECISION.itemsize
    assert without(kept, "user3", key) is None
    assert without(kept, "user4", key) == b"\x01"


BINDING = Binding("security-events", "topic-id", b"k" * 32)


def record(made: Decision, binding: Binding = BINDING, partition: int = 0, **changes: Any) -> Record:
    body = made.encoded()
    headers = [("trace", b"1"), (HEADER, binding.header(made, partition, body))]
    fields = {"topic": "security-events", "partition": partition, "offset": 7, "timestamp": 1, "key": None}
    return Record(**{**fields, "value": body, "headers": headers, **changes})


def test_signed_decision_is_read_and_other_records_are_unchanged() -> None:
    plain = Record("security-events", 0, 8, 1, None, login(), [("trace", b"1")])
    assert values_of([record(expected()), plain], BINDING) == [expected(), plain.value]
    assert parse(values_of([record(expected())], BINDING)) == ([], [], [], [])


@pytest.mark.parametrize(
    ("refused", "reason", "words"),
    [
        (record(expected(), Binding("security-events", "topic-id", b"x" * 32)), "unsigned_decision", "signature"),
        (record(expected(), Binding("security-events", "other", b"k" * 32)), "unsigned_decision", "signature"),
        (record(expected(), Binding("others", "topic-id", b"k" * 32)), "unsigned_decision", "signature"),
        (record(expected(), value=attack().encoded()), "unsigned_decision", "signature"),
        (record(expected(), headers=[(HEADER, None)]), "unsigned_decision", "signature"),
        (record(expected(), headers=[(HEADER, b"\xff" * 500)]), "unsigned_decision", "signature"),
        (record(expected(), value=None), "unsigned_decision", "signature"),
        (record(expected(), value=b"x" * (MAX_BODY_BYTES + 1)), "bad_decision", "bytes"),
        (record(expected(), partition=3), "bad_decision", "signed id"),
    ],
)  # fmt: skip
def test_record_without_a_valid_signature_is_refused(refused: Record, reason: str, words: str) -> None:
    (value,) = values_of([refused], BINDING)
    assert isinstance(value, Withheld)
    (refusal,) = parse([value]).refused
    assert (refusal.reason, refusal.count) == (reason, 1)
    assert words in refusal.detail


def test_worker_without_a_key_refuses_and_names_the_setting() -> None:
    (value,) = values_of([record(expected())], Binding("security-events", "topic-id", None))
    assert isinstance(value, Withheld) and "models.key_file" in value.detail


def test_older_worker_refuses_a_control_record() -> None:
    assert parse([expected().encoded()]).refused[0].reason == "missing_field"


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"until": 0}, "needs `until`"),
        ({"decision": "attack"}, "no other decision"),
        ({"value": ""}, "needs `user`, `field` and `value`"),
        ({"field": "password"}, "Invalid enum value"),
        ({"id": "x"}, "matching regex"),
        ({"version": 2}, "Invalid enum value 2"),
        ({"timestamp": 1}, "unknown field"),
        ({"revokes": "0-" + "0" * 24}, "only a revocation"),
    ],
)
def test_malformed_decision_is_refused(changes: dict[str, Any], words: str) -> None:
    body = {**msgspec.to_builtins(expected()), **changes}
    with pytest.raises(DecisionError, match=words):
        decoded(msgspec.json.encode(body))


@pytest.mark.parametrize(
    ("fields", "words"),
    [({}, "needs `revokes`"), ({"revokes": "1-" + "0" * 24}, "partition"), ({"user": "a"}, "needs|neither")],
)
def test_malformed_revocation_is_refused(fields: dict[str, Any], words: str) -> None:
    with pytest.raises(DecisionError, match=words):
        decoded(decision(1, "revoke", **fields).encoded())
