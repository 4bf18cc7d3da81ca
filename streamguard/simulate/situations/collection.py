"""Situations of the collection of events: a gap for all users, and events that arrive days late."""

from __future__ import annotations

from streamguard.simulate.labelled import SimulatedEvent
from streamguard.simulate.scenarios.context import DAY, HOUR
from streamguard.simulate.situations.context import Effect, Intrusion, Situation, SituationContext

SILENT_DAYS = 3
"""Days for which the collector is silent."""
AFTER_DAYS = 2
"""Days after a gap whose events have its label."""
LATE_PART = 3
"""Every third account sends its events through the collector that fails."""
FILL_MS = 8 * HOUR
"""Time within which the late events arrive."""


def gap(context: SituationContext) -> Effect:
    """No event is collected for three days, from Monday to Wednesday; afterwards everything is as before."""
    begin, back = context.begin, context.at(SILENT_DAYS)

    def change(event: SimulatedEvent) -> SimulatedEvent | None:
        if not begin <= event.timestamp < back + AFTER_DAYS * DAY:
            return event
        if event.timestamp >= back:
            return context.marked(event)
        return event if event.scenario is not None else None

    victim = context.staff()
    return Effect(
        Intrusion(victim, context.next_working_time(victim, context.at(SILENT_DAYS, 9))), change=change
    )


def back_fill(context: SituationContext) -> Effect:
    """A collector fails for three days; then its events arrive within eight hours, out of order, beside live ones."""
    habits = context.population.habits
    through = [user for user in range(habits.count) if user % LATE_PART == 0]
    names = context.names(through)
    begin, back = context.begin, context.at(SILENT_DAYS)
    fill = context.at(SILENT_DAYS, 9)

    def concerns(event: SimulatedEvent) -> bool:
        return begin <= event.timestamp < back and event.user in names

    def change(event: SimulatedEvent) -> SimulatedEvent:
        return context.marked(event) if concerns(event) else event

    def late(event: SimulatedEvent) -> int | None:
        if not concerns(event):
            return None
        return fill + int(context.stable(event.event_id).random() * FILL_MS)

    people = [user for user in through if habits.person[user]]
    victim = context.draw.choice(people)
    return Effect(
        Intrusion(victim, context.next_working_time(victim, context.at(1, 9))), change=change, late=late
    )


SITUATIONS = (
    Situation("gap", "No event of anybody is collected for three days.", 7, gap, SILENT_DAYS),
    Situation("back_fill", "Three days of every third account arrive late and out of order.", 7, back_fill),
)
