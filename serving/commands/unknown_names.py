"""Says that a filter of a list names something that does not exist, and which known name was perhaps meant."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import click

from streamguard.cli.suggestions import did_you_mean, similar
from streamguard.errors import DataError
from streamguard.serving.commands.source import Source
from streamguard.serving.query.filters import EntityKind, IncidentFilter
from streamguard.text import printable

MAX_SHOWN = 100
"""Characters of a name that a message repeats."""
RANKED: tuple[EntityKind, ...] = ("user", "source")
"""Kinds of entities whose names are suggested."""
MAX_NAMES = 200
"""Entities of a kind among which a similar name is looked for: those with the most risk."""


def check_patterns(patterns: Sequence[str], techniques: Sequence[str]) -> None:
    """Refuse a pattern or a technique that no worker of this version reports.

    Raises
    ------
    UsageError
        If a pattern or a technique does not exist.
    """
    if not (patterns or techniques):
        return
    from streamguard.fold.patterns import PATTERNS  # takes a second, which other filters do not need

    _check("--pattern", "pattern", patterns, {one.name for one in PATTERNS})
    _check("--technique", "technique", techniques, {one.technique for one in PATTERNS})


def _check(option: str, what: str, given: Sequence[str], known: set[str]) -> None:
    for name in given:
        if name not in known:
            guess = did_you_mean(name, sorted(known)) or f" There are {', '.join(sorted(known))}."
            raise click.BadParameter(f"there is no {what} {name[:MAX_SHOWN]!r}.{guess}", param_hint=option)


def name_unknown(source: Source, names: Sequence[str]) -> None:
    """Print on standard error which of these names no incident has, and known names that are similar."""
    missing = [one for one in names if not source.questions.facets(IncidentFilter(entity=(one,))).total]
    if not missing:
        return
    known = list(_names(source))
    for name in missing:
        near = [one[:MAX_SHOWN] for one in similar(name, known)]
        text = f"no incident of {name[:MAX_SHOWN]!r}"
        if near:
            text += f"; known names that are similar: {', '.join(near)}"
        click.echo(printable(text), err=True)


def _names(source: Source) -> Iterator[str]:
    """Names of users and addresses with incidents; none if the caller may not see them."""
    for kind in RANKED:
        try:
            yield from (
                one.entity.value for one in source.users.ranked(kind, MAX_NAMES, IncidentFilter()).users
            )
        except DataError:  # a role that sees pseudonyms is refused the names
            return
