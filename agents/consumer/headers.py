"""Record headers whose names are not UTF-8: read with escapes, where aiokafka would refuse their batch for ever.

Kafka takes any bytes as a header's name. aiokafka 0.14's parser raises at such a name, before the record is
counted, so the same fetch would fail again and again. `install` gives its fetcher a reader that parses the rest
of such a batch once more, slowly, and spells what is not UTF-8 as `\\xff`.
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
    """Let every aiokafka consumer of this process read such headers."""
    fetcher.MemoryRecords = _Records


class _Records(_MemoryRecordsPy):
    """The batches of one fetch."""

    def next_batch(self, *_: Any) -> Any:
        data = self._next_slice
        batch = super().next_batch()
        return _Batch(batch, data) if isinstance(batch, DefaultRecordBatch) else batch


class _Batch:
    """One batch: aiokafka's own, and from the first bad name on the patient one."""

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
            yield from islice(_PatientBatch(self._data), done, None)


class _PatientBatch(_DefaultRecordBatchPy):
    """aiokafka's parser in Python, over bytes that can always be decoded."""

    _buffer: bytearray

    def _read_msg(self, *_: Any) -> Any:
        if not isinstance(self._buffer, _Escaping):
            self._buffer = _Escaping(self._buffer)
        return super()._read_msg(decode_varint_py)


class _Escaping(bytearray):
    def __getitem__(self, index: Any) -> Any:
        found = super().__getitem__(index)
        return _Escaping(found) if isinstance(index, slice) else found

    def decode(self, encoding: str = "utf-8", errors: str = "backslashreplace") -> str:
        return super().decode(encoding, errors)
