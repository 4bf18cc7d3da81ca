"""Encoding of stored values: arrays are compressed as one LZ4 block, because new profiles and pages are mostly 0."""

from __future__ import annotations

from typing import Any

import cramjam
import numpy as np
from numpy.typing import NDArray

from streamguard.errors import ConfigurationError

_BYTE = np.dtype(np.uint8)


class StateError(ConfigurationError):
    """Stored state from which this version cannot continue; the message says why and what to do."""


def pack(array: NDArray[np.generic]) -> bytes:
    """Compress the bytes of a contiguous array; their number precedes the compressed bytes."""
    data: Any = array if array.dtype == _BYTE else np.atleast_1d(array).view(_BYTE)
    return bytes(cramjam.lz4.compress_block(data))


def unpack(value: bytes, dtype: np.dtype[Any], what: str) -> NDArray[np.generic]:
    """Decompress an array; the result is one-dimensional and read-only.

    Parameters
    ----------
    value
        Result of `pack`.
    dtype
        Type of the elements.
    what
        Name of the value for errors.

    Raises
    ------
    StateError
        If the value is damaged or was written with another layout. Values of over 64 KiB are not decompressed.

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
    """Extend a message about stored state that does not fit with its remedies."""
    return (
        f"{found}: run the version that wrote it, or delete the worker's data directory and its changelog topic to "
        "fold the source topic from the beginning"
    )
