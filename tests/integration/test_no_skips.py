"""A skipped test fails the run if CI=true."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.integration

ROOT = Path(__file__).parents[2]
SKIPS = {
    "in the test": "import pytest\n\ndef test_it(): pytest.skip('no Kafka here')\n",
    "by a mark": "import pytest\n\n@pytest.mark.skip(reason='no Kafka here')\ndef test_it(): pass\n",
    "as a whole file": "import pytest\npytest.skip('no Kafka here', allow_module_level=True)\n",
}


@pytest.mark.parametrize("source", SKIPS.values(), ids=SKIPS.keys())
@pytest.mark.parametrize(("ci", "code"), [("true", {1, 2}), ("", {0, 5})])
def test_skipped_test_fails_only_in_ci(tmp_path: Path, source: str, ci: str, code: set[int]) -> None:
    (tmp_path / "test_skips.py").write_text(source)
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "tests.conftest", "--rootdir", tmp_path, tmp_path],
        cwd=tmp_path,
        env=os.environ | {"CI": ci, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode in code, done.stdout
    assert ("skipped, which CI does not accept" in done.stdout) == bool(ci)
