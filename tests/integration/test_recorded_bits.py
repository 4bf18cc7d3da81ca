"""The same bits as recorded here: a change that is not meant to alter a score, a state or a model alters none of these.

A change that is meant to records them anew, and its commit says why: `python -m tests.integration.test_recorded_bits`
prints the new values.
"""

from __future__ import annotations

import hashlib
import json
import tempfile
from pathlib import Path

import pytest
from click.testing import CliRunner

from streamguard.cli.main import main
from streamguard.history.files import read
from streamguard.history.replay import Replay
from tests.incidents import bodies

pytestmark = pytest.mark.integration

RECORDED: dict[int, tuple[int, str, str, str, str]] = {
    1: (
        124,
        "de2e4823030ac878725c2ec26f8f1cb89fdd8cfe923e6928a7637f0b40d0292d",
        "5cada1dd2b5b376cf7bb25310ab440c9e2de0c5671208df9f78ba931f2ee5272",
        "a557ac7b956d",
        "5a50f6c63a5dff06cf0b409b4bd3fa02261b9d5ecb58e19a5a8bfebb0b6a4a23",
    ),
    2: (
        173,
        "10919aac56e46cf278a8f5389d7d52e82d29e2139931913a63d5a87426fddb1d",
        "c5fc00742d295f4c1a4e4233d6ff18e8b252892c8082a10e5343ca83a10b6c07",
        "953d94386b83",
        "a3751af8884f21ecd6a175f21f0a89af218671846616dd051e7486dfda0f2b5b",
    ),
}
"""By seed of a simulated month with every attack: incidents, their digest, the digest of the state, the version of the
model, the digest of the events."""


def measured(seed: int, directory: Path) -> tuple[int, str, str, str, str]:
    """The values of a seed, as in `RECORDED`."""
    file = directory / "events.jsonl"
    made = ["simulate", "--days", "30", "--seed", str(seed), "--attack", "all", "--output", str(file)]
    assert CliRunner().invoke(main, made).exit_code == 0
    replay = Replay(4)
    for batch in read(str(file)):
        replay.feed(batch)
    found = sorted(bodies(replay.incidents()), key=lambda body: str(body["id"]))
    incidents = hashlib.sha256()
    for body in found:
        incidents.update(json.dumps(body, sort_keys=True).encode() + b"\n")
    trained = [
        "retrain",
        "--engine",
        "local",
        "--input",
        str(file),
        "--output",
        str(directory / "runs"),
        "--json",
    ]
    outcome = CliRunner().invoke(main, trained)
    assert outcome.exit_code in (0, 3), outcome.output
    return (
        len(found),
        incidents.hexdigest(),
        state_digest(replay),
        json.loads(outcome.stdout)["version"],
        hashlib.sha256(file.read_bytes()).hexdigest(),
    )


def state_digest(replay: Replay) -> str:
    """Of the changelog's content: every key and value of every partition."""
    digest = hashlib.sha256()
    for partition in replay.partitions:
        partition.save()
        for key, value in sorted(partition.saved.items()):
            digest.update(len(key).to_bytes(4, "big") + key + len(value).to_bytes(4, "big") + value)
    return digest.hexdigest()


@pytest.mark.parametrize("seed", RECORDED)
def test_a_month_gives_the_recorded_bits(seed: int, tmp_path: Path) -> None:
    assert measured(seed, tmp_path) == RECORDED[seed]


if __name__ == "__main__":
    for seed in (1, 2):
        with tempfile.TemporaryDirectory() as directory:
            print(f"    {seed}: {measured(seed, Path(directory))},")
