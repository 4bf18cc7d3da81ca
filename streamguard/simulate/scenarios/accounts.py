"""Attacks with a stolen account: phished, used on two continents, or used again after its owner left."""

from __future__ import annotations

from collections.abc import Iterator

from streamguard.simulate.habits import LEAVER
from streamguard.simulate.places import CITIES, Place, attacker_place, browser, public_address
from streamguard.simulate.population import Spot
from streamguard.simulate.scenarios.context import DAY, HOUR, MINUTE, Actor, Scenario, ScenarioContext, Step
from streamguard.simulate.shared import domain

_FOLDERS = ("finance", "hr", "board", "contracts", "customers", "it-passwords", "payroll", "strategy")


def account_takeover(context: ScenarioContext, start: int) -> Iterator[Step]:
    """A user opens a lookalike page at work; soon after, the thief signs in from another place and reads documents."""
    draw = context.draw
    user = context.staff()
    time = context.next_working_time(user, start)
    victim = Actor(context, user, context.own_place(user, time), noticed=0.2)
    lookalike = f"login-{draw.choice(('sso', 'mail', 'portal'))}-{domain(draw)}"
    address = public_address(draw, "hosting:phish")
    yield victim.resolve(time, lookalike, addresses=(address,), ttl=draw.choice((60, 300)))
    yield victim.connect(
        time + draw.randint(80, 900),
        address,
        lookalike,
        sent=context.gap(2500),
        received=context.gap(150_000),
    )
    time += draw.randint(2 * MINUTE, 50 * MINUTE)
    yield from thief_visits(context, user, time)


def thief_visits(context: ScenarioContext, user: int | str, time: int) -> Iterator[Step]:
    """A thief signs in from another place, perhaps after some refused requests for a second factor, and looks round."""
    draw = context.draw
    thief = Actor(context, user, attacker_place(draw, residential=True))
    for _ in range(draw.choice((0, 0, 1, 2, 4))):
        yield thief.sign_in(time, "pending", "mfa_pending", way="sso")
        time += context.gap(25_000)
    yield thief.sign_in(time, way="sso")
    for visit in range(draw.randint(1, 3)):
        for _ in range(draw.randint(12, 45)):
            time += context.gap(25_000, 1.0)
            yield from _rummage(context, thief, time)
        if visit == 0:
            folder = f"/home/{thief.user}/mail/rules"
            yield thief.touch(
                time + 4000,
                f"{folder}/{draw.getrandbits(32):08x}.json",
                "create",
                size=draw.randint(200, 900),
            )
        time += int(draw.uniform(2 * HOUR, 14 * HOUR))
        yield thief.sign_in(time, way="sso")


def impossible_travel(context: ScenarioContext, start: int) -> Iterator[Step]:
    """While the owner works, the same account signs in on another continent."""
    draw = context.draw
    user = context.staff()
    time = context.next_working_time(user, start)
    here = next(city for city in CITIES if city.name == context.population.place(user, Spot.DESK, time).city)
    far = draw.choice([city for city in CITIES if city.distance_km(here) > 4500])
    place = Place(
        public_address(draw, f"isp:{far.name}"), far.name, f"laptop-{draw.getrandbits(24):06x}", browser(draw)
    )
    thief = Actor(context, user, place)
    yield thief.sign_in(time, way="sso")
    for _ in range(draw.randint(6, 30)):
        time += context.gap(40_000, 1.0)
        yield from _rummage(context, thief, time)


def dormant_account(context: ScenarioContext, start: int) -> Iterator[Step]:
    """The account of a person who left more than two months ago signs in again and explores systems and documents."""
    draw = context.draw
    intruder = Actor(context, LEAVER, attacker_place(draw, residential=draw.random() < 0.7))
    time = start
    for _ in range(draw.randint(0, 3)):
        yield intruder.sign_in(time, "failed", "wrong_password")
        time += context.gap(15_000)
    yield intruder.sign_in(time)
    for command in draw.sample(
        ("whoami /all",
         "net user /domain", "net group \"domain admins\" /domain", "ipconfig /all", "nltest /dclist:",
         "systeminfo", "quser"), draw.randint(2, 5),
    ):  # fmt: skip
        time += context.gap(30_000)
        name = command.partition(" ")[0] + ".exe"
        yield intruder.run(time, name, command)
    for _ in range(draw.randint(1, 3)):
        for _ in range(draw.randint(8, 30)):
            time += context.gap(45_000, 1.0)
            yield from _rummage(context, intruder, time)
        time += int(draw.uniform(1 * HOUR, 0.8 * DAY))
        yield intruder.sign_in(time)


def _rummage(context: ScenarioContext, actor: Actor, time: int) -> Iterator[Step]:
    """One step of exploration: a page of the intranet or a document; access to some documents is refused."""
    draw = context.draw
    if draw.random() < 0.45:
        number = draw.randrange(40)
        yield actor.connect(
            time,
            f"10.204.{number % 8}.{40 + number}",
            f"intra-{number:03d}.corp.example",
            sent=context.gap(2500),
            received=context.gap(90_000, 1.2),
        )
        return
    folder = f"/srv/share/team-{draw.randrange(40):02d}/{draw.choice(_FOLDERS)}"
    path = f"{folder}/overview-{draw.randrange(400)}.xlsx"
    yield actor.touch(time, path, status="blocked" if draw.random() < 0.12 else "success")


SCENARIOS = (
    Scenario(
        "account_takeover",
        "T1078",
        "A phished account is used from the thief's own place.",
        False,
        account_takeover,
    ),
    Scenario(
        "impossible_travel",
        "T1078.004",
        "One account on two continents within an hour.",
        False,
        impossible_travel,
    ),
    Scenario(
        "dormant_account",
        "T1078.002",
        "An account that was unused for over 60 days is used again.",
        False,
        dormant_account,
    ),
)
