"""Situations of shared and automatic accounts: a kiosk, services with expired passwords, the close of a month."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime

from streamguard.simulate.places import Place
from streamguard.simulate.scenarios.context import DAY, HOUR, MINUTE, Step
from streamguard.simulate.situations.context import Effect, Intrusion, Situation, SituationContext

KIOSK = "frontdesk"
"""The shared account."""
KIOSK_PEOPLE, KIOSK_MACHINES = 40, 10
"""People who share it, and machines on which they do."""
KIOSK_DAYS = 7
"""Days on which it is used, weekends included."""
KIOSK_VISITS = 3
"""Times a day that each person uses the account."""
KIOSK_TYPING = 0.06
"""Share of sign-ins before which the password was mistyped: it is changed often, and on paper."""

EXPIRED = 8
"""Service accounts whose passwords expire on one day."""
EXPIRED_EVERY_MS = 5 * MINUTE
"""Time between two tries of such an account."""
EXPIRED_HOURS = 52
"""Hours until somebody sets new passwords."""
SOUND_EVERY_MS = 20 * MINUTE
"""Time between two sign-ins while the password is valid."""
LEARN_DAYS = 7
"""Days before the situation on which its accounts work as usual."""
BATCHES = 4
"""Busy, regular batch accounts."""
BATCH_EVERY_MS = 10 * MINUTE
"""Time between two writes of a batch account."""

CLOSERS = 9
"""Accounts that close a month."""
CLOSE_DAYS = 2
"""Last days of a month on which they do what they do on no other day."""
CLOSE_EVENTS = 60
"""Mean number of such actions of an account on such a day."""
HEARTBEAT_MS = 6 * HOUR
"""Time between two sign-ins of such an account on other days."""
_SERVER_AGENT = "batch-runner/3.1"


def kiosk(context: SituationContext) -> Effect:
    """Forty people share one account on ten machines, from early to late."""
    draw = context.draw
    machines = [
        Place(f"10.60.0.{10 + number}", "DE-Berlin", f"kiosk-{number:02d}", "kiosk-browser/7.0")
        for number in range(KIOSK_MACHINES)
    ]
    steps: list[Step] = []
    for day in range(KIOSK_DAYS):
        for _ in range(KIOSK_PEOPLE * KIOSK_VISITS):
            person = context.worker(KIOSK, draw.choice(machines))
            time = context.at(day, draw.uniform(6, 21))
            while draw.random() < KIOSK_TYPING:
                steps.append(person.sign_in(time, "failed", "wrong_password"))
                time += context.gap(12_000)
            steps.append(person.sign_in(time))
            for _ in range(draw.randint(0, 3)):
                time += context.gap(40_000)
                path = f"/srv/share/counter/{draw.choice(('bookings', 'visitors', 'keys'))}.xlsx"
                steps.append(person.touch(time, path, draw.choice(("read", "read", "write"))))
    return Effect(Intrusion(KIOSK, context.at(KIOSK_DAYS - 3, 10)), steps)


def service_accounts(context: SituationContext) -> Effect:
    """The passwords of eight services expire, and they fail every few minutes for two days beside busy batch jobs."""
    begin = context.at(1, 2)
    end = begin + EXPIRED_HOURS * HOUR
    learned = max(context.start, begin - LEARN_DAYS * DAY)
    last = min(context.finish, context.at(7))
    steps: list[Step] = []
    habits: list[Step] = []
    for number in range(EXPIRED):
        service = context.worker(f"svc-report-{number:02d}", _server(number))
        habits += [
            service.sign_in(time, way="kerberos") for time in _every(context, learned, begin, SOUND_EVERY_MS)
        ]
        steps += [
            service.sign_in(time, "failed", "expired_password", way="kerberos")
            for time in _every(context, begin, end, EXPIRED_EVERY_MS)
        ]
        steps += [
            service.sign_in(time, way="kerberos") for time in _every(context, end, last, SOUND_EVERY_MS)
        ]
    for number in range(BATCHES):
        batch = context.worker(f"svc-batch-{number:02d}", _server(20 + number))
        for time in _every(context, learned, last, BATCH_EVERY_MS):
            path = f"/srv/batch/queue-{number:02d}/part-{context.draw.randrange(50):02d}.csv"
            (habits if time < begin else steps).append(
                batch.touch(time, path, "write", size=context.gap(400_000))
            )
    return Effect(Intrusion("svc-batch-00", context.at(2, 3)), steps, habits)


def month_end(context: SituationContext) -> Effect:
    """Nine accounts that only sign in on other days close the month: programs and exports of unusual size at night."""
    days = list(_last_days(context.start, context.finish))
    if not days:
        raise ValueError("the situation month_end needs a run with the last two days of a month (UTC)")
    steps: list[Step] = []
    habits: list[Step] = []
    for number in range(CLOSERS):
        closer = context.worker(f"svc-close-{number:02d}", _server(40 + number))
        habits += [
            closer.sign_in(time, way="kerberos")
            for time in _every(context, context.start, context.finish, HEARTBEAT_MS)
        ]
        for day in days:
            steps += _close(context, number, day)
    return Effect(Intrusion("svc-close-00", days[-1] + 20 * HOUR), steps, habits)


def _close(context: SituationContext, number: int, day: int) -> Iterator[Step]:
    draw = context.draw
    closer = context.worker(f"svc-close-{number:02d}", _server(40 + number))
    time = day + int(draw.uniform(0.5, 3) * HOUR)
    for count in range(round(draw.gauss(CLOSE_EVENTS, 6))):
        time += context.gap(3 * MINUTE)
        if count % 3 == 0:
            yield closer.run(
                time,
                "ledger-close",
                f"ledger-close --book {draw.randrange(40):02d} --final",
                path="/opt/ledger/close",
                signer="Corporate Code Signing",
            )
        else:
            path = f"/srv/ledger/{datetime.fromtimestamp(day / 1000, UTC):%Y-%m}/book-{draw.randrange(40):02d}.csv"
            yield closer.touch(time, path, "create", size=context.gap(80_000_000, 1.0))


def _server(number: int) -> Place:
    return Place(f"10.210.0.{10 + number}", "DE-Berlin", f"srv-batch-{number:02d}", _SERVER_AGENT)


def _every(context: SituationContext, begin: int, end: int, pause: int) -> Iterator[int]:
    """Regular times with a little jitter."""
    time = begin + context.draw.randrange(pause)
    while time < end:
        yield time
        time += int(pause * context.draw.uniform(0.97, 1.03))


def _last_days(start: int, end: int) -> Iterator[int]:
    """Midnights (UTC) of the last `CLOSE_DAYS` days of each month that lie within a run, epoch ms."""
    for day in range(-(-start // DAY), end // DAY):
        months = [datetime.fromtimestamp(moment * 86_400, UTC).month for moment in (day, day + CLOSE_DAYS)]
        if months[0] != months[1]:
            yield day * DAY


SITUATIONS = (
    Situation("kiosk", "Forty people share one account on ten machines.", 7, kiosk),
    Situation(
        "service_accounts",
        "Services with expired passwords fail every few minutes, beside busy batch jobs.",
        7,
        service_accounts,
    ),
    Situation(
        "month_end",
        "Batch accounts do what they do only on the last two days of a month.",
        7,
        month_end,
    ),
)
