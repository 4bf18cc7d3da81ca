"""Details of benign events as JSON text, from prepared fragments and numbers that are drawn block by block."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from streamguard.simulate.habits import KINDS
from streamguard.simulate.population import Population
from streamguard.simulate.shared import FILES, NAMES, PROGRAMS, SITES, TEAMS, make_pools

RANKS = 4096
"""Number of entries of the tables that represent a distribution."""
_OPERATIONS = ("read",) * 70 + ("write",) * 18 + ("create",) * 6 + ("rename",) * 3 + ("delete",) * 3
_REASONS = ("wrong_password",) * 16 + ("expired_password", "mfa_timeout", "mfa_denied", "clock_skew")
_BOOL = ("false", "true")
_STATES = ("established", "reset", "refused", "opening")
_CODES = ("NOERROR", "NXDOMAIN", "REFUSED", "SERVFAIL")
_QUERIES = ("A",) * 68 + ("AAAA",) * 24 + ("PTR",) * 3 + ("TXT",) * 2 + ("MX",) + ("SRV",) * 2
_SERVICE_FAVOURITES = 12
_BACKUP, _BIG, _BIG_SHARE, _LARGEST = 6.0, 4.5, 0.004, 24.0
"""Numbers that are added to the logarithm of a size in a service's nightly job, and to that of a rare large size; the
share of large sizes; and the greatest logarithm, which stands for 26 GB."""

Detail = tuple[str, str]
"""Destination address (empty: that of the source) and the text of the details."""


class Details:
    """Renders the details of each type of event.

    Parameters
    ----------
    population
        Accounts of the events.
    rng
        Source of all random numbers.
    name
        Maps an account number to its name.
    """

    def __init__(self, population: Population, rng: np.random.Generator, name: Callable[[int], str]) -> None:
        self._habits = population.habits
        self._rng = rng
        self._name = name
        self._pools = make_pools(population.seed)
        ranks = np.random.default_rng([population.seed, 9])
        self._zipf = {
            size: ranks.choice(size, RANKS, p=_zipf_shares(size)).astype(np.int64)
            for size in (SITES, NAMES, FILES, PROGRAMS)
        }
        self._renderers = (self._auth, self._network, self._file, self._process, self._dns)

    def render(self, arrivals: NDArray[np.void]) -> list[Detail]:
        """Render the details of each of the `arrivals.ARRIVAL` records."""
        out: list[Detail] = [("", "")] * len(arrivals)
        for number, renderer in enumerate(self._renderers):
            rows = np.flatnonzero(arrivals["type"] == number)
            if len(rows):
                for row, detail in zip(rows.tolist(), renderer(arrivals[rows]), strict=True):
                    out[row] = detail
        return out

    def _favourites(self, users: NDArray[np.int64], size: int, salt: int) -> list[int]:
        """Draw indices into a pool of `size`, most often those of each account's favourites."""
        ranks = self._zipf[size][self._rng.integers(0, RANKS, len(users))]
        ranks = np.where(self._habits.person[users], ranks, ranks % _SERVICE_FAVOURITES)
        out: list[int] = (((self._habits.taste[users] >> salt) + ranks * 7) % size).tolist()
        return out

    def _sizes(self, rows: NDArray[np.void], mean: float, sigma: float) -> list[int]:
        """Draw log-normal sizes around the account's volume; some are large, and so are those of nightly backups."""
        habits, users, n = self._habits, rows["user"], len(rows)
        since_start = rows["time"] // 60_000 + habits.utc_minutes[users] - habits.start_minute[users]
        backup = ~habits.person[users] & (since_start % 1440 < habits.work_minutes[users])
        shift = habits.volume[users] + _BACKUP * backup + _BIG * (self._rng.random(n) < _BIG_SHARE)
        normal = mean + shift + sigma * self._rng.standard_normal(n)
        out: list[int] = np.exp(np.minimum(normal, _LARGEST)).astype(np.int64).tolist()
        return out

    def _durations(self, n: int) -> list[int]:
        out: list[int] = self._rng.lognormal(6.5, 1.4, n).astype(np.int64).tolist()
        return out

    def _integers(self, low: int, high: int, n: int) -> list[int]:
        out: list[int] = self._rng.integers(low, high, n).tolist()
        return out

    def _auth(self, rows: NDArray[np.void]) -> list[Detail]:
        n, kinds, gates = len(rows), self._habits.kind[rows["user"]].tolist(), self._pools.gates
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

    def _network(self, rows: NDArray[np.void]) -> list[Detail]:
        users, n, sites = rows["user"], len(rows), self._pools.sites
        out = []
        for site, port, sent, received, duration, outcome, udp in zip(
            self._favourites(users, SITES, 3),
            self._integers(1024, 65536, n),
            self._sizes(rows, 7.6, 1.5),
            self._sizes(rows, 9.2, 1.7),
            self._durations(n),
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
                    f'"source_port":{port},"destination_port":{target_port},'
                    f'"bytes_sent":{sent if done else 60},"bytes_received":{received if done else 0},'
                    f'"duration_ms":{duration},"destination_hostname":"{host}","connection_state":"{_STATES[outcome]}"}}',
                )
            )
        return out

    def _file(self, rows: NDArray[np.void]) -> list[Detail]:
        users, n, habits = rows["user"], len(rows), self._habits
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
            self._sizes(rows, 10.6, 1.8),
            self._integers(0, 1000, n),
            rows["outcome"].tolist(),
            strict=True,
        ):
            path, digest = self._pools.files[team][file]
            if own:
                path = f"/home/{self._name(user)}/documents/{path.rpartition('/')[2]}"
            out.append(
                (
                    self._pools.file_servers[team % 8],
                    f'"file_details":{{"file_path":"{path}","operation":"{_OPERATIONS[operation]}",'
                    f'"file_size_bytes":{size},"file_hash":"{digest}","is_encrypted":{_BOOL[chance < 15]},'
                    f'"permissions_changed":{_BOOL[chance >= 994]},"access_denied":{_BOOL[outcome == 2]}}}',
                )
            )
        return out

    def _process(self, rows: NDArray[np.void]) -> list[Detail]:
        users, n = rows["user"], len(rows)
        programs = self._pools.programs
        return [
            (
                "",
                f'{programs[kind][program][0]}{pid},"parent_process_id":{parent}{programs[kind][program][1]}',
            )
            for kind, program, pid, parent in zip(
                self._habits.kind[users].tolist(),
                self._favourites(users, PROGRAMS, 15),
                self._integers(800, 32768, n),
                self._integers(300, 8000, n),
                strict=True,
            )
        ]

    def _dns(self, rows: NDArray[np.void]) -> list[Detail]:
        users, n, names, resolvers = rows["user"], len(rows), self._pools.names, self._pools.resolvers
        out = []
        for name, office, chance, ttl, outcome, typo in zip(
            self._favourites(users, NAMES, 21),
            self._habits.office[users].tolist(),
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
                    f'"response_code":"{_CODES[outcome]}","resolved_ips":{addresses},'
                    f'"ttl":{0 if outcome else ttl},"is_cached":{_BOOL[chance % 3 == 0]},'
                    f'"dns_server":"{server}"}}',
                )
            )
        return out


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
