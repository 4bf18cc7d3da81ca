"""`streamguard models`: its reports about a registry, promotion and rollback."""

from __future__ import annotations

import hashlib
import json
import os
import sys
import types
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
from click.testing import CliRunner, Result

from streamguard.cli.main import main
from streamguard.errors import UnavailableError
from streamguard.fold.features import NAMES
from streamguard.models import gate
from streamguard.models.forest import Forest
from streamguard.models.manifest import Origin
from streamguard.models.registry import Registry
from streamguard.models.train import train
from streamguard.settings.schema import Settings

ROWS = [
    np.random.default_rng(seed).gamma(2.0, 0.5 + seed, (400, len(NAMES))).astype(np.float32)
    for seed in range(2)
]
JUDGEMENT = gate.Judgement(
    False,
    [
        gate.Check("drift", 3.0, 2.0, False, "burst moved"),
        gate.Check("rows", 400.0, 256.0, True, "400 training rows"),
    ],
)


PUBLISHED = (1000, 1060)


@pytest.fixture(scope="module")
def forests() -> list[Forest]:
    return [train(rows, trees=10) for rows in ROWS]


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    return tmp_path / "registry"


@pytest.fixture
def versions(directory: Path, forests: list[Forest]) -> list[str]:
    registry = Registry(directory, feature_names=NAMES)
    published = [
        registry.publish(
            forest,
            origin=Origin(
                rows=400,
                parameters={"trees": 10, "seed": 0},
                offsets={"0": [0, 99 + k]},
                events_until=f"2026-01-0{k + 1}T00:00:00Z",
            ),
            metrics={gate.DISTRIBUTION: gate.distribution(rows), "trimmed": 0.1 + k},
        )
        for k, (forest, rows) in enumerate(zip(forests, ROWS, strict=True))
    ]
    for at, version in zip(PUBLISHED, published, strict=True):
        os.utime(directory / "versions" / version / "manifest.json", (at, at))
    registry.judge(published[1], JUDGEMENT)
    registry.promote(published[0])
    return published


def run(directory: Path, name: str, *arguments: str) -> Result:
    return CliRunner().invoke(main, ["models", name, *arguments, "--registry", str(directory)])


def json_output(directory: Path, name: str, *arguments: str) -> Any:
    result = run(directory, name, *arguments, "--json")
    assert result.exit_code == 0, result.output
    return json.loads(result.output)


def current(directory: Path) -> str | None:
    return Registry(directory, feature_names=NAMES).current()


def test_list_shows_the_latest_first_and_marks_the_current_version(
    directory: Path, versions: list[str]
) -> None:
    lines = run(directory, "list").output.splitlines()
    first, second = (f"1970-01-01T00:{at // 60:02}:{at % 60:02}Z" for at in PUBLISHED)
    assert lines[1].split() == [versions[1], second, "2026-01-02T00:00:00Z", "400", "10", "refused"]
    assert lines[2].split() == ["*", versions[0], first, "2026-01-01T00:00:00Z", "400", "10", "-"]
    found = json_output(directory, "list")
    assert [one["version"] for one in found] == [versions[1], versions[0]]
    assert [one["current"] for one in found] == [False, True]
    assert [one["gate"] for one in found] == [False, None]


def test_list_reports_damaged_versions(directory: Path, versions: list[str]) -> None:
    (directory / "versions" / versions[1] / "manifest.json").write_text("{")
    assert "manifest.json: " in run(directory, "list").output
    assert json_output(directory, "list")[-1]["damaged"] is not None


def test_empty_registry_is_accepted(directory: Path) -> None:
    directory.mkdir()
    assert run(directory, "list").output == "no versions\n"
    assert run(directory, "verify").exit_code == 0
    shown = run(directory, "show")
    assert shown.exit_code == 78
    assert "no version is current" in shown.output


