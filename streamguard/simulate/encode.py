"""Events as JSON: the benign stream from ready-made fragments, a microsecond or two an event; attack steps one by one."""

from __future__ import annotations

import hashlib

import msgspec
import numpy as np
from numpy.typing import NDArray

from streamguard.simulate.habits import KINDS, TYPES
from streamguard.simulate.population import Population
from streamguard.simulate.scenarios import Step
from streamguard.simulate.shared import FILES, NAMES, PROGRAMS, SITES, TEAMS, escape, make_pools

STATUS = ("success", "failed", "blocked", "pending")
_PLACES_KEPT = 300_000
_RANKS = 4096
_OPERATIONS = ("read",) * 70 + ("write",) * 18 + ("create",) * 6 + ("rename",) * 3 + ("delete",) * 3
_REASONS = ("wrong_password",) * 16 + ("expired_password", "mfa_timeout", "mfa_denied", "clock_skew")
_BOOL = ("false", "true")


class EventIds:
    """Unique and deterministic ids: a digest of the run, and a serial number in stream order.

    Parameters
    ----------
    run
        What makes the run: seed, users, start.
    """

    def __init__(self, *run: object) -> None:
        self._prefix = "evt-" + hashlib.blake2b(repr(run).encode(), digest_size=5).hexdigest() + "-"
        self._next = 0

    def take(self, count: int) -> list[str]:
        """The next `count` ids."""
        first = self._next
        self._next += count
        prefix = self._prefix
        return [f"{prefix}{number:09x}" for number in range(first, first + count)]


