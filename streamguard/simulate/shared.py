"""Pools that all accounts share: sites, host names, folders and programs, as JSON fragments created once per run.

The `taste` of an account determines where its favourites begin in a pool, so nothing is stored per account.
"""

from __future__ import annotations

from dataclasses import dataclass
from random import Random

from streamguard.simulate.habits import KINDS

SITES, NAMES, TEAMS, FILES = 400, 600, 40, 150
_WORDS = (
    "north", "cloud", "paper", "metric", "signal", "harbor", "ledger", "atlas", "pixel", "summit",
    "orbit", "cedar", "delta", "river", "quartz", "lumen", "mosaic", "anchor", "vector", "meadow",
)  # fmt: skip
_SUBDOMAINS = ("www", "api", "login", "static", "mail", "docs", "app", "assets", "events", "sync")
_EDGES = ("edge-cache.example", "cdnfront.example", "objectstore.example")
_FOLDERS = ("reports", "invoices", "projects", "contracts", "planning", "customers", "templates", "archive")
_STEMS = ("summary", "budget", "notes", "draft", "figures", "minutes", "offer", "roadmap", "review", "list")
_ENDINGS = ("docx", "xlsx", "pdf", "pptx", "txt", "csv")
_DEVELOPER = (
    ("git", "/usr/bin/git", "git pull --rebase origin main"),
    ("python3", "/usr/bin/python3", "python3 -m pytest tests/{word}"),
    ("node", "/usr/bin/node", "node build.js --target {word}"),
    ("docker", "/usr/bin/docker", "docker build -t {word}:latest ."),
    ("code", "/usr/share/code/code", "code --unity-launch"),
    ("ssh", "/usr/bin/ssh", "ssh build-{number}.corp.example"),
    ("curl", "/usr/bin/curl", "curl -s https://api.{word}.example/v1/status"),
)
_ADMIN = (
    ("powershell.exe", "C:\\Windows\\System32\\WindowsPowerShell\\v1.0\\powershell.exe",
     "powershell.exe -File C:\\Scripts\\{word}-check.ps1"),
    ("cmd.exe", "C:\\Windows\\System32\\cmd.exe", "cmd.exe /c ipconfig /all"),
    ("net.exe", "C:\\Windows\\System32\\net.exe", "net user /domain"),
    ("sudo", "/usr/bin/sudo", "sudo systemctl restart {word}"),
    ("ssh", "/usr/bin/ssh", "ssh srv-app-{number}.corp.example"),
    ("tasklist.exe", "C:\\Windows\\System32\\tasklist.exe", "tasklist.exe /v"),
    ("mmc.exe", "C:\\Windows\\System32\\mmc.exe", "mmc.exe dsa.msc"),
    ("ansible-playbook", "/usr/bin/ansible-playbook", "ansible-playbook site.yml -l {word}"),
)  # fmt: skip
_SERVICE = (
    ("backup-agent", "/opt/backup/agent", "/opt/backup/agent run --set {word} --incremental"),
    ("rsync", "/usr/bin/rsync", "rsync -a /srv/{word}/ store-{number}:/pool/{word}/"),
    ("ci-runner", "/opt/ci/runner", "/opt/ci/runner exec --job {word}-{number}"),
    ("python3", "/usr/bin/python3", "python3 /opt/jobs/{word}.py"),
    ("logrotate", "/usr/sbin/logrotate", "logrotate /etc/logrotate.conf"),
)
_OFFICE = (
    ("outlook.exe", "C:\\Program Files\\Office\\outlook.exe", "outlook.exe /recycle"),
    ("excel.exe", "C:\\Program Files\\Office\\excel.exe", "excel.exe S:\\{word}\\figures-{number}.xlsx"),
    ("winword.exe", "C:\\Program Files\\Office\\winword.exe", "winword.exe /n"),
    ("chrome.exe", "C:\\Program Files\\Chrome\\chrome.exe", "chrome.exe --type=renderer"),
    ("teams.exe", "C:\\Program Files\\Teams\\teams.exe", "teams.exe --system-initiated"),
    ("acrobat.exe", "C:\\Program Files\\Acrobat\\acrobat.exe", "acrobat.exe /open"),
    ("svchost.exe", "C:\\Windows\\System32\\svchost.exe", "svchost.exe -k netsvcs"),
)
_PROGRAMS = {"developer": _DEVELOPER, "admin": _ADMIN, "service": _SERVICE}
PROGRAMS = 24
"""Number of programs in the pool of each kind."""


