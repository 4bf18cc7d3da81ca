"""Attacks on passwords: many tries on one account, few tries on many accounts, lists of leaked pairs."""

from __future__ import annotations

from collections.abc import Iterator

from streamguard.simulate.places import ATTACK_TOOLS, attacker_place
from streamguard.simulate.scenarios.context import HOUR, MINUTE, Actor, Scenario, ScenarioContext, Step

_MAIL_NAMES = (
    "anna",
    "ben",
    "chris",
    "dora",
    "emil",
    "fay",
    "gus",
    "hana",
    "ivan",
    "jo",
    "kim",
    "leo",
    "mia",
    "ned",
)


def brute_force(context: ScenarioContext, start: int) -> Iterator[Step]:
    """A tool on a rented server guesses one account's password until it is locked out, gives up or succeeds."""
    draw = context.draw
    user = context.pick("admin", "service") if draw.random() < 0.4 else context.staff()
    actor = Actor(context, user, attacker_place(draw), noticed=0.4)
    way = draw.choice(("password", "password", "ssh_key"))
    pace, time = draw.uniform(300, 6000), start
    tries = draw.randint(80, 900)
    locks_after = draw.randint(60, tries) if draw.random() < 0.3 else tries + 1
    for number in range(1, tries + 1):
        locked = number > locks_after
        status, reason = ("blocked", "account_locked") if locked else ("failed", "wrong_password")
        yield actor.sign_in(time, status, reason, tries=min(number, 10), way=way)
        time += context.gap(pace)
        if locked and number > locks_after + 40:
            return
    if draw.random() < 0.3 and locks_after > tries:
        yield actor.sign_in(time, way=way)
        for _ in range(draw.randint(3, 12)):
            time += context.gap(20_000)
            yield actor.run(
                time,
                "sh",
                draw.choice(("id", "uname -a", "cat /etc/passwd", "w")),
                path="/bin/sh",
                signer=None,
            )


def credential_stuffing(context: ScenarioContext, start: int) -> Iterator[Step]:
    """Leaked pairs of name and password are tried once or twice each, through proxies on home connections."""
    draw = context.draw
    known = [context.name(user) for user in context.accounts(draw.randint(20, 150))]
    strangers = [
        f"{draw.choice(_MAIL_NAMES)}.{draw.getrandbits(20):05x}@mail.example"
        for _ in range(draw.randint(60, 300))
    ]
    names = known + strangers
    draw.shuffle(names)
    proxies = [attacker_place(draw, residential=draw.random() < 0.85) for _ in range(draw.randint(25, 200))]
    pace, time = draw.uniform(400, 9000), start
    hits = set(draw.sample(known, k=max(1, round(0.02 * len(known)))))
    for name in names:
        actor = Actor(context, name, draw.choice(proxies))
        wrong = "unknown_user" if name in strangers else "wrong_password"
        for tries in range(1, draw.choice((1, 1, 1, 2)) + 1):
            yield actor.sign_in(time, "failed", wrong, tries=tries)
            time += context.gap(pace)
        if name in hits:
            yield actor.sign_in(time)
            for _ in range(draw.randint(1, 5)):
                yield actor.connect(
                    time + context.gap(30_000),
                    "10.204.3.40",
                    "intra-003.corp.example",
                    sent=context.gap(2000),
                    received=context.gap(60_000),
                )


def password_spray(context: ScenarioContext, start: int) -> Iterator[Step]:
    """One password is tried on every account, too slowly for a lock-out, most tries from a different address."""
    draw = context.draw
    users = context.accounts(draw.randint(60, 400))
    agent = draw.choice(ATTACK_TOOLS)
    time = start
    winner = draw.choice(users) if draw.random() < 0.5 else None
    rounds = draw.randint(2, 5)
    for number in range(rounds):
        draw.shuffle(users)
        pace, place = draw.uniform(800, 15_000), attacker_place(draw, agent=agent)
        for user in users:
            if draw.random() < 0.6:
                place = attacker_place(draw, agent=agent)
            if user == winner and number == rounds - 1:
                yield Actor(context, user, place).sign_in(time)
            else:
                yield Actor(context, user, place).sign_in(time, "failed", "wrong_password")
            time += context.gap(pace)
        time += int(draw.uniform(31 * MINUTE, 1.5 * HOUR))


SCENARIOS = (
    Scenario(
        "brute_force", "T1110.001", "Hundreds of guesses at one account from one address.", False, brute_force
    ),
    Scenario(
        "credential_stuffing",
        "T1110.004",
        "Leaked pairs tried on many names through rotating proxies.",
        False,
        credential_stuffing,
    ),
    Scenario(
        "password_spray",
        "T1110.003",
        "One password on every account, from rotating addresses.",
        False,
        password_spray,
    ),
)
