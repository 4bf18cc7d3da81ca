"""Who may see the names of an incident: requests and their answers, as a function of the actions on it."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Annotated, Literal

import msgspec

from streamguard.alerts.incident import rfc3339
from streamguard.events.event_time import epoch_ms
from streamguard.serving.decisions.ledger import Logged
from streamguard.serving.decisions.record import Unmask, UnmaskAnswer

GRANT_HOURS = 8
"""How long names are shown after they were granted: a shift."""
AT_ONCE = "critical"
"""Severity at which a request is granted when it is made, and looked at afterwards."""
_HOUR_MS = 3_600_000

State = Literal["open", "granted", "at_once", "refused"]


def _described(text: str) -> msgspec.Meta:
    return msgspec.Meta(description=text)


class Unmasking(msgspec.Struct, frozen=True):
    """A request for the names of one incident, and what came of it."""

    id: Annotated[str, _described("Id of the request")]
    incident: str
    by: Annotated[str, _described("Who has asked")]
    at: str
    reason: str
    state: Annotated[
        State,
        _described(
            "`open`: not answered; `granted`: by somebody else; `at_once`: granted because the incident was critical, "
            "and not looked at yet; `refused`: also if a grant was ended"
        ),
    ]
    until: Annotated[str | None, _described("Time until which names are shown; null if they are not")] = None
    answered_by: str = ""
    answered_at: str = ""
    answer_reason: str = ""
    masked: Annotated[bool, _described("Whether the texts are of people who see pseudonyms only")] = True


def unmaskings(incident: str, actions: Iterable[Logged]) -> list[Unmasking]:
    """The requests for the names of an incident, in the order of the log.

    The first answer counts that somebody else than the asker has given: the rule of four eyes is that of the log, and
    not only of the server that has written it. The order of the log decides, so every server has the same result.

    Parameters
    ----------
    incident
        Id of the incident; actions that do not name it are passed over.
    actions
        In any order, repetitions included: of several records with one id the first counts.
    """
    found: dict[str, Unmasking] = {}
    seen: set[str] = set()
    for _, action in sorted(actions, key=lambda one: one.offset):
        if action.id in seen or all(one.id != incident for one in action.incidents):
            continue
        seen.add(action.id)
        match action:
            case Unmask():
                # Who was masked again after a look at it has to wait for an answer from then on.
                ended = any(one.by == action.by and one.state == "refused" for one in found.values())
                at_once = action.severity == AT_ONCE and not ended
                found[action.id] = Unmasking(
                    action.id,
                    incident,
                    action.by,
                    action.at,
                    action.reason,
                    "at_once" if at_once else "open",
                    _until(action.at) if at_once else None,
                    masked=action.masked,
                )
            case UnmaskAnswer() if action.request in found:
                request = found[action.request]
                if not request.answered_by and request.by != action.by:
                    found[action.request] = _answered(request, action)
    return list(found.values())


def _answered(request: Unmasking, answer: UnmaskAnswer) -> Unmasking:
    until = request.until if request.state == "at_once" else _until(answer.at)
    return msgspec.structs.replace(
        request,
        state="granted" if answer.granted else "refused",
        until=until if answer.granted else None,
        answered_by=answer.by,
        answered_at=answer.at,
        answer_reason=answer.reason,
        masked=request.masked and answer.masked,
    )


def _until(at: str) -> str:
    return rfc3339((epoch_ms(at) or 0) + GRANT_HOURS * _HOUR_MS)