@dataclass(frozen=True, slots=True)
class Pools:
    """Fragments of details, which are completed with the numbers of an event.

    A *site* is (destination address, host name, port); a *name* is (query, JSON list of addresses); a *file*
    is (path, digest); a *program* is (text up to the process id, text after the parent's).
    """

    sites: list[tuple[str, str, str]]
    names: list[tuple[str, str]]
    files: list[list[tuple[str, str]]]
    programs: list[list[tuple[str, str]]]
    file_servers: list[str]
    resolvers: list[str]
    gates: list[str]
    """Addresses of the sign-in gateways."""


def make_pools(seed: int) -> Pools:
    """Create the pools of a seed."""
    draw = Random(f"{seed}:shared")
    return Pools(
        [_site(draw, i) for i in range(SITES)],
        [_name(draw, i) for i in range(NAMES)],
        [[_file(draw, team) for _ in range(FILES)] for team in range(TEAMS)],
        [[_program(draw, kind.name, kind.privileges, i) for i in range(PROGRAMS)] for kind in KINDS],
        [f"10.201.1.{10 + i}" for i in range(8)],
        [f"10.202.0.{53 + i}" for i in range(4)],
        [f"10.203.0.{10 + i}" for i in range(5)],
    )


def escape(text: str) -> str:
    """Escape a text of the pools for a JSON string; they contain no other characters that JSON escapes."""
    return text.replace("\\", "\\\\").replace('"', '\\"')


def domain(draw: Random) -> str:
    """Draw the name of a company's domain."""
    return f"{draw.choice(_WORDS)}{draw.choice(('', '-'))}{draw.choice(_WORDS)}.example"


def _host(draw: Random) -> str:
    if draw.random() < 0.2:  # names of content networks are like this: long, random and benign
        return f"d{draw.getrandbits(56):014x}.{draw.choice(_EDGES)}"
    return f"{draw.choice(_SUBDOMAINS)}.{domain(draw)}"


def _address(draw: Random) -> str:
    first = draw.choice((23, 34, 52, 104, 142, 151, 185, 199))
    return f"{first}.{draw.randrange(256)}.{draw.randrange(256)}.{draw.randrange(1, 255)}"


def _site(draw: Random, number: int) -> tuple[str, str, str]:
    if number % 4 == 3:
        port = draw.choice((445, 22, 5432, 3389, 8443, 389))
        role = {445: "files", 22: "build", 5432: "db", 3389: "term", 8443: "intra", 389: "ldap"}[port]
        return f"10.204.{number % 8}.{draw.randrange(2, 255)}", f"{role}-{number:03d}.corp.example", str(port)
    return _address(draw), _host(draw), "443" if draw.random() < 0.9 else "80"


def _name(draw: Random, number: int) -> tuple[str, str]:
    if number % 5 == 4:
        host = f"{draw.choice(('files', 'build', 'intra', 'print'))}-{draw.randrange(400):03d}.corp.example"
        return host, f'["10.204.{draw.randrange(8)}.{draw.randrange(2, 255)}"]'
    addresses = ",".join(f'"{_address(draw)}"' for _ in range(draw.choice((1, 1, 2, 4))))
    return _host(draw), f"[{addresses}]"


def _file(draw: Random, team: int) -> tuple[str, str]:
    name = f"{draw.choice(_STEMS)}-{draw.randrange(1, 400)}.{draw.choice(_ENDINGS)}"
    return f"/srv/share/team-{team:02d}/{draw.choice(_FOLDERS)}/{name}", f"{draw.getrandbits(128):032x}"


def _program(draw: Random, kind: str, privileges: str, number: int) -> tuple[str, str]:
    pool = _PROGRAMS.get(kind, _OFFICE)
    name, path, command = pool[number % len(pool)]
    command = command.format(word=draw.choice(_WORDS), number=f"{draw.randrange(200):03d}")
    signer = "Corporate Code Signing" if kind == "service" else "Publisher of " + name.removesuffix(".exe")
    signed = (
        '"is_signed":true,"signer":"' + signer + '"'
        if draw.random() < 0.95
        else '"is_signed":false,"signer":null'
    )
    before = f'"process_details":{{"process_name":"{name}","process_id":'
    after = (
        f',"command_line":"{escape(command)}","executable_path":"{escape(path)}",'
        f'"user_privileges":"{privileges}",{signed}}}'
    )
    return before, after
