"""Declarations of features, components and patterns, and the records that their formulas read."""

from __future__ import annotations

import hashlib

import numpy as np
import pytest

from streamguard.fold import components, features, patterns, population, profile, records
from streamguard.fold.declaration import Declarations, Pattern, text_of
from streamguard.fold.dimensions import PATTERN_SLOTS, SKETCHES, VERSION


@pytest.mark.parametrize(
    ("protocol", "record"),
    [
        (records.Profile, profile.PROFILE),
        (records.Population, population.POPULATION),
        (records.Source, population.SOURCE_RECORD),
    ],
)
def test_type_checkers_know_the_fields_of_each_record(protocol: type, record: np.dtype[np.void]) -> None:
    """So a misspelt field in a formula is found without compiling it."""
    shapes = {name: record[name].shape != () for name in record.names or ()}
    assert {name: "NDArray" in kind for name, kind in protocol.__annotations__.items()} == shapes
    assert list(protocol.__annotations__) == list(record.names or ())


def test_each_declaration_has_one_formula_and_a_description() -> None:
    for declared in (features.DECLARED, components.DECLARED, patterns.DECLARED):
        assert len(declared.all) == len(declared.formulas) == len(set(declared.names))
    assert all(one.formula and one.source and one.unit for one in features.DECLARED.all)
    assert all(one.formula and one.source for one in components.DECLARED.all)
    assert all(one.description and one.technique.startswith("T") for one in patterns.DECLARED.all)
    assert len(patterns.PATTERNS) <= PATTERN_SLOTS


def test_name_is_declared_once() -> None:
    declared = Declarations[Pattern]()
    flood = Pattern("flood", "T1499", 6.0, "far more events than usual")
    declared.add(flood, lambda e: e.gap < 0.001)
    with pytest.raises(ValueError, match="flood is declared twice"):
        declared.add(flood, lambda e: e.gap < 0.002)
    with pytest.raises(ValueError, match="has no docstring"):
        text_of(lambda e: e.gap)


LAYOUTS = {3: "72e533a99a7ec738"}
"""Digest of everything that a stored state consists of, by version."""


def test_another_layout_has_another_version() -> None:
    """Whoever changes a record, a sketch or a component adds a version, and a migration from the one before."""
    records = (profile.PROFILE, population.POPULATION, population.SOURCE_RECORD, population.ADOPTED_RECORD)
    parts = [
        *(str(record.descr) for record in records),
        str((components.COMPONENTS, SKETCHES, population.CLASSES, population.FIELD_SALTS)),
        str((population.ROWS, population.WIDTH, population.PAGE, population.SOURCES, population.ADOPTED)),
    ]
    assert hashlib.sha256("\n".join(parts).encode()).hexdigest()[:16] == LAYOUTS[VERSION]
