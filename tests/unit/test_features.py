"""The declared features and components: the kernel, docs/features.md and the models agree with them."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import numpy as np

from streamguard.fold import components, features
from streamguard.fold.kernel import N_FEATURES
from tests.streams import Partition, habit

DOC = Path(__file__).parents[2] / "docs" / "features.md"


def test_there_are_34_features_in_six_groups() -> None:
    assert len(features.FEATURES) == N_FEATURES == len(set(features.NAMES)) == 34
    assert Counter(f.group for f in features.FEATURES) == {
        "user behaviour": 8, "temporal": 8, "IP and location": 5, "sequence": 4, "threat": 5, "action": 4,
    }  # fmt: skip


def test_documentation_is_current() -> None:
    """`python -m tests.unit.test_features` writes the tables."""
    assert DOC.read_text().endswith(tables())


def test_every_feature_varies() -> None:
    """Every feature that logins can change takes several values."""
    rows = np.concatenate([f.features for f in Partition().chunks(habit(2000))])
    moved = {name for name, column in zip(features.NAMES, rows.T, strict=True) if len(np.unique(column)) > 1}
    assert set(features.NAMES) - moved == {
        "agent_bits", "resource_bits", "volume_z", "threat_score", "threat_z", "threat_mean", "command_bits",
    }  # fmt: skip


def tables() -> str:
    """The generated end of the document."""
    text = "## Components of the score\n\nA score is the sum of these components, in this order; each is in bits.\n\n"
    return f"{features.as_markdown()}\n{text}{components.as_markdown()}"


def main() -> None:
    """Write the present tables into the document."""
    introduction, _, _ = DOC.read_text().partition("| # |")
    DOC.write_text(introduction + tables())


if __name__ == "__main__":
    main()
