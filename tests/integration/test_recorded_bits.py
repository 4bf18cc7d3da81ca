"""The same bits as at commit fe0d132, whose digests are recorded here, with the names that changed on purpose since."""

from __future__ import annotations

import hashlib
import json
import re
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from streamguard.cli.main import main
from streamguard.history.files import read
from streamguard.history.replay import Replay
from tests.incidents import bodies

pytestmark = pytest.mark.integration

RECORDED = {
    1: (
        139,
        "d0451a04515de0fad9004a388fc3a58e3b30c6a00fc4a841c0dc67225cbf5c33",
        "87e2fc700634eb65b1ffb30cf933664514764cbf610a74ed6c8dcf351020f126",
        "43261a528297",
        "5a50f6c63a5dff06cf0b409b4bd3fa02261b9d5ecb58e19a5a8bfebb0b6a4a23",
    ),
    2: (
        181,
        "33b169c83b5e367f407a5acf9c297e5ca02f01dfdb80194075f6773371c63548",
        "9157ccb73268528fcbd81b6818eb53cc5b817587e7aafe9f95976fdf16fced47",
        "7c59f1a79991",
        "a3751af8884f21ecd6a175f21f0a89af218671846616dd051e7486dfda0f2b5b",
    ),
    3: (
        143,
        "a3c3817e93adc765df24f5b2e709f603b2d0b3e01cb8b64363bbbf9a4ce66d74",
        "9d783582a46f6af481fbdc5f6e4f75a39f1f1c40f6412b847e37bcf1c9958cdf",
        "4345aebe810f",
        "2f893557c17192d825d630151c141731005e424cfaac4a3a92fba240144e5388",
    ),
}
"""By seed of a simulated month with every attack: incidents, their digest, the digest of the state, the version of the
model, the digest of the events."""

NEW_FIELDS = {"schema_version"}
RENAMED_FIELDS = {"description": "says"}
RENAMED_TEXTS = {
    r" as the next event\Z": " follows here",
    r"\Ararely the next event for this user\Z": "seldom comes next for this user",
    r" failed for (\d+) users, ": r" failed at \1 users, ",
    r"\Aa source usually fails for one user only\Z": "a source fails at one user",
    r"\A1 (event|failure)(?= .*in 5 minutes)": r"1 \1s",
    r"\Aon 1 day of": "on 1 days of",
    r"(\d) events of new users in 5": r"\1 events of hardly known users in 5",
    r"an older value \(": "a value no longer named (",
    r"\Ano dominant value\Z": "many values, none often",
    r"\Aone source fails for many users\Z": "one source fails at many users",
    r"\Aanother country sooner than a person can travel\Z": "another country sooner than anybody can travel",
    r"\Aan account is used again after weeks without an event\Z": "an account comes alive after weeks of silence",
    r"(?<=\d),(?=\d{3} (file|failure|event|such name)s? )": "",
}
"""New text of a reason -> the recorded one."""


def as_recorded(value: Any) -> Any:
    """An incident with the names that it had when the digests were recorded; the event stays as it is."""
    if isinstance(value, dict):
        return {
            RENAMED_FIELDS.get(name, name): part if name == "event" else as_recorded(part)
            for name, part in value.items()
            if name not in NEW_FIELDS
        }
    if isinstance(value, list):
        return [as_recorded(part) for part in value]
    if isinstance(value, str):
        for new, old in RENAMED_TEXTS.items():
            value = re.sub(new, old, value)
    return value


@pytest.mark.parametrize("seed", RECORDED)
def test_a_month_gives_the_recorded_bits(seed: int, tmp_path: Path) -> None:
    count, incidents, state, version, events = RECORDED[seed]
    file = tmp_path / "events.jsonl"
    made = ["simulate", "--days", "30", "--seed", str(seed), "--attack", "all", "--output", str(file)]
    assert CliRunner().invoke(main, made).exit_code == 0
    assert hashlib.sha256(file.read_bytes()).hexdigest() == events
    replay = Replay(4)
    for batch in read(str(file)):
        replay.feed(batch)
    found = sorted(bodies(replay.incidents()), key=lambda body: str(body["id"]))
    assert len(found) == count
    digest = hashlib.sha256()
    for body in found:
        digest.update(json.dumps(as_recorded(body), sort_keys=True).encode() + b"\n")
    assert digest.hexdigest() == incidents
    assert state_digest(replay) == state

    trained = [
        "retrain",
        "--engine",
        "local",
        "--input",
        str(file),
        "--output",
        str(tmp_path / "runs"),
        "--json",
    ]
    outcome = CliRunner().invoke(main, trained)
    assert json.loads(outcome.stdout)["version"] == version, outcome.output


def state_digest(replay: Replay) -> str:
    """Of the changelog's content: every key and value of every partition."""
    digest = hashlib.sha256()
    for stored, state in zip(replay._saved, replay._states, strict=True):
        for key, value in sorted((stored | dict(state.changes())).items()):
            digest.update(len(key).to_bytes(4, "big") + key + len(value).to_bytes(4, "big") + value)
    return digest.hexdigest()
