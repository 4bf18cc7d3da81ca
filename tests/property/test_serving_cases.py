"""Cases are a function of two sets: neither orders nor repetitions nor interleavings of the topics change them."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any

import msgspec
from hypothesis import given, settings
from hypothesis import strategies as st

from streamguard.alerts.incident import rfc3339
from streamguard.serving.decisions.case import Case, case_of
from streamguard.serving.decisions.codec import RecordError, decode, encode
from streamguard.serving.decisions.growth import growth
from streamguard.serving.decisions.ledger import REJECTIONS, Logged
from streamguard.serving.decisions.mute import MuteInForce, muting
from streamguard.serving.decisions.record import CaseAction, Comment, Undo, kind_of
from streamguard.serving.decisions.update import Update, UpdateReason
from tests.case_actions import DAY, INCIDENT, NOW, START, action, scope, update

PATTERNS = ("living_off_the_land", "credential_dumping", "log_clearing")
KINDS = ("acknowledge", "assign", "comment", "snooze", "mute", "close", "reopen", "undo")
SETTLED = ("offset", "id", "rejected")


@st.composite
def updates(draw: Callable[..., Any]) -> list[Update]:
    """Updates of one incident; evidence may fall, and one count may have two versions, as after a crash."""
    made = []
    for count in draw(st.lists(st.integers(1, 12), max_size=8)):
        reasons = draw(
            st.lists(
                st.builds(
                    UpdateReason,
                    st.sampled_from(["source", "host"]),
                    st.sampled_from(["203.0.113.9", "b"]),
                    st.sampled_from([1.0, 3.0, 6.5]),
                ),
                max_size=2,
            )
        )
        patterns = draw(st.lists(st.sampled_from(PATTERNS), max_size=2, unique=True))
        bits = draw(st.sampled_from([10.0, 11.0, 12.5, 14.0, 19.0]))
        made.append(update(count, bits, *patterns, reasons=tuple(reasons)))
    return made


def made_action(draw: Callable[..., Any], kind: str, name: str, expected: str, undoes: str) -> CaseAction:
    """An action of a kind with any contents."""
    fields: dict[str, Any] = {
        "acknowledge": {"assignee": draw(st.sampled_from(["", "cem"]))},
        "assign": {"assignee": draw(st.sampled_from(["", "dan"]))},
        "comment": {"text": "text"},
        "snooze": {"until": rfc3339(START + 2 * DAY)},
        "mute": {"scope": scope(bits=draw(st.sampled_from([9.0, 12.0])))},
        "close": {"classification": "benign_positive"},
        "reopen": {},
        "undo": {"undoes": undoes},
    }[kind]
    return action(kind, name, draw(st.integers(0, 12)), expected, **fields)


@st.composite
def logs(draw: Callable[..., Any]) -> list[Logged]:
    """A log of actions; most expect what was accepted before, as those of people who wait for the answer do."""
    log: list[Logged] = []
    last = ""
    for k in range(draw(st.integers(0, 9))):
        names = [one.action.id for one in log]
        name = draw(st.sampled_from([f"a{k}", f"a{k}", f"a{k}", *names]))
        expected = draw(st.sampled_from([last, last, last, *names, ""]))
        undoes = draw(st.sampled_from([*(one for one in names if one != name), "unknown"]))
        log.append(Logged(3 * k, made_action(draw, draw(st.sampled_from(KINDS)), name, expected, undoes)))
        last = case_of(INCIDENT, [], log).last_action
    return log


@settings(max_examples=100)
@given(updates(), logs(), st.randoms(use_true_random=False))
def test_neither_order_nor_repetition_changes_a_case(
    published: list[Update], log: list[Logged], chance: random.Random
) -> None:
    expected = case_of(INCIDENT, published, log)
    later = [Logged(100 + k, one.action) for k, one in enumerate(chance.sample(log, len(log) // 2))]
    for _ in range(3):
        mixed = published + chance.sample(published, len(published) // 2)
        repeated = log + chance.sample(log, len(log) // 2) + later
        chance.shuffle(mixed)
        chance.shuffle(repeated)
        assert case_of(INCIDENT, mixed, repeated) == expected
    assert msgspec.json.decode(msgspec.json.encode(expected), type=Case) == expected


@given(updates(), logs(), st.randoms(use_true_random=False))
def test_what_is_accepted_stays_so_when_further_records_arrive(
    published: list[Update], log: list[Logged], chance: random.Random
) -> None:
    whole = case_of(INCIDENT, published, log)
    settled = [[getattr(entry, name) for name in SETTLED] for entry in whole.history]
    for length in range(len(log) + 1):
        part = case_of(INCIDENT, chance.sample(published, len(published) // 2), log[:length])
        found = [[getattr(entry, name) for name in SETTLED] for entry in part.history]
        assert found == settled[: len(found)]
    assert [entry.id for entry in whole.history] == list(dict.fromkeys(one.action.id for one in log))
    assert all(entry.rejected in REJECTIONS for entry in whole.history if entry.rejected)


@settings(max_examples=100)
@given(updates(), logs())
def test_an_undo_leaves_what_would_be_without_the_action(published: list[Update], log: list[Logged]) -> None:
    found = case_of(INCIDENT, published, log)
    undone = {entry.id for entry in found.history if entry.rejected or entry.undone_by}
    kept: list[CaseAction] = []
    seen, last = set[str](), ""
    for _, one in log:
        if one.id not in seen and one.id not in undone and not isinstance(one, Undo):
            (target,) = one.incidents
            expecting = msgspec.structs.replace(target, expected=last)
            kept.append(msgspec.structs.replace(one, incidents=(expecting,)))
            last = last if isinstance(one, Comment) else one.id
        seen.add(one.id)
    without = case_of(INCIDENT, published, [Logged(k, one) for k, one in enumerate(kept)])
    assert [entry.rejected for entry in without.history] == [""] * len(kept)
    for name in (
        "status",
        "assignee",
        "acknowledged_by",
        "classification",
        "reopened_by",
        "comments",
        "muted",
        "seen",
    ):
        assert getattr(found, name) == getattr(without, name)


@given(updates(), logs())
def test_status_agrees_with_the_growth_since_the_last_close(
    published: list[Update], log: list[Logged]
) -> None:
    found = case_of(INCIDENT, published, log)
    in_force = [
        one
        for entry in found.history
        for one in [next(x.action for x in log if x.action.id == entry.id)]
        if not entry.rejected and not entry.undone_by and kind_of(one) in ("close", "reopen", "acknowledge")
    ]
    if in_force and kind_of(in_force[-1]) == "close":
        grown = growth(sorted(published), in_force[-1].incidents[0].seen)
        assert (found.status, found.reopened_by and found.reopened_by.growth) == (
            ("closed", None) if grown is None else ("new", grown)
        )
    if not any(kind_of(one) == "close" for one in in_force):
        assert found.status == (
            "acknowledged" if any(kind_of(one) == "acknowledge" for one in in_force) else "new"
        )


@given(updates(), st.lists(st.sampled_from([9.0, 12.0, 16.0]), max_size=3), st.randoms(use_true_random=False))
def test_mutes_hide_an_incident_if_and_only_if_they_hide_each_update(
    published: list[Update], limits: list[float], chance: random.Random
) -> None:
    mutes = [
        MuteInForce(k, f"m{k}", INCIDENT, "bea", NOW, "", scope(bits=bits)) for k, bits in enumerate(limits)
    ]
    found = muting(published, mutes)
    alone = [muting([one], mutes).muted for one in published]
    assert found.muted == (bool(published) and all(alone))
    assert (found.breach is None) == (found.muted or not any(alone))
    assert muting(published, mutes[:1]).muted <= found.muted  # a further mute never shows more
    mixed, several = published * 2, mutes * 2
    chance.shuffle(mixed)
    chance.shuffle(several)
    assert muting(mixed, several) == found
    if found.muted:
        attack = update(13, 12.0, "recovery_inhibited")
        assert not muting([*published, attack], mutes).muted


@given(st.one_of(st.binary(max_size=200), logs().map(lambda log: b"".join(encode(one.action) for one in log[:1]))),
       st.integers(0, 200), st.binary(max_size=3))  # fmt: skip
def test_damaged_records_are_refused_with_a_reason_or_read(value: bytes, place: int, put: bytes) -> None:
    damaged = value[:place] + put + value[place + len(put) :]
    try:
        action = decode(damaged)
    except RecordError:
        return
    assert decode(encode(action)) == action
