"""Case actions: what a record may hold, which actions are in force, and what an incident is after them."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from streamguard.alerts.incident import Entity, Incident, Model, Origin, PatternMatch, Reason, rfc3339
from streamguard.fold.components import COMPONENTS
from streamguard.fold.grouping import RISE_BITS
from streamguard.fold.patterns import PATTERNS
from streamguard.serving.decisions.bulk import MAX_BULK_INCIDENTS, by_incident, split
from streamguard.serving.decisions.case import Case, Reopening, case_of
from streamguard.serving.decisions.codec import MAX_RECORD_BYTES, REASONS, RecordError, decode, encode
from streamguard.serving.decisions.ledger import REJECTIONS, Logged
from streamguard.serving.decisions.mute import BREACHES, MEASURED, MuteInForce, difference, muting, scope_of
from streamguard.serving.decisions.record import (
    KINDS,
    MAX_ID,
    MAX_INCIDENTS,
    MAX_TEXT,
    Target,
    kind_of,
    new_id,
)
from streamguard.serving.decisions.update import Update, UpdateReason
from streamguard.serving.decisions.writer import key_of
from tests.case_actions import (
    COMMAND,
    DAY,
    INCIDENT,
    NOW,
    SOURCE,
    START,
    WEAK,
    action,
    case,
    close,
    scope,
    update,
)

FIRST = update(1, 12.0, "living_off_the_land")
SAME = update(4, 13.0, "living_off_the_land")
RISEN = update(9, 12.0 + RISE_BITS, "living_off_the_land")
ATTACK = update(9, 12.5, "living_off_the_land", "credential_dumping")
EVERY_KIND = [
    action("acknowledge", "a", assignee="bea"),
    action("assign", "a", assignee=""),
    action("comment", "a", text="<b>=1+1</b>\n\u202e"),
    action("snooze", "a", until=rfc3339(START + 2 * DAY)),
    action("mute", "a", scope=scope()),
    close("a"),
    close("a", classification="duplicate", duplicate_of="other"),
    action("reopen", "a"),
    action("undo", "a", undoes="b"),
    action("unmask", "a", reason="a mail was sent", severity="high"),
    action("unmask_answer", "a", request="b", granted=True),
]


# Records


@pytest.mark.parametrize("made", EVERY_KIND, ids=kind_of)
def test_every_kind_is_read_as_it_was_written(made: Any) -> None:
    assert decode(encode(made)) == made
    assert msgspec.json.decode(encode(made))["kind"] == kind_of(made)


def test_every_kind_is_tested() -> None:
    assert {kind_of(one) for one in EVERY_KIND} == set(KINDS)


def changed(made: Any, **fields: Any) -> bytes:
    """The record of an action with other fields; None removes one."""
    body = msgspec.json.decode(encode(made)) | fields
    return msgspec.json.encode({name: value for name, value in body.items() if value is not None})


@pytest.mark.parametrize(
    ("value", "reason"),
    [
        (b"", "not_an_action"),
        (b"\xff", "not_an_action"),
        (b"[" * 100_000, "not_an_action"),
        (b'{"version":1,"kind":"close"}', "not_an_action"),
        (changed(close("a"), version=2), "unknown_version"),
        (changed(close("a"), version=2, kind="merge"), "unknown_version"),
        (changed(close("a"), kind="merge"), "unknown_kind"),
        (changed(close("a"), version=None), "not_an_action"),
        (changed(close("a"), colour="red"), "not_an_action"),
        (changed(close("a"), classification="fine"), "not_an_action"),
        (changed(close("a"), id=""), "not_an_action"),
        (changed(close("a"), id="a\n"), "not_an_action"),
        (changed(close("a"), id="x" * (MAX_ID + 1)), "not_an_action"),
        (changed(close("a"), by=" "), "not_an_action"),
        (changed(close("a"), by="b" * 257), "not_an_action"),
        (changed(close("a"), reason="r" * (MAX_TEXT + 1)), "not_an_action"),
        (changed(close("a"), at="2026-11-30"), "not_an_action"),
        (changed(close("a"), at="2026-02-30T06:00:00.000Z"), "contradictory"),
        (changed(close("a"), at="2026-11-30T23:59:60.000Z"), "contradictory"),
        (changed(close("a"), incidents=[]), "not_an_action"),
        (changed(close("a"), incidents=[{"id": "", "seen": 1}]), "not_an_action"),
        (changed(close("a"), incidents=[{"id": "i", "seen": -1}]), "not_an_action"),
        (changed(close("a"), incidents=[{"id": "i", "seen": 1}] * 2), "contradictory"),
        (changed(close("a"), incidents=[{"id": f"{k}", "seen": 1} for k in range(1001)]), "not_an_action"),
        (changed(close("a"), duplicate_of="other"), "contradictory"),
        (changed(close("a"), classification="duplicate"), "contradictory"),
        (changed(close("a"), classification="duplicate", duplicate_of=INCIDENT), "contradictory"),
        (changed(EVERY_KIND[2], text="\n"), "not_an_action"),
        (changed(EVERY_KIND[2], text="c" * (MAX_TEXT + 1)), "not_an_action"),
        (changed(EVERY_KIND[3], until="2026-13-01T00:00:00.000Z"), "contradictory"),
        (changed(EVERY_KIND[4], incidents=[{"id": "i", "seen": 1}, {"id": "j", "seen": 1}]), "contradictory"),
        (changed(EVERY_KIND[4], scope=None), "not_an_action"),
        (changed(EVERY_KIND[4], scope=scope(until="2026-02-30T06:00:00.000Z")), "contradictory"),
        (changed(EVERY_KIND[8], undoes="a"), "contradictory"),
        (changed(EVERY_KIND[9], reason=" "), "contradictory"),
        (changed(EVERY_KIND[9], severity="awful"), "not_an_action"),
        (changed(EVERY_KIND[9], incidents=[{"id": "i", "seen": 1}, {"id": "j", "seen": 1}]), "contradictory"),
        (changed(EVERY_KIND[10], granted=None), "not_an_action"),
        (changed(close("a"), reason="r" * MAX_RECORD_BYTES), "too_large"),
    ],
)
def test_a_record_that_is_no_action_is_refused_with_a_reason(value: bytes, reason: str) -> None:
    with pytest.raises(RecordError) as refused:
        decode(value)
    assert refused.value.reason == reason
    assert REASONS[reason] in str(refused.value)


def test_an_action_that_readers_would_refuse_is_not_encoded() -> None:
    for made in (close("a", by="b" * 257), close("a", reason="\ud800"), action("comment", "a", text=" ")):
        with pytest.raises(RecordError):
            encode(made)


def test_the_largest_action_fits_into_a_record() -> None:
    incidents = tuple(f"{k:0{MAX_ID}}" for k in range(MAX_INCIDENTS))
    made = close("a" * MAX_ID, 1 << 40, "b" * MAX_ID, incidents=incidents, reason="\x01" * MAX_TEXT)
    assert decode(encode(made)) == made


def test_ids_are_new() -> None:
    assert len({new_id() for _ in range(100)}) == 100
    assert decode(encode(close(new_id())))


def test_an_action_on_many_incidents_is_split_the_same_way_each_time() -> None:
    incidents = tuple(f"i{k}" for k in range(2 * MAX_INCIDENTS + 1))
    parts = split(close("a", incidents=incidents))
    assert [part.id for part in parts] == ["a", "a.1", "a.2"]
    assert tuple(target.id for part in parts for target in part.incidents) == incidents
    assert parts == split(close("a", incidents=incidents))
    assert all(decode(encode(part)) == part for part in parts)
    assert split(close("a")) == (close("a"),)
    with pytest.raises(RecordError):
        split(close("a", incidents=incidents * (MAX_BULK_INCIDENTS // len(incidents) + 1)))
    with pytest.raises(RecordError, match="id"):
        split(close("a" * MAX_ID, incidents=incidents))


def test_a_record_is_one_action_for_each_incident() -> None:
    made = close("a", incidents=(INCIDENT, "other"))
    found = dict(by_incident(made))
    assert list(found) == [INCIDENT, "other"]
    assert found[INCIDENT] == close("a")
    assert case_of(INCIDENT, [FIRST], [Logged(0, made)]) == case([FIRST], close("a"))


def test_records_of_one_action_have_different_keys_because_compaction_would_remove_the_first() -> None:
    first, second = key_of(close("a")), key_of(close("a"))
    assert first != second
    assert first.startswith(b"a/")


# Which actions are in force


def test_an_incident_without_actions_is_new() -> None:
    assert case([FIRST]) == case([]) == Case()


def test_the_log_settles_a_conflict() -> None:
    found = case([FIRST], close("a"), action("assign", "b", assignee="cem"))
    assert (found.status, found.assignee, found.last_action) == ("closed", "", "a")
    assert [entry.rejected for entry in found.history] == ["", "conflict"]
    found = case([FIRST], close("a"), action("assign", "b", assignee="cem", expected="a"))
    assert (found.assignee, found.last_action) == ("cem", "b")


def test_a_comment_always_applies_and_is_no_reason_for_a_conflict() -> None:
    found = case(
        [FIRST],
        action("acknowledge", "a"),
        action("comment", "b", text="first", expected="unknown"),
        action("comment", "c", text="second"),
        close("d", expected="a"),
    )
    assert [remark.text for remark in found.comments] == ["first", "second"]
    assert (found.status, found.last_action) == ("closed", "d")


def test_an_undo_removes_any_action_that_is_in_force() -> None:
    first, second = action("assign", "a", assignee="bea"), close("b", expected="a")
    found = case([FIRST], first, second, action("undo", "c", undoes="a", expected="b"))
    assert (found.status, found.assignee, found.last_action) == ("closed", "", "c")
    assert [entry.undone_by for entry in found.history] == ["c", "", ""]
    found = case([FIRST], first, second, action("undo", "c", undoes="b", expected="b"))
    assert (found.status, found.assignee, found.classification) == ("new", "bea", None)


@pytest.mark.parametrize(
    ("undoes", "rejected"),
    [
        ("b", ""),
        ("nothing", "unknown_action"),
        ("c", "not_in_force"),
        ("a", "not_in_force"),
        ("d", "undo_of_undo"),
    ],
)
def test_an_undo_needs_an_action_in_force(undoes: str, rejected: str) -> None:
    found = case(
        [FIRST],
        action("acknowledge", "a"),
        action("assign", "b", assignee="bea", expected="a"),
        close("c", expected="somebody else's"),
        action("undo", "d", undoes="a", expected="b"),
        action("undo", "e", undoes=undoes, expected="d"),
    )
    assert found.history[-1].rejected == rejected
    assert rejected in REJECTIONS or not rejected
    assert found.assignee == ("" if undoes == "b" else "bea")
    assert found.last_action == ("d" if rejected else "e")


def test_an_undo_of_what_others_have_changed_since_is_a_conflict() -> None:
    found = case(
        [FIRST],
        close("a"),
        action("reopen", "b", expected="a"),
        action("undo", "c", undoes="a", expected="a"),
    )
    assert [entry.rejected for entry in found.history] == ["", "", "conflict"]


def test_the_undo_of_a_comment_applies_as_comments_do() -> None:
    found = case(
        [FIRST],
        action("comment", "a", text="wrong incident"),
        close("b"),
        action("undo", "c", undoes="a"),
        action("reopen", "d", expected="b"),
    )
    assert found.comments == ()
    assert [entry.rejected for entry in found.history] == ["", "", "", ""]


def test_the_first_record_of_an_id_counts() -> None:
    found = case([FIRST], close("a"), action("reopen", "b", expected="a"), close("a", expected="b"))
    assert (found.status, len(found.history), found.last_action) == ("new", 2, "b")


def test_actions_on_other_incidents_have_no_effect() -> None:
    assert case([FIRST], close("a", incidents=("other",))) == Case()


def test_the_history_says_what_was_done_by_whom() -> None:
    (entry,) = case([FIRST], close("a", by="cem", reason="known scanner")).history
    assert (entry.kind, entry.by, entry.at, entry.value) == ("close", "cem", NOW, "false_positive")
    assert entry.text == "known scanner"
    values = {
        kind_of(one): case([FIRST], one).history[0].value for one in EVERY_KIND if kind_of(one) != "close"
    }
    assert values == {
        "acknowledge": "bea",
        "assign": "",
        "comment": "",
        "snooze": rfc3339(START + 2 * DAY),
        "mute": "",
        "reopen": "",
        "undo": "b",
        "unmask": "",
        "unmask_answer": "granted",
    }
    assert case([FIRST], EVERY_KIND[2]).history[0].text == "<b>=1+1</b>\n\u202e"


# What an incident is


def test_acknowledge_may_assign() -> None:
    found = case([FIRST], action("acknowledge", "a", assignee="cem"))
    assert (found.status, found.acknowledged_by, found.assignee) == ("acknowledged", "bea", "cem")
    kept = case([FIRST], action("assign", "a", assignee="dan"), action("acknowledge", "b", expected="a"))
    assert (kept.status, kept.assignee) == ("acknowledged", "dan")


def test_close_states_classification_and_reason() -> None:
    found = case([FIRST], close("a", classification="duplicate", duplicate_of="other", reason="one attack"))
    assert (found.status, found.classification, found.duplicate_of) == ("closed", "duplicate", "other")
    assert (found.reason, found.reopened_by, found.seen) == ("one attack", None, 1)


@pytest.mark.parametrize(("later", "why"), [(RISEN, "evidence"), (ATTACK, "pattern")])
def test_a_closed_incident_opens_again_when_it_grows(later: Update, why: str) -> None:
    found = case([FIRST, SAME, later], close("a"))
    assert (found.status, found.classification, found.reason) == ("new", None, "")
    assert found.reopened_by is not None and found.reopened_by.growth is not None
    assert (found.reopened_by.growth.count, found.reopened_by.growth.why) == (9, why)


def test_a_closed_incident_stays_closed_while_it_only_lasts() -> None:
    almost = update(9, 12.0 + RISE_BITS - 0.01, "living_off_the_land")
    assert case([FIRST, SAME, almost], close("a")).status == "closed"


@pytest.mark.parametrize("later", [RISEN, ATTACK])
def test_growth_that_the_author_saw_does_not_open_an_incident(later: Update) -> None:
    assert case([FIRST, later], close("a", seen=9)).status == "closed"
    assert case([FIRST, later, update(12, 13.6, *later.patterns)], close("a", seen=9)).status == "closed"


def test_evidence_that_the_author_saw_is_the_strongest_so_far() -> None:
    weaker = update(4, 10.0, "living_off_the_land")
    assert (
        case([update(1, 13.0, "living_off_the_land"), weaker, RISEN], close("a", seen=4)).status == "closed"
    )


def test_an_author_who_saw_no_update_closes_nothing_that_exists() -> None:
    assert case([FIRST], close("a", seen=0)).status == "new"


def test_an_acknowledgement_of_growth_counts_and_an_older_one_does_not() -> None:
    first, acknowledge = close("a"), {"name": "b", "expected": "a"}
    seen = case([FIRST, RISEN], first, action("acknowledge", seen=9, **acknowledge))
    assert (seen.status, seen.acknowledged_by) == ("acknowledged", "bea")
    unseen = case([FIRST, RISEN], first, action("acknowledge", seen=4, **acknowledge))
    assert (unseen.status, unseen.acknowledged_by) == ("new", "")
    # The comment shows that another person has seen the growth.
    between = action("comment", "c", seen=9, text="look")
    found = case([FIRST, RISEN], first, between, action("acknowledge", seen=4, **acknowledge))
    assert found.status == "new"


def test_an_incident_that_is_closed_again_says_nothing_of_the_opening_before() -> None:
    found = case([FIRST, RISEN], close("a"), close("b", seen=9, expected="a", classification="true_positive"))
    assert (found.status, found.classification, found.reopened_by) == ("closed", "true_positive", None)


def test_a_person_opens_an_incident_again() -> None:
    found = case(
        [FIRST], action("acknowledge", "a"), close("b", expected="a"), action("reopen", "c", expected="b")
    )
    assert (found.status, found.acknowledged_by, found.classification) == ("new", "", None)
    assert found.reopened_by == Reopening(action="c")
    assert case([FIRST], action("reopen", "a")).reopened_by is None


def test_a_snooze_lasts_until_its_time_its_close_or_growth() -> None:
    until = START + 2 * DAY
    snooze = action("snooze", "a", until=rfc3339(until))
    found = case([FIRST, SAME], snooze)
    assert (found.is_snoozed(until - 1), found.is_snoozed(until)) == (True, False)
    assert not case([FIRST], snooze, close("b", expected="a")).is_snoozed(until - 1)
    opened = case([FIRST], snooze, close("b", expected="a"), action("reopen", "c", expected="b"))
    assert (opened.status, opened.snoozed_until) == ("new", None)
    grown = case([FIRST, ATTACK], snooze)
    assert not grown.is_snoozed(until - 1)
    assert grown.snooze_ended_by is not None and grown.snooze_ended_by.patterns == ("credential_dumping",)
    assert not case([FIRST]).is_snoozed(0)


def test_a_case_says_how_far_its_actors_have_seen() -> None:
    assert (
        case(
            [FIRST, SAME], action("assign", "a", seen=4, assignee="cem"), action("comment", "b", text="x")
        ).seen
        == 4
    )


def test_the_first_growth_is_stated_whatever_the_order_of_the_updates() -> None:
    for updates in ([FIRST, ATTACK, update(20, 30.0)], [update(20, 30.0), ATTACK, FIRST]):
        found = case(updates, close("a")).reopened_by
        assert found is not None and found.growth is not None and found.growth.count == 9


# Mutes


def muted(*others: Update, scopes: tuple[Any, ...] = ()) -> Case:
    """The case of a muted incident with further updates."""
    mutes = [action("mute", f"m{k}", scope=one) for k, one in enumerate(scopes or (scope(),))]
    return case([FIRST, *others], *mutes)


def test_a_mute_hides_the_incident_that_it_was_made_from() -> None:
    found = muted()
    assert (found.muted, found.mutes_applied, found.mute_broken_by) == (True, ("m0",), None)
    assert [(one.id, one.incident, one.by) for one in found.own_mutes] == [("m0", INCIDENT, "bea")]
    assert (found.status, found.last_action) == ("new", "m0")


def test_a_mute_hides_what_is_like_it_in_other_incidents_of_the_entity() -> None:
    mutes = muted().own_mutes
    assert case([SAME], mutes=mutes).muted
    assert not case([update(1, 12.0, entity="cem")], mutes=mutes).muted
    assert case([update(1, 12.0, entity="cem")], mutes=mutes).mute_broken_by is None


def test_a_real_attack_that_joins_a_muted_incident_breaks_the_mute() -> None:
    found = muted(SAME, ATTACK)
    assert not found.muted
    assert found.mute_broken_by is not None
    assert (found.mute_broken_by.count, found.mute_broken_by.why) == (9, "pattern")
    assert found.mute_broken_by.mute == "m0"


@pytest.mark.parametrize(
    ("other", "why"),
    [
        ({"entity": "cem"}, "entity"),
        ({"entity_kind": "source"}, "entity"),
        ({"at": rfc3339(START + 30 * DAY)}, "time"),
        ({"at": "yesterday"}, "time"),
        ({"patterns": ("living_off_the_land", "log_clearing")}, "pattern"),
        ({"reasons": (UpdateReason("source", "198.51.100.1", 6.5),)}, "reason"),
        ({"reasons": (SOURCE, UpdateReason("command", "sleep 6", 3.0))}, "reason"),
        (
            {"reasons": (UpdateReason("host", "server", 2.0), UpdateReason("command", "sleep 5", 1.0))},
            "reason",
        ),
        ({"reasons": ()}, "reason"),
        ({"bits": 15.01}, "evidence"),
        ({}, ""),
        ({"at": rfc3339(START + 30 * DAY - 1)}, ""),
        ({"patterns": ()}, ""),
        ({"reasons": (SOURCE, UpdateReason("host", "server", 2.99))}, ""),
        ({"reasons": (UpdateReason("command", "sleep 5", 2.0), WEAK)}, ""),
        ({"bits": 15.0}, ""),
    ],
)
def test_an_update_is_hidden_unless_it_differs(other: dict[str, Any], why: str) -> None:
    made = msgspec.structs.replace(FIRST, **other)
    assert difference(made, scope()) == why
    assert why in BREACHES or not why


def test_numbers_of_measurements_may_differ_but_not_what_they_are_about() -> None:
    def made(actual: str, feature: str = "source_spread") -> Update:
        return update(1, 12.0, reasons=(UpdateReason(feature, actual, 9.0),))

    spread = "203.0.113.9 failed for 12 users, 1,340 times within an hour"
    hidden = scope_of([made(spread)], 1, rfc3339(START + DAY))
    assert not difference(made("203.0.113.9 failed for 13 users, 90 times within an hour"), hidden)
    assert difference(made("203.0.113.8 failed for 12 users, 1,340 times within an hour"), hidden) == "reason"
    travel = scope_of(
        [made("US-Ohio, 5 minutes after another country", "impossible_travel")], 1, rfc3339(START + DAY)
    )
    assert not difference(made("US-Ohio, 7.5 minutes after another country", "impossible_travel"), travel)
    assert (
        difference(made("FR-Paris, 5 minutes after another country", "impossible_travel"), travel) == "reason"
    )


def test_every_measured_feature_exists() -> None:
    assert {*COMPONENTS, *(pattern.name for pattern in PATTERNS)} >= MEASURED


def test_a_scope_covers_what_the_author_saw_and_nothing_later() -> None:
    later = update(5, 20.0, "log_clearing", reasons=(UpdateReason("host", "server", 8.0),))
    made = scope_of([later, FIRST], 1, NOW)
    assert (made.entity, made.patterns, made.bits) == ("ann", ("living_off_the_land",), 12.0)
    assert [(one.feature, one.actual) for one in made.reasons] == [
        (one.feature, one.actual) for one in (SOURCE, COMMAND)
    ]
    both = scope_of([later, FIRST], 5, NOW)
    assert (both.patterns, both.bits, len(both.reasons)) == (("living_off_the_land", "log_clearing"), 20.0, 3)
    assert case(
        [FIRST, later],
        action("mute", "m", seen=5, scope=msgspec.structs.replace(both, until=rfc3339(START + DAY))),
    ).muted


def test_what_cannot_be_muted_is_an_error() -> None:
    many = tuple(UpdateReason("host", f"h{k}", 4.0) for k in range(257))
    for updates, seen in (
        ([FIRST], 0),
        ([update(1, 9.0, reasons=())], 1),
        ([update(1, 9.0, reasons=many)], 1),
    ):
        with pytest.raises(RecordError):
            scope_of(updates, seen, NOW)


def test_two_mutes_may_hide_an_incident_together() -> None:
    host = UpdateReason("host", "server", 8.0)
    second = update(5, 12.0, reasons=(host,))
    other = scope_of([second], 5, rfc3339(START + 30 * DAY))
    assert not muted(second).muted
    found = muted(second, scopes=(scope(), other))
    assert not found.muted  # the second action has not named the first one
    mutes = [MuteInForce(k, f"m{k}", INCIDENT, "bea", NOW, "", one) for k, one in enumerate((scope(), other))]
    both = muting([FIRST, second], mutes)
    assert (both.muted, both.mutes) == (True, ("m0", "m1"))
    broken = muting([FIRST, second, ATTACK], mutes)
    assert broken.breach is not None and (broken.breach.mute, broken.breach.why) == ("m1", "pattern")


def test_a_mute_that_is_undone_hides_nothing() -> None:
    found = case([FIRST], action("mute", "a", scope=scope()), action("undo", "b", undoes="a", expected="a"))
    assert (found.muted, found.own_mutes, found.mutes_applied) == (False, (), ())


def test_an_update_is_the_reduced_incident() -> None:
    incident = Incident(
        schema_version=2,
        id=INCIDENT,
        entity=Entity("user", "ann"),
        first_seen=rfc3339(START),
        last_seen=rfc3339(START + 60_000),
        count=1,
        risk=79.0,
        severity="medium",
        evidence_bits=12.0,
        technique="T1218",
        patterns=(PatternMatch("living_off_the_land", "T1218", ""),),
        reasons=tuple(Reason(one.feature, one.actual, "", one.bits, 0.3) for one in (SOURCE, COMMAND, WEAK)),
        model=Model(None, None),
        origin=Origin("security-events", 3, 17),
        event={},
    )
    assert Update.of(incident) == FIRST
    assert msgspec.json.decode(msgspec.json.encode(FIRST), type=Update) == FIRST


def test_a_target_without_expectation_is_one_of_an_incident_without_actions() -> None:
    assert Target(id=INCIDENT, seen=1).expected == case([FIRST]).last_action
