"""Stored profiles of every layout age out, and the fold and the bytes agree on when."""

from __future__ import annotations

from pathlib import Path

import msgspec
import numpy as np
import pytest

from streamguard.events.subject import profile_key
from streamguard.fold import profile as layout
from streamguard.settings.schema import Detection
from streamguard.state.codec import StateError, pack
from streamguard.state.expiry import PROFILE_KINDS, last_active
from streamguard.state.former_layouts import PROFILES
from streamguard.state.partition import META
from tests.streams import DAY, HOUR, START, Partition, event

FORMER = Path(__file__).parents[1] / "fixtures" / "v0.1.0" / "state.msgpack"
"""The state of a partition of version 0.1.0, whose profiles have no active time."""


def stored() -> dict[bytes, bytes]:
    return dict(msgspec.msgpack.decode(FORMER.read_bytes(), type=list[tuple[bytes, bytes]]))


def users(saved: dict[bytes, bytes]) -> set[bytes]:
    return {key for key in saved if key[:1] in PROFILE_KINDS}


def later(days: int, first_offset: int, saved: dict[bytes, bytes]) -> list[bytes]:
    """Events of two users in every hour after the last event of a former state; offsets before have no record."""
    end = max(last_active(saved[key]) for key in users(saved))
    return [b""] * first_offset + [
        event(end + hour * HOUR, name, source_ip="10.0.0.1")
        for hour in range(24 * days)
        for name in ("new1", "new2")
    ]


@pytest.mark.parametrize(("version", "wanted"), [(1, 7 * HOUR), (2, 5 * HOUR), (3, 5 * HOUR)])
def test_every_layout_states_when_its_user_was_last_seen(version: int, wanted: int) -> None:
    """Layout 1 has no active time; the time of the last event stands for it."""
    profile = np.zeros(1, PROFILES.get(version, layout.PROFILE))
    profile["version"], profile["events"], profile["last_ts"] = version, 9.0, START + 7 * HOUR
    if version > 1:
        profile["active_ms"] = START + 5 * HOUR
    assert last_active(pack(profile)) == START + wanted


@pytest.mark.parametrize(
    "value", [b"", b"\x00\x00\x00\x00", pack(np.zeros(3)), pack(np.zeros(1, layout.PROFILE))]
)
def test_a_value_that_is_no_profile_is_refused(value: bytes) -> None:
    with pytest.raises(StateError):
        last_active(value)


@pytest.mark.parametrize(("days", "remaining"), [(8, True), (11, False)])
def test_profiles_of_an_earlier_version_age_out(days: int, remaining: bool) -> None:
    former = stored()
    _, offset = META.unpack_from(former[b"m"])
    partition = Partition(dict(former), detection=Detection(forget_after_days=10.0))
    partition.run(later(days, offset, former), start=offset)
    kept = users(former) & users(partition.saved)
    assert bool(kept) == remaining
    assert len(users(partition.saved) - kept) == 2


def test_the_fold_begins_a_new_profile_where_the_bytes_say_that_it_has_aged_out() -> None:
    former = stored()
    _, offset = META.unpack_from(former[b"m"])
    values = later(11, offset, former)
    end = max(last_active(former[key]) for key in users(former)) + 11 * DAY
    names = sorted(key[1:].decode() for key in users(former) if key[:1] == b"u")
    values += [event(end, name) for name in names]
    partition = Partition(dict(former), detection=Detection(forget_after_days=10.0))
    folded = partition.state.fold(values[offset:], np.arange(offset, len(values)))
    limit = partition.state.expired_before
    assert folded.expired[-len(names) :].tolist() == [
        last_active(former[profile_key(name)]) < limit for name in names
    ]
    assert folded.expired.any()
