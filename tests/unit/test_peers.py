"""Relief by peers: the formula against an oracle, what is never relieved, and the file that workers read."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from streamguard.alerts.peers import MAX_RELIEF, RELIEVED, PeerRelief, at_most, reliefs, relieved_bits
from streamguard.events.columns import Columns, columns
from streamguard.events.event import parse
from streamguard.fold.components import COMPONENTS
from streamguard.fold.dimensions import SLOTS
from streamguard.fold.grouping import CROWD_ENTITY, SOURCE_ENTITY, USER_ENTITY
from streamguard.fold.patterns import CONFIRMED
from streamguard.models import artifact, manifest
from streamguard.models.arrays import pack
from streamguard.models.artifact import ArtifactError
from streamguard.models.forest import Forest, with_peers
from streamguard.models.peer_values import FIELDS, PeerValues, hashed, unpack
from streamguard.models.train import train
from tests.streams import START, event

SALT = bytes(range(16))
ROWS = np.random.default_rng(0).normal(size=(600, 5)).astype(np.float32)
NAMES = [f"feature_{number}" for number in range(5)]


def peers_of(
    users: Mapping[str, int], sizes: list[int], usual: Mapping[tuple[int, str, str], int]
) -> PeerValues:
    """Users and their groups, and how many users of a group have a value of a field."""
    of = sorted((hashed(user, "user", SALT), group) for user, group in users.items())
    rows = sorted((group, hashed(text, field, SALT), n) for (group, field, text), n in usual.items())
    per_group = np.bincount([group for group, _, _ in rows], minlength=len(sizes))
    return PeerValues(
        salt=np.frombuffer(SALT, np.uint8),
        users=np.array([user for user, _ in of], np.uint64),
        group=np.array([group for _, group in of], np.uint16),
        sizes=np.array(sizes, np.int32),
        starts=np.cumsum([0, *per_group], dtype=np.int32),
        values=np.array([value for _, value, _ in rows], np.uint64),
        counts=np.array([n for _, _, n in rows], np.int32),
    )


PEERS = peers_of(
    {"ann": 0, "bob": 0, "eve": 1},
    [60, 20, 0],
    {
        (0, "host", "build-1"): 34,
        (0, "resource", "share"): 3,
        (1, "host", "build-1"): 5,
        (0, "source", "10.9.9.9"): 30,
    },
)


# The formula.


@given(
    st.integers(3, 1000).flatmap(lambda users: st.tuples(st.integers(3, users), st.just(users))),
    st.lists(st.floats(0.0, 40.0), min_size=1, max_size=7),
    st.floats(0.0, 60.0),
    st.floats(0.0, 40.0),
)
def test_relief_equals_an_oracle_in_plain_python(
    peers: tuple[int, int], bits: list[float], others: float, tail: float
) -> None:
    n, users = peers
    score = sum(bits) + others
    left = others
    for one in bits:
        left += min(one, math.log2(2.0 * (users + 3) / (n - 1)))
    wanted = 0.0 if score == 0.0 else min(tail - tail * left / score, MAX_RELIEF)
    excess = dict(zip(RELIEVED, bits, strict=False))
    found = relieved_bits(excess, dict.fromkeys(excess, n), users, score=score, tail=tail)
    assert found == pytest.approx(wanted, abs=1e-9)
    assert 0.0 <= found <= min(tail, MAX_RELIEF)


def test_more_peers_relieve_more_and_a_small_group_proves_little() -> None:
    assert at_most(34, 60) < at_most(10, 60) < at_most(3, 60)
    assert at_most(60, 60) < at_most(3, 3)
    assert at_most(10**6, 10**6) > 1.0


# What is relieved.


def alert(
    user: str = "ann",
    bits: Mapping[str, float] | None = None,
    kind: int = USER_ENTITY,
    patterns: int = 0,
    peers: PeerValues = PEERS,
    **fields: Any,
) -> PeerRelief | None:
    """Relief of one alert of 24 bits of score and 12 bits of tail, whose host is new."""
    place = {"hostname": "build-1", "geo_location": "DE-Berlin", "user_agent": "Firefox"}
    value = event(START, user, **({"source_ip": "10.0.0.1", "status": "success", "metadata": place} | fields))
    c: Columns = columns(parse([value])[0])
    excess = np.zeros((1, len(COMPONENTS)), np.float32)
    for name, number in ({"host": 16.0} if bits is None else bits).items():
        excess[0, COMPONENTS.index(name)] = number
    found = reliefs(
        c,
        np.array([kind], np.int8),
        np.array([patterns], np.uint64),
        excess,
        np.array([24.0]),
        np.array([12.0]),
        peers,
    )
    return found.get(0)


def test_value_that_is_usual_for_peers_is_relieved() -> None:
    found = alert()
    assert found is not None
    assert (found.group, found.users, found.having) == (0, 60, {"host": 34})
    assert found.bits == MAX_RELIEF  # half of the tail at least: 14.07 of 24 bits are relieved
    found = alert(bits={"host": 8.0, "resource": 7.0}, network_details={"destination_hostname": "share"})
    assert found is not None and found.having == {"host": 34, "resource": 3}
    assert found.bits == pytest.approx(12.0 * (8.0 - at_most(34, 60) + 7.0 - at_most(3, 60)) / 24.0)


def test_unpublished_alert_of_a_user_is_relieved_too() -> None:
    assert alert(kind=-USER_ENTITY) is not None


@pytest.mark.parametrize(
    "changed",
    [
        {"user": "mallory"},  # not in the model
        {"kind": SOURCE_ENTITY},
        {"kind": CROWD_ENTITY},
        {"kind": 0},
        {"status": "failed"},
        {"patterns": 1 << CONFIRMED},  # denied by a person
        {"bits": {"host": 16.0, "source_spread": 0.5}},  # the source fails for many
        {"bits": {"failure": 16.0}},
        {"bits": {"hour": 16.0}},
        {"bits": {"host": 1.9}},  # no more than at most
        {"metadata": {"hostname": "build-2"}},  # not usual
        {"metadata": {"hostname": "Build-1"}},
        {"bits": {"agent": 16.0}, "metadata": {"user_agent": "build-1"}},  # usual in another field
        {"bits": {"host": 16.0, "source": 16.0, "location": 16.0}},  # most is foreign: a thief
    ],
    ids=str,
)
def test_what_is_not_relieved(changed: dict[str, Any]) -> None:
    assert alert() is not None
    assert alert(**changed) is None


def test_patterns_take_no_relief_away() -> None:
    found = alert(patterns=1 << CONFIRMED - 1)
    without = alert()
    assert found is not None and without is not None and found.bits == without.bits > 0.0


def test_one_foreign_thing_more_than_half_decides() -> None:
    """Half of four things may be foreign; of two all, because two say too little."""
    assert alert(bits={"host": 16.0, "source": 5.0}) is not None
    assert alert(bits={"host": 16.0, "source": 5.0, "agent": 4.9}) is not None
    assert alert(bits={"host": 16.0, "source": 5.0, "agent": 5.0}) is None
    assert alert(bits={"host": 16.0, "source": 5.0}, metadata={"hostname": "build-1"}) is not None


# The file.


def changed(**arrays: NDArray[Any]) -> dict[str, NDArray[Any]]:
    parts = {name: np.asarray(getattr(PEERS, name)) for name in PEERS.__slots__}
    return parts | arrays


def test_round_trip_answers_the_same() -> None:
    again = unpack(PEERS.pack())
    assert again.pack() == PEERS.pack() and again.digest() == PEERS.digest()
    for user, group in (("ann", 0), ("eve", 1), ("mallory", None)):
        assert again.group_of(user) == group
    assert again.having(0, "host", "build-1") == 34
    assert again.having(1, "host", "build-1") == 5
    assert again.having(2, "host", "build-1") == again.having(0, "agent", "build-1") == 0
    assert (again.size(0), again.size(2)) == (60, 0)


@given(
    st.dictionaries(st.text(max_size=8), st.integers(0, 3), max_size=30),
    st.dictionaries(
        st.tuples(st.integers(0, 3), st.sampled_from(FIELDS), st.text(max_size=4)),
        st.integers(3, 40),
        max_size=40,
    ),
)
def test_lookups_equal_dictionaries(users: dict[str, int], usual: dict[tuple[int, str, str], int]) -> None:
    peers = unpack(peers_of(users, [40] * 4, usual).pack())
    for user in (*users, "nobody at all"):
        assert peers.group_of(user) == users.get(user)
    for group in range(4):
        for field in FIELDS:
            for text in ("", *{key[2] for key in usual}):
                assert peers.having(group, field, text) == usual.get((group, field, text), 0)


many = np.arange(1, SLOTS * 20 * len(FIELDS) + 2, dtype=np.uint64)


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({"salt": np.zeros(15, np.uint8)}, "salt has 15 bytes, expected 16"),
        ({"users": PEERS.users[::-1].copy()}, "users are not in ascending order"),
        ({"users": np.repeat(PEERS.users[:1], 3)}, "users are not in ascending order"),
        ({"users": PEERS.users[:2]}, "group does not name one of 3 groups for each of 2 users"),
        ({"group": np.array([0, 0, 3], np.uint16)}, "group does not name one of 3 groups"),
        ({"group": np.array([2, 2, 2], np.uint16)}, "sizes are smaller than the number of users"),
        ({"sizes": np.array([-1, 20, 0], np.int32)}, "sizes are smaller than"),
        ({"sizes": np.array([200, 20, 0], np.int32)}, "counts are not those of usual values"),
        ({"sizes": np.ones(1001, np.int32)}, "3 users in 1,001 groups: at most 200,000 in 1,000 are read"),
        ({"starts": np.array([0, 3, 4], np.int32)}, "starts do not divide 4 values among 3 groups"),
        ({"starts": np.array([0, 3, 2, 4], np.int32)}, "starts do not divide"),
        ({"starts": np.array([1, 3, 4, 4], np.int32)}, "starts do not divide"),
        ({"starts": np.array([0, 3, 4, 5], np.int32)}, "starts do not divide"),
        ({"starts": np.array([0, 3, 2**31 - 1, 4], np.int32)}, "starts do not divide"),
        (
            {
                "values": many,
                "counts": np.full(len(many), 30, np.int32),
                "starts": np.array([0, len(many), len(many), len(many)], np.int32),
            },
            "at most 2240 each",
        ),
        ({"values": PEERS.values[::-1].copy()}, "values of a group are not in ascending order"),
        ({"counts": np.full(4, 2, np.int32)}, "counts are not those of usual values"),
        ({"counts": np.full(4, 21, np.int32)}, "counts are not those of usual values"),
        ({"counts": np.full(3, 20, np.int32)}, "counts are not those of usual values"),
        ({"counts": np.full(4, 20, np.int64)}, "counts is <i8 with 1 axes, expected <i4 with 1"),
        ({"counts": np.full((2, 2), 20, np.int32)}, "counts is <i4 with 2 axes, expected <i4 with 1"),
        ({"more": np.zeros(1)}, "holds "),
    ],
)
def test_arrays_that_do_not_fit_are_refused(arrays: dict[str, NDArray[Any]], message: str) -> None:
    unpack(pack(changed()))
    with pytest.raises(ValueError, match=message):
        unpack(pack(changed(**arrays)))


@pytest.fixture(scope="module")
def forest() -> Forest:
    return train(ROWS, trees=20)


@pytest.fixture
def directory(tmp_path: Path, forest: Forest) -> Path:
    artifact.save(with_peers(forest, PEERS), tmp_path, feature_names=NAMES, key=b"key")
    return tmp_path


def test_artifact_with_peers_is_loaded_whole(directory: Path, forest: Forest) -> None:
    again = artifact.load(directory, feature_names=NAMES, key=b"key")
    assert again.peers is not None and again.peers.pack() == PEERS.pack()
    assert again.version == with_peers(forest, PEERS).version != forest.version
    assert with_peers(again, None).version == forest.version
    assert np.array_equal(again.bits(ROWS), forest.bits(ROWS))


def test_artifact_without_peers_stays_as_it_was(tmp_path: Path, forest: Forest) -> None:
    artifact.save(forest, tmp_path, feature_names=NAMES)
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(manifest.LIMITS)
    assert artifact.load(tmp_path, feature_names=NAMES).peers is None


def damaged(data: bytes) -> bytes:
    return data[:-1] + bytes([data[-1] ^ 1])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda path: path.unlink(), "peers.safetensors: No such file"),
        (lambda path: path.write_bytes(path.read_bytes()[:-1]), "not the file that manifest.json describes"),
        (
            lambda path: path.write_bytes(damaged(path.read_bytes())),
            "not the file that manifest.json describes",
        ),
    ],
)
def test_damaged_file_of_peers_is_refused(
    change: Callable[[Path], object], message: str, directory: Path
) -> None:
    change(directory / "peers.safetensors")
    with pytest.raises(ArtifactError, match=message):
        artifact.load(directory, feature_names=NAMES)


def test_large_file_of_peers_is_not_read(directory: Path) -> None:
    with (directory / "peers.safetensors").open("r+b") as file:
        file.truncate(2**25 + 1)
    with pytest.raises(ArtifactError, match="33554433 bytes, but at most 33554432 are read"):
        artifact.load(directory, feature_names=NAMES)


def resealed(directory: Path, forest: Forest, peers: bytes | None, *, key: bytes | None) -> None:
    """Let the manifest describe another file of peers, or none."""
    about = manifest.read(directory)
    files = {name: file for name, file in about.files.items() if name != "peers.safetensors"}
    if peers is not None:
        (directory / "peers.safetensors").write_bytes(peers)
        files["peers.safetensors"] = manifest.File(artifact.hashlib.sha256(peers).hexdigest(), len(peers))
    about = msgspec.structs.replace(about, files=files)
    if key is not None:
        about = msgspec.structs.replace(about, hmac=about.sign(key))
    (directory / "manifest.json").write_bytes(manifest.encode(about))


def test_peers_are_part_of_the_signature_and_of_the_version(directory: Path, forest: Forest) -> None:
    fewer = peers_of({"ann": 0}, [60], {(0, "host", "build-1"): 34})
    resealed(directory, forest, fewer.pack(), key=None)
    with pytest.raises(ArtifactError, match="signature does not match"):
        artifact.load(directory, feature_names=NAMES, key=b"key")
    for peers in (fewer.pack(), None):
        resealed(directory, forest, peers, key=b"key")
        with pytest.raises(ArtifactError, match="says version"):
            artifact.load(directory, feature_names=NAMES, key=b"key")
    resealed(directory, forest, pack(changed(users=PEERS.users[::-1].copy())), key=b"key")
    with pytest.raises(ArtifactError, match=r"peers\.safetensors: users are not in ascending order"):
        artifact.load(directory, feature_names=NAMES, key=b"key")
