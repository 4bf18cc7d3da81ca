"""Every seed of the simulation keeps the promises of the worker, and a seed always takes the same course."""

from __future__ import annotations

import os
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest

from streamguard.testing.failpoints import POINTS
from tests.simulation.__main__ import run_block
from tests.simulation.mutants import MUTANTS, Mutant, seeds_until_caught
from tests.simulation.nemesis import EXPLAINED
from tests.simulation.seams import installed
from tests.simulation.simulation import simulate

ROOT = Path(__file__).parents[2]
SEEDS = 1_000
BLOCKS = int(os.environ.get("SIMULATED_SEEDS", SEEDS)) // SEEDS
"""`make test` sets ten; a run of the fast tests has one."""
covered: Counter[str] = Counter()


@pytest.mark.parametrize("block", range(BLOCKS))
def test_every_seed_keeps_the_promises(block: int) -> None:
    failed, happened = run_block(range(block * SEEDS, (block + 1) * SEEDS))
    covered.update(happened)
    assert not failed, "\n".join(f"seed {outcome.seed}: {outcome.violations[0]}" for outcome in failed)


def test_seeds_cover_every_fault_and_every_end() -> None:
    happened = covered or run_block(range(SEEDS))[1]
    for fault in EXPLAINED:
        assert happened[f"fault: {fault}"], fault
    for end in ("killed", "0", "69 UnavailableError", "73 CannotWriteError", "78 RefusedError"):
        assert happened[f"end: {end}"], end
    for error in ("FencedError", "OpenTransactionError", "DamagedCopyError"):
        assert happened[f"end: 75 {error}"], error
    assert happened["checkpoints"] > 3 * SEEDS
    assert happened["fault: profiles swept"] > SEEDS
    assert len(POINTS) == sum(happened[f"fault: killed at {point}"] > 0 for point in POINTS)


def traced(seed: int, hash_seed: int) -> bytes:
    """The output of a replay in another process."""
    return subprocess.run(
        [sys.executable, "-m", "tests.simulation", "--seed", str(seed), "--trace"],
        cwd=ROOT,
        env=os.environ | {"PYTHONHASHSEED": str(hash_seed)},
        capture_output=True,
        check=True,
    ).stdout


def test_a_seed_always_takes_the_same_course() -> None:
    seed = 19
    first = traced(seed, 1)
    assert first == traced(seed, 2)
    with installed():
        for _ in range(2):
            here = simulate(seed, trace=True)
            assert here.trace == first.decode().splitlines()[: len(here.trace)]
    assert len(here.trace) > 50


@pytest.mark.parametrize("mutant", MUTANTS[:2], ids=lambda mutant: mutant.name)
def test_a_broken_worker_is_caught(mutant: Mutant, tmp_path: Path) -> None:
    """`python -m tests.simulation.mutants` runs the other mutants, some of which take a thousand seeds."""
    assert seeds_until_caught(mutant, tmp_path) is not None


def test_every_mutant_can_be_applied() -> None:
    for mutant in MUTANTS:
        assert (ROOT / "agents" / mutant.file).read_text().count(mutant.old) == 1, mutant.name
