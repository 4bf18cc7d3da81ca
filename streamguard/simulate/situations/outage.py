"""The situation in which an identity provider refuses valid passwords for an hour, while clients try again."""

from __future__ import annotations

import msgspec

from streamguard.simulate.labelled import SimulatedEvent
from streamguard.simulate.scenarios.context import HOUR, MINUTE, Step
from streamguard.simulate.situations.context import Effect, Intrusion, Situation, SituationContext

OUTAGE_MS = HOUR
RETRY_MS = 150_000
"""Time between two tries of a client, 2.5 minutes."""
NOTICE_MS = 10 * MINUTE
"""Time within which all who are at work notice: their sessions are renewed."""
REASON = "idp_unavailable"


def provider_outage(context: SituationContext) -> Effect:
    """The identity provider refuses everybody for an hour on a Wednesday; clients try again, and then all is well."""
    draw = context.draw
    begin = context.at(2, 9.5)
    end = begin + OUTAGE_MS
    calendar = context.population.calendar
    people = [user for user in context.people() if calendar.in_hours(user, begin + OUTAGE_MS // 2)]
    people = people or context.people()
    steps: list[Step] = []
    for user in people:
        person = context.worker(user, context.desk(user, begin))
        time = context.moment(begin, begin + NOTICE_MS)
        while time < end:
            steps.append(person.sign_in(time, "failed", REASON, way="sso"))
            time += int(RETRY_MS * draw.uniform(0.9, 1.1))
        steps.append(person.sign_in(time, way="sso"))
    everybody = context.names(context.people())

    def change(event: SimulatedEvent) -> SimulatedEvent:
        concerns = begin <= event.timestamp < end and event.user in everybody and event.scenario is None
        if not concerns or b'"event_type":"auth_attempt"' not in event.value:
            return event
        details = msgspec.json.decode(event.value)["auth_details"] | {"failure_reason": REASON}
        return context.edited(event, status="failed", auth_details=details)

    return Effect(Intrusion(draw.choice(people), end - 15 * MINUTE), steps, change=change)


SITUATIONS = (
    Situation(
        "provider_outage",
        "The identity provider refuses valid passwords for an hour, and clients try again.",
        7,
        provider_outage,
    ),
)
