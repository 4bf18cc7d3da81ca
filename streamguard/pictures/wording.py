"""Values in words for a template: texts of events made safe and bounded, names, times, ages."""

from __future__ import annotations

from urllib.parse import quote

from streamguard.alerts.incident import Entity
from streamguard.alerts.usual import span
from streamguard.text import counted, printable, shortened

MAX_SHOWN = 200
"""Characters of a text of an event in a table."""


def shown(text: str, limit: int = MAX_SHOWN) -> str:
    """A text of an event, as a table shows it: bounded, without control characters and changes of direction.

    Examples
    --------
    >>> shown("ann\\u202egnp.exe\\x1b[31m")
    'ann�gnp.exe�[31m'
    """
    return shortened(printable(str(text)[: limit + 1]), limit)


def words(name: str) -> str:
    """The name of a pattern or a component in words.

    Examples
    --------
    >>> words("crowd_new_source")
    'crowd new source'
    """
    return shown(name).replace("_", " ")


def entity(one: Entity, limit: int = MAX_SHOWN) -> str:
    """An entity in words.

    Examples
    --------
    >>> entity(Entity("user", "ann")), entity(Entity("crowd", "partition 2"))
    ('user ann', 'all users of partition 2')
    """
    name = shown(one.value, limit)
    return f"all users of {name}" if one.kind == "crowd" else f"{one.kind} {name}"


def moment(time: str | None) -> str:
    """An RFC 3339 time to the second; nothing for no time.

    Examples
    --------
    >>> moment("2026-11-30T08:00:01.250Z")
    '2026-11-30 08:00:01'
    """
    return time[:19].replace("T", " ") if time else ""


def age(milliseconds: int) -> str:
    """A duration in words.

    Examples
    --------
    >>> age(420), age(65_000), age(7_200_000)
    ('0.4 s', '65 s', '2 hours')
    """
    return span(milliseconds / 1000)


def url_part(text: object) -> str:
    """A text as one part of an address, in which a slash is encoded, too: Jinja's own filter leaves it.

    Examples
    --------
    >>> url_part("a/b?c d")
    'a%2Fb%3Fc%20d'
    """
    return quote(str(text), safe="", errors="replace")


def number_of(number: int, noun: str, nouns: str = "") -> str:
    """A number and its noun, of which the plural may be irregular.

    Examples
    --------
    >>> number_of(2, "address", "addresses")
    '2 addresses'
    """
    return f"{number:,} {nouns}" if nouns and number != 1 else counted(number, noun)
