"""The truth about a history's events, from columns beside them or a file of its own; no detector sees it."""

from __future__ import annotations

from pathlib import Path

import msgspec

from streamguard.history.fields import field_named
from streamguard.history.files import Batch, HistoryError

_ATTACK = frozenset({"1", "1.0", "true", "yes", "attack", "malicious"})
_BENIGN = frozenset({"", "0", "0.0", "false", "no", "benign", "normal"})


class ColumnLabels:
    """Labels in columns of the history.

    Parameters
    ----------
    label
        The column that says whether an event is an attack: 1 or 0, true or false, yes or no; empty is no.
    campaign
        The column that names an attack's campaign, or None.

    Attributes
    ----------
    columns : list of str
        What the history must hand over.

    Raises
    ------
    HistoryError
        If a column's name is that of an event field, which detectors see.
    """

    def __init__(self, label: str, campaign: str | None) -> None:
        for name in (label, campaign):
            if name is not None and field_named(name) is not None:
                raise HistoryError(
                    f"{name!r} is an event field, which is scored: labels need a column of their own"
                )
        self._label = label
        self._campaign = campaign
        self._given = False
        self.columns = [label] if campaign is None else [label, campaign]

    def __call__(self, batch: Batch) -> tuple[list[bool], list[str | None]]:
        """For each event of a batch: whether it is an attack, and of which campaign.

        Raises
        ------
        HistoryError
            If a label is neither yes nor no.
        """
        cells = batch.extra[self._label]
        attack = []
        for i in batch.index:
            text = "" if cells[i] is None else str(cells[i]).strip().lower()
            if text not in _ATTACK and text not in _BENIGN:
                raise HistoryError(
                    f"row {batch.first + i}: {self._label} is {cells[i]!r}: labels are 1 or 0, true or false"
                )
            self._given = self._given or text != ""
            attack.append(text in _ATTACK)
        if self._campaign is None:
            return attack, [None] * len(attack)
        names = batch.extra[self._campaign]
        return attack, [None if names[i] is None else str(names[i]) for i in batch.index]

    def check(self) -> None:
        """Complain if no event had a label.

        Raises
        ------
        HistoryError
        """
        if not self._given:
            raise HistoryError(
                f"no event has a label {self._label!r}: name another with --label, or a file with --labels"
            )


class FileLabels:
    """Labels as `streamguard simulate --labels` writes them: a JSON line for each event of an attack.

    Parameters
    ----------
    path
        The file; its lines have `event_id` and `campaign`.
    column
        Where the history has its events' ids.

    Raises
    ------
    HistoryError
        If the file cannot be read, or a line is no label.
    """

    def __init__(self, path: Path, column: str = "event_id") -> None:
        decode = msgspec.json.Decoder(_Label).decode
        number = 0
        self._path = path
        self._column = column
        self._found = False
        self.columns = [column]
        self._campaign: dict[str, str | None] = {}
        try:
            with path.open("rb") as file:
                for line in file:
                    number += 1
                    if line.strip():
                        label = decode(line)
                        self._campaign[label.event_id] = label.campaign or label.scenario
        except OSError as error:
            raise HistoryError(f"cannot read {path}: {error.strerror}") from None
        except (msgspec.DecodeError, UnicodeDecodeError) as error:
            raise HistoryError(f"{path}, line {number}: not a label: {error}") from None

    def __call__(self, batch: Batch) -> tuple[list[bool], list[str | None]]:
        """For each event of a batch: whether it is an attack, and of which campaign."""
        ids = [str(batch.extra[self._column][i]) for i in batch.index]
        attack = [name in self._campaign for name in ids]
        self._found = self._found or any(attack)
        return attack, [self._campaign.get(name) for name in ids]

    def check(self) -> None:
        """Complain if there are labels, and none is of an event that was seen.

        Raises
        ------
        HistoryError
        """
        if self._campaign and not self._found:
            raise HistoryError(f"no event has an id of {self._path}: these are other events' labels")


class _Label(msgspec.Struct):
    event_id: str
    campaign: str | None = None
    scenario: str | None = None
