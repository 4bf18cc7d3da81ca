"""A further feature, component and pattern: one declaration each, and everything else follows."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from streamguard.fold import components, features, patterns

ROOT = Path(__file__).parents[2]

pytestmark = pytest.mark.integration

FEATURE = '''
@feature("temporal", unit="log2 seconds", source="UEBA practice")
def since_last_event(e: Observation) -> float:
    """log2(1 + seconds since the last event)"""
    return log2(1.0 + e.gap)


FEATURES = '''
COMPONENT = '''
@component("user", source="a test")
def heavy_volume(e: Observation) -> float:
    """bits of a volume over a gigabyte"""
    return 20.0 if e.volume > 1e9 else 0.0


COMPONENTS = '''
PATTERN = '''
@pattern("T1030", bits=9.0)
def huge_transfer(e: Observation) -> bool:
    """more than a gigabyte in one event"""
    return e.volume > 1e9 and e.bits[component.COMPONENTS.index("heavy_volume")] > 0.0


PATTERNS = '''

SCRIPT = """
import json

import numpy as np

import streamguard
from streamguard.alerts.incident import encode
from streamguard.fold import components, features, patterns, profile
from streamguard.settings.schema import Detection
from streamguard.state.partition import PartitionState

state = PartitionState(0, lambda keys: [None] * len(keys), resident=100, detection=Detection())
event = {"event_type": "network_connection", "user": "ann", "source_ip": "192.0.2.1"}
values = [json.dumps({**event, "timestamp": 1_700_000_000_000 + 60_000 * k}).encode() for k in range(60)]
last = json.dumps({**event, "timestamp": 1_700_003_600_000, "network_details": {"bytes_sent": 5_000_000_000}})
folded = state.fold([*values, last.encode()], np.arange(61))
print(json.dumps({
    "package": streamguard.__path__[0],
    "features": features.NAMES,
    "components": components.COMPONENTS,
    "patterns": [one.name for one in patterns.PATTERNS],
    "row": float(folded.features[-1, -1]),
    "typical": profile.PROFILE["typical"].shape[0],
    "incident": json.loads(encode(folded.incidents[-1].incident)),
    "tables": features.as_markdown() + components.as_markdown(),
}))
"""


def test_one_declaration_each_reaches_state_features_and_incident(tmp_path: Path) -> None:
    copy = tmp_path / "streamguard"
    shutil.copytree(ROOT / "streamguard", copy, ignore=shutil.ignore_patterns("__pycache__"))
    for module, marker, text in (
        ("features", "\nFEATURES = ", FEATURE),
        ("components", "\nCOMPONENTS = ", COMPONENT),
        ("patterns", "\nPATTERNS = ", PATTERN),
    ):
        file = copy / "fold" / f"{module}.py"
        before, found, after = file.read_text().partition(marker)
        assert found, marker
        file.write_text(before + "\n" + text + after)
    script = tmp_path / "use.py"
    script.write_text(SCRIPT)
    done = subprocess.run(
        [sys.executable, str(script)],
        cwd=tmp_path,
        env=os.environ | {"PYTHONPATH": str(tmp_path), "NUMBA_CACHE_DIR": str(tmp_path / "kernels")},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    seen = json.loads(done.stdout)
    assert seen["package"] == str(copy)
    assert seen["features"] == [*features.NAMES, "since_last_event"]
    assert seen["components"] == [*components.COMPONENTS, "heavy_volume"]
    assert seen["patterns"] == [*(one.name for one in patterns.PATTERNS), "huge_transfer"]
    assert seen["row"] == pytest.approx(6.0, abs=0.1)  # a minute
    assert seen["typical"] == len(seen["components"])
    assert [one["name"] for one in seen["incident"]["patterns"]] == ["huge_transfer"]
    assert {"huge_transfer", "heavy_volume"} <= {reason["feature"] for reason in seen["incident"]["reasons"]}
    assert "`since_last_event`" in seen["tables"] and "`heavy_volume`" in seen["tables"]
