"""Situations in which people are away and come back: one person on leave, or everybody between two terms."""

from __future__ import annotations

from streamguard.simulate.labelled import SimulatedEvent
from streamguard.simulate.scenarios.context import DAY
from streamguard.simulate.situations.context import Effect, Intrusion, Situation, SituationContext

BREAK_DAYS = 35
"""Five weeks between two terms, or a plant that is closed."""
LEAVE_DAYS = 42
"""Six weeks of parental leave, illness or a long journey."""
BACK_DAYS = 5
"""Days after the return whose events have the label of the situation."""


def everybody_back(context: SituationContext) -> Effect:
    """Everybody but the services is away for five weeks; then all come back on one Monday."""
    people = context.people()
    victim = context.draw.choice(people)
    return _away(context, people, victim, BREAK_DAYS)


def leave(context: SituationContext) -> Effect:
    """One person is away for six weeks and comes back."""
    victim = context.staff()
    return _away(context, [victim], victim, LEAVE_DAYS)


def _away(context: SituationContext, people: list[int], victim: int, days: int) -> Effect:
    names = context.names(people)
    begin, back = context.begin, context.begin + days * DAY

    def change(event: SimulatedEvent) -> SimulatedEvent | None:
        if event.user not in names or not begin <= event.timestamp < back + BACK_DAYS * DAY:
            return event
        if event.timestamp >= back:
            return context.marked(event)
        return event if event.scenario is not None else None

    time = context.next_working_time(victim, back + DAY)
    return Effect(Intrusion(victim, time), change=change)


SITUATIONS = (
    Situation(
        "everybody_back",
        "Everybody is away for five weeks, and all come back on one day.",
        BREAK_DAYS + 7,
        everybody_back,
        BREAK_DAYS,
    ),
    Situation("leave", "One person is away for six weeks and comes back.", LEAVE_DAYS + 7, leave, LEAVE_DAYS),
)
