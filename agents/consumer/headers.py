"""Reads record headers whose names are not UTF-8, with escapes; aiokafka would reject their batch for ever.

Kafka accepts any bytes as the name of a header. The parser of aiokafka 0.14 raises an error at such a name before it
counts the record, so the same fetch would fail again and again. `install` gives aiokafka's fetcher a reader that
parses the rest of such a batch again with a slower parser, and writes bytes that are not UTF-8 as `\\xff`.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice
from typing import Any

from aiokafka.consumer import fetcher
from aiokafka.record.default_records import DefaultRecordBatch, _DefaultRecordBatchPy
from aiokafka.record.memory_records import _MemoryRecordsPy
from aiokafka.record.util import decode_varint_py


def install() -> None:
    """Make every aiokafka consumer of this process read such headers."""
    fetcher.MemoryRecords = _Records


class _Records(_MemoryRecordsPy):
    """The batches of one fetch."""

    def next_batch(self, *_: Any) -> Any:
        data = self._next_slice
        batch = super().next_batch()
        return _Batch(batch, data) if isinstance(batch, DefaultRecordBatch) else batch


class _Batch:
    """One batch, read by aiokafka's parser and, from the first invalid name on, by `_EscapingBatch`."""

    def __init__(self, batch: Any, data: Any) -> None:
        self._batch = batch
        self._data = data

    def __getattr__(self, name: str) -> Any:
        return getattr(self._batch, name)

    def __next__(self) -> Any:
        return next(self._batch)

    def __iter__(self) -> Iterator[Any]:
        done = 0
        try:
            for record in self._batch:
                done += 1
                yield record
        except UnicodeDecodeError:
            yield from islice(_EscapingBatch(self._data), done, None)


class _EscapingBatch(_DefaultRecordBatchPy):
    """aiokafka's pure Python parser, applied to bytes that can always be decoded."""

    _buffer: bytearray

    def _read_msg(self, *_: Any) -> Any:
        if not isinstance(self._buffer, _EscapingBytes):
            self._buffer = _EscapingBytes(self._buffer)
        return super()._read_msg(decode_varint_py)


class _EscapingBytes(bytearray):
    """Bytes that decode to text with a backslash escape for each byte that is not UTF-8."""

    def __getitem__(self, index: Any) -> Any:
        item = super().__getitem__(index)
        return _EscapingBytes(item) if isinstance(index, slice) else item

    def decode(self, encoding: str = "utf-8", errors: str = "backslashreplace") -> str:
        return super().decode(encoding, errors)
