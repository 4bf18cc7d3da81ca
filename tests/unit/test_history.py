"""Files of events: formats, column maps, and errors for invalid input."""

from __future__ import annotations

import io
import json
import sys
from collections.abc import Callable
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import pytest

from streamguard.events.event import Event, repairs_of
from streamguard.history.files import Batch, HistoryError, read
from streamguard.limits import MAX_EVENT_BYTES

Write = Callable[..., str]


@pytest.fixture
def write(tmp_path: Path) -> Write:
    def to(name: str, content: str | bytes) -> str:
        path = tmp_path / name
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
        return str(path)

    return to


def events(*args: Any, **options: Any) -> list[Event]:
    return [event for batch in read(*args, **options) for event in batch.events]


def only(*args: Any, **options: Any) -> Batch:
    (batch,) = read(*args, **options)
    return batch


def refusals(batch: Batch) -> list[tuple[str, str]]:
    return [(batch.where(refusal), refusal.reason) for refusal in batch.refused]


LINE = b'{"timestamp": 1700000000000, "user": "ann", "event_type": "login"}\n'


# JSON lines


def test_json_line_equals_the_record_of_a_topic(write: Write) -> None:
    batch = only(write("a.jsonl", b"\xef\xbb\xbf" + LINE + b"\n  \r\n" + LINE.replace(b"\n", b"\r\n")))
    assert batch.values == [LINE.strip(), LINE.strip()]
    assert batch.lines == [1, 4]
    assert [event.user for event in batch.events] == ["ann", "ann"]


def test_refused_lines_keep_their_place_and_reason(write: Write) -> None:
    batch = only(write("a.jsonl", b"\n" + LINE + b"{broken\n" + LINE + b'{"user": "bob"}\n\xff\n'))
    assert batch.index == [0, 2]
    assert refusals(batch) == [
        ("row 2 (line 3)", "not_json"),
        ("row 4 (line 5)", "missing_field"),
        ("row 5 (line 6)", "not_json"),
    ]


def test_overlong_line_is_refused_without_reading_it_whole(write: Write) -> None:
    batch = only(write("a.jsonl", b'"' + b"x" * (5 * MAX_EVENT_BYTES) + b'"\n' + LINE))
    assert refusals(batch) == [("row 1", "too_large")]
    assert batch.index == [1]
    assert max(len(value or b"") for value in batch.values) <= MAX_EVENT_BYTES + 2


def test_batches_are_limited_and_numbered_consecutively(write: Write) -> None:
    path = write("a.jsonl", LINE * 5)
    assert [(batch.first, len(batch.values)) for batch in read(path, rows=2)] == [(1, 2), (3, 2), (5, 1)]


def test_standard_input_is_json_lines_by_default(monkeypatch: pytest.MonkeyPatch) -> None:
    def given(content: bytes) -> None:
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(content)))

    given(LINE)
    assert len(events("-")) == 1
    given(b"timestamp,user,event_type\n1700000000,ann,login\n")
    assert len(events("-", format="csv")) == 1


def test_extra_fields_are_returned_beside_the_events(write: Write) -> None:
    batch = only(write("a.jsonl", b'{"is_attack": 1}\n3\n{\n' + LINE), extra=["is_attack"])
    assert batch.extra == {"is_attack": [1, None, None, None]}


# CSV


def test_columns_named_like_fields_need_no_map_and_others_are_ignored(write: Write) -> None:
    path = write(
        "a.csv",
        "timestamp,user,event_type,status,hostname,network_details.bytes_sent,bytes_received,is_encrypted,junk\n"
        "2023-11-14T22:13:20,ann,flow,failure,srv,12.5,7,,x\n"
        "1700000000,ann,file,success,,,,TRUE,x\n",
    )
    flow, file = events(path)
    assert flow.timestamp == file.timestamp == 1_700_000_000_000
    assert flow.status == "failed"
    assert flow.metadata is not None and flow.metadata.hostname == "srv"
    assert flow.network_details is not None
    assert (flow.network_details.bytes_sent, flow.network_details.bytes_received) == (12.5, 7.0)
    assert flow.file_details is None and file.network_details is None and file.metadata is None
    assert file.file_details is not None and file.file_details.is_encrypted is True
    assert b"junk" not in (only(path).values[0] or b"")


def test_column_map_accepts_dotted_and_bare_fields(write: Write) -> None:
    path = write("a.csv", "when,account,kind,host,user\n1700000000,ann,login,srv,other\n")
    mapped = {"timestamp": "when", "user": "account", "event_type": "kind", "hostname": "host"}
    (event,) = events(path, columns=mapped)
    assert event.user == "ann"
    assert event.metadata is not None and event.metadata.hostname == "srv"


