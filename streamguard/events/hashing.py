"""64-bit hashes of the texts of events, computed in one pass over one buffer for a whole chunk."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from streamguard.compute.arithmetic import mix
from streamguard.compute.compiler import kernel

_SEED = np.uint64(0x9E3779B97F4A7C15)
_STEP = np.uint64(0xBF58476D1CE4E5B9)
_PREFIX = np.uint64(0x94D049BB133111EB)
_ONE, _EIGHT, _WORD = np.uint64(1), np.uint64(8), np.uint64(64)
_DOT, _COLON, _DASH = 46, 58, 45


@kernel
def hash_rows(buffer, columns, out, network, area):  # type: ignore[no-untyped-def]
    rows = out.shape[0]
    row = column = seen = colons = 0
    h, word, shift, length = _SEED, np.uint64(0), np.uint64(0), np.uint64(0)
    prefix, prefixed = np.uint64(0), False
    for p in range(buffer.shape[0] + 1):
        byte = buffer[p] if p < buffer.shape[0] else np.uint8(0)
        if byte == 0:
            seen += 1
            if row >= rows:
                continue
            whole = mix((h ^ word) * _STEP + length) if length > 0 else np.uint64(0)
            out[row, column] = whole
            if column == 0:
                network[row] = prefix if prefixed else whole
            elif column == 1:
                if not prefixed and length > 0:
                    prefix = mix((h ^ word) * _STEP + length + _PREFIX)
                area[row] = prefix
            column += 1
            if column == columns:
                column = 0
                row += 1
            h = _SEED + np.uint64(column) * _STEP
            word, shift, length, colons = np.uint64(0), np.uint64(0), np.uint64(0), 0
            prefix, prefixed = np.uint64(0), False
            continue
        if column == 0:
            if byte == _COLON:
                colons += 1
            if byte == _DOT or (byte == _COLON and colons == 4):
                prefix, prefixed = mix((h ^ word) * _STEP + length + _PREFIX), True
        elif column == 1 and byte == _DASH and not prefixed:
            prefix, prefixed = mix((h ^ word) * _STEP + length + _PREFIX), True
        word |= np.uint64(byte) << shift
        shift += _EIGHT
        length += _ONE
        if shift == _WORD:
            h = mix(h ^ word)
            word, shift = np.uint64(0), np.uint64(0)
    return seen


def hash_texts(
    texts: Sequence[str], columns: int
) -> tuple[NDArray[np.uint64], NDArray[np.uint64], NDArray[np.uint64]]:
    """Hash the texts of a chunk.

    Parameters
    ----------
    texts
        The texts row by row, `columns` texts in each; column 0 holds an address, column 1 a location.
    columns
        Texts per row.

    Returns
    -------
    whole : uint64 (rows, columns)
        Hash of each text, 0 for an empty text; the same text has a different hash in each column.
    network : uint64 (rows,)
        Hash of the address up to its last dot (IPv4 /24) or fourth colon (IPv6 /64).
    area : uint64 (rows,)
        Hash of the location up to its first dash: `DE` of `DE-Berlin`.

    Examples
    --------
    >>> whole, network, area = hash_texts(["10.0.0.1", "DE-Berlin", "10.0.0.2", "DE-Bonn"], 2)
    >>> bool(network[0] == network[1]), bool(whole[0, 0] == whole[1, 0]), bool(area[0] == area[1])
    (True, False, True)
    """
    rows = len(texts) // columns
    out = np.empty((rows, columns), np.uint64)
    network, area = np.empty(rows, np.uint64), np.empty(rows, np.uint64)
    if rows == 0:
        return out, network, area
    joined = "\0".join(texts).encode("utf-8", "surrogatepass")
    if hash_rows(np.frombuffer(joined, np.uint8), columns, out, network, area) != rows * columns:
        joined = "\0".join([text.replace("\0", "\x01") for text in texts]).encode("utf-8", "surrogatepass")
        hash_rows(np.frombuffer(joined, np.uint8), columns, out, network, area)
    return out, network, area
