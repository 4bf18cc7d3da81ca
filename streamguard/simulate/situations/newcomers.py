"""Situations with many accounts of which little is known: a morning wave, new employees, a log that is connected."""

from __future__ import annotations

from collections.abc import Iterator

from streamguard.simulate.places import OFFICES
from streamguard.simulate.scenarios.context import HOUR, MINUTE, Step
from streamguard.simulate.situations.context import (
    Effect,
    Intrusion,
    Situation,
    SituationContext,
    benchmark_address,
    home,
)

WAVE_PEOPLE = 500
"""People who sign in each morning and do nothing else in this log."""
WAVE_DAYS = 5
"""Working days of the wave."""
WAVE_SPREAD_MS = 6 * MINUTE
"""Standard deviation of the time of a sign-in: most come within a quarter of an hour around nine."""
WAVE_TYPING = 0.01
"""Share of sign-ins before which the password was mistyped."""

NEW_PEOPLE = 1700
"""New accounts, more than most companies of this size have people: a merger, or a new term."""
NEW_DAYS = 4
"""Days on which they begin, in equal parts."""
NEW_EVENTS = 4
"""Mean number of documents and pages that a new account opens on its first day."""

SAAS_PEOPLE = 300
"""Users of the application whose log is connected."""
SAAS_EVENTS = 12
"""Mean number of events of each of them on the first day."""
SAAS_FAILURES = 0.03
"""Share of its events that fail."""


def morning_wave(context: SituationContext) -> Effect:
    """Five hundred people sign in once each morning within minutes, from their own addresses."""
    draw = context.draw
    homes = [home(draw, number, draw.choice(OFFICES).name) for number in range(WAVE_PEOPLE)]
    steps: list[Step] = []
    for day in context.weekdays(context.begin, WAVE_DAYS):
        for number, place in enumerate(homes):
            person = context.worker(f"member-{number:04d}", place)
            time = day + 9 * HOUR + int(draw.gauss(0, WAVE_SPREAD_MS))
            if draw.random() < WAVE_TYPING:
                steps.append(person.sign_in(time - 20_000, "failed", "wrong_password"))
            steps.append(person.sign_in(time))
    victim = f"member-{draw.randrange(WAVE_PEOPLE):04d}"
    return Effect(Intrusion(victim, context.at(WAVE_DAYS - 1, 9.1)), steps)


def onboarding(context: SituationContext) -> Effect:
    """1,700 new users begin within four days: they set a password, mistype it, and open what is shown to them."""
    draw = context.draw
    steps: list[Step] = []
    for number in range(NEW_PEOPLE):
        day = list(context.weekdays(context.begin, NEW_DAYS))[number % NEW_DAYS]
        steps += _first_day(context, number, day)
    victim = f"new-{draw.randrange(NEW_PEOPLE) // NEW_DAYS * NEW_DAYS:05d}"  # one who began on the first day
    return Effect(Intrusion(victim, context.at(NEW_DAYS - 1, 11)), steps)


def _first_day(context: SituationContext, number: int, day: int) -> Iterator[Step]:
    draw = context.draw
    person = context.worker(f"new-{number:05d}", home(draw, 1000 + number, draw.choice(OFFICES).name))
    time = day + int(draw.uniform(7.5, 15) * HOUR)
    for _ in range(draw.choice((0, 0, 0, 0, 1, 1, 2))):
        yield person.sign_in(time, "failed", "wrong_password")
        time += context.gap(15_000)
    yield person.sign_in(time)
    for _ in range(draw.randint(1, 2 * NEW_EVENTS - 1)):
        time += context.gap(4 * MINUTE, 1.0)
        if draw.random() < 0.5:
            yield person.touch(time, f"/srv/share/welcome/{draw.choice(('handbook', 'map', 'forms'))}.pdf")
        else:
            yield person.connect(
                time,
                "10.204.3.40",
                "intra-003.corp.example",
                sent=context.gap(2000),
                received=context.gap(60_000),
            )


def new_log_source(context: SituationContext) -> Effect:
    """The log of an application is connected: three hundred unknown users with unknown events on one day."""
    draw = context.draw
    steps: list[Step] = []
    begin = context.at(2, 9)
    for number in range(SAAS_PEOPLE):
        person = context.worker(f"u{number}@saas.example", home(draw, 3000 + number, "DE-Munich"))
        for _ in range(max(1, round(draw.gauss(SAAS_EVENTS, SAAS_EVENTS / 4)))):
            action = draw.choice(("saas.login", "saas.view", "saas.view", "saas.edit"))
            status = "failed" if draw.random() < SAAS_FAILURES else "success"
            time = context.moment(begin, begin + 8 * HOUR)
            steps.append(person.act(time, action, benchmark_address(0), status))
    victim = f"u{draw.randrange(SAAS_PEOPLE)}@saas.example"
    return Effect(Intrusion(victim, context.at(2, 15)), steps)


SITUATIONS = (
    Situation(
        "morning_wave",
        "500 people sign in once each morning within minutes, from their own addresses.",
        7,
        morning_wave,
    ),
    Situation("onboarding", "1,700 new users begin within four days.", 7, onboarding),
    Situation(
        "new_log_source",
        "The log of an application is connected: 300 unknown users within a day.",
        7,
        new_log_source,
    ),
)