def test_failure_reason_belongs_to_the_event_itself(write: Write) -> None:
    path = write("a.csv", "timestamp,user,event_type,failure_reason\n1700000000,ann,login,expired\n")
    (event,) = events(path)
    assert (event.failure_reason, event.auth_details) == ("expired", None)


def test_quotes_commas_and_line_ends_within_cells_are_read(write: Write) -> None:
    path = write(
        "a.csv",
        "\ufefftimestamp,user,event_type,command_line\r\n"
        '1700000000,"a ""b"", c",run,"one\r\ntwo"\r\n'
        "\r\n,d,,\r\n",
    )
    batch = only(path)
    assert batch.events[0].user == 'a "b", c'
    assert batch.events[0].process_details is not None
    assert batch.events[0].process_details.command_line == "one\r\ntwo"
    assert refusals(batch) == [("row 2 (line 5)", "missing_field")]


def test_unclosed_quote_is_reported_and_no_row_is_lost(write: Write) -> None:
    rows = [f"1700000000,user{k},login" for k in range(20)]
    rows[5] = '1700000000,"user5,login'
    path = write("a.csv", "timestamp,user,event_type\n" + "\n".join(rows) + "\n")
    with pytest.raises(HistoryError, match=r"quote opened in line 7 is never closed"):
        events(path)


def test_user_may_be_missing_if_a_source_is_given(write: Write) -> None:
    path = write(
        "a.csv", "timestamp,user,source_ip,event_type\n1700000000,,10.0.0.1,login\n1700000000,,,login\n"
    )
    batch = only(path)
    assert [event.user or "" for event in batch.events] == [""]
    assert refusals(batch) == [("row 2 (line 3)", "missing_user")]


def test_bad_cells_are_repaired_and_bad_rows_are_refused_one_by_one(write: Write) -> None:
    path = write(
        "a.csv",
        b"timestamp,user,event_type,threat_score\n"
        b"1700000000,ann,login,much\n"
        b"1700000000,ann,login\n"
        b"1700000000,\xff\xfe,login,\n"
        b'1700000000,"ann"x,login,\n'
        b"yesterday,ann,login,\n"
        b"1700000000,ann,login,inf\n"
        b"1700000000," + b"u" * (MAX_EVENT_BYTES + 10) + b",login,\n"
        b"1700000000,null,login,0.5\n"
        b'1700000000,"never closed,login,',
    )
    batch = only(path)
    assert refusals(batch) == [
        *(("row 2 (line 3)", "not_csv"), ("row 4 (line 5)", "not_csv"), ("row 5 (line 6)", "bad_timestamp")),
        *(("row 7 (line 8)", "not_csv"), ("row 8 (line 9)", "missing_user"), ("row 9 (line 10)", "not_csv")),
    ]
    assert [event.user for event in batch.events] == ["ann", "\ufffd\ufffd", "ann"]
    assert repairs_of(batch.repaired) == {
        "threat_score: wrong_type": 1,
        "threat_score: out_of_range": 1,
        "user: bad_text": 1,
    }


@pytest.mark.parametrize(
    ("name", "content", "options", "message"),
    [
        ("a.csv", "", {}, "is empty"),
        (
            "a.csv",
            "user,event_type\n",
            {},
            "--map timestamp=COLUMN to replay or evaluate; the columns are user, event_type",
        ),
        ("a.csv", "timestamp,event_type\n", {}, "--map user=COLUMN"),
        ("a.csv", "timestamp,event_type,user,user\n", {}, r"columns 3 \(user\) and 4 \(user\) both map"),
        ("a.csv", "timestamp,event_type,user\n", {"columns": {"user": "account"}}, "no column 'account'"),
        ("a.csv", "timestamp,event_type,user\n", {"columns": {"usr": "user"}}, "'usr' is not an event field"),
        ("a.csv", "timestamp,event_type,user\n", {"extra": ["is_attack"]}, "no column 'is_attack'"),
        ("a.csv", "timestamp,event_type,x\n", {"extra": ["x"], "columns": {"user": "x"}}, "'x' is a label"),
        ("a.jsonl", "", {"columns": {"user": "account"}}, "--map is for CSV and Parquet"),
        ("a.txt", "", {}, "must end in .jsonl"),
        ("a.parquet", "PAR1", {}, "cannot be read as Parquet"),
    ],
)
def test_unreadable_input_is_reported_with_one_message(
    write: Write, name: str, content: str, options: dict[str, Any], message: str
) -> None:
    with pytest.raises(HistoryError, match=message):
        list(read(write(name, content), **options))


