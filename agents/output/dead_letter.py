"""Converts refused records to dead letters: each with its content up to a size, and beyond a rate in a summary."""

from __future__ import annotations

import hashlib
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import msgspec

from streamguard.events.ceiling import UNKNOWN
from streamguard.events.event import Refusal, Withheld
from streamguard.events.refusals import subject
from streamguard.records.record import HEAD_BYTES, Headers, Record

DETAIL_CHARACTERS = 500
"""Characters of the detail that are kept, because a header must not hold a whole event."""
MAX_VALUE_BYTES = HEAD_BYTES
"""Size in bytes up to which a value is kept; of a larger one its head of this size."""
MAX_LETTERS = 20
"""Refused records that get a dead letter of their own at once, by partition and reason; the others are summarised."""
REFILL_MS = 3000
"""Time after which one more record gets a letter of its own: 20 a minute. With their content, letters of a sender whose
records are all refused would otherwise push those of others out of the topic."""
MAX_SUBJECTS = 20
"""Users and sources that a summary names, those with most records."""
OWN = "sg."
"""Prefix of the headers that the worker writes. A sender's header with it gets the prefix `sender.`."""


@dataclass(frozen=True, slots=True)
class Message:
    """A message for a topic; at least one of key and value is not None."""

    value: bytes | None
    key: bytes | None
    headers: list[tuple[str, bytes | None]] = field(default_factory=list)

    @property
    def size(self) -> int:
        """Size of value, key and headers, in bytes."""
        headers = sum(
            len(name.encode(errors="replace")) + len(value or b"") + 10 for name, value in self.headers
        )
        return len(self.value or b"") + len(self.key or b"") + headers


@dataclass(frozen=True, slots=True)
class Letter:
    """A dead letter, and the number of refused records that it stands for.

    `smallest` builds the same letter without any content of the records, which every topic accepts.
    """

    message: Message
    smallest: Callable[[], Message]
    reason: str
    count: int
    summary: bool = False


class Allowance:
    """How many letters of their own the refused records of one partition may have, by reason: a token bucket.

    Its clock is the time at which a broker appended the records, so it does not depend on when they are read. If their
    senders set the time, which they could choose to get more letters, it is `clock`.
    """

    def __init__(self, clock: Callable[[], float] = time.time) -> None:
        self._clock = clock
        self._now = 0
        self._left: dict[str, tuple[float, int]] = {}
        """(Letters, time at which there were as many) of each reason."""

    def take(self, reason: str, append_ms: int) -> bool:
        """Whether a record of this time gets a letter of its own; time does not go back."""
        self._now = max(self._now, append_ms if append_ms != UNKNOWN else int(self._clock() * 1000))
        left, then = self._left.get(reason, (float(MAX_LETTERS), self._now))
        left = min(float(MAX_LETTERS), left + (self._now - then) / REFILL_MS)
        taken = left >= 1
        self._left[reason] = left - taken, self._now
        return taken


def dead_letters(
    records: Sequence[Record], refused: Sequence[Refusal], allowance: Allowance | None = None
) -> list[Letter]:
    """Build the dead letters of a chunk; every refused record is in exactly one of them.

    Records get one each as far as the partition's allowance goes (without one, that of a new partition). Millions of
    refused records can come in a few packed bytes, so the others are listed in a summary for each reason. After a
    crash, chunks may be cut in other places and the allowance is full: letters may repeat and list other offsets
    together, but none is missing.
    """
    allowance = Allowance() if allowance is None else allowance
    letters, others = [], dict[str, tuple[list[Record], Counter[str]]]()
    for refusal in refused:
        record, reason = records[refusal.index], refusal.reason
        if not allowance.take(reason, record.append_ms):
            listed, subjects = others.setdefault(reason, ([], Counter()))
            listed.append(record)
            if named := subject(refusal):
                subjects[named] += 1
            continue
        value = record.value
        count = value.count if isinstance(value, Withheld) else 1
        message = dead_letter(record, refusal)
        smallest = _later(without_record, record, refusal)
        letters.append(Letter(message, smallest, reason, count))
    for reason, (listed, subjects) in others.items():
        ranges = _ranges(listed)
        count = sum(last - first + 1 for first, last in ranges)
        smallest = _later(_summary, listed[0], reason, ranges, count, b"")
        most = sorted(subjects.items(), key=lambda item: (-item[1], item[0]))[:MAX_SUBJECTS]
        content = {"offsets": ranges, "subjects": dict(most)}
        message = _summary(listed[0], reason, ranges, count, msgspec.json.encode(content))
        letters.append(Letter(message, smallest, reason, count, summary=True))
    return letters


