"""The units in deploy/systemd: valid, sandboxed, and with existing settings."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

from streamguard.settings.load import load
from streamguard.settings.sources import of_sources
from tests.composed import ROOT

HERE = ROOT / "deploy" / "systemd"
SERVICES = [f"streamguard-{name}.service" for name in ("worker@", "sources", "campaigns", "serve", "retrain")]


def values(unit: str, name: str) -> list[str]:
    return re.findall(rf"^{name}=(.*)$", (HERE / unit).read_text(), re.MULTILINE)


def test_systemd_accepts_the_units(tmp_path: Path) -> None:
    program = Path(sys.executable).with_name("streamguard")
    for path in HERE.glob("streamguard-*"):
        text = path.read_text().replace("/opt/streamguard/bin/streamguard", str(program))
        (tmp_path / path.name.replace("@.", "@9464.")).write_text(text)
    done = subprocess.run(
        ["systemd-analyze", "verify", *sorted(tmp_path.iterdir())],
        capture_output=True,
        text=True,
        check=False,
    )
    warnings = [line for line in done.stderr.splitlines() if "streamguard" in line]
    assert (done.returncode, warnings) == (0, [])


@pytest.mark.parametrize("unit", [unit for unit in SERVICES if "campaigns" not in unit])
def test_settings_are_valid_and_use_the_directories_of_the_unit(unit: str) -> None:
    assigned = dict(line.split("=", 1) for line in values(unit, "Environment"))
    places = {"%S": "/var/lib", "%C": "/var/cache", "%i": "9464", "%H": "host"}
    environ = {n: re.sub("%.", lambda found: places[found[0]], value) for n, value in assigned.items()}
    settings = load(environ=environ)
    if "sources" in unit:
        settings = of_sources(settings)
    own = [f"/var/lib/{name.replace('%i', '9464')}" for name in values(unit, "StateDirectory")[0].split()]
    if "sources" in unit:
        assert settings.worker.data_dir in own and settings.worker.instance_id == "host-sources"
    elif "serve" in unit:
        data, keys = Path(settings.serve.data_dir), Path(settings.serve.keys_file)
        assert str(data.parent) in own and str(keys.parent) in own
        assert data not in keys.parents, "the projection may be deleted"
    elif "worker" in unit:
        assert settings.models.registry in own
        assert (settings.worker.metrics_port, settings.worker.instance_id) == (9464, "host-9464")
        assert settings.worker.data_dir in own
    else:
        assert {settings.batch.output, settings.models.registry} <= set(own)
        assert str(Path(settings.batch.metrics_file).parent) in own
    assert environ["XDG_CACHE_HOME"] == "/var/cache" and values(unit, "CacheDirectory") == ["streamguard"]


@pytest.mark.parametrize("unit", SERVICES)
def test_units_are_sandboxed(unit: str) -> None:
    for name, value in {
        "User": "streamguard", "NoNewPrivileges": "yes", "CapabilityBoundingSet": "", "ProtectSystem": "strict",
        "ProtectHome": "yes", "PrivateTmp": "yes", "PrivateDevices": "yes", "RestrictNamespaces": "yes",
    }.items():  # fmt: skip
        assert values(unit, name) == [value], name
    assert values(unit, "MemoryMax")


def test_refused_process_is_not_restarted() -> None:
    for unit in SERVICES[:4]:
        assert values(unit, "Restart") == ["on-failure"]
        assert values(unit, "RestartPreventExitStatus") == ["78"]
    assert values("streamguard-retrain.service", "SuccessExitStatus") == ["3 143"]
