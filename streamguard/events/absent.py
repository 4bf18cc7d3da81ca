"""Texts by which logs say that a value is absent, in any case."""

from __future__ import annotations

ABSENT = frozenset({
    "", "-", "--", "?", "n/a", "na", "null", "none", "nil", "(null)", "<null>", "(none)", "<none>", "undefined",
    "(not set)", "not set", "not available",
})  # fmt: skip
"""Texts that stand for an absent value in any field."""

UNKNOWN = ABSENT | {"unknown", "(unknown)", "<unknown>", "unspecified", "not specified"}
"""Texts that stand for no address and for no place: they also name a value that the log's source does not know."""

_NAMES = frozenset({"na", "nil"})
"""Texts among these that people are also called."""


def _spelled(words: frozenset[str]) -> frozenset[str | None]:
    spellings = (str.lower, str.upper, str.capitalize, str.title)
    return frozenset({None, *(spell(word) for word in words for spell in spellings)})


NOBODY = _spelled(UNKNOWN - _NAMES)
"""Texts that stand for no user, each in the usual spellings, so that a test for it costs a look-up; and None."""
