"""Record batches with header names that are not UTF-8 are read completely, compressed or not."""

from __future__ import annotations

import pytest
from aiokafka.record.default_records import _DefaultRecordBatchBuilderPy

from streamguard.agents.consumer.headers import _Records


class OddName(str):
    """Header name that encodes to bytes that are not UTF-8."""

    def encode(self, *_: str) -> bytes:
        return b"x\xff"


def batch(names: list[str], first: int, compression: int) -> bytes:
    builder = _DefaultRecordBatchBuilderPy(2, compression, 0, -1, -1, -1, 1 << 20)
    for i, name in enumerate(names):
        builder.append(i, first + i, b"key", b"value %d" % i, [(name, b"\xff"), ("n", None)])
    made = bytearray(builder.build())
    made[:8] = first.to_bytes(8, "big")
    return bytes(made)


@pytest.mark.parametrize("compression", [0, 1])
@pytest.mark.parametrize("odd", [[0], [2], [1, 3], []])
def test_every_record_is_read_once_and_in_order(odd: list[int], compression: int) -> None:
    names = [OddName("?") if i in odd else "trace" for i in range(4)]
    records = _Records(batch(names, 0, compression) + batch(["trace"], 4, compression))
    found = []
    while records.has_next():
        following = records.next_batch()
        assert following.validate_crc() and not following.is_control_batch
        found += list(following)
    assert [r.value for r in found] == [b"value 0", b"value 1", b"value 2", b"value 3", b"value 0"]
    assert [r.headers[0] for r in found] == [("x\\xff" if i in odd else "trace", b"\xff") for i in range(5)]
    assert all(r.headers[1] == ("n", None) and r.key == b"key" for r in found)
