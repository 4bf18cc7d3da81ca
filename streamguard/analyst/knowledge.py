"""What the analyst knows of ATT&CK techniques, and the closed list of playbook steps, from TOML beside this module."""

from __future__ import annotations

import tomllib
from collections.abc import Iterable, Mapping
from importlib.resources import files
from typing import Literal

import msgspec

from streamguard.analyst.analysis import TechniqueUse
from streamguard.text import printable, shortened

Stage = Literal["preparation", "identification", "containment", "eradication", "recovery", "lessons_learned"]
"""Stages of RE&CT."""


class Technique(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What is known of a technique.

    Attributes
    ----------
    name, tactic
        As in ATT&CK.
    mitigations
        Id of ATT&CK -> what it means, in our own words.
    checks
        Three things that show whether it is an attack.
    containment
        Two things that stop it.
    """

    name: str
    tactic: str
    mitigations: Mapping[str, str]
    checks: tuple[str, str, str]
    containment: tuple[str, str]


class Step(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A step of the playbook: its stage, and what to do."""

    stage: Stage
    text: str


def _read(name: str, key: str) -> object:
    text = (files("streamguard.analyst") / name).read_text(encoding="utf-8")
    return tomllib.loads(text)[key]


TECHNIQUES = msgspec.convert(_read("knowledge.toml", "techniques"), dict[str, Technique])
"""Id -> technique; a test compares it with `streamguard.fold.patterns.PATTERNS`."""

STEPS = msgspec.convert(_read("playbook.toml", "steps"), dict[str, Step])
"""Id -> step, in the order in which steps are done."""


AFTER = msgspec.convert(_read("playbook.toml", "after"), dict[str, tuple[str, ...]])
"""Verdict, `entered` or id of a technique -> ids of steps, the most important first."""

MAX_ID = 20
"""Characters of an id of a technique that is not known here."""
MAX_USES = 24
"""Techniques of an analysis."""


def technique_use(id: str) -> TechniqueUse:
    """A technique by its id; one that is not known here keeps its id as its name.

    Examples
    --------
    >>> technique_use("T1110.001").name, technique_use("T1110.999").name, technique_use("T9999").name
    ('Password Guessing', 'Brute Force', 'T9999')
    """
    known = TECHNIQUES.get(id) or TECHNIQUES.get(id.partition(".")[0])
    shown = shortened(printable(id), MAX_ID)
    return TechniqueUse(shown, known.name if known else shown, known.tactic if known else "unknown")


def technique_uses(ids: Iterable[str]) -> tuple[TechniqueUse, ...]:
    """Techniques by their ids, each once."""
    return tuple(technique_use(id) for id in list(dict.fromkeys(ids))[:MAX_USES])
