"""State and model that version 0.1.0 stored, and state of layout 2: an upgrade keeps everything that was learned.

The state is that of one partition after 28 days of 14 simulated users (seed 7, 25 events a day), without attacks. The
model was trained on the same events.
"""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest

from streamguard.agents.task.restore import warn_of_missing_key
from streamguard.events.hashing import FILES_KEY, UNKEYED
from streamguard.fold import profile as layout
from streamguard.fold.features import NAMES
from streamguard.models.registry import Registry
from streamguard.simulate.simulation import START_MS, Simulation
from streamguard.state import migration
from streamguard.state.codec import StateError, pack
from streamguard.state.partition import HASH_KEY
from tests.streams import DAY, Partition

FIXTURES = Path(__file__).parents[1] / "fixtures"
FORMER = FIXTURES / "v0.1.0"
USERS, SEED, DAYS, EVENTS_PER_DAY, STORED = 14, 7, 28, 25, 9899


def stored(former: Path = FORMER) -> dict[bytes, bytes]:
    return dict(
        msgspec.msgpack.decode((former / "state.msgpack").read_bytes(), type=list[tuple[bytes, bytes]])
    )


def log(*scenarios: str) -> list[bytes]:
    """A log whose first `STORED` records are folded already; the two days after them follow, of the same users."""
    start = START_MS + DAYS * DAY
    simulation = Simulation(
        USERS, SEED, start, duration_ms=2 * DAY, events_per_day=EVENTS_PER_DAY, scenarios=scenarios
    )
    return [b""] * STORED + [event.value for event in simulation]


@pytest.fixture(params=["v0.1.0", "layout-2"])
def former(request: pytest.FixtureRequest) -> Path:
    """Where the state of a former layout is stored."""
    return FIXTURES / str(request.param)


@pytest.fixture
def partition(former: Path) -> Partition:
    return Partition(stored(former))


def test_users_stay_known_and_ordinary_days_stay_quiet(partition: Partition) -> None:
    assert partition.state.next_offset == STORED
    incidents = partition.run(log(), start=STORED)
    assert len(incidents) <= 4  # actions and commands are not known yet, so they weigh more in the first days
    assert {incident["severity"] for incident in incidents} == {"medium"}
    assert partition.state.profile_lookups["nowhere"] == 0


def test_an_attack_after_the_upgrade_is_found(partition: Partition) -> None:
    incidents = partition.run(log("account_takeover"), start=STORED)
    assert "critical" in {incident["severity"] for incident in incidents}


def test_first_checkpoint_states_the_new_layout_and_every_value_survives(
    partition: Partition, former: Path
) -> None:
    before = stored(former)
    partition.run(log()[: STORED + 1], start=STORED)
    assert int.from_bytes(partition.saved[b"m"][:4], "little") == layout.VERSION
    again = Partition(partition.saved)
    assert again.state.next_offset == partition.state.next_offset
    untouched = [k for k in before if k.startswith(b"u") and partition.saved[k] == before[k]]
    assert len(untouched) >= USERS - 1
    for key in untouched:
        new = migration.profile(partition.saved[key], "a profile")
        assert new["version"] == layout.VERSION
        assert new["events"] > 0
        assert new["seen"].sum() == pytest.approx(new["sketch_total"].sum())
        assert new["sketch_total"].sum() > 0


def test_rare_outcomes_stay_known(former: Path) -> None:
    """The outcome has another place among the fields than before."""
    state = stored(former)
    new = migration.population(state[b"p"], int.from_bytes(state[b"m"][:4], "little"), "the population")[0]
    assert new["field_total"][-1] > 1000
    assert new["field_total"][7] == 0.0


def test_former_state_keeps_its_hash_and_a_new_one_has_a_key() -> None:
    partition = Partition(stored())
    assert partition.state.hash_key == UNKEYED
    partition.run(log()[: STORED + 1], start=STORED)
    assert partition.saved[HASH_KEY] == UNKEYED
    assert Partition(partition.saved).state.hash_key == UNKEYED
    assert Partition().state.hash_key == FILES_KEY


def test_worker_warns_of_a_state_without_a_key_at_every_start(caplog: pytest.LogCaptureFixture) -> None:
    partition = Partition(stored())
    warn_of_missing_key(partition.state)
    partition.run(log()[: STORED + 1], start=STORED)
    warn_of_missing_key(Partition(partition.saved).state)
    assert [record.levelname for record in caplog.records] == ["WARNING"] * 2
    assert all("another worker.app_id" in record.message for record in caplog.records)
    caplog.clear()
    warn_of_missing_key(Partition().state)
    fresh = Partition()
    fresh.run(log()[:3])
    warn_of_missing_key(Partition(fresh.saved).state)
    assert caplog.records == []


@pytest.mark.parametrize("version", [0, layout.VERSION + 1])
def test_any_other_layout_is_refused(version: int) -> None:
    saved: dict[bytes, Any] = stored()
    saved[b"m"] = version.to_bytes(4, "little") + saved[b"m"][4:]
    with pytest.raises(StateError, match=f"has layout {version}, this program has layout {layout.VERSION}"):
        Partition(saved)


def test_a_profile_of_any_other_layout_is_refused() -> None:
    profile = np.atleast_1d(layout.blank())
    profile["version"] = layout.VERSION + 1
    with pytest.raises(StateError, match="a profile has layout"):
        migration.profile(pack(profile), "a profile")


def test_model_of_the_former_version_loads_and_scores(tmp_path: Path) -> None:
    shutil.copytree(FORMER / "registry", tmp_path / "registry")
    registry = Registry(tmp_path / "registry", feature_names=NAMES)
    version = registry.current()
    assert version == "5e368ea91458"
    forest = registry.load(version)
    assert forest.version == version
