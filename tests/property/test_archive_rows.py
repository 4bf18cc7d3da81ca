"""Records decoded from archive rows are scored like the originals: same events, refusals and folded history."""

from __future__ import annotations

from typing import Any

import msgspec
import numpy as np
import pyarrow as pa
from hypothesis import given
from hypothesis import strategies as st

from streamguard.batch.folding.fold_file import SCHEMA as FOLDED
from streamguard.batch.folding.fold_range import fold_range
from streamguard.batch.source.decoded import SCHEMA, append_times, to_columns, to_values
from streamguard.batch.source.offset_range import OffsetRange, RecordChunk
from streamguard.events.ceiling import UNKNOWN
from streamguard.events.event import parse
from streamguard.limits import MAX_EVENT_BYTES
from streamguard.settings.schema import Detection, Sampling
from tests.property.test_events import FIELDS, ODD, document
from tests.streams import START, event, habit

TEXTS = st.one_of(
    st.text(max_size=12), st.sampled_from(["", "3", "03", "-1", "{[" * 60, "NXDOMAIN", "\u2028\n"])
)
NUMBERS = st.one_of(
    st.floats(allow_nan=False, allow_infinity=False),
    st.integers(-(2**70), 2**70),
    st.sampled_from([0, -0.0, 2**53 + 1]),
)
CELLS = st.one_of(st.none(), st.booleans(), TEXTS, NUMBERS)
NAMES = (
    "hostname", "auth_type", "failure_reason", "bytes_sent", "bytes_received", "file_path", "operation",
    "file_size_bytes", "is_encrypted", "process_name", "command_line", "query_name", "response_code", "unknown",
)  # fmt: skip
GROUPS = st.dictionaries(st.sampled_from(NAMES), CELLS, max_size=4).map(msgspec.json.encode)
DETAILS = [name for name in FIELDS if name.endswith("details")]
RECORDS = st.one_of(
    st.none(),
    st.binary(max_size=40),
    st.dictionaries(st.sampled_from((*FIELDS, "event_id")), st.sampled_from(ODD) | GROUPS, max_size=5).map(document),
    st.dictionaries(st.sampled_from(DETAILS), GROUPS, max_size=2).map(document),
    st.integers(0, 1_000_000).map(lambda ms: event(START + ms, "ann", threat_score=ms / 7)),
)  # fmt: skip


def assert_alike(values: list[bytes | None]) -> list[bytes | None]:
    back = to_values(to_columns(np.arange(len(values)), values))
    assert parse(back) == parse(values)
    return back


def fold(values: list[bytes | None]) -> tuple[pa.Table, list[Any]]:
    offset_range = OffsetRange(0, 0, len(values))
    records = [RecordChunk(np.arange(len(values)), values)]
    rows = pa.Table.from_batches(
        fold_range(offset_range, records, Detection(alert_risk=54.5), Sampling(rows=256, alerts=50)), FOLDED
    )
    decoded = [
        _without_event(value) if kind == "incident" else value
        for kind, value in zip(rows["kind"].to_pylist(), rows["value"].to_pylist(), strict=True)
    ]
    return rows.drop_columns("value"), decoded


def _without_event(incident: bytes) -> dict[str, Any]:
    """An incident without its event, which shows fields that are not scored and that an archive does not keep."""
    body = msgspec.json.decode(incident)
    del body["event"]
    return body


@given(st.lists(RECORDS, max_size=12))
def test_decoded_rows_are_scored_like_their_records(values: list[bytes | None]) -> None:
    assert_alike(values)


@given(st.lists(st.tuples(st.integers(0, 399), RECORDS), min_size=1, max_size=12))
def test_decoded_history_folds_to_the_same_bits(odd: list[tuple[int, bytes | None]]) -> None:
    values: list[bytes | None] = list(habit(400))
    for place, value in odd:
        values.insert(place, value)

    assert fold(assert_alike(values)) == fold(values)


@given(st.integers(-3, 3), st.sampled_from([b"{", b"[", b"\\u007b", b"x"]))
def test_limits_of_size_and_nesting_stay_the_same(more: int, filler: bytes) -> None:
    for limit in (201, 1000, MAX_EVENT_BYTES):
        frame = document({"process_details": b'{"command_line": "%s"}'})
        n = max(0, limit + more - len(frame) + 2) // len(filler)
        short = frame % (filler * n)
        assert_alike([short, short + b" " * (limit + more - len(short))])


def test_every_odd_value_of_every_field_is_preserved() -> None:
    assert_alike([document({name: value}) for name in FIELDS for value in ODD])


def test_ordinary_records_are_stored_only_in_columns() -> None:
    plain = [
        *habit(50),
        event(START, "bob", "dns_query", dns_details={"query_name": "a.example", "response_code": 3}),
        event(START, "bob", "file_access", file_details={"file_path": "C:\\x", "is_encrypted": True}),
        event(START, None, source_ip="10.0.0.1", network_details={"bytes_sent": 10, "bytes_received": None}),
        event(START, "bob", metadata={"session_id": "s", "hostname": "h"}, event_id="e-1"),
    ]
    rows = to_columns(np.arange(len(plain)), plain)

    assert rows.schema.equals(SCHEMA)
    assert rows["raw"].null_count == len(plain)
    assert rows["event_id"][-1].as_py() == "e-1"
    assert rows["network_details.bytes_sent"][-2].as_py() == 10.0


def test_append_times_are_kept_and_an_archive_without_them_is_still_read() -> None:
    plain, times = habit(3), np.array([START + 7, UNKNOWN, START + 9])
    rows = to_columns(np.arange(3), plain, times)

    assert append_times(rows).tolist() == times.tolist()  # type: ignore[union-attr]
    assert to_values(rows) == to_values(rows.drop_columns("appended"))
    assert append_times(rows.drop_columns("appended")) is None
    assert append_times(to_columns(np.arange(3), plain)).tolist() == [UNKNOWN] * 3  # type: ignore[union-attr]


def test_records_that_columns_cannot_represent_are_stored_whole() -> None:
    odd = [
        b"?",
        b"",
        None,
        event(START, "ann", dns_details={"response_code": "3"}),
        event(START, "ann", auth_details={}),
    ]
    rows = to_columns(np.arange(10, 15), odd)

    assert rows["offset"].to_pylist() == list(range(10, 15))
    assert rows["raw"].to_pylist() == odd
    assert rows["user"].to_pylist() == [None, None, None, "ann", "ann"]
    assert to_values(rows) == odd


def test_rows_of_an_earlier_version_lack_fields_that_are_scored_since() -> None:
    values = habit(3)
    rows = to_columns(np.arange(3), values)
    later = ["rule_name", "metadata.user_agent"]
    assert parse(to_values(rows.drop_columns(later))) == parse(values)
