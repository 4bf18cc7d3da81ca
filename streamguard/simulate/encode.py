"""Encodes events as JSON: the benign stream from prepared fragments, attack steps one by one."""

from __future__ import annotations

import hashlib

import msgspec
import numpy as np
from numpy.typing import NDArray

from streamguard.simulate.details import RANKS, Details
from streamguard.simulate.habits import TYPES
from streamguard.simulate.population import Population
from streamguard.simulate.scenarios import Step
from streamguard.simulate.shared import escape

STATUS = ("success", "failed", "blocked", "pending")
_GROUPS = {
    "auth_attempt": "auth_details",
    "network_connection": "network_details",
    "file_access": "file_details",
    "process_execution": "process_details",
    "dns_query": "dns_details",
}
_PLACES_KEPT = 300_000
_SESSION_MS = 21_600_000
_MIXER = np.uint64(0x9E3779B97F4A7C15)


class EventIds:
    """Unique, deterministic event ids: a digest of the run, and a serial number in stream order.

    Parameters
    ----------
    run
        Parameters that identify the run: seed, users, start and others.
    """

    def __init__(self, *run: object) -> None:
        self._prefix = "evt-" + hashlib.blake2b(repr(run).encode(), digest_size=5).hexdigest() + "-"
        self._next = 0

    def take(self, count: int) -> list[str]:
        """Return the next `count` ids."""
        first = self._next
        self._next += count
        prefix = self._prefix
        return [f"{prefix}{number:09x}" for number in range(first, first + count)]


class Encoder:
    """Renders arrivals; it caches the part of the JSON text that belongs to each place and account.

    Parameters
    ----------
    population
        Accounts of the events.
    start
        Start of the run (ms); another start results in other details.
    """

    def __init__(self, population: Population, start: int) -> None:
        self._population = population
        self._rng = np.random.default_rng([population.seed, 6, start & 0xFFFFFFFF, start >> 32])
        rng = np.random.default_rng([population.seed, 7])
        upstream = np.where(rng.random(RANKS) < 0.03, rng.beta(3, 5, RANKS), rng.beta(1.2, 12, RANKS))
        self._threats = [str(round(float(value), 4)) for value in upstream]
        self._places: dict[int, tuple[str, str, str]] = {}
        self._names: dict[int, str] = {}
        self._details = Details(population, self._rng, self.name)

    def name(self, user: int) -> str:
        """Return the name of an account, the same object each time."""
        found = self._names.get(user)
        if found is None:
            found = self._names[user] = self._population.habits.name(user)
        return found

    def render(self, arrivals: NDArray[np.void], ids: list[str]) -> list[bytes]:
        """Render each arrival as JSON.

        Parameters
        ----------
        arrivals
            `arrivals.ARRIVAL` records.
        ids
            One event id for each.
        """
        n = len(arrivals)
        if not n:
            return []
        rng, users, types = self._rng, arrivals["user"], arrivals["type"]
        threats = rng.integers(0, RANKS, n).tolist()
        keys = self._population.place_keys(users, arrivals["spot"], arrivals["time"])
        periods = (arrivals["time"] // _SESSION_MS).astype(np.uint64)
        mixed = (keys.view(np.uint64) + periods) * _MIXER
        sessions = (mixed ^ mixed >> np.uint64(31)) >> np.uint64(16)
        details = self._details.render(arrivals)
        if len(self._places) > _PLACES_KEPT:
            self._places.clear()
        known, make, scores = self._places.get, self._place, self._threats
        places = [known(key) or make(key) for key in keys.tolist()]
        columns = zip(
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
        return [
            f'{{"event_id":"{event_id}","timestamp":{time},"event_type":"{TYPES[kind]}",'
            f'"source_ip":"{source}","destination_ip":"{target or source}",{user}{scores[threat]},'
            f'"status":"{STATUS[outcome]}",{metadata}{session:012x}"}},{detail}}}'.encode()
            for event_id, time, kind, (source, user, metadata), (
                target,
                detail,
            ), threat, outcome, session in columns
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


def encode_step(event_id: str, step: Step) -> bytes:
    """Encode one step as JSON with the fields of the benign stream; types that it does not have are without details."""
    place = step.place
    group = _GROUPS.get(step.event_type)
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
        }
        | ({group: step.details} if group else {})
    )
