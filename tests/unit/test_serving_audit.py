"""The audit log: its records, its chain, and what the verification finds in one that was changed or cut."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from streamguard.alerts.incident import rfc3339
from streamguard.serving.audit import verification
from streamguard.serving.audit.record import (
    MAX_TEXT,
    NOTHING,
    AuditRecord,
    NotARecordError,
    cut,
    decode,
    digest,
    encode,
)
from streamguard.serving.audit.verification import SILENCE_MS, Verification, verify

START = 1_780_000_000_000
CHAIN = "0123456789abcdef01234567"


def chain(count: int = 6, name: str = CHAIN, ended: bool = True) -> list[bytes]:
    """The values of a chain."""
    values: list[bytes] = []
    for number in range(count):
        kind: Any = "first" if number == 0 else "last" if ended and number == count - 1 else "event"
        previous = digest(values[-1]) if values else NOTHING
        at = rfc3339(START + 1000 * number)
        record = AuditRecord(
            version=1, chain=name, number=number, previous=previous, kind=kind, at=at,
            by="ann" if kind == "event" else "", subject=f"3-{number}-18bcfe5687b",
        )  # fmt: skip
        values.append(encode(record))
    return values


def found(values: list[bytes | None], start: int = 0, after_ms: int = 0) -> Verification:
    return verify(((start + offset, value) for offset, value in enumerate(values)), start, START + after_ms)


def breaks(result: Verification) -> list[str]:
    return [text for one in result.chains for text in one.breaks] + list(result.breaks)


def changed(value: bytes, **fields: Any) -> bytes:
    return msgspec.json.encode(msgspec.json.decode(value) | fields)


def test_whole_chains_are_sound_even_mixed_and_sent_twice() -> None:
    one, other = chain(), chain(name="f" * 24)
    mixed = [value for pair in zip(one, other, strict=True) for value in pair]
    result = found([*mixed, *one[2:4]])
    assert result.sound and [(c.records, c.state) for c in result.chains] == [(6, "ended")] * 2
    assert result.chains[0].head == digest(one[-1])


def test_records_that_were_sent_out_of_order_are_no_break() -> None:
    values = chain()
    assert found([values[0], values[3], values[1], values[2], values[5], values[4]]).sound


@pytest.mark.parametrize("number", range(5))
def test_changed_record_is_named(number: int) -> None:
    values = chain()
    values[number] = changed(values[number], by="eve")
    (text,) = breaks(found(list(values)))
    assert text.startswith(
        f"offset {number}: changed record: record {number} is not the one whose digest record"
    )


def test_omitted_records_are_a_gap() -> None:
    values = chain()
    (text,) = breaks(found([*values[:2], *values[4:]]))
    assert text == "offset 2: gap: 2 records before it (2 to 3) cannot be found"
    (text,) = breaks(found(list(values[1:])))
    assert text == "offset 0: gap: 1 record before it (0 to 0) cannot be found"


def test_records_that_kafka_has_deleted_at_the_beginning_are_none() -> None:
    result = found(list(chain()[2:]), start=2)
    assert result.sound and result.chains[0].expired
    (text,) = breaks(found([*chain()[2:4], *chain()[5:]], start=2))
    assert "gap: 1 record before it (4 to 4)" in text


def test_end_that_is_missing_is_found_when_a_running_server_would_have_written() -> None:
    values = chain()[:-1]
    assert found(list(values), after_ms=SILENCE_MS).chains[0].state == "running"
    (text,) = breaks(found(list(values), after_ms=SILENCE_MS + 5000))
    assert text.startswith("offset 4: missing end: nothing follows record 4 of 2026-")
    assert found(list(chain()), after_ms=10 * SILENCE_MS).sound


def test_record_that_is_none_or_stands_twice_with_other_contents_is_named() -> None:
    values = chain()
    wrong: list[bytes | None] = [b"{}", None, b"\xff", b"[" * 20_000, b"x" * 20_000]
    result = found([*values, *wrong, changed(values[3], by="eve")])
    assert [text.partition(":")[0] for text in result.breaks] == [f"offset {k}" for k in range(6, 11)]
    assert result.chains[0].breaks == (
        "offset 11: changed record: record 3 stands in the topic twice, and differs",
    )


def test_marks_of_the_ends_belong_to_the_ends() -> None:
    values = chain(3)
    values[0] = changed(values[0], kind="event")
    assert "not marked as the first one" in breaks(found(list(values)))[0]
    middle = chain(3)
    middle[1] = changed(middle[1], kind="last")
    assert any("marked as the last one, and is not" in text for text in breaks(found(list(middle))))


def test_memory_of_a_chain_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(verification, "MAX_APART", 5)
    values = chain(60)
    assert found(list(values)).sound
    (text,) = breaks(found([*values[:3], *values[4:]]))
    assert "gap: 1 record before it (3 to 3)" in text


def test_texts_are_cut_and_unicode() -> None:
    assert len(cut("x" * 1000)) == MAX_TEXT and cut("\ud800") == "?"
    with pytest.raises(NotARecordError):
        decode(changed(chain()[0], colour="red"))
