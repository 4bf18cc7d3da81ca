"""The context of a scenario (population, clock, random numbers), and actors whose steps become events."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from random import Random
from typing import Any

from streamguard.simulate.habits import KIND_NAMES, KINDS
from streamguard.simulate.places import Place
from streamguard.simulate.population import Population, Spot

MINUTE, HOUR, DAY = 60_000, 3_600_000, 86_400_000


@dataclass(frozen=True, slots=True)
class Step:
    """One event of an attack before it is numbered and encoded."""

    timestamp: int
    event_type: str
    user: str
    place: Place
    destination: str
    threat: float
    status: str
    session: int
    details: dict[str, Any]


@dataclass(frozen=True, slots=True)
class Scenario:
    """A named attack."""

    name: str
    technique: str
    """MITRE ATT&CK id."""
    description: str
    slow: bool
    """Whether the attack has few events over days, which makes it hard to detect."""
    generate: Callable[[ScenarioContext, int], Iterator[Step]]
    """Yields the steps of one run that begins at about a time (ms); they need not be in order."""


class ScenarioContext:
    """The population and the random numbers of one campaign.

    Parameters
    ----------
    population
        The accounts.
    draw
        The campaign's own random numbers.
    end
        End of the run (ms), None if it has no end. A step that waits for a night does not wait longer than this.
    """

    def __init__(self, population: Population, draw: Random, end: int | None) -> None:
        self.population = population
        self.draw = draw
        self.end = end

    def pick(self, *kinds: str) -> int:
        """Draw an account of one of these kinds, or of any kind if there is none."""
        return self.draw.choice(self.population.habits.of_kind(*kinds))

    def staff(self) -> int:
        """Draw the account of a person."""
        return self.pick("office", "developer", "sales", "finance", "support")

    def name(self, user: int) -> str:
        return self.population.habits.name(user)

    def accounts(self, most: int) -> list[int]:
        """Draw up to `most` different accounts in random order."""
        count = self.population.habits.count
        return self.draw.sample(range(count), min(most, count))

    def own_place(self, user: int, time: int, *, remote: bool = False) -> Place:
        """Return the place of the account's owner at a time: at work in working hours, else at home or on the VPN."""
        calendar = self.population.calendar
        if KIND_NAMES[self.population.habits.kind[user]] == "service":
            return self.population.place(user, Spot.DESK, time)
        if remote or not calendar.in_hours(user, time):
            return self.population.place(user, self.draw.choice((Spot.VPN, Spot.HOME)), time)
        return self.population.place(user, Spot.TRAVEL if calendar.travels(user, time) else Spot.DESK, time)

    def next_working_time(self, user: int, time: int) -> int:
        """Return the first working time of the user from `time` on, or `time` itself if the run ends before it."""
        return self._first(time, lambda t: self.population.calendar.in_hours(user, t))

    def next_night(self, user: int, time: int) -> int:
        """Return the first time from `time` on when the user should be asleep, or `time` if the run ends before it."""
        offset = int(self.population.habits.utc_minutes[user])
        calendar = self.population.calendar
        return self._first(
            time, lambda t: 60 <= (t // MINUTE + offset) % 1440 < 240 and not calendar.in_hours(user, t)
        )

    def _first(self, time: int, fits: Callable[[int], bool]) -> int:
        for quarter in range(4 * 24 * 7):
            candidate = time + quarter * 15 * MINUTE
            if self.end is not None and candidate >= self.end:
                break
            if fits(candidate):
                return candidate
        return time

    def gap(self, median_ms: float, spread: float = 0.6) -> int:
        """Draw a log-normal pause or size around a median."""
        return max(1, int(median_ms * self.draw.lognormvariate(0, spread)))

    def gateway(self) -> str:
        return f"10.203.0.{10 + self.draw.randrange(5)}"


class Actor:
    """A person or program that uses an account from one place: each method returns one event.

    Parameters
    ----------
    context
        Context of the scenario.
    user
        Number or name of the account.
    place
        Place from which the account is used.
    noticed
        Share of the steps whose upstream threat score is somewhat higher.
    """

    def __init__(self, context: ScenarioContext, user: int | str, place: Place, noticed: float = 0.3) -> None:
        self._draw = context.draw
        self._context = context
        self._privileges = "user"
        if isinstance(user, int):
            self._privileges = KINDS[context.population.habits.kind[user]].privileges
            user = context.name(user)
        self.user = user
        self.place = place
        self._noticed = noticed
        self._session = context.draw.getrandbits(48)

    def sign_in(
        self,
        time: int,
        status: str = "success",
        reason: str | None = None,
        *,
        tries: int = 1,
        way: str = "password",
    ) -> Step:
        details = {"auth_type": way, "failure_reason": reason, "attempts_count": tries}
        return self._step(time, "auth_attempt", self._context.gateway(), status, details)

    def connect(
        self,
        time: int,
        address: str,
        host: str | None,
        *,
        port: int = 443,
        sent: int,
        received: int,
        duration_ms: int | None = None,
        status: str = "success",
    ) -> Step:
        details = {
            "protocol": "tcp",
            "source_port": self._draw.randrange(1024, 65536),
            "destination_port": port,
            "bytes_sent": sent if status == "success" else 60,
            "bytes_received": received if status == "success" else 0,
            "duration_ms": self._context.gap(700, 1.2) if duration_ms is None else duration_ms,
            "destination_hostname": host,
            "connection_state": {"success": "established", "failed": "reset"}.get(status, "refused"),
        }
        return self._step(time, "network_connection", address, status, details)

    def touch(
        self,
        time: int,
        path: str,
        operation: str = "read",
        *,
        size: int | None = None,
        encrypted: bool = False,
        permissions_changed: bool = False,
        status: str = "success",
    ) -> Step:
        details = {
            "file_path": path,
            "operation": operation,
            "file_size_bytes": self._context.gap(60_000, 1.6) if size is None else size,
            "file_hash": f"{self._draw.getrandbits(128):032x}",
            "is_encrypted": encrypted,
            "permissions_changed": permissions_changed,
            "access_denied": status == "blocked",
        }
        return self._step(time, "file_access", f"10.201.1.{10 + self._draw.randrange(8)}", status, details)

    def run(
        self,
        time: int,
        name: str,
        command: str,
        *,
        path: str | None = None,
        privileges: str | None = None,
        signer: str | None = "Publisher of Windows",
        status: str = "success",
    ) -> Step:
        details = {
            "process_name": name,
            "process_id": self._draw.randrange(800, 32768),
            "parent_process_id": self._draw.randrange(300, 8000),
            "command_line": command,
            "executable_path": path or f"C:\\Windows\\System32\\{name}",
            "user_privileges": privileges or self._privileges,
            "is_signed": signer is not None,
            "signer": signer,
        }
        return self._step(time, "process_execution", self.place.address, status, details)

    def resolve(
        self,
        time: int,
        name: str,
        *,
        kind: str = "A",
        code: str = "NOERROR",
        addresses: tuple[str, ...] = (),
        ttl: int = 60,
    ) -> Step:
        server = f"10.202.0.{53 + self._draw.randrange(4)}"
        details = {
            "query_name": name,
            "query_type": kind,
            "response_code": code,
            "resolved_ips": addresses,
            "ttl": ttl if code == "NOERROR" else 0,
            "is_cached": False,
            "dns_server": server,
        }
        return self._step(time, "dns_query", server, "success" if code == "NOERROR" else "failed", details)

    def act(self, time: int, action: str, destination: str, status: str = "success") -> Step:
        """An event of any other type, such as a call of a cloud's interface; it has no details."""
        return self._step(time, action, destination, status, {})

    def _step(
        self, time: int, event_type: str, destination: str, status: str, details: dict[str, Any]
    ) -> Step:
        raised = self._draw.random() < self._noticed
        threat = self._draw.betavariate(2.5, 6) if raised else self._draw.betavariate(1.2, 12)
        return Step(
            time, event_type, self.user, self.place, destination, threat, status, self._session, details
        )
