"""Attacks on data: read at night, downloaded in bulk, exfiltrated quickly or slowly, encrypted for ransom."""

from __future__ import annotations

from collections.abc import Iterator

from streamguard.simulate.places import attacker_place, public_address
from streamguard.simulate.scenarios.context import HOUR, MINUTE, Actor, Scenario, ScenarioContext, Step
from streamguard.simulate.shared import domain

_FOLDERS = (
    "reports",
    "invoices",
    "projects",
    "contracts",
    "planning",
    "customers",
    "archive",
    "payroll",
    "patents",
)
_ENDINGS = ("docx", "xlsx", "pdf", "pptx", "csv")
MEGABYTE = 1_000_000


def off_hours_insider(context: ScenarioContext, start: int) -> Iterator[Step]:
    """An employee reads other teams' documents at night, from home and with the usual laptop."""
    draw = context.draw
    user = context.pick("office", "developer", "sales", "finance")
    time = context.next_night(user, start)
    for _ in range(draw.randint(1, 3)):
        actor = Actor(context, user, context.own_place(user, time, remote=True), noticed=0.05)
        yield actor.sign_in(time, way="sso")
        teams = draw.sample(range(40), draw.randint(2, 5))
        for _ in range(draw.randint(40, 160)):
            time += context.gap(18_000, 0.9)
            status = "blocked" if draw.random() < 0.06 else "success"
            yield actor.touch(time, _document(context, draw.choice(teams)), status=status)
        time = context.next_night(user, time + 18 * HOUR)


def mass_download(context: ScenarioContext, start: int) -> Iterator[Step]:
    """A person about to leave copies whole folders of the share in working hours, from the usual desk."""
    draw = context.draw
    user = context.staff()
    time = context.next_working_time(user, start)
    actor = Actor(context, user, context.own_place(user, time), noticed=0.05)
    pace, teams = draw.uniform(700, 4000), draw.sample(range(40), draw.randint(3, 8))
    for _ in range(draw.randint(300, 1500)):
        yield actor.touch(time, _document(context, draw.choice(teams)), size=context.gap(900_000, 1.5))
        time += context.gap(pace, 0.8)


def exfiltration(context: ScenarioContext, start: int) -> Iterator[Step]:
    """Documents are packed, and gigabytes are uploaded to a storage service that no account uses."""
    draw = context.draw
    user = context.pick("office", "developer", "finance", "admin")
    time = context.next_working_time(user, start) if draw.random() < 0.5 else start
    actor = Actor(context, user, context.own_place(user, time), noticed=0.2)
    address, host = public_address(draw, "hosting:store"), f"drop.{domain(draw)}"
    for _ in range(draw.randint(1, 4)):
        archive = f"C:\\ProgramData\\{draw.getrandbits(32):08x}.7z"
        command = f"7z.exe a -mhe=on -p{draw.getrandbits(40):x} {archive} S:\\{draw.choice(_FOLDERS)}"
        yield actor.run(time, "7z.exe", command, path="C:\\ProgramData\\7z.exe", signer=None)
        time += context.gap(90_000)
    yield actor.resolve(time, host, addresses=(address,), ttl=300)
    for _ in range(draw.randint(15, 80)):
        sent = context.gap(180 * MEGABYTE, 0.7)
        duration = int(sent / draw.uniform(2000, 12_000))  # 2 to 12 MB a second
        time += duration + context.gap(5000)
        yield actor.connect(
            time, address, host, sent=sent, received=context.gap(20_000), duration_ms=duration
        )


def ransomware(context: ScenarioContext, start: int) -> Iterator[Step]:
    """Shadow copies are deleted, then thousands of files are overwritten and renamed within minutes."""
    draw = context.draw
    user = context.pick("office", "finance", "sales", "admin")
    time = start
    actor = Actor(context, user, context.own_place(user, time), noticed=0.3)
    ending = draw.choice(("locked", "crypt", "enc", f"{draw.getrandbits(24):06x}"))
    program = f"C:\\Users\\Public\\{draw.getrandbits(32):08x}.exe"
    yield actor.run(time, program.rpartition("\\")[2], program, path=program, signer=None)
    for command in (
        "vssadmin.exe delete shadows /all /quiet",
        "bcdedit.exe /set {default} recoveryenabled no",
        "wbadmin.exe delete catalog -quiet",
    ):
        time += context.gap(1500)
        yield actor.run(time, command.partition(" ")[0], command, privileges="administrator")
    pace = draw.uniform(60, 500)
    for _ in range(draw.randint(300, 2000)):
        path = _document(context, draw.randrange(40))
        time += context.gap(pace)
        size = context.gap(60_000, 1.6)
        yield actor.touch(time, path, "write", size=size, encrypted=True)
        yield actor.touch(time + draw.randint(1, 15), f"{path}.{ending}", "rename", size=size, encrypted=True)
        if draw.random() < 0.03:
            note = path.rpartition("/")[0] + "/HOW_TO_RESTORE.txt"
            yield actor.touch(time + draw.randint(1, 15), note, "create", size=1862)


def low_and_slow(context: ScenarioContext, start: int) -> Iterator[Step]:
    """A stolen account reads a few documents a day and uploads them slowly, for days, during working hours."""
    draw = context.draw
    user = context.pick("office", "developer", "sales", "finance")
    place = attacker_place(draw, residential=True)
    address, host = public_address(draw, "hosting:slow"), f"sync.{domain(draw)}"
    time = start
    for _ in range(draw.randint(9, 22)):
        thief = Actor(context, user, place, noticed=0.1)
        if draw.random() < 0.25:
            yield thief.sign_in(time - draw.randint(3000, 30_000), "failed", "wrong_password")
        yield thief.sign_in(time, way="sso")
        for _ in range(draw.randint(1, 4)):
            time += context.gap(4 * MINUTE)
            yield thief.touch(time, _document(context, draw.randrange(40)))
        yield thief.connect(
            time + context.gap(20_000),
            address,
            host,
            sent=context.gap(5 * MEGABYTE),
            received=context.gap(4000),
        )
        time = context.next_working_time(user, time + int(draw.uniform(3, 14) * HOUR)) + context.gap(
            5 * MINUTE
        )


def _document(context: ScenarioContext, team: int) -> str:
    draw = context.draw
    name = f"{draw.choice(('summary', 'figures', 'offer', 'list', 'draft'))}-{draw.randrange(1, 400)}"
    return f"/srv/share/team-{team:02d}/{draw.choice(_FOLDERS)}/{name}.{draw.choice(_ENDINGS)}"


SCENARIOS = (
    Scenario("off_hours_insider", "T1213", "Other teams' documents read at night.", False, off_hours_insider),
    Scenario("mass_download", "T1039", "Hundreds of documents copied within the hour.", False, mass_download),
    Scenario(
        "exfiltration", "T1567.002", "Gigabytes uploaded to an unknown storage host.", False, exfiltration
    ),
    Scenario("ransomware", "T1486", "Files overwritten and renamed by the thousand.", False, ransomware),
    Scenario(
        "low_and_slow", "T1030", "A stolen account, a few documents a day, for days.", True, low_and_slow
    ),
)
