"""Writes simulated events to a file in JSON lines, Parquet or CSV, and their labels to a separate file."""

from __future__ import annotations

import csv
from abc import ABC, abstractmethod
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import IO, Any, Self

import msgspec

from streamguard.simulate.labelled import SimulatedEvent
from streamguard.simulate.scenarios import ALL_SCENARIOS

EVENT_FIELDS: dict[str, Any] = {
    "event_id": "string",
    "timestamp": "int64",
    "event_type": "string",
    "source_ip": "string",
    "destination_ip": "string",
    "user": "string",
    "threat_score": "float64",
    "status": "string",
    "metadata": {
        "hostname": "string",
        "geo_location": "string",
        "user_agent": "string",
        "session_id": "string",
    },
    "auth_details": {"auth_type": "string", "failure_reason": "string", "attempts_count": "int64"},
    "network_details": {
        "protocol": "string",
        "source_port": "int64",
        "destination_port": "int64",
        "bytes_sent": "int64",
        "bytes_received": "int64",
        "duration_ms": "int64",
        "destination_hostname": "string",
        "connection_state": "string",
    },
    "file_details": {
        "file_path": "string",
        "operation": "string",
        "file_size_bytes": "int64",
        "file_hash": "string",
        "is_encrypted": "bool",
        "permissions_changed": "bool",
        "access_denied": "bool",
    },
    "process_details": {
        "process_name": "string",
        "process_id": "int64",
        "parent_process_id": "int64",
        "command_line": "string",
        "executable_path": "string",
        "user_privileges": "string",
        "is_signed": "bool",
        "signer": "string",
    },
    "dns_details": {
        "query_name": "string",
        "query_type": "string",
        "response_code": "string",
        "resolved_ips": "list<string>",
        "ttl": "int64",
        "is_cached": "bool",
        "dns_server": "string",
    },
}
"""Fields of an event and their Arrow types; a group is a struct in Parquet, and separate columns in CSV."""

LABEL_FIELDS = {"is_attack": "int64", "attack_id": "string"}
SITUATION_FIELDS = {"situation": "string"}
"""Further label of a run with situations."""


class EventFile(ABC):
    """A file of events, and a context manager that completes it."""

    @abstractmethod
    def write(self, events: Sequence[SimulatedEvent]) -> None:
        """Append events."""

    @abstractmethod
    def close(self) -> None:
        """Complete the file."""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def open_file(path: str | Path, *, with_labels: bool = False, with_situations: bool = False) -> EventFile:
    """Create a file in the format of its suffix.

    Parameters
    ----------
    path
        `.jsonl`, `.parquet` or `.csv`.
    with_labels
        Whether to add the columns `is_attack` (0 or 1) and `attack_id` (campaign). JSON lines cannot have them: they
        contain only the bytes of the events.
    with_situations
        Whether the labels have the column `situation` (name of a benign situation), too.

    Raises
    ------
    ValueError
        If the suffix is another one, or if labels are requested in JSON lines.
    """
    path = Path(path)
    labels = LABEL_FIELDS | (SITUATION_FIELDS if with_situations else {}) if with_labels else {}
    match path.suffix:
        case ".jsonl":
            if with_labels:
                raise ValueError(
                    f"{path}: JSON lines hold no labels: write .parquet or .csv, or write the labels to a separate file"
                )
            return JsonLines(path)
        case ".parquet":
            return Parquet(path, labels)
        case ".csv":
            return Csv(path, labels)
    raise ValueError(f"{path}: the name must end in .jsonl, .parquet or .csv")


class JsonLines(EventFile):
    """One event per line, with its original bytes."""

    def __init__(self, path: Path) -> None:
        self._file = path.open("wb")

    def write(self, events: Sequence[SimulatedEvent]) -> None:
        self._file.writelines(event.value + b"\n" for event in events)

    def close(self) -> None:
        self._file.close()


