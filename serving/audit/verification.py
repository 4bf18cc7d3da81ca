"""Verifies the audit log: names every gap, every changed record, and every chain whose end is missing."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable
from typing import NamedTuple

import msgspec

from streamguard.events.event_time import epoch_ms
from streamguard.serving.audit.log import ALIVE_SECONDS
from streamguard.serving.audit.record import NOTHING, AuditRecord, NotARecordError, decode, digest
from streamguard.text import counted

SILENCE_MS = int(2 * ALIVE_SECONDS * 1000) + 60_000
"""A chain without an end that is silent for longer has lost it; a running server writes more often."""


MAX_APART = 20_000
"""How far two records may be out of order: a server sends up to 10,000 again after an error."""


MAX_BREAKS = 1_000
"""Breaks of one chain that are named."""


class _Seen(NamedTuple):
    offset: int
    digest: str
    record: AuditRecord


class Chain(msgspec.Struct, frozen=True):
    """What was found of the chain of one run of a server.

    Attributes
    ----------
    chain
        Its id.
    first_at, last_at
        Times of its first and of its latest record.
    records
        Number of records.
    state
        `ended`, `running`, or `broken`.
    expired
        Whether its beginning is missing because Kafka has deleted the oldest records.
    head
        Digest of its latest record: noted elsewhere, it proves that the end was not replaced.
    breaks
        What is wrong with it, in sentences.
    """

    chain: str
    first_at: str
    last_at: str
    records: int
    state: str
    expired: bool
    head: str
    breaks: tuple[str, ...]


class Verification(msgspec.Struct, frozen=True):
    """The result: the chains in the order of their first records, and what is wrong outside of any chain."""

    chains: tuple[Chain, ...]
    breaks: tuple[str, ...]

    @property
    def sound(self) -> bool:
        """Whether nothing is wrong."""
        return not self.breaks and not any(one.breaks for one in self.chains)


def verify(records: Iterable[tuple[int, bytes | None]], start: int, now_ms: int) -> Verification:
    """Verify the records of the topic, in bounded memory for each chain.

    Parameters
    ----------
    records
        (offset, value), in the order of offsets.
    start
        First offset that the topic has: above 0, Kafka has deleted older records.
    now_ms
        The time now, epoch milliseconds.
    """
    chains: dict[str, _Check] = {}
    breaks = []
    for offset, value in records:
        try:
            record = decode(value)
        except NotARecordError as error:
            breaks.append(f"offset {offset:,}: changed record: it is not a record of the audit log ({error})")
        else:
            check = chains.setdefault(record.chain, _Check(start > 0))
            check.add(_Seen(offset, digest(value or b""), record))
    return Verification(tuple(check.finished(now_ms) for check in chains.values()), tuple(breaks))


class _Check:
    """Follows one chain.

    Parameters
    ----------
    trimmed
        Whether Kafka has deleted the oldest records of the topic.
    """

    def __init__(self, trimmed: bool) -> None:
        self._trimmed = trimmed
        self._expired = False
        self._first_at = ""
        self._last: _Seen | None = None
        self._records = 0
        self._early: dict[int, _Seen] = {}
        self._known: OrderedDict[int, _Seen] = OrderedDict()
        self._breaks: list[str] = []

    @property
    def _next(self) -> int:
        return 0 if self._last is None else self._last.record.number + 1

    def add(self, one: _Seen) -> None:
        """The next record of the topic that belongs to the chain."""
        number = one.record.number
        known = self._early.get(number) or self._known.get(number)
        if known is not None or number < self._next:
            # The same record twice is one that was sent again.
            if known is None or known.digest != one.digest:
                self._wrong(one, f"changed record: record {number:,} stands in the topic twice, and differs")
            return
        self._early[number] = one
        self._follow()
        if len(self._early) > MAX_APART:
            self._skip()

    def _follow(self) -> None:
        while (one := self._early.pop(self._next, None)) is not None:
            self._take(one)

    def _skip(self) -> None:
        """Go on after a gap."""
        one = self._early.pop(min(self._early))
        missing = one.record.number - self._next
        if self._last is None and self._trimmed:
            self._expired = True
        else:
            span = f"{self._next:,} to {one.record.number - 1:,}"
            self._wrong(one, f"gap: {counted(missing, 'record')} before it ({span}) cannot be found")
        self._take(one, after_gap=True)
        self._follow()

    def _take(self, one: _Seen, *, after_gap: bool = False) -> None:
        record, last = one.record, self._last
        if record.number == 0 and (record.kind != "first" or record.previous != NOTHING):
            self._wrong(one, "changed record: it is not marked as the first one")
        if record.number > 0 and record.kind == "first":
            self._wrong(one, "changed record: it is marked as the first one, and is not")
        if last is not None and last.record.kind == "last":
            self._wrong(last, "changed record: it is marked as the last one, and is not")
        if last is not None and not after_gap and record.previous != last.digest:
            self._wrong(
                last,
                f"changed record: record {last.record.number:,} is not the one whose digest record {record.number:,} "
                "holds",
            )
        self._first_at = self._first_at or record.at
        self._last = one
        self._records += 1
        self._known[record.number] = one
        if len(self._known) > MAX_APART:
            self._known.popitem(last=False)

    def finished(self, now_ms: int) -> Chain:
        """What was found, after the last record of the topic."""
        while self._early:
            self._skip()
        assert self._last is not None
        last = self._last
        ended = last.record.kind == "last"
        if not ended and now_ms - (epoch_ms(last.record.at) or 0) > SILENCE_MS:
            self._wrong(
                last,
                f"missing end: nothing follows record {last.record.number:,} of {last.record.at}; the server was "
                "killed, or records were removed",
            )
        state = "broken" if self._breaks else "ended" if ended else "running"
        return Chain(
            last.record.chain,
            self._first_at,
            last.record.at,
            self._records,
            state,
            self._expired,
            last.digest,
            tuple(self._breaks),
        )

    def _wrong(self, one: _Seen, what: str) -> None:
        if len(self._breaks) < MAX_BREAKS:
            self._breaks.append(f"offset {one.offset:,}: {what}")
