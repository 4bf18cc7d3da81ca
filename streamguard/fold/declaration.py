"""Declares features, components and patterns one by one beside their formulas; orders and sizes follow from it.

A formula is a compiled function of an `Observation`. The kernel calls all formulas of a kind through one function that
is written and compiled here, with a line for each formula.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Generic, Literal, Protocol, TypeVar

import numpy as np

from streamguard.compute.compiler import part

Formula = Callable[[Any], Any]
"""A function of a `streamguard.fold.observation.Observation`."""


class Named(Protocol):
    """A declaration."""

    @property
    def name(self) -> str: ...


@dataclass(frozen=True, slots=True)
class Feature:
    """One column of a feature row.

    Attributes
    ----------
    name, group, unit
        As they appear in reports.
    formula
        In terms of the fields of `streamguard.fold.profile`; computed before the event is learned.
    source
        Practice, publication or ATT&CK technique on which the feature is based.
    """

    name: str
    group: str
    unit: str
    formula: str
    source: str


@dataclass(frozen=True, slots=True)
class Component:
    """One summand of a score, in bits.

    Attributes
    ----------
    name
        Name in incidents.
    about
        Whom the evidence is about: the `user`, the `crowd`, a `source`, or earlier events of the user's source
        (`carried`).
    habit
        Whether the bits that are usual for this user are subtracted.
    formula
        What the bits measure.
    source
        Publication or practice on which the formula is based.
    """

    name: str
    about: Literal["user", "crowd", "source", "carried"]
    habit: bool
    formula: str
    source: str


@dataclass(frozen=True, slots=True)
class Pattern:
    """A named attack pattern.

    Attributes
    ----------
    name
        Name in incidents and metrics.
    technique
        ATT&CK identifier.
    bits
        Bits that the pattern adds to the evidence.
    description
        Description for the reader of an incident.
    guessing
        Whether the bits grow with the number of guesses, see `streamguard.fold.evidence.guess_bits`.
    """

    name: str
    technique: str
    bits: float
    description: str
    guessing: bool = False


T = TypeVar("T", bound=Named)


class Declarations(Generic[T]):
    """The declarations of one kind with their formulas, in the order in which they were made.

    Attributes
    ----------
    all
        The declarations.
    formulas
        Their formulas.

    Examples
    --------
    >>> patterns = Declarations[Pattern]()
    >>> patterns.add(Pattern("flood", "T1499", 6.0, "far more events than usual"), lambda e: e.gap < 0.001)
    >>> patterns.names
    ('flood',)
    """

    def __init__(self) -> None:
        self.all: list[T] = []
        self.formulas: list[Formula] = []

    def add(self, declared: T, formula: Formula) -> None:
        """Add one declaration.

        Raises
        ------
        ValueError
            If another one has its name.
        """
        if declared.name in self.names:
            raise ValueError(f"{declared.name} is declared twice")
        self.all.append(declared)
        self.formulas.append(formula)

    @property
    def names(self) -> tuple[str, ...]:
        """All names, in order."""
        return tuple(one.name for one in self.all)


def text_of(formula: Formula) -> str:
    """The text of a formula's docstring on one line.

    Raises
    ------
    ValueError
        If it has none.
    """
    text = inspect.getdoc(formula)
    if not text:
        raise ValueError(
            f"{formula.__name__} has no docstring, which is its description in the documentation"
        )
    return " ".join(text.split())


def filler(formulas: Sequence[Formula]) -> Callable[..., None]:
    """Compile a function `fill(e, out)` that sets `out[k]` to the result of the k-th formula."""
    lines = [f"    out[{k}] = formula_{k}(e)" for k in range(len(formulas))]
    return _compiled("e, out", lines, formulas)


def matcher(formulas: Sequence[Formula]) -> Callable[..., Any]:
    """Compile a function `match(e)` that returns the formulas that hold, as a bit set."""
    lines = ["    found = np.uint64(0)"]
    for k in range(len(formulas)):
        lines += [f"    if formula_{k}(e):", f"        found |= np.uint64({1 << k})"]
    return _compiled("e", [*lines, "    return found"], formulas)


def _compiled(parameters: str, lines: Sequence[str], formulas: Sequence[Formula]) -> Callable[..., Any]:
    """Compile a function of these lines, which call the formulas by their numbers."""
    names: dict[str, Any] = {f"formula_{k}": part(formula) for k, formula in enumerate(formulas)}
    names["np"] = np
    source = "\n".join([f"def call_all({parameters}):", *lines])
    exec(source, names)  # noqa: S102 - the text contains nothing from outside
    return part(names["call_all"])
