"""Every benchmark can be loaded and says what it measures, so that a renamed class is found without a long run."""

from __future__ import annotations

import pytest

from bench.__main__ import NAMES, title


@pytest.mark.parametrize("name", NAMES)
def test_benchmark_loads_and_has_a_title(name: str) -> None:
    assert title(name).endswith(".")
