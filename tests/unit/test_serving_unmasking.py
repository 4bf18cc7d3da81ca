"""Requests for names are a function of the log: its order decides, whoever writes it and however often."""

from __future__ import annotations

import random

import pytest

from streamguard.serving.decisions.ledger import Logged, ledger
from streamguard.serving.decisions.record import CaseAction
from streamguard.serving.decisions.unmasking import Unmasking, unmaskings
from tests.case_actions import INCIDENT, action


def asked(
    name: str = "r", by: str = "ann", severity: str = "high", at: str = "2026-05-28T10:00:00.000Z"
) -> CaseAction:
    return action("unmask", name, by=by, severity=severity, reason="a mail was sent", at=at, masked=True)


def answered(
    name: str = "g",
    by: str = "pia",
    granted: bool = True,
    request: str = "r",
    at: str = "2026-05-28T11:00:00.000Z",
) -> CaseAction:
    return action(
        "unmask_answer", name, by=by, request=request, granted=granted, reason="agreed", at=at, masked=True
    )


def after(*actions: CaseAction) -> list[Unmasking]:
    return unmaskings(INCIDENT, [Logged(offset, one) for offset, one in enumerate(actions)])


def test_grant_holds_for_eight_hours_from_the_answer() -> None:
    (one,) = after(asked(), answered())
    assert (one.state, one.until, one.answered_by) == ("granted", "2026-05-28T19:00:00.000Z", "pia")
    (one,) = after(asked(), answered(granted=False))
    assert (one.state, one.until) == ("refused", None)


def test_the_own_answer_does_not_count_whoever_has_written_it() -> None:
    (one,) = after(asked(), answered(by="ann"))
    assert (one.state, one.until, one.answered_by) == ("open", None, "")
    (one,) = after(asked(), answered(by="ann"), answered("h", by="pia", granted=False))
    assert one.state == "refused"


def test_the_first_answer_counts() -> None:
    (one,) = after(asked(), answered(granted=False), answered("h", by="pit"))
    assert (one.state, one.answered_by) == ("refused", "pia")


def test_answer_before_its_request_or_to_another_one_has_no_effect() -> None:
    assert [one.state for one in after(answered(), asked())] == ["open"]
    assert [one.state for one in after(asked(), answered(request="other"))] == ["open"]


@pytest.mark.parametrize(
    ("granted", "state", "until"), [(True, "granted", "18:00"), (False, "refused", None)]
)
def test_critical_incident_is_shown_at_once_and_can_be_masked_again(
    granted: bool, state: str, until: str | None
) -> None:
    (one,) = after(asked(severity="critical"))
    assert (one.state, one.until) == ("at_once", "2026-05-28T18:00:00.000Z")
    (one,) = after(asked(severity="critical"), answered(granted=granted))
    assert one.state == state and (one.until or "none")[11:16] == (until or "")


def test_neither_order_of_reading_nor_repetitions_change_the_result() -> None:
    log = [
        Logged(offset, one)
        for offset, one in enumerate(
            [
                asked(),
                asked("s", by="bob"),
                answered(by="ann"),
                answered("h", request="s", granted=False),
                answered("i"),
            ]
        )
    ]
    log += [Logged(9, asked()), Logged(10, answered("i", granted=False))]
    expected = unmaskings(INCIDENT, log)
    assert [one.state for one in expected] == ["granted", "refused"]
    for seed in range(20):
        shuffled = [*log, *log]
        random.Random(seed).shuffle(shuffled)
        assert unmaskings(INCIDENT, shuffled) == expected


def test_requests_never_conflict_and_cannot_be_undone() -> None:
    log = [action("acknowledge", "a"), asked(), answered(), action("undo", "u", undoes="g", expected="a")]
    found = ledger(INCIDENT, [Logged(offset, one) for offset, one in enumerate(log)])
    assert [one.rejected for one in found.history] == ["", "", "", "about_names"]
    assert found.last_action == "a"
