"""Counts refused events by reason, with the users and sources that have most of them: a refusal is evidence, too."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import msgspec

from streamguard.events.event import Refusal
from streamguard.text import printable, shortened

MAX_NAMES = 200
"""Maximum number of different users, and of different sources, that are counted for one reason."""
SHOWN_NAMES = 5
NAME_CHARACTERS = 100
"""Length up to which a name is kept. Control characters of names are replaced, so that any terminal can print them."""


class Refusals(msgspec.Struct):
    """The refused events of one reason; names are those that an event states, as far as they can be read."""

    number: int = 0
    users: dict[str, int] = {}
    """Number of these events by user."""
    sources: dict[str, int] = {}
    """Number of these events by source address."""


def subject(refusal: Refusal) -> str:
    r"""The user of a refused event, or else its source, in a form that is safe to print; empty if it names neither.

    Examples
    --------
    >>> subject(Refusal(0, "bad_timestamp", "", "ann\x1b[2J", "10.0.0.1")), subject(Refusal(0, "not_json", ""))
    ('user ann�[2J', '')
    """
    kind, name = ("user", refusal.user) if refusal.user else ("source", refusal.source)
    return f"{kind} {_name(name)}" if name else ""


def count(table: dict[str, Refusals], refused: Iterable[Refusal]) -> None:
    """Add refused events to the refusals by reason."""
    for refusal in refused:
        entry = table.setdefault(refusal.reason, Refusals())
        entry.number += refusal.count
        _add(entry.users, _name(refusal.user), refusal.count)
        _add(entry.sources, _name(refusal.source), refusal.count)


def merged(tables: Iterable[Mapping[str, Refusals]]) -> dict[str, Refusals]:
    """The sum of several tables, the most frequent reason first, and of each reason the most frequent names."""
    total: dict[str, Refusals] = {}
    for table in tables:
        for reason, part in table.items():
            entry = total.setdefault(reason, Refusals())
            entry.number += part.number
            for names, more in ((entry.users, part.users), (entry.sources, part.sources)):
                for name, number in more.items():
                    _add(names, name, number)
    return {
        reason: Refusals(entry.number, _most(entry.users), _most(entry.sources))
        for reason, entry in sorted(total.items(), key=lambda item: (-item[1].number, item[0]))
    }


def lines(table: Mapping[str, Refusals]) -> list[str]:
    """A line for each reason whose refused events name users or sources.

    Examples
    --------
    >>> table: dict[str, Refusals] = {}
    >>> count(table, [Refusal(k, "bad_timestamp", "", "ann", f"10.0.0.{k}") for k in range(2)])
    >>> lines(table)
    ['refused as bad_timestamp: user ann 2; source 10.0.0.0 1, 10.0.0.1 1']
    """
    texts = []
    for reason, entry in merged([table]).items():
        groups = [
            f"{kind} " + ", ".join(f"{name} {number:,}" for name, number in names.items())
            for kind, names in (("user", entry.users), ("source", entry.sources))
            if names
        ]
        if groups:
            texts.append(f"refused as {reason}: {'; '.join(groups)}")
    return texts


def _name(text: str) -> str:
    return printable(shortened(text, NAME_CHARACTERS))


def _add(names: dict[str, int], name: str, number: int) -> None:
    if name and (name in names or len(names) < MAX_NAMES):
        names[name] = names.get(name, 0) + number


def _most(names: Mapping[str, int]) -> dict[str, int]:
    return dict(sorted(names.items(), key=lambda item: (-item[1], item[0]))[:SHOWN_NAMES])