class Parquet(EventFile):
    """One column per field of an event; details are structs, which are null in events of other types."""

    _GROUP = 16_384

    def __init__(self, path: Path, labels: dict[str, str]) -> None:
        try:
            import pyarrow as arrow
            import pyarrow.parquet as parquet
        except ImportError:
            raise ValueError(
                f"{path}: Parquet needs pyarrow: write .jsonl, or run `pip install '.[batch]'` in "
                "StreamGuard's checkout"
            ) from None
        self._arrow = arrow
        fields = EVENT_FIELDS | labels
        self._schema = arrow.schema([(name, _arrow_type(arrow, kind)) for name, kind in fields.items()])
        self._file = parquet.ParquetWriter(path, self._schema, compression="zstd")
        self._labels = labels
        self._rows: list[dict[str, Any]] = []

    def write(self, events: Sequence[SimulatedEvent]) -> None:
        self._rows += [_row(event, self._labels) for event in events]
        if len(self._rows) >= self._GROUP:
            self._flush()

    def _flush(self) -> None:
        if self._rows:
            self._file.write_table(self._arrow.Table.from_pylist(self._rows, schema=self._schema))
            self._rows = []

    def close(self) -> None:
        self._flush()
        self._file.close()


class Csv(EventFile):
    """One column per field, including the fields of groups, without the group's name; lists are JSON."""

    def __init__(self, path: Path, labels: dict[str, str]) -> None:
        self._file: IO[str] = path.open("w", newline="", encoding="utf-8")
        self._labels = labels
        columns: list[str] = []
        for name, kind in EVENT_FIELDS.items():
            columns += kind if isinstance(kind, dict) else (name,)
        self._csv = csv.DictWriter(self._file, [*columns, *labels])
        self._csv.writeheader()

    def write(self, events: Sequence[SimulatedEvent]) -> None:
        self._csv.writerows(_flat(_row(event, self._labels)) for event in events)

    def close(self) -> None:
        self._file.close()


class LabelFile(ABC):
    """A file of labels in JSON lines, and a context manager that completes it."""

    def __init__(self, path: str | Path) -> None:
        path = Path(path)
        self._file = path.open("wb")

    def write(self, events: Sequence[SimulatedEvent]) -> None:
        """Append the labels of the events that have one."""
        for event in events:
            label = self._label(event)
            if label is not None:
                self._file.write(msgspec.json.encode({"event_id": event.event_id} | label) + b"\n")

    @abstractmethod
    def _label(self, event: SimulatedEvent) -> dict[str, str | None] | None:
        """The label of an event, or None."""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._file.close()


class Labels(LabelFile):
    """One line for each event of an attack."""

    def _label(self, event: SimulatedEvent) -> dict[str, str | None] | None:
        if event.scenario is None:
            return None
        technique = ALL_SCENARIOS[event.scenario].technique
        return {"scenario": event.scenario, "campaign": event.campaign, "technique": technique}


class SituationLabels(LabelFile):
    """One line for each benign event that a situation adds or changes."""

    def _label(self, event: SimulatedEvent) -> dict[str, str | None] | None:
        return None if event.situation is None else {"situation": event.situation}


def _row(event: SimulatedEvent, labels: dict[str, str]) -> dict[str, Any]:
    row: dict[str, Any] = msgspec.json.decode(event.value)
    if labels:
        row["is_attack"], row["attack_id"] = int(event.scenario is not None), event.campaign
    if "situation" in labels:
        row["situation"] = event.situation
    return row


def _flat(row: dict[str, Any]) -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for name, value in row.items():
        flat.update(value if isinstance(value, dict) else {name: value})
    for name, value in flat.items():
        if isinstance(value, bool):
            flat[name] = "true" if value else "false"
        elif isinstance(value, list):
            flat[name] = msgspec.json.encode(value).decode()
    return flat


def _arrow_type(arrow: Any, kind: Any) -> Any:
    if isinstance(kind, dict):
        return arrow.struct([(name, _arrow_type(arrow, inner)) for name, inner in kind.items()])
    if kind == "list<string>":
        return arrow.list_(arrow.string())
    return arrow.type_for_alias(kind)
