"""The accounts with their places: which address, machine and user agent an account uses at a place and time."""

from __future__ import annotations

from enum import IntEnum
from random import Random

import numpy as np
from numpy.typing import NDArray

from streamguard.simulate.activity import Calendar
from streamguard.simulate.drift import Drift, Thing
from streamguard.simulate.habits import KIND_NAMES, Habits
from streamguard.simulate.places import CITIES, ELSEWHERE, OFFICES, Place, browser, public_address


class Spot(IntEnum):
    """Place from which an account works, in the detail that its events show."""

    DESK = 0
    DESK_OTHER_LEASE = 1
    HOME = 2
    PHONE = 3
    VPN = 4
    TRAVEL = 5
    WIFI_ELSEWHERE = 6
    SECOND_MACHINE = 7


SPOT_SHARES = np.array(
    [
        # desk  lease  home  phone  vpn  travel wifi  second
        [0.720, 0.110, 0.00, 0.110, 0.00, 0.00, 0.00, 0.060],  # Whereabouts.OFFICE
        [0.000, 0.000, 0.55, 0.140, 0.30, 0.00, 0.01, 0.000],  # HOME
        [0.000, 0.000, 0.55, 0.300, 0.13, 0.00, 0.02, 0.000],  # OFF_HOURS
        [0.000, 0.000, 0.00, 0.150, 0.25, 0.55, 0.05, 0.000],  # TRAVEL
        [0.900, 0.080, 0.00, 0.000, 0.00, 0.00, 0.00, 0.020],  # SERVER
        [0.000, 0.000, 0.20, 0.100, 0.50, 0.00, 0.00, 0.200],  # ON_CALL
    ]
)
"""Share of each spot, by whereabouts."""

_NETWORK = np.array([Thing.OFFICE, Thing.OFFICE, Thing.HOME, -1, -1, -1, -1, Thing.OFFICE])
_DEVICE = np.array(
    [Thing.LAPTOP, Thing.LAPTOP, Thing.LAPTOP, Thing.PHONE, Thing.LAPTOP, Thing.LAPTOP, Thing.LAPTOP, -1]
)
_FIRST_VERSION = -595  # so that a browser of 2025-01-01 has version 122
_WEEK_MS = 7 * 86_400_000
_SERVICE = KIND_NAMES.index("service")
_SERVICE_AGENTS = (
    "backup-agent/4.2",
    "ci-runner/16.9",
    "node-exporter/1.8",
    "python-requests/2.31.0",
    "Go-http-client/1.1",
)


class Population:
    """All accounts with their habits, their calendar and their places.

    Parameters
    ----------
    users
        Number of accounts; the first 14 are named (`habits.NAMED`).
    seed
        Seed of the accounts; equal seeds result in equal accounts at any simulated time.
    """

    def __init__(self, users: int, seed: int) -> None:
        self.seed = seed
        self.habits = Habits(users, seed)
        self.calendar = Calendar(self.habits, seed)
        self.drift = Drift(users + 1, seed)

    def place_keys(
        self, users: NDArray[np.int64], spots: NDArray[np.int64], times: NDArray[np.int64]
    ) -> NDArray[np.int64]:
        """Return one number per place, from arrays of one length; equal numbers stand for equal places."""
        network = self.drift.generation(_NETWORK[spots], users, times)
        device = self.drift.generation(_DEVICE[spots], users, times)
        roaming = (spots == Spot.TRAVEL) | (spots == Spot.WIFI_ELSEWHERE)
        network = np.where(roaming, times // _WEEK_MS, network)
        browser_age = self.drift.generation(np.full_like(users, Thing.BROWSER), users, times)
        keys: NDArray[np.int64] = (
            (users << 43) | (spots << 40) | (network & 0xFFFF) << 24 | (device & 0x3FF) << 14
        )
        return keys | browser_age

    def place(self, user: int, spot: Spot, time: int) -> Place:
        """Return the place that the events of `user` show at `spot` at a time (ms)."""
        one = np.array([user]), np.array([int(spot)]), np.array([time])
        return self.place_of(int(self.place_keys(*one)[0]))

    def place_of(self, key: int) -> Place:
        """Return the place of a number of `place_keys`."""
        user, spot = self.account_of(key), Spot(key >> 40 & 7)
        network, device, version = key >> 24 & 0xFFFF, key >> 14 & 0x3FF, (key & 0x3FFF) + _FIRST_VERSION
        if self.habits.kind[user] == _SERVICE:
            return self._server(user, spot)
        about = f"{self.seed}:{user}"
        host, agent = self._device(about, spot, device, version)
        office = OFFICES[self.habits.office[user]]
        draw = Random(f"{about}:{spot.name}:{network}")
        if spot in (Spot.DESK, Spot.DESK_OTHER_LEASE, Spot.SECOND_MACHINE):
            building = CITIES.index(office) * 4 + network % 2
            return Place(
                f"10.{16 + building}.{draw.randrange(8)}.{draw.randrange(2, 255)}", office.name, host, agent
            )
        if spot is Spot.VPN:
            return Place(f"10.8.{user // 250 % 256}.{user % 250 + 2}", office.name, host, agent)
        if spot is Spot.PHONE:
            return Place(public_address(draw, f"mobile:{office.name}"), office.name, host, agent)
        city = office
        if spot is Spot.TRAVEL:
            near = [c for c in CITIES if c is not office and c.distance_km(office) < 6000]
            city = draw.choice(near if draw.random() < 0.8 else ELSEWHERE[:9])
        network_name = f"isp:{city.name}" if spot is Spot.HOME else f"hotel:{city.name}"
        return Place(public_address(draw, network_name), city.name, host, agent)

    @staticmethod
    def account_of(key: int) -> int:
        """Return the account of a number of `place_keys`."""
        return key >> 43

    def _device(self, about: str, spot: Spot, number: int, version: int) -> tuple[str, str]:
        draw = Random(
            f"{about}:device:{'second' if spot is Spot.SECOND_MACHINE else spot is Spot.PHONE}:{number}"
        )
        if spot is Spot.PHONE:
            return f"phone-{draw.getrandbits(24):06x}", browser(draw, phone=True, version=version)
        if spot is Spot.SECOND_MACHINE:
            return f"shared-{draw.randrange(40):02d}", browser(draw, version=version)
        return f"ws-{draw.getrandbits(24):06x}", browser(draw, version=version)

    def _server(self, user: int, spot: Spot) -> Place:
        draw = Random(f"{self.seed}:{user}:server")
        agent = draw.choice(_SERVICE_AGENTS)
        number = draw.randrange(200) + (spot != Spot.DESK) * (1 + spot)
        host = f"srv-{draw.choice(('app', 'db', 'job', 'ci'))}-{number:03d}"
        return Place(
            f"10.200.{user % 200}.{number % 250 + 2}", OFFICES[self.habits.office[user]].name, host, agent
        )