class Encoder:
    """Renders arrivals; keeps each place's and account's part of the JSON text.

    Parameters
    ----------
    population
        Whose events they are.
    start
        Of the run (ms): another start draws other details.
    """

    def __init__(self, population: Population, start: int) -> None:
        self._population = population
        self._pools = make_pools(population.seed)
        self._rng = np.random.default_rng([population.seed, 6, start & 0xFFFFFFFF, start >> 32])
        rng = np.random.default_rng([population.seed, 7])
        upstream = np.where(rng.random(_RANKS) < 0.03, rng.beta(3, 5, _RANKS), rng.beta(1.2, 12, _RANKS))
        self._threats = [str(round(float(value), 4)) for value in upstream]
        self._places: dict[int, tuple[str, str, str]] = {}
        self._names: dict[int, str] = {}
        self._zipf = {
            size: rng.choice(size, _RANKS, p=_zipf_shares(size)).astype(np.int64)
            for size in (SITES, NAMES, FILES, PROGRAMS)
        }

    def name(self, user: int) -> str:
        """The account's name, the same object each time."""
        found = self._names.get(user)
        if found is None:
            found = self._names[user] = self._population.habits.name(user)
        return found

    def render(self, arrivals: NDArray[np.void], ids: list[str]) -> list[bytes]:
        """Each arrival's JSON.

        Parameters
        ----------
        arrivals
            `arrivals.ARRIVAL` records.
        ids
            As many event ids.
        """
        n = len(arrivals)
        if not n:
            return []
        rng, users, types = self._rng, arrivals["user"], arrivals["type"]
        threats = rng.integers(0, _RANKS, n).tolist()
        keys = self._population.place_keys(users, arrivals["spot"], arrivals["time"])
        # A session lasts six hours at one place.
        mixed = (keys.view(np.uint64) + (arrivals["time"] // 21_600_000).astype(np.uint64)) * np.uint64(
            0x9E3779B97F4A7C15
        )
        sessions = (mixed ^ mixed >> np.uint64(31)) >> np.uint64(16)
        details: list[tuple[str, str]] = [("", "")] * n
        for number, render in enumerate((self._auth, self._network, self._file, self._process, self._dns)):
            rows = np.flatnonzero(types == number)
            if len(rows):
                for row, detail in zip(rows.tolist(), render(arrivals[rows]), strict=True):
                    details[row] = detail
        if len(self._places) > _PLACES_KEPT:
            self._places.clear()
        known, make, scores = self._places.get, self._place, self._threats
        places = [known(key) or make(key) for key in keys.tolist()]
        return [
            f'{{"event_id":"{event_id}","timestamp":{time},"event_type":"{TYPES[kind]}","source_ip":"{source}",'
            f'"destination_ip":"{target or source}",{user}{scores[threat]},"status":"{STATUS[outcome]}",'
            f'{metadata}{session:012x}"}},{detail}}}'.encode()
            for event_id, time, kind, (source, user, metadata), (
                target,
                detail,
            ), threat, outcome, session in zip(
                ids,
                arrivals["time"].tolist(),
                types.tolist(),
                places,
                details,
                threats,
                arrivals["outcome"].tolist(),
                sessions.tolist(),
                strict=True,
            )
        ]

    def _place(self, key: int) -> tuple[str, str, str]:
        place = self._population.place_of(key)
        name = self.name(self._population.account_of(key))
        fragments = (
            place.address,
            f'"user":"{name}","threat_score":',
            f'"metadata":{{"hostname":"{place.hostname}","geo_location":"{place.city}",'
            f'"user_agent":"{escape(place.agent)}","session_id":"',
        )
        self._places[key] = fragments
        return fragments

    def _favourites(self, users: NDArray[np.int64], size: int, salt: int) -> list[int]:
        """Indices into a pool of `size`, each account's own favourites most often."""
        ranks = self._zipf[size][self._rng.integers(0, _RANKS, len(users))]
        out: list[int] = (((self._population.habits.taste[users] >> salt) + ranks * 7) % size).tolist()
        return out

    def _lognormal(self, users: NDArray[np.int64], mean: float, sigma: float) -> list[int]:
        normal = mean + self._population.habits.volume[users] + sigma * self._rng.standard_normal(len(users))
        out: list[int] = np.exp(np.minimum(normal, 27.0)).astype(np.int64).tolist()
        return out

    def _integers(self, low: int, high: int, n: int) -> list[int]:
        out: list[int] = self._rng.integers(low, high, n).tolist()
        return out

    def _auth(self, rows: NDArray[np.void]) -> list[tuple[str, str]]:
        n, kinds, gates = len(rows), self._population.habits.kind[rows["user"]].tolist(), self._pools.gates
        second = (self._rng.random(n) < 1 / 7).astype(int).tolist()
        reasons = self._integers(0, len(_REASONS), n)
        gate = self._integers(0, len(gates), n)
        return [
            (
                gates[g],
                f'"auth_details":{{"auth_type":"{KINDS[kind].auth_types[other]}","failure_reason":'
                f'{_reason(outcome, tries, reason)},"attempts_count":{tries + 1}}}',
            )
            for kind, other, outcome, tries, reason, g in zip(
                kinds, second, rows["outcome"].tolist(), rows["tries"].tolist(), reasons, gate, strict=True
            )
        ]

    def _network(self, rows: NDArray[np.void]) -> list[tuple[str, str]]:
        users, n, sites = rows["user"], len(rows), self._pools.sites
        out = []
        for site, port, sent, received, duration, outcome, udp in zip(
            self._favourites(users, SITES, 3),
            self._integers(1024, 65536, n),
            self._lognormal(users, 7.6, 1.5),
            self._lognormal(users, 9.2, 1.7),
            self._lognormal(users, 6.5, 1.3),
            rows["outcome"].tolist(),
            (self._rng.random(n) < 0.12).tolist(),
            strict=True,
        ):
            address, host, target_port = sites[site]
            done = outcome == 0
            out.append(
                (
                    address,
                    f'"network_details":{{"protocol":"{"udp" if udp and target_port == "443" else "tcp"}",'
                    f'"source_port":{port},"destination_port":{target_port},"bytes_sent":{sent if done else 60},'
                    f'"bytes_received":{received if done else 0},"duration_ms":{duration},'
                    f'"destination_hostname":"{host}","connection_state":"{_STATES[outcome]}"}}',
                )
            )
        return out

    def _file(self, rows: NDArray[np.void]) -> list[tuple[str, str]]:
        users, n, habits = rows["user"], len(rows), self._population.habits
        teams = (
            np.where(self._rng.random(n) < 0.93, habits.team[users], self._rng.integers(0, TEAMS, n)) % TEAMS
        )
        private = (self._rng.random(n) < 0.15).tolist()
        out = []
        for user, team, file, own, operation, size, chance, outcome in zip(
            users.tolist(),
            teams.tolist(),
            self._favourites(users, FILES, 9),
            private,
            self._integers(0, len(_OPERATIONS), n),
            self._lognormal(users, 10.6, 1.8),
            self._integers(0, 1000, n),
            rows["outcome"].tolist(),
            strict=True,
        ):
            path, digest = self._pools.files[team][file]
            if own:
                path = f"/home/{self.name(user)}/documents/{path.rpartition('/')[2]}"
            out.append(
                (
                    self._pools.file_servers[team % 8],
                    f'"file_details":{{"file_path":"{path}","operation":"{_OPERATIONS[operation]}",'
                    f'"file_size_bytes":{size},"file_hash":"{digest}","is_encrypted":{_BOOL[chance < 15]},'
                    f'"permissions_changed":{_BOOL[chance >= 994]},"access_denied":{_BOOL[outcome == 2]}}}',
                )
            )
        return out

    def _process(self, rows: NDArray[np.void]) -> list[tuple[str, str]]:
        users, n = rows["user"], len(rows)
        programs = self._pools.programs
        return [
            (
                "",
                f'{programs[kind][program][0]}{pid},"parent_process_id":{parent}{programs[kind][program][1]}',
            )
            for kind, program, pid, parent in zip(
                self._population.habits.kind[users].tolist(),
                self._favourites(users, PROGRAMS, 15),
                self._integers(800, 32768, n),
                self._integers(300, 8000, n),
                strict=True,
            )
        ]

    def _dns(self, rows: NDArray[np.void]) -> list[tuple[str, str]]:
        users, n, names, resolvers = rows["user"], len(rows), self._pools.names, self._pools.resolvers
        out = []
        for name, office, chance, ttl, outcome, typo in zip(
            self._favourites(users, NAMES, 21),
            self._population.habits.office[users].tolist(),
            self._integers(0, 100, n),
            self._integers(5, 3600, n),
            rows["outcome"].tolist(),
            self._integers(0, 26, n),
            strict=True,
        ):
            query, addresses = names[name]
            server = resolvers[office % len(resolvers)]
            if outcome:
                query, addresses = f"{query[:3]}{chr(97 + typo)}{query[3:]}", "[]"
            out.append(
                (
                    server,
                    f'"dns_details":{{"query_name":"{query}","query_type":"{_QUERIES[chance]}",'
                    f'"response_code":"{_CODES[outcome]}","resolved_ips":{addresses},"ttl":{0 if outcome else ttl},'
                    f'"is_cached":{_BOOL[chance % 3 == 0]},"dns_server":"{server}"}}',
                )
            )
        return out


_STATES = ("established", "reset", "refused", "opening")
_CODES = ("NOERROR", "NXDOMAIN", "REFUSED", "SERVFAIL")
_QUERIES = ("A",) * 68 + ("AAAA",) * 24 + ("PTR",) * 3 + ("TXT",) * 2 + ("MX",) + ("SRV",) * 2


def _reason(outcome: int, tries: int, reason: int) -> str:
    if outcome == 0:
        return "null"
    if outcome == 3:
        return '"mfa_pending"'
    return '"wrong_password"' if tries else f'"{_REASONS[reason]}"'


def _zipf_shares(size: int) -> NDArray[np.float64]:
    shares = 1 / np.arange(1, size + 1) ** 1.3
    out: NDArray[np.float64] = shares / shares.sum()
    return out


def encode_step(event_id: str, step: Step) -> bytes:
    """One attack step's JSON, field for field as the benign stream writes it."""
    place = step.place
    return msgspec.json.encode(
        {
            "event_id": event_id,
            "timestamp": step.timestamp,
            "event_type": step.event_type,
            "source_ip": place.address,
            "destination_ip": step.destination,
            "user": step.user,
            "threat_score": round(step.threat, 4),
            "status": step.status,
            "metadata": {
                "hostname": place.hostname,
                "geo_location": place.city,
                "user_agent": place.agent,
                "session_id": f"{step.session:012x}",
            },
            DETAILS[step.event_type]: step.details,
        }
    )


DETAILS = dict(
    zip(
        TYPES,
        ("auth_details", "network_details", "file_details", "process_details", "dns_details"),
        strict=True,
    )
)