def test_show_prints_origin_and_judgement(directory: Path, versions: list[str]) -> None:
    text = run(directory, "show", versions[1]).output
    for part in (
        f"version     {versions[1]}\n", "rows        400", "seed 0, trees 10", "0 [0,100]", "signed      no",
        "gate        refused", "refused  burst moved", "ok       400 training rows", "trimmed: 1.1",
    ):  # fmt: skip
        assert part in text
    assert "(current)" in run(directory, "show").output
    assert json_output(directory, "show")["manifest"]["version"] == versions[0]
    assert json_output(directory, "show", versions[1])["judgement"] == msgspec.to_builtins(JUDGEMENT)
    assert json_output(directory, "show")["judgement"] is None


def test_promote_and_rollback_print_both_versions(directory: Path, versions: list[str]) -> None:
    first, second = versions
    assert run(directory, "promote", second).output == f"current: {first} -> {second}\n"
    assert run(directory, "promote", second).output == f"{second} is current already\n"
    assert json_output(directory, "rollback") == {"current": first, "before": second}
    assert current(directory) == first
    assert f"{second} (withdrawn by a rollback)" in run(directory, "show", second).output
    again = run(directory, "rollback")
    assert again.exit_code == 78
    assert "no version was current before" in again.output


def test_promotion_repairs_a_damaged_pointer(directory: Path, versions: list[str]) -> None:
    (directory / "current").write_text("\x1b[2Jnonsense\n")
    broken = run(directory, "list")
    assert broken.exit_code == 78
    assert f"streamguard models promote VERSION --registry {directory}" in broken.output
    repaired = run(directory, "promote", versions[1])
    assert repaired.exit_code == 0
    assert "nonsense' (not the name of a version)" in repaired.output and "\x1b" not in repaired.output
    assert current(directory) == versions[1]


