"""Streams of events for tests of the fold, and a partition that saves into a dictionary."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import msgspec
import numpy as np
from hypothesis import strategies as st
from numpy.typing import NDArray

from streamguard.events.subject import profile_key
from streamguard.settings.schema import Detection
from streamguard.state.codec import unpack
from streamguard.state.in_memory import InMemoryPartition
from streamguard.state.partition import Folded
from tests.incidents import bodies

START = 1_736_121_600_000
"""Monday, 2025-01-06, 00:00 UTC."""
MINUTE, HOUR, DAY = 60_000, 3_600_000, 86_400_000


def event(ts: int, user: str | None = "ann", kind: str = "auth_attempt", **fields: Any) -> bytes:
    """One event as JSON."""
    return msgspec.json.encode({"timestamp": ts, "user": user, "event_type": kind, **fields})


def habit(n: int, start: int = START, users: int = 20, step: int = 20_000, seed: int = 0) -> list[bytes]:
    """Ordinary logins of a few users from their own addresses, one in forty failing."""
    random = np.random.default_rng(seed)
    out = []
    for i in range(n):
        k = int(random.integers(users))
        address = f"10.{k}.0.{1 if random.random() < 0.9 else 2}"
        status = "failed" if random.random() < 0.025 else "success"
        place = {"geo_location": "DE-Berlin", "hostname": f"laptop-{k}"}
        out.append(event(start + i * step, f"user{k}", source_ip=address, status=status, metadata=place))
    return out


class Partition(InMemoryPartition):
    """Partition 0, saved into a dictionary after a given number of chunks."""

    def __init__(
        self,
        saved: dict[bytes, bytes] | None = None,
        *,
        resident: int = 4000,
        detection: Detection | None = None,
    ) -> None:
        super().__init__(0, resident=resident, detection=detection or Detection(), saved=saved)

    def run(
        self,
        values: Sequence[bytes],
        *,
        chunk: int = 500,
        save_every: int = 0,
        start: int = 0,
        forest: Any = None,
        append_ms: NDArray[np.int64] | None = None,
    ) -> list[dict[str, Any]]:
        """Fold the values from offset `start` on; return the published incidents. 0 saves only at the end."""
        incidents = []
        for folded in self.chunks(
            values, chunk=chunk, save_every=save_every, start=start, forest=forest, append_ms=append_ms
        ):
            incidents += bodies(update.incident for update in folded.incidents)
        self.save()
        return incidents

    def chunks(
        self,
        values: Sequence[bytes],
        *,
        chunk: int = 500,
        save_every: int = 0,
        start: int = 0,
        forest: Any = None,
        append_ms: NDArray[np.int64] | None = None,
    ) -> Iterator[Folded]:
        for number, a in enumerate(range(start, len(values), chunk), 1):
            b = min(a + chunk, len(values))
            times = None if append_ms is None else append_ms[a:b]
            yield self.state.fold(values[a:b], np.arange(a, b), forest, times)
            if save_every and number % save_every == 0:
                self.save()

    def profile(self, user: str) -> np.void:
        """A user's saved profile."""
        from streamguard.fold import profile

        record: np.void = unpack(self.saved[profile_key(user)], profile.PROFILE, "profile")[0]
        return record

    @property
    def population(self) -> np.void:
        """The saved population."""
        from streamguard.fold import population

        record: np.void = unpack(self.saved[b"p"], population.POPULATION, "population")[0]
        return record


def fold_one(partition: Partition, value: bytes, offset: int) -> Folded:
    """Fold one event."""
    return partition.state.fold([value], np.array([offset]))


_details: list[tuple[str, st.SearchStrategy[dict[str, Any]]]] = [
    (
        "auth_attempt",
        st.fixed_dictionaries(
            {"auth_details": st.fixed_dictionaries({"auth_type": st.sampled_from(["password", "sso"])})}
        ),
    ),
    (
        "network_connection",
        st.fixed_dictionaries(
            {
                "network_details": st.fixed_dictionaries(
                    {
                        "bytes_sent": st.one_of(st.sampled_from([0, 1e3, 5e8]), st.floats(0, 1e12)),
                        "destination_hostname": st.sampled_from(["a.example", "b.example"]),
                    }
                )
            }
        ),
    ),
    (
        "file_access",
        st.fixed_dictionaries(
            {
                "file_details": st.fixed_dictionaries(
                    {
                        "file_path": st.sampled_from(["/srv/a/x", "/srv/b/y"]),
                        "operation": st.sampled_from(["read", "write"]),
                        "file_size_bytes": st.integers(0, 10**10),
                        "is_encrypted": st.booleans(),
                    }
                )
            }
        ),
    ),
    (
        "dns_query",
        st.fixed_dictionaries(
            {
                "dns_details": st.fixed_dictionaries(
                    {
                        "query_name": st.sampled_from(
                            ["www.example", "c" * 40 + ".t.example", "xkqzjvwpqhtrw.biz"]
                        ),
                        "response_code": st.sampled_from(["NXDOMAIN", "NOERROR"]),
                    }
                )
            }
        ),
    ),
]

_steps = st.sampled_from(
    [0, 1, 900, 40_000, 20 * MINUTE, 5 * HOUR, 2 * DAY, 40 * DAY, -3 * HOUR, -2 * DAY, 80 * 365 * DAY]
)


@st.composite
def runs(draw: Callable[..., Any], max_runs: int = 12) -> list[bytes]:
    """Runs of similar events with jumps in time in between, forward, backward and far: up to a few hundred events."""
    now, out = START, []
    for _ in range(draw(st.integers(1, max_runs))):
        jump = draw(_steps)
        at = now + jump
        if jump < 10 * 365 * DAY:
            now = max(at, now)
        kind, details = draw(st.sampled_from(_details))
        fields: dict[str, Any] = draw(details)
        fields["status"] = draw(st.sampled_from(["success", "failed", "pending", "blocked"]))
        if draw(st.booleans()):
            fields["metadata"] = {
                "geo_location": draw(st.sampled_from(["DE-Berlin", "DE-Bonn", "US-Ohio", ""])),
                "hostname": draw(st.sampled_from(["laptop", "server"])),
                "user_agent": draw(st.sampled_from(["curl", "firefox"])),
            }
        if draw(st.booleans()):
            fields["threat_score"] = draw(st.sampled_from([0.0, 0.1, 0.9, 50.0]))
        if draw(st.booleans()):
            fields["rule_name"] = draw(st.sampled_from(["Port Scan", " port scan", "Theft", " "]))
        user, address, varied = draw(st.integers(0, 4)), draw(st.integers(0, 5)), draw(st.sampled_from("uan"))
        count = draw(st.sampled_from([1, 2, 10, 40]))
        for i in range(count):
            name = f"user{i if varied == 'u' else user}" if user else None
            host = f"10.{i % 200}.0.{i % 7}" if varied == "a" else f"192.168.{address}.1"
            out.append(event(min(at + i * 700, 4_102_000_000_000), name, kind, source_ip=host, **fields))
    return out