def dead_letter(record: Record, refusal: Refusal) -> Message:
    """Copy the record, and add headers with the reason of the refusal and the origin of the record.

    Notes
    -----
    `sg.subject` names the user of the event, or else its source, if the event can be read so far. `sg.cut` lists the
    parts that were too large to keep (`value`, `key`, `headers`). Of a value its head is kept, and `sg.size` and
    `sg.sha256` hold its size and digest. `sg.null` is set if the record had neither key nor value: aiokafka does not
    send such a record, so the dead letter has an empty key. `sg.last_offset` and `sg.count` are set if the letter
    stands for several records: then the value is the head of their batch, as the broker stores it.
    """
    return _letter(record, refusal, keep=True)


def without_record(record: Record, refusal: Refusal) -> Message:
    """Build a dead letter that every topic accepts: it holds only the size, digest and origin of the record."""
    return _letter(record, refusal, keep=False)


def origin(record: Record) -> list[tuple[str, bytes | None]]:
    """Topic, partition and offset of a record, as headers; of a batch, its first offset."""
    offset = record.value.first if isinstance(record.value, Withheld) else record.offset
    return [
        ("sg.topic", record.topic.encode()),
        ("sg.partition", str(record.partition).encode()),
        ("sg.offset", str(offset).encode()),
    ]


def _letter(record: Record, refusal: Refusal, *, keep: bool) -> Message:
    key, value, headers, cut = record.key, record.value, list(record.headers), list(record.cut)
    added: list[tuple[str, bytes | None]] = [
        ("sg.reason", refusal.reason.encode()),
        ("sg.detail", refusal.detail[:DETAIL_CHARACTERS].encode(errors="replace")),
        *origin(record),
    ]
    if keep and (named := subject(refusal)):
        added.append(("sg.subject", named.encode(errors="replace")))
    head: bytes | None
    limit = MAX_VALUE_BYTES if keep else 0
    if isinstance(value, Withheld):
        head, size, digest = value.head[:limit], value.size, value.sha256
        if value.count > 1:
            added += _several(value.last, value.count)
    else:
        head, size, digest = value, len(value or b""), ""
    if size > limit or digest:
        digest = digest or hashlib.sha256(head or b"").hexdigest()
        head = (head or b"")[:limit]
        added += [("sg.size", str(size).encode()), ("sg.sha256", digest.encode())]
        if size > len(head):
            cut.append("value")
    if not keep:
        cut += ["key"] if key and "key" not in cut else []
        cut += ["headers"] if headers and "headers" not in cut else []
        key, headers = (key and b""), []
    if cut:
        added.append(
            ("sg.cut", ",".join(part for part in ("value", "key", "headers") if part in cut).encode())
        )
    if value is None and key is None:
        key = b""
        added.append(("sg.null", b"key,value"))
    return Message(head, key, added + _of_sender(headers))


def _summary(first: Record, reason: str, ranges: list[tuple[int, int]], count: int, value: bytes) -> Message:
    detail = (
        f"{count} more records of the same reason; `offsets` lists the first and last of each run of them, and "
        "`subjects` the users and sources with most of them"
    )
    headers = [
        ("sg.reason", reason.encode()),
        ("sg.detail", detail.encode()),
        *origin(first),
        *_several(ranges[-1][1], count),
    ]
    return Message(value, b"", headers)


def _several(last: int, count: int) -> list[tuple[str, bytes | None]]:
    return [("sg.last_offset", str(last).encode()), ("sg.count", str(count).encode())]


def _of_sender(headers: Headers) -> list[tuple[str, bytes | None]]:
    return [(f"sender.{name}" if name.startswith(OWN) else name, value) for name, value in headers]


def _ranges(records: Sequence[Record]) -> list[tuple[int, int]]:
    """(first, last) of each run of offsets without a gap.

    Examples
    --------
    >>> _ranges([Record("t", 0, offset, 0, None, b"?") for offset in (3, 4, 5, 9)])
    [(3, 5), (9, 9)]
    """
    ranges: list[tuple[int, int]] = []
    for record in records:
        value = record.value
        first, last = (
            (value.first, value.last) if isinstance(value, Withheld) else (record.offset, record.offset)
        )
        if ranges and ranges[-1][1] + 1 == first:
            ranges[-1] = ranges[-1][0], last
        else:
            ranges.append((first, last))
    return ranges


def _later(build: Callable[..., Message], *arguments: object) -> Callable[[], Message]:
    return lambda: build(*arguments)
