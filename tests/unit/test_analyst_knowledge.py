"""What the analyst knows: every technique that a pattern can raise, and steps that exist."""

from __future__ import annotations

import re
from importlib.resources import files

import pytest

from streamguard.analyst.knowledge import AFTER, STEPS, TECHNIQUES, technique_use, technique_uses
from streamguard.fold.patterns import PATTERNS

RAISED = sorted({pattern.technique for pattern in PATTERNS})
NOTICE = "This work is reproduced and distributed with the permission of The MITRE Corporation."


def test_every_technique_that_a_pattern_raises_is_known_and_no_other() -> None:
    assert sorted(TECHNIQUES) == RAISED


@pytest.mark.parametrize("id", RAISED)
def test_technique_is_described_in_sentences(id: str) -> None:
    known = TECHNIQUES[id]
    assert known.name and known.tactic
    texts = (*known.checks, *known.containment, *known.mitigations.values())
    assert len(set(texts)) == len(texts) >= 5
    assert all(re.fullmatch(r"[A-Z].{10,198}\.", text) for text in texts)
    assert all(re.fullmatch(r"M10\d\d", mitigation) for mitigation in known.mitigations)


@pytest.mark.parametrize("id", RAISED)
def test_steps_follow_from_every_technique(id: str) -> None:
    assert len(AFTER[id]) >= 3


def test_steps_exist_and_each_is_used_and_the_stages_are_in_order() -> None:
    used = {step for steps in AFTER.values() for step in steps}
    assert used == set(STEPS)
    stages = list(dict.fromkeys(step.stage for step in STEPS.values()))
    assert stages == [
        "identification",
        "containment",
        "eradication",
        "recovery",
        "lessons_learned",
        "preparation",
    ]
    assert set(AFTER) - set(TECHNIQUES) == {
        "true_positive",
        "suspicious",
        "benign",
        "insufficient_data",
        "entered",
    }


def test_file_holds_the_notice_of_mitre() -> None:
    text = (files("streamguard.analyst") / "knowledge.toml").read_text(encoding="utf-8")
    assert NOTICE in " ".join(text.replace("\n#", "\n").split())


def test_unknown_technique_is_shown_safely() -> None:
    use = technique_use("T9999\x1b[31m" + "x" * 99)
    assert (use.name, use.tactic) == (use.id, "unknown")
    assert use.id.isprintable() and len(use.id) <= 20
    assert [one.id for one in technique_uses(["T1110", "T1078", "T1110"])] == ["T1110", "T1078"]
