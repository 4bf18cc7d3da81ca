"""Counts how the events of a file were understood, so that a silent "no incidents" is not mistaken for good news."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

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


class Understood:
    """How statuses, types, addresses and places were understood.

    Examples
    --------
    >>> from streamguard.events.columns import columns
    >>> events = [Event(1, "login", "a", status="FAILURE"), Event(2, "login", "a", status="pending")]
    >>> understood = Understood()
    >>> understood.add(events, columns(events).flags)
    >>> understood.message()
    'understood: status 1 failure, 1 not understood (pending 1); 2 logins'
    """

    def __init__(self) -> None:
        self._events = 0
        self._flagged: Counter[int] = Counter()
        self._words: Counter[str] = Counter()

    def add(self, events: Sequence[Event], flags: NDArray[np.uint32]) -> None:
        """Count the n events, whose flags are those of their columns."""
        self._events += len(events)
        stated = flags & np.uint32(flag.SUCCEEDED | flag.STATUS_ABSENT)
        self._flagged[flag.SUCCEEDED] += int(np.count_nonzero(stated == flag.SUCCEEDED))
        for one in (flag.FAILED, flag.STATUS_ABSENT, flag.STATUS_UNKNOWN, flag.AUTHENTICATION,
                    flag.ADDRESS_UNKNOWN, flag.PLACE_UNKNOWN):  # fmt: skip
            self._flagged[one] += int(np.count_nonzero(flags & np.uint32(one)))
        for i in np.flatnonzero(flags & np.uint32(flag.STATUS_UNKNOWN)).tolist():
            word = printable(events[i].status or "")[:_WORD_CHARACTERS]
            self._words[word if word in self._words or len(self._words) < MAX_WORDS else _OTHERS] += 1

    def message(self) -> str:
        """The counts, in one line."""
        n = self._flagged
        unknown, logins = n[flag.STATUS_UNKNOWN], n[flag.AUTHENTICATION]
        absent = n[flag.STATUS_ABSENT]
        stated = [(n[flag.SUCCEEDED], "success"), (n[flag.FAILED], "failure"), (absent, "absent")]
        parts = [f"{number:,} {name}" for number, name in stated if number]
        if unknown:
            words = ", ".join(f"{word} {number:,}" for word, number in self._words.most_common(SHOWN_WORDS))
            parts.append(f"{unknown:,} not understood ({words})")
        text = f"understood: status {', '.join(parts) or 'none'}; {counted(logins, 'login')}"
        if self._events > logins:
            text += f", {counted(self._events - logins, 'event')} of other types"
        for one, name in ((flag.ADDRESS_UNKNOWN, "address"), (flag.PLACE_UNKNOWN, "place")):
            if n[one]:
                text += f"; the {name} of {counted(n[one], 'event')} not understood"
        return text
