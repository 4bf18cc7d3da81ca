"""Decisions for a replay of a file: each is folded before the event that it names by time, by row or by offset."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from streamguard.decisions.values import canonical
from streamguard.events.decision import VERSION, Decision, DecisionError, decoded
from streamguard.events.event import Event, Value
from streamguard.events.event_time import epoch_ms
from streamguard.history.files import HistoryError
from streamguard.history.partitioner import partition_of

_PLACES = ("at", "row", "offset")


@dataclass(frozen=True, slots=True)
class Placed:
    """A decision and its place: before the first event from a time, a row of the file or an offset on."""

    decision: Decision
    place: str
    since: int


def read(path: Path) -> list[Placed]:
    """Read decisions from JSON lines.

    Each line has the fields of a decision (`decision`, `user`, `field`, `value`, `until`; `revokes` for a revocation),
    and its place: `at`, an event time; `row`, the number of a row from 1; or `offset`, in the user's partition. An `id`
    may be left out; the n-th line then has the id `0-` and n as 24 hexadecimal digits.

    Raises
    ------
    HistoryError
        If the file cannot be read, or a line is not a decision with a place.
    """
    try:
        lines = path.read_bytes().splitlines()
    except OSError as error:
        raise HistoryError(f"cannot read {path}: {error.strerror or error}") from None
    placed = []
    for number, line in enumerate(lines, 1):
        if line.strip():
            try:
                placed.append(_placed(number, line))
            except DecisionError as error:
                raise HistoryError(f"{path}, line {number}: {error}") from None
    return placed


def _placed(number: int, line: bytes) -> Placed:
    try:
        fields = msgspec.json.decode(line, type=dict[str, Any])
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise DecisionError(f"the line is not a JSON object ({error})") from None
    places = [(name, fields.pop(name)) for name in _PLACES if name in fields]
    if len(places) != 1:
        raise DecisionError("a decision needs exactly one of `at`, `row` and `offset`")
    (name, since) = places[0]
    if name == "at":
        since = _time(name, since)
    if not isinstance(since, int) or since < (name == "row"):
        raise DecisionError(
            f"`{name}` is not a {'time' if name == 'at' else 'whole number from 0, or row from 1'}"
        )
    if "until" in fields:
        fields["until"] = _time("until", fields["until"])
    made = decoded(msgspec.json.encode({"version": VERSION, "id": f"0-{number:024x}"} | fields))
    if made.field is not None:
        made = msgspec.structs.replace(made, value=canonical(made.field, made.value))
    return Placed(made, name, since)


def _time(name: str, value: Any) -> int:
    ms = epoch_ms(value) if isinstance(value, int | float | str) else None
    if ms is None:
        raise DecisionError(f"`{name}` is not a time: write 2026-12-31 or 2026-12-31T08:00:00Z")
    return ms


class DecisionPlan:
    """The decisions of a replay that are not folded yet.

    Parameters
    ----------
    placed
        The decisions.
    partitions
        Number of partitions of the replay. A decision belongs to the partition of its user, a revocation to that of the
        decision that it removes.

    Raises
    ------
    HistoryError
        If a revocation removes a decision that the plan does not have.

    Attributes
    ----------
    folded
        Number of decisions that were folded.
    """

    def __init__(self, placed: Sequence[Placed], partitions: int) -> None:
        self.folded = 0
        self._waiting: list[list[Placed]] = [[] for _ in range(partitions)]
        known: dict[str, int] = {}
        for one in placed:
            if one.decision.user:
                known[one.decision.id] = partition_of(one.decision.user.encode(), partitions)
        for one in placed:
            name = one.decision.revokes or one.decision.id
            if name not in known:
                raise HistoryError(f"no line has the decision {name}, which another line revokes")
            self._waiting[known[name]].append(one)

    @property
    def waiting(self) -> int:
        """Number of decisions whose place was not reached yet."""
        return sum(map(len, self._waiting))

    def insert(
        self,
        partition: int,
        values: Sequence[Value],
        index: Sequence[int],
        offsets: NDArray[np.int64],
        events: Sequence[Event],
        rows: NDArray[np.int64],
    ) -> tuple[list[Value], list[int], NDArray[np.int64]]:
        """Values, places of the events and offsets of a chunk, with the decisions that are due in it.

        A decision has the offset of the record before which it stands, so no event gets another offset.

        Parameters
        ----------
        values, offsets, rows
            Of the n records: their values, offsets, and numbers of their rows in the file.
        index, events
            The events, and the place of each among the records.
        """
        due: list[tuple[int, Decision]] = []
        left = []
        for one in self._waiting[partition]:
            if one.place == "at":
                later = [k for k, event in zip(index, events, strict=True) if event.timestamp >= one.since]  # type: ignore[operator]
            else:
                later = np.flatnonzero((rows if one.place == "row" else offsets) >= one.since)[:1].tolist()
            if later:
                due.append((later[0], one.decision))
            else:
                left.append(one)
        if not due:
            return list(values), list(index), offsets
        self._waiting[partition] = left
        self.folded += len(due)
        due.sort(key=lambda one: one[0])  # stable: of one place, the first in the file comes first
        places = np.array([k for k, _ in due])
        out = list(values)
        for k, decision in reversed(due):
            out.insert(k, decision)
        moved = np.asarray(index, np.int64)
        moved = moved + np.searchsorted(places, moved, side="right")
        return out, moved.tolist(), np.insert(offsets, places, offsets[places])
