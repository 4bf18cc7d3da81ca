"""The list of features: the kernel, docs/features.md and the models agree with it."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import numpy as np

from streamguard.fold import features
from streamguard.fold.kernel import N_FEATURES
from tests.streams import Partition, habit

DOC = Path(__file__).parents[2] / "docs" / "features.md"


def test_there_are_28_features_in_five_groups() -> None:
    assert len(features.FEATURES) == N_FEATURES == len(set(features.NAMES)) == 28
    assert Counter(f.group for f in features.FEATURES) == {
        "user behaviour": 8, "temporal": 6, "IP and location": 5, "sequence": 4, "threat": 5,
    }  # fmt: skip


def test_documentation_is_current() -> None:
    """`python -m tests.unit.test_features` writes the table."""
    assert features.as_markdown() in DOC.read_text()


def test_every_feature_varies() -> None:
    """Every feature that logins can change takes several values."""
    rows = np.concatenate([f.features for f in Partition().chunks(habit(2000))])
    moved = {name for name, column in zip(features.NAMES, rows.T, strict=True) if len(np.unique(column)) > 1}
    assert set(features.NAMES) - moved == {
        "agent_bits", "resource_bits", "volume_z", "threat_score", "threat_z", "threat_mean",
    }  # fmt: skip


def main() -> None:
    """Write the present table into the document."""
    introduction, _, _ = DOC.read_text().partition("| # |")
    DOC.write_text(introduction + features.as_markdown())


if __name__ == "__main__":
    main()
