"""Flat arrays in an npz file: no clock in what is written, no pickle and no surprise in what is read."""

from __future__ import annotations

import io
import math
import re
import struct
import zipfile
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

_EPOCH = (1980, 1, 1, 0, 0, 0)
_HEADER = re.compile(
    rb"\x93NUMPY\x01\x00.."
    rb"\{'descr': '([^']{1,8})', 'fortran_order': False, 'shape': \(([0-9, ]{0,40})\), \} *\n",
    re.DOTALL,
)
"""What numpy writes before an array; matched, not evaluated."""


def pack(arrays: Mapping[str, NDArray[Any]]) -> bytes:
    """An npz file that `numpy.load` reads, uncompressed, the same bytes for the same arrays.

    Examples
    --------
    >>> data = pack({"a": np.arange(3)})
    >>> unpack(data, {"a": np.dtype(np.int64)}, {})["a"]
    array([0, 1, 2])
    """
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_STORED) as archive:
        for name, array in arrays.items():
            member = io.BytesIO()
            np.lib.format.write_array(member, array, version=(1, 0), allow_pickle=False)
            entry = zipfile.ZipInfo(f"{name}.npy", _EPOCH)
            entry.create_system = 3
            entry.external_attr = 0o644 << 16
            archive.writestr(entry, member.getvalue())
    return buffer.getvalue()


def unpack(
    data: bytes, kinds: Mapping[str, np.dtype[Any]], dimensions: Mapping[str, int]
) -> dict[str, NDArray[Any]]:
    """The arrays of an npz file that holds exactly the expected ones.

    Parameters
    ----------
    data
        The file. What it claims is compared with its length before anything is allocated.
    kinds
        Name -> dtype of every array.
    dimensions
        Name -> number of axes, where it is not 1.

    Raises
    ------
    ValueError
        If it is no such file; the message names the member and says what is wrong.
    """
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            members = archive.infolist()
            expected = {f"{name}.npy" for name in kinds}
            if len(members) != len(expected) or {member.filename for member in members} != expected:
                raise ValueError(
                    f"holds {sorted(m.filename for m in members)[:20]}, expected {sorted(expected)}"
                )
            if any(member.compress_type != zipfile.ZIP_STORED for member in members):
                raise ValueError("is compressed, which no artifact of ours is")
            if sum(member.file_size for member in members) > len(data):
                raise ValueError(f"claims more content than its {len(data)} bytes")
            return {
                name: _array(name, archive.read(f"{name}.npy"), kind, dimensions.get(name, 1))
                for name, kind in kinds.items()
            }
    except (
        zipfile.BadZipFile,
        EOFError,
        NotImplementedError,
        OverflowError,
        RuntimeError,
        struct.error,
    ) as error:
        raise ValueError(f"is not a whole npz file: {error}") from None


def _array(name: str, member: bytes, kind: np.dtype[Any], dimensions: int) -> NDArray[Any]:
    header = _HEADER.match(member)
    if header is None:
        raise ValueError(f"{name} is not a plain array in C order")
    descr = header[1].decode("ascii", "replace")
    shape = tuple(int(axis) for axis in re.findall(rb"[0-9]+", header[2]))
    if descr != kind.str or len(shape) != dimensions:
        raise ValueError(f"{name} is {descr} with {len(shape)} axes, expected {kind.str} with {dimensions}")
    size = len(member) - header.end()
    if math.prod(shape) * kind.itemsize != size:
        raise ValueError(f"{name} has {size} bytes for shape {shape}")
    return np.frombuffer(member, kind, offset=header.end()).reshape(shape).copy()
