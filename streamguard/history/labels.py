"""Labels of a history's events, from columns of the history or from a separate file. Detection never reads them."""

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
        Name of the column that marks attacks: 1 or 0, true or false, yes or no. An empty cell means no.
    campaign
        Name of the column with the campaign of an attack, or None.

    Attributes
    ----------
    columns : list of str
        Names of the columns that the labels need from the history.
    unlabelled : int
        Number of events so far with an empty cell, which count as benign.

    Raises
    ------
    HistoryError
        If a column has the name of an event field, because detection reads event fields.
    """

    def __init__(self, label: str, campaign: str | None) -> None:
        for name in (label, campaign):
            if name is not None and field_named(name) is not None:
                raise HistoryError(
                    f"{name!r} is an event field, which detection reads: put the labels into another column"
                )
        self._label = label
        self._campaign = campaign
        self._given = False
        self.unlabelled = 0
        self.columns = [label] if campaign is None else [label, campaign]

    def __call__(self, batch: Batch) -> tuple[list[bool], list[str | None]]:
        """For each event of a batch: whether it is an attack, and the name of its campaign.

        Raises
        ------
        HistoryError
            If a label is neither a yes nor a no.
        """
        cells = batch.extra[self._label]
        attack = []
        for i in batch.index:
            text = "" if cells[i] is None else str(cells[i]).strip().lower()
            if text not in _ATTACK and text not in _BENIGN:
                raise HistoryError(
                    f"row {batch.first + i}: {self._label} is {cells[i]!r}: write 1 or 0, true or false, yes or no, "
                    "attack or benign"
                )
            self._given = self._given or text != ""
            self.unlabelled += text == ""
            attack.append(text in _ATTACK)
        if self._campaign is None:
            return attack, [None] * len(attack)
        names = batch.extra[self._campaign]
        return attack, [None if names[i] is None else str(names[i]) for i in batch.index]

    def check(self) -> None:
        """Check that an event had a label.

        Raises
        ------
        HistoryError
            If no event had a label.
        """
        if not self._given:
            raise HistoryError(
                f"no event has a label {self._label!r}: give another column with --label, or a file with --labels"
            )


class FileLabels:
    """Labels in the format of `streamguard simulate --labels`: a JSON line for each event of an attack.

    Parameters
    ----------
    path
        Path of the file; its lines have the fields `event_id` and `campaign`.
    column
        Name of the column of the history that has the ids of the events.

    Attributes
    ----------
    columns : list of str
        Names of the columns that the labels need from the history.
    techniques : dict
        ATT&CK technique of each campaign, as far as the file states it.

    Raises
    ------
    HistoryError
        If the file cannot be read, or a line is not a label.
    """

    def __init__(self, path: Path, column: str = "event_id") -> None:
        decode = msgspec.json.Decoder(_Label).decode
        number = 0
        self._path = path
        self._column = column
        self._found = False
        self.columns = [column]
        self._campaign: dict[str, str | None] = {}
        self.techniques: dict[str, str] = {}
        try:
            with path.open("rb") as file:
                for line in file:
                    number += 1
                    if line.strip():
                        label = decode(line)
                        name = label.campaign or label.scenario
                        self._campaign[label.event_id] = name
                        if name and label.technique:
                            self.techniques[name] = label.technique
        except OSError as error:
            raise HistoryError(f"cannot read {path}: {error.strerror}") from None
        except (msgspec.DecodeError, UnicodeDecodeError) as error:
            raise HistoryError(f"{path}, line {number}: not a label: {error}") from None

    def __call__(self, batch: Batch) -> tuple[list[bool], list[str | None]]:
        """For each event of a batch: whether it is an attack, and the name of its campaign."""
        ids = [str(batch.extra[self._column][i]) for i in batch.index]
        attack = [name in self._campaign for name in ids]
        self._found = self._found or any(attack)
        return attack, [self._campaign.get(name) for name in ids]

    def check(self) -> None:
        """Check that a label belongs to an event of the history; a file without labels is accepted.

        Raises
        ------
        HistoryError
            If the file has labels, but none for an event of the history.
        """
        if self._campaign and not self._found:
            raise HistoryError(
                f"no event has an id of {self._path}: these are other events' labels; give the file that belongs"
                " to the events"
            )


class _Label(msgspec.Struct):
    event_id: str
    campaign: str | None = None
    scenario: str | None = None
    technique: str | None = None
