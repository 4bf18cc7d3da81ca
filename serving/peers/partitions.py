"""Sets of partitions as text: `0-31,40`."""

from __future__ import annotations

import re
from collections.abc import Collection

from streamguard.errors import ConfigurationError

PATTERN = r"^[0-9]{1,5}(-[0-9]{1,5})?(,[0-9]{1,5}(-[0-9]{1,5})?){0,999}$"
"""What such a text looks like."""
_PART = re.compile(r"([0-9]+)(?:-([0-9]+))?")


def parse(text: str, name: str = "serve.partitions") -> frozenset[int]:
    """The partitions that a text names.

    Parameters
    ----------
    name
        What the text is, for errors.

    Raises
    ------
    ConfigurationError
        If it is not such a text.

    Examples
    --------
    >>> sorted(parse("0-2,7"))
    [0, 1, 2, 7]
    """
    found: set[int] = set()
    if not re.fullmatch(PATTERN.strip("^$"), text):
        raise ConfigurationError(f"{name} is {text[:100]!r}: write numbers and ranges, such as 0-31,40")
    for part in text.split(","):
        match = _PART.fullmatch(part)
        assert match is not None
        first, last = int(match[1]), int(match[2] or match[1])
        if last < first:
            raise ConfigurationError(
                f"{name} has the range {part}, whose end is before its start: write {last}-{first}"
            )
        found.update(range(first, last + 1))
    return frozenset(found)


def ranges(partitions: Collection[int]) -> str:
    """The shortest text that names these partitions; empty for none.

    Examples
    --------
    >>> ranges({7, 0, 1, 2})
    '0-2,7'
    """
    parts: list[list[int]] = []
    for number in sorted(partitions):
        if parts and parts[-1][1] == number - 1:
            parts[-1][1] = number
        else:
            parts.append([number, number])
    return ",".join(str(first) if first == last else f"{first}-{last}" for first, last in parts)