@pytest.mark.parametrize("name", ["rollback", "promote", "list", "show", "verify", "diff"])
def test_missing_registry_is_reported(name: str, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    given = {"promote": ["0" * 12], "diff": ["0" * 12, "1" * 12]}.get(name, [])
    for place in (tmp_path / "nowhere", tmp_path / "file" / "below"):
        result = run(place, name, *given)
        assert result.exit_code == 78 and f"no registry at {place}" in result.output, result.output
        assert result.exception is None or isinstance(result.exception, SystemExit)


def _resealed(directory: Path, version: str, name: str, change: Callable[[dict[str, Any]], object]) -> None:
    """Change a file of a version, and its manifest accordingly."""
    place = directory / "versions" / version
    content = json.loads((place / name).read_bytes())
    change(content)
    data = json.dumps(content).encode()
    (place / name).write_bytes(data)
    if name != "manifest.json":
        file = {"sha256": hashlib.sha256(data).hexdigest(), "size": len(data)}
        _resealed(directory, version, "manifest.json", lambda m: m["files"].update({name: file}))


def _distribution(value: object) -> Callable[[Path, str], None]:
    return lambda directory, version: _resealed(
        directory, version, "metrics.json", lambda metrics: metrics.update(distribution=value)
    )


HOSTILE: dict[str, tuple[Callable[[Path, str], object], str]] = {
    "empty levels": (_distribution({"burst": []}), "metrics.json"),
    "texts for levels": (_distribution({"burst": ["a"] * 101}), "metrics.json"),
    "no object": (_distribution(7), "metrics.json"),
    "unknown feature": (_distribution({"\x1b[31m": [0.0] * 101}), "metrics.json"),
    "events_until": (
        lambda d, v: _resealed(
            d, v, "manifest.json", lambda m: m["origin"].update(events_until="\x1b[2J" * 9)
        ),
        "events_until",
    ),
    "judgement": (
        lambda d, v: (d / "judgements" / f"{v}.json").write_text('{"passed": 1, "\\u001b[2J": 2}'),
        "judgements/",
    ),
    "huge judgement": (lambda d, v: os.truncate(d / "judgements" / f"{v}.json", 2**30), "bytes"),
    "another's manifest": (
        lambda d, v: _resealed(d, v, "manifest.json", lambda m: m.update(version="0" * 12)),
        "0" * 12,
    ),
    "a field that steers": (
        lambda d, v: _resealed(d, v, "manifest.json", lambda m: m.update({"\x1b[2J": 1})),
        "unknown field",
    ),
}


@pytest.mark.parametrize(("damage", "message"), HOSTILE.values(), ids=HOSTILE.keys())
def test_hostile_version_is_reported_by_verify_and_sends_no_control_sequence(
    damage: Callable[[Path, str], object], message: str, directory: Path, versions: list[str]
) -> None:
    first, second = versions
    damage(directory, second)
    for name, arguments in (("list", []), ("show", [second]), ("diff", [first, second]), ("verify", [])):
        for form in ([], ["--json"]):
            result = run(directory, name, *arguments, *form)
            assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
            assert "\x1b" not in result.output
    assert first in run(directory, "list").output
    verified = run(directory, "verify", second)
    assert verified.exit_code == 78
    assert message in verified.output
    assert run(directory, "verify", first).exit_code == 0


def test_damaged_version_is_not_promoted_and_is_reported_by_verify(
    directory: Path, versions: list[str]
) -> None:
    assert run(directory, "verify").exit_code == 0
    os.truncate(directory / "versions" / versions[1] / "forest.safetensors", 100)
    promoted = run(directory, "promote", versions[1])
    assert promoted.exit_code == 78
    assert "forest.safetensors: not the file" in promoted.output
    assert current(directory) == versions[0]
    verified = run(directory, "verify")
    assert verified.exit_code == 78
    assert f"{versions[0]}  ok" in verified.output
    assert "forest.safetensors: not the file that manifest.json describes" in verified.output
    assert run(directory, "verify", versions[0]).exit_code == 0


def test_diff_lists_changes_and_drift(directory: Path, versions: list[str]) -> None:
    text = run(directory, "diff", *versions).output
    assert "offsets.0: [0,99] -> [0,100]" in text
    assert "gate.drift: - -> 3.0" in text
    assert "metrics.trimmed: 0.1 -> 1.1" in text
    assert "\nrows:" not in text
    found = json_output(directory, "diff", *versions)
    assert found["drift"].keys() == set(NAMES)
    assert min(found["drift"].values()) > 0.25
    same = run(directory, "diff", versions[0], versions[0]).output
    assert same.startswith("no difference\n")


def test_key_in_the_settings_is_required(directory: Path, versions: list[str], tmp_path: Path) -> None:
    key, config = tmp_path / "key", tmp_path / "settings.toml"
    key.write_bytes(bytes(range(32)))
    config.write_text(f'[models]\nregistry = "{directory}"\nkey_file = "{key}"\n')
    result = CliRunner().invoke(main, ["models", "promote", versions[1], "--config", str(config)])
    assert result.exit_code == 78
    assert "manifest.json: not signed, but a key is set" in result.output
    assert current(directory) == versions[0]


def test_registry_must_be_set() -> None:
    result = CliRunner().invoke(main, ["models", "list"])
    assert result.exit_code == 2
    assert "models.registry" in result.output


def test_promotion_is_announced_on_request(
    directory: Path, versions: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    announced: list[tuple[str, str | None]] = []

    def announce(settings: Settings, version: str, previous: str | None) -> None:
        if version == versions[0]:
            raise UnavailableError("promoted, but not announced")
        announced.append((version, previous))

    module = types.SimpleNamespace(announce=announce)
    monkeypatch.setitem(sys.modules, "streamguard.kafka.announcements", module)
    assert run(directory, "promote", versions[1], "--announce").exit_code == 0
    assert announced == [(versions[1], versions[0])]
    back = run(directory, "rollback", "--announce")
    assert back.exit_code == 69
    assert "promoted, but not announced" in back.output
    assert current(directory) == versions[0]
