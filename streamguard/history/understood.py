"""Counts how the events of a history were understood, so that a silent "no incidents" is not mistaken for good news."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

import msgspec
import numpy as np
from numpy.typing import NDArray

from streamguard.events import indicators as flag
from streamguard.events.event import Event
from streamguard.text import counted, printable

MAX_WORDS = 1000
"""Maximum number of different words that are counted; further ones are counted together."""
SHOWN_WORDS = 5
_WORD_CHARACTERS = 40
_OTHERS = "other words"


class Understood(msgspec.Struct):
    """How statuses, types, addresses and locations were understood, as numbers of events.

    Examples
    --------
    >>> from streamguard.events.columns import columns
    >>> events = [Event(1, "login", "a", status="FAILURE"), Event(2, "login", "a", status="pending")]
    >>> understood = Understood()
    >>> understood.add(events, columns(events).flags)
    >>> understood.message()
    'understood: status 1 failure, 1 not understood (pending 1); 2 logins'

    Each event is counted in one of `success`, `failure`, `absent` and the not understood statuses.
    """

    events: int = 0
    success: int = 0
    failure: int = 0
    absent: int = 0
    """Without a status, which means success unless the type states another outcome."""
    by_type: int = 0
    """Without a status, or with one that is not understood, but with a type that states the outcome."""
    logins: int = 0
    """Whose type is that of a login."""
    not_understood: dict[str, int] = msgspec.field(
        default_factory=lambda: dict.fromkeys(flag.NOT_UNDERSTOOD, 0)
    )
    """By field of `streamguard.events.indicators.NOT_UNDERSTOOD`: whose value is given, but not understood."""
    words: dict[str, int] = {}
    """The statuses that are not understood, in a form that is safe to print."""

    def add(self, events: Sequence[Event], flags: NDArray[np.uint32]) -> None:
        """Count the n events, whose flags are those of their columns."""

        def number(mask: int, value: int) -> int:
            return int(np.count_nonzero(flags & np.uint32(mask) == value))

        self.events += len(events)
        unstated = flag.STATUS_ABSENT | flag.STATUS_UNKNOWN
        self.success += number(flag.SUCCEEDED | unstated, flag.SUCCEEDED)
        self.failure += number(flag.FAILED | unstated, flag.FAILED)
        self.absent += number(flag.STATUS_ABSENT, flag.STATUS_ABSENT)
        self.by_type += number(flag.FAILED | flag.STATUS_ABSENT, flag.FAILED | flag.STATUS_ABSENT)
        for outcome in (flag.SUCCEEDED, flag.FAILED):
            self.by_type += number(outcome | flag.STATUS_UNKNOWN, outcome | flag.STATUS_UNKNOWN)
        self.logins += number(flag.AUTHENTICATION, flag.AUTHENTICATION)
        for field, one in flag.NOT_UNDERSTOOD.items():
            self.not_understood[field] += number(one, one)
        for i in np.flatnonzero(flags & np.uint32(flag.STATUS_UNKNOWN)).tolist():
            self._count(printable(events[i].status or "")[:_WORD_CHARACTERS], 1)

    def _count(self, word: str, number: int) -> None:
        word = word if word in self.words or len(self.words) < MAX_WORDS else _OTHERS
        self.words[word] = self.words.get(word, 0) + number

    def message(self) -> str:
        """The counts, in one line."""
        stated = [(self.success, "success"), (self.failure, "failure"), (self.absent, "absent")]
        parts = [f"{number:,} {name}" for number, name in stated if number]
        if unknown := self.not_understood["status"]:
            words = ", ".join(f"{word} {number:,}" for word, number in _most(self.words).items())
            parts.append(f"{unknown:,} not understood ({words})")
        text = f"understood: status {', '.join(parts) or 'none'}"
        if self.by_type:
            text += f"; the type states the outcome of {counted(self.by_type, 'event')}"
        text += f"; {counted(self.logins, 'login')}"
        if self.events > self.logins:
            text += f", {counted(self.events - self.logins, 'event')} of other types"
        for field in ("address", "location"):
            if number := self.not_understood[field]:
                text += f"; the {field} of {counted(number, 'event')} not understood"
        return text


def merged(parts: Iterable[Understood]) -> Understood:
    """The sum of several histories, with the words that most of their events have."""
    total = Understood()
    for part in parts:
        for name in ("events", "success", "failure", "absent", "by_type", "logins"):
            setattr(total, name, getattr(total, name) + getattr(part, name))
        for field, number in part.not_understood.items():
            total.not_understood[field] += number
        for word, number in part.words.items():
            total._count(word, number)
    return msgspec.structs.replace(total, words=_most(total.words))


def _most(words: Mapping[str, int]) -> dict[str, int]:
    return dict(sorted(words.items(), key=lambda item: (-item[1], item[0]))[:SHOWN_WORDS])
