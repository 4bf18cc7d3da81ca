"""A record as the worker reads it, and the limits within which it is read."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from streamguard.errors import DataError
from streamguard.events.ceiling import UNKNOWN
from streamguard.events.event import Withheld

MAX_UNPACKED_BYTES = 64 << 20
"""Size up to which a batch is unpacked. A topic limits only the packed size, and 28 KB can unpack to 900 MB."""
MAX_RECORDS = 1_000_000
"""Records of one batch; 64 MiB hold about a million of the shortest events."""
MAX_RECORD_HEADERS = 100_000
"""Headers of one record; each takes 100 bytes of memory, even if it is empty."""
MAX_KEY_BYTES = 16 << 10
"""Size in bytes up to which a key is kept."""
MAX_HEADERS_BYTES = 32 << 10
"""Size in bytes up to which the headers of a record are kept, with ten bytes for each header's lengths; larger ones
are all dropped."""
HEAD_BYTES = 64 << 10
"""Size of the head that is kept of what cannot be read."""

Headers = Sequence[tuple[str, bytes | None]]


class UnreadableError(DataError):
    """A batch cannot be read; the message states the reason."""


class Record(msgspec.Struct, gc=False):
    """One record of a partition.

    Attributes
    ----------
    offset
        Its offset; for a batch that cannot be read, the last offset of the batch.
    timestamp
        Milliseconds; -1 if the sender set none.
    value
        `Withheld` if it was not read.
    cut
        Parts that were too large to keep: `key`, `headers`.
    append_ms
        When a broker appended it, milliseconds; `UNKNOWN` if its sender has set the timestamp.
    """

    topic: str
    partition: int
    offset: int
    timestamp: int
    key: bytes | None
    value: bytes | Withheld | None
    headers: Headers = ()
    cut: tuple[str, ...] = ()
    append_ms: int = UNKNOWN
