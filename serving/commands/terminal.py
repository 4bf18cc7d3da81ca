"""Text for a terminal: no wider than it, and without characters by which a text of others could act on it."""

from __future__ import annotations

import shutil
import textwrap
import unicodedata
from collections.abc import Iterator

import click
import msgspec

from streamguard.alerts.incident import Entity
from streamguard.serving.masking.pseudonyms import is_pseudonym
from streamguard.text import printable, shortened

MIN_WIDTH = 40
"""Columns for which text is made at least."""
MAX_WRAPPED = 4_000
"""Characters of a text that is wrapped; JSON has the whole text."""
INDENT = "  "
_CUT = "\N{HORIZONTAL ELLIPSIS}"


def terminal_width() -> int:
    """Columns of the terminal."""
    return max(shutil.get_terminal_size().columns, MIN_WIDTH)


def print_json(value: object) -> None:
    """Print a value as one line of JSON."""
    click.echo(msgspec.json.encode(value).decode())


def moment(time: str) -> str:
    """An RFC 3339 time to the minute.

    Examples
    --------
    >>> moment("2026-11-30T08:00:01.250Z")
    '2026-11-30 08:00'
    """
    return printable(time[:16].replace("T", " "))


def plain(name: str) -> str:
    """The name of a pattern or a reason in words."""
    return printable(name).replace("_", " ")


def columns(text: str) -> int:
    """Columns of a terminal that a text takes, at most: characters of East Asia take two.

    Examples
    --------
    >>> columns("ann"), columns("\N{CJK UNIFIED IDEOGRAPH-4E2D}")
    (3, 2)
    """
    return sum(1 + (unicodedata.east_asian_width(one) in "WF") for one in text)


def fitted(text: str, width: int) -> str:
    """A text without control characters, cut to so many columns with an ellipsis at its end.

    Examples
    --------
    >>> fitted("abcdef", 4), fitted("abcd", 4)
    ('abc…', 'abcd')
    """
    text = printable(text[: width + 1])
    if columns(text) <= width:
        return text
    kept, left = "", max(width - 1, 0)
    for one in text:
        left -= columns(one)
        if left < 0:
            break
        kept += one
    return kept + _CUT


def padded(text: str, width: int) -> str:
    """A text with blanks up to so many columns."""
    return text + " " * (width - columns(text))


def wrapped(text: str, width: int, indent: str = INDENT, further: str | None = None) -> list[str]:
    r"""A text without control characters, in lines of the width; one that is very long is cut.

    Parameters
    ----------
    indent, further
        What the first line and the others begin with; `further` is `indent` unless it is given.

    Examples
    --------
    >>> wrapped("one two\nthree", 20, "- ", "  ")
    ['- one two�three']
    """
    lines = textwrap.wrap(
        printable(shortened(text, MAX_WRAPPED)),
        max(width, 20),
        initial_indent=indent,
        subsequent_indent=indent if further is None else further,
        drop_whitespace=True,
        break_on_hyphens=False,
    )
    return [part for line in lines for part in _broken(line, width)]


def _broken(line: str, width: int) -> Iterator[str]:
    """The parts of a line of which some characters take two columns."""
    while columns(line) > width and len(line) > 1:
        part = line
        while columns(part) > width:
            part = part[: max(len(part) * width // columns(part), 1)]
        yield part
        line = line[len(part) :]
    yield line


def named(entity: Entity) -> str:
    """The kind and the name of an entity; a pseudonym begins with the kind.

    Examples
    --------
    >>> named(Entity("user", "ann")), named(Entity("user", "user-xsqafs31gkjddh1d"))
    ('user ann', 'user-xsqafs31gkjddh1d')
    """
    return entity.value if is_pseudonym(entity.value) else f"{entity.kind} {entity.value}"