def test_missing_files_and_parquet_from_standard_input_are_refused(tmp_path: Path) -> None:
    with pytest.raises(HistoryError, match=r"cannot read .*gone\.csv: No such file"):
        list(read(str(tmp_path / "gone.csv")))
    with pytest.raises(HistoryError, match="cannot read"):
        list(read(str(tmp_path), format="jsonl"))
    with pytest.raises(HistoryError, match="standard input"):
        list(read("-", format="parquet"))


def test_optional_columns_may_be_absent(write: Write) -> None:
    batch = only(write("a.csv", "timestamp,user,event_type\n1700000000,ann,login\n"), optional=["attack_id"])
    assert batch.extra == {"attack_id": [None]}


# Parquet


def write_parquet(path: Path, **columns: Any) -> str:
    import pyarrow as arrow
    import pyarrow.parquet as parquet

    parquet.write_table(arrow.table(columns), path)
    return str(path)


def test_parquet_structs_are_read_as_groups(tmp_path: Path) -> None:
    path = write_parquet(
        tmp_path / "a.parquet",
        timestamp=[1_700_000_000_000, 1_700_000_000_000],
        event_type=["flow", "login"],
        user=["ann", None],
        source_ip=[None, "10.0.0.1"],
        network_details=[{"bytes_sent": 5, "protocol": "tcp"}, None],
        is_attack=[True, False],
    )
    batch = only(path, extra=["is_attack"])
    flow, login = batch.events
    assert flow.network_details is not None and flow.network_details.bytes_sent == 5
    assert login.network_details is None and login.source_ip == "10.0.0.1"
    assert batch.extra == {"is_attack": [True, False]}
    assert b"is_attack" not in (batch.values[0] or b"")


def test_parquet_times_of_every_type_are_the_same_moment(tmp_path: Path) -> None:
    import pyarrow as arrow

    moment = datetime(2023, 11, 14, 22, 13, 20, 123_000, UTC)
    east = moment.astimezone(timezone(timedelta(hours=2)))
    for number, column in enumerate(
        [
            arrow.array([moment.replace(tzinfo=None)], arrow.timestamp("ms")),
            arrow.array([moment.replace(tzinfo=None)], arrow.timestamp("ns")),
            arrow.array([east], arrow.timestamp("us", "+02:00")),
            arrow.array(["2023-11-14T22:13:20.123Z"]),
            arrow.array([1_700_000_000_123_456_789]),
        ]
    ):
        path = write_parquet(
            tmp_path / f"{number}.parquet", timestamp=column, user=["ann"], event_type=["login"]
        )
        assert [event.timestamp for event in events(path)] == [1_700_000_000_123]


def test_parquet_cell_with_invalid_text_is_repaired_alone(tmp_path: Path) -> None:
    """One such cell once lost the whole file."""
    import pyarrow as arrow

    kinds = [b"login", b"\xfflogin", None]
    for number, kind in enumerate((arrow.binary(), arrow.large_binary(), arrow.string())):
        column = arrow.array(kinds, arrow.binary())
        column = (
            arrow.Array.from_buffers(kind, 3, column.buffers())
            if kind == arrow.string()
            else column.cast(kind)
        )
        path = write_parquet(
            tmp_path / f"{number}.parquet", timestamp=[1_700_000_000] * 3, user=["ann"] * 3, event_type=column
        )
        batch = only(path)
        assert [event.event_type for event in batch.events] == ["login", "\ufffdlogin", ""]
        assert repairs_of(batch.repaired) == {"event_type: bad_text": 1, "event_type: missing_type": 1}


def test_parquet_with_map_numeric_names_and_binary_text_is_read(tmp_path: Path) -> None:
    path = write_parquet(tmp_path / "a.parquet", t=[1_700_000_000], uid=[1001], event_type=[b"login"])
    (event,) = events(path, columns={"timestamp": "t", "user": "uid"})
    assert (event.user, event.event_type) == ("1001", "login")


def test_all_formats_give_the_same_events(tmp_path: Path, write: Write) -> None:
    rows = [
        {"timestamp": 1_700_000_000_000 + k, "user": f"u{k % 3}", "event_type": "login", "status": "success"}
        for k in range(20)
    ]
    lines = write("a.jsonl", "".join(json.dumps(row) + "\n" for row in rows))
    table = write(
        "a.csv", "\n".join([",".join(rows[0]), *(",".join(map(str, row.values())) for row in rows)])
    )
    parquet = write_parquet(tmp_path / "a.parquet", **{key: [row[key] for row in rows] for key in rows[0]})
    assert events(lines) == events(table, rows=7) == events(parquet, rows=3)
