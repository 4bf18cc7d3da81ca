"""Stored values: arrays compressed as one LZ4 block, because most of a young profile or page is zeros."""

from __future__ import annotations

from typing import Any

import cramjam
import numpy as np
from numpy.typing import NDArray

from streamguard.errors import ConfigurationError

_BYTE = np.dtype(np.uint8)


class StateError(ConfigurationError):
    """Stored state that this version cannot continue from; the message says what and what to do."""


def pack(array: NDArray[np.generic]) -> bytes:
    """The bytes of a contiguous array, compressed; their count stands before them."""
    data: Any = array if array.dtype == _BYTE else np.atleast_1d(array).view(_BYTE)
    return bytes(cramjam.lz4.compress_block(data))


def unpack(value: bytes, dtype: np.dtype[Any], what: str) -> NDArray[np.generic]:
    """The array again, one-dimensional and read-only.

    Parameters
    ----------
    value
        What `pack` made.
    dtype
        Of the elements.
    what
        Names the value in an error.

    Raises
    ------
    StateError
        If the value is damaged or was written with another layout. Nothing larger than 64 KiB is unpacked.

    Examples
    --------
    >>> unpack(pack(np.arange(3.0)), np.dtype(np.float64), "page").tolist()
    [0.0, 1.0, 2.0]
    """
    size = int.from_bytes(value[:4], "little")
    wanted = dtype.itemsize
    if size % wanted or not 0 < size <= 65_536:
        raise StateError(other_layout(f"{what} has {size} bytes, this program's has {wanted}"))
    try:
        return np.frombuffer(bytes(cramjam.lz4.decompress_block(value)), dtype)
    except cramjam.DecompressionError as error:
        raise StateError(other_layout(f"{what} is damaged ({error})")) from None


def other_layout(found: str) -> str:
    """What to do about stored state that does not fit."""
    return (
        f"{found}: delete the worker's data directory and its changelog topic to fold anew from the source topic, "
        "or run the version that wrote it"
    )
