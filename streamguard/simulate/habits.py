"""Habits of the accounts: seven kinds, and for each account its hours, rate, failures and volumes."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from streamguard.simulate.places import OFFICES

TYPES = ("auth_attempt", "network_connection", "file_access", "process_execution", "dns_query")
TYPE_MIX = (0.40, 0.25, 0.20, 0.10, 0.05)
"""Share of each type in all benign traffic."""

EVERY_DAY = 0b1111111
WEEKDAYS = 0b0011111


@dataclass(frozen=True, slots=True)
class Kind:
    """Behaviour of one kind of account; activity levels are relative to a working hour."""

    name: str
    share: float
    """Share of the generated population."""
    rate: float
    """Events per day relative to the average account."""
    start_minute: int
    work_minutes: int
    working: float
    evening: float
    night: float
    free_day: float
    workdays: int
    """Bit 0 is Monday."""
    taste: tuple[float, float, float, float, float]
    """Preference for each type relative to the mix of all traffic."""
    failure: float
    """Share of sign-ins that fail."""
    volume: float
    """Number that is added to the natural logarithm of bytes and sizes."""
    home: float = 0.0
    """Share of working days at home."""
    travel: float = 0.0
    """Share of weeks in another city."""
    month_end: float = 0.0
    """Extra work around the end of a month."""
    on_call: float = 0.0
    """Share of weeks with work at night and on free days, too."""
    auth_types: tuple[str, str] = ("sso", "password")
    """The usual way to sign in, and the way of 1 sign-in in 7."""
    privileges: str = "user"


KINDS = (
    Kind("office", 0.44, 1.0, 525, 510, 1.0, 0.035, 0.001, 0.015,
         WEEKDAYS, (1.1, 1.0, 1.1, 0.6, 1.0), 0.035, 0.0, home=0.25, travel=0.015, month_end=0.2),
    Kind("developer", 0.18, 1.3, 585, 540, 1.0, 0.09, 0.006, 0.03,
         WEEKDAYS, (0.8, 1.1, 0.9, 2.0, 1.1), 0.025, 0.6, home=0.45, travel=0.015,
         auth_types=("sso", "ssh_key")),
    Kind("sales", 0.12, 0.9, 510, 540, 1.0, 0.08, 0.002, 0.03,
         WEEKDAYS, (1.3, 1.2, 0.8, 0.3, 1.2), 0.05, -0.2, home=0.3, travel=0.16),
    Kind("finance", 0.08, 1.0, 495, 510, 1.0, 0.03, 0.001, 0.01,
         WEEKDAYS, (1.0, 0.7, 1.8, 0.4, 0.8), 0.03, 0.2, home=0.2, travel=0.01, month_end=0.9),
    Kind("admin", 0.04, 1.4, 510, 540, 1.0, 0.1, 0.01, 0.03,
         WEEKDAYS, (1.2, 1.0, 0.6, 2.5, 1.0), 0.03, 0.5, home=0.3, travel=0.01, on_call=0.3,
         auth_types=("kerberos", "ssh_key"), privileges="administrator"),
    Kind("support", 0.05, 1.1, 1320, 480, 1.0, 0.02, 0.002, 0.01,
         0b0111110, (1.2, 1.0, 0.9, 0.6, 1.2), 0.04, -0.2, home=0.1),
    Kind("service", 0.09, 1.6, 60, 150, 2.5, 1.0, 1.0, 1.0,
         EVERY_DAY, (0.9, 1.3, 1.0, 1.0, 0.6), 0.004, 2.0,
         auth_types=("api_token", "kerberos"), privileges="service"),
)  # fmt: skip
KIND_NAMES = tuple(kind.name for kind in KINDS)

NAMED = (
    ("alice", "office"), ("bob", "developer"), ("carol", "finance"), ("dave", "sales"),
    ("erin", "developer"), ("frank", "office"), ("grace", "office"), ("heidi", "sales"),
    ("admin", "admin"), ("ops-oncall", "admin"), ("night-desk", "support"),
    ("svc-backup", "service"), ("svc-deploy", "service"), ("svc-monitor", "service"),
)  # fmt: skip
"""Names and kinds of the default population."""

LEAVER = "contractor-7"
"""An account whose owner left long ago; see `dormant_account`."""

_PREFIX = {"service": "svc", "admin": "adm", "support": "desk"}


class Habits:
    """Habits of all accounts as arrays with one entry per account.

    Parameters
    ----------
    users
        Number of accounts; the first 14 are named.
    seed
        Seed of the habits; equal seeds result in equal accounts.
    """

    def __init__(self, users: int, seed: int) -> None:
        if users < 1:
            raise ValueError(f"users must be at least 1, not {users}")
        rng = np.random.default_rng([seed, 1])
        named = [KIND_NAMES.index(kind) for _, kind in NAMED]
        shares = np.array([kind.share for kind in KINDS])
        drawn = rng.choice(len(KINDS), size=max(users - len(named), 0), p=shares / shares.sum())
        # The leaver is the last account: an ordinary office account that is never active in the calendar.
        self.kind: NDArray[np.int64] = np.concatenate((named, drawn))[:users].astype(np.int64)
        self.count = users
        self.leaver = users
        self.kind = np.append(self.kind, KIND_NAMES.index("office"))
        n = users + 1

        def column(field: str) -> NDArray[np.float64]:
            return np.array([getattr(kind, field) for kind in KINDS], dtype=np.float64)[self.kind]

        people = self.kind != KIND_NAMES.index("service")
        self.person: NDArray[np.bool_] = people
        small = users <= len(NAMED)
        self.office: NDArray[np.int64] = rng.integers(0, 3 if small else len(OFFICES), n)
        self.utc_minutes: NDArray[np.int64] = np.array([city.utc_minutes for city in OFFICES])[self.office]
        jitter = np.where(people, rng.normal(0, 40, n), rng.uniform(-60, 360, n))
        self.start_minute: NDArray[np.int64] = (column("start_minute") + jitter).astype(np.int64) % 1440
        self.work_minutes: NDArray[np.int64] = (column("work_minutes") + rng.normal(0, 20, n)).astype(
            np.int64
        )
        self.levels: NDArray[np.float64] = np.stack(
            [column(level) for level in ("working", "evening", "night", "free_day")], axis=1
        )
        self.workdays: NDArray[np.int64] = column("workdays").astype(np.int64)
        rate = column("rate") * rng.lognormal(0, 0.3, n)
        self.rate: NDArray[np.float64] = rate / rate[:users].mean()
        self.failure: NDArray[np.float64] = np.minimum(column("failure") * rng.lognormal(0, 0.4, n), 0.2)
        self.volume: NDArray[np.float64] = column("volume") + rng.normal(0, 0.5, n)
        self.home: NDArray[np.float64] = np.clip(column("home") + people * rng.normal(0, 0.12, n), 0, 1)
        self.travel: NDArray[np.float64] = column("travel")
        self.month_end: NDArray[np.float64] = column("month_end")
        self.on_call: NDArray[np.float64] = column("on_call")
        self.taste: NDArray[np.int64] = rng.integers(0, 1 << 40, n)
        """Number by which two people of a kind prefer different sites, folders and programs."""
        self.team: NDArray[np.int64] = rng.integers(0, 1 << 20, n)

    def name(self, user: int) -> str:
        """Return the name of an account.

        Examples
        --------
        >>> Habits(15, seed=0).name(0)
        'alice'
        """
        if user == self.leaver:
            return LEAVER
        if user < len(NAMED):
            return NAMED[user][0]
        return f"{_PREFIX.get(KIND_NAMES[self.kind[user]], 'user')}-{user + 1:05d}"

    def of_kind(self, *names: str) -> list[int]:
        """Return the accounts of these kinds without the leaver; all accounts if there are none."""
        wanted = [KIND_NAMES.index(name) for name in names]
        found = np.flatnonzero(np.isin(self.kind[: self.count], wanted))
        return found.tolist() if len(found) else list(range(self.count))


def type_mixes(weights: NDArray[np.float64]) -> NDArray[np.float64]:
    """Compute the shares of the five types for each kind, such that all traffic together has `TYPE_MIX`.

    Parameters
    ----------
    weights
        Share of each kind in the traffic, float64 (7,).

    Returns
    -------
    ndarray
        float64 (7, 5); each row adds up to 1.

    Examples
    --------
    >>> even = np.full(7, 1 / 7)
    >>> [round(float(share), 3) for share in even @ type_mixes(even)]
    [0.4, 0.25, 0.2, 0.1, 0.05]
    """
    target = np.array(TYPE_MIX)
    mixes = np.array([kind.taste for kind in KINDS]) * target
    for _ in range(60):
        mixes /= mixes.sum(axis=1, keepdims=True)
        mixes *= target / (weights @ mixes)
    shares: NDArray[np.float64] = mixes / mixes.sum(axis=1, keepdims=True)
    return shares
