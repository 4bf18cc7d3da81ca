"""Keyed 64-bit hashes of the texts of events, computed in one pass over one buffer for a whole chunk.

The hash is SipHash-1-3 (Aumasson, Bernstein: SipHash, a fast short-input PRF, 2012; with one round for each word and
three at the end, as in CPython and Rust). Whoever does not know the key cannot choose a text with the hash of another
one, so nobody can make an incident show a text of their own as a usual value of somebody else.
"""

from __future__ import annotations

import secrets
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from streamguard.compute.arithmetic import mix
from streamguard.compute.compiler import inline, kernel

KEY_BYTES = 16
FILES_KEY = bytes(KEY_BYTES)
"""Key for histories without a changelog, such as files: two replays of a file have the same bits on every machine."""
UNKEYED = b""
"""Key of states that version 0.1 stored: they keep its hash, which has no key, since hashes cannot be converted."""

_STEP = np.uint64(0xBF58476D1CE4E5B9)
_SEED = np.uint64(0x9E3779B97F4A7C15)
_PREFIX = np.uint64(0x94D049BB133111EB)
_V0, _V1 = np.uint64(0x736F6D6570736575), np.uint64(0x646F72616E646F6D)
_V2, _V3 = np.uint64(0x6C7967656E657261), np.uint64(0x7465646279746573)
"""Initial values of SipHash."""
_WHOLE_MARK, _PREFIX_MARK = np.uint64(0xFF), np.uint64(0xFE)
"""SipHash marks its end with 0xFF. A prefix has another mark, so it differs from a text of the same letters."""
_ONE, _EIGHT, _WORD, _LENGTH = np.uint64(1), np.uint64(8), np.uint64(64), np.uint64(56)
_DOT, _COLON, _DASH = 46, 58, 45


def new_key() -> bytes:
    """A random key for a new state."""
    return secrets.token_bytes(KEY_BYTES)


@inline
def _rotate(x, bits):  # type: ignore[no-untyped-def]
    return (x << np.uint64(bits)) | (x >> np.uint64(64 - bits))


@inline
def _round(v0, v1, v2, v3):  # type: ignore[no-untyped-def]
    v0 += v1
    v1 = _rotate(v1, 13) ^ v0
    v0 = _rotate(v0, 32)
    v2 += v3
    v3 = _rotate(v3, 16) ^ v2
    v0 += v3
    v3 = _rotate(v3, 21) ^ v0
    v2 += v1
    v1 = _rotate(v1, 17) ^ v2
    v2 = _rotate(v2, 32)
    return v0, v1, v2, v3


@inline
def _finish(keyed, v0, v1, v2, v3, word, length, mark):  # type: ignore[no-untyped-def]
    """Hash of a text, from the state after its whole words, its last bytes, and its length in bytes."""
    if not keyed:
        prefix = _PREFIX if mark == _PREFIX_MARK else np.uint64(0)
        return mix((v0 ^ word) * _STEP + length + prefix)
    last = word | (length << _LENGTH)
    v3 ^= last
    v0, v1, v2, v3 = _round(v0, v1, v2, v3)
    v0 ^= last
    v2 ^= mark
    for _ in range(3):
        v0, v1, v2, v3 = _round(v0, v1, v2, v3)
    return (v0 ^ v1) ^ (v2 ^ v3)


@kernel
def hash_rows(buffer, columns, keyed, k0, k1, out, network, area):  # type: ignore[no-untyped-def]
    rows = out.shape[0]
    row = column = seen = colons = 0
    zero = np.uint64(0)
    v0, v1, v2, v3 = (k0 ^ _V0, k1 ^ _V1, k0 ^ _V2, k1 ^ _V3) if keyed else (_SEED, zero, zero, zero)
    word, shift, length = zero, zero, zero
    prefixed = False
    p0, p1, p2, p3, p_word, p_length = v0, v1, v2, v3, word, length
    for p in range(buffer.shape[0] + 1):
        byte = buffer[p] if p < buffer.shape[0] else np.uint8(0)
        if byte == 0:
            seen += 1
            if row >= rows:
                continue
            whole = _finish(keyed, v0, v1, v2, v3, word, length, _WHOLE_MARK) if length > 0 else zero
            out[row, column] = whole
            if column == 0:
                network[row] = (
                    _finish(keyed, p0, p1, p2, p3, p_word, p_length, _PREFIX_MARK) if prefixed else whole
                )
            elif column == 1:
                if not prefixed:
                    p0, p1, p2, p3, p_word, p_length = v0, v1, v2, v3, word, length
                area[row] = (
                    _finish(keyed, p0, p1, p2, p3, p_word, p_length, _PREFIX_MARK)
                    if prefixed or length > 0
                    else zero
                )
            column += 1
            if column == columns:
                column = 0
                row += 1
            if keyed:
                tweaked = k1 ^ np.uint64(column)  # the same text has another hash in each column
                v0, v1, v2, v3 = k0 ^ _V0, tweaked ^ _V1, k0 ^ _V2, tweaked ^ _V3
            else:
                v0 = _SEED + np.uint64(column) * _STEP
            word, shift, length, colons = zero, zero, zero, 0
            prefixed = False
            continue
        if (
            (column == 0 and byte == _DOT)
            or (column == 0 and byte == _COLON and colons == 3)
            or (column == 1 and byte == _DASH and not prefixed)
        ):
            p0, p1, p2, p3, p_word, p_length, prefixed = v0, v1, v2, v3, word, length, True
        if byte == _COLON:
            colons += 1
        word |= np.uint64(byte) << shift
        shift += _EIGHT
        length += _ONE
        if shift == _WORD:
            if keyed:
                v3 ^= word
                v0, v1, v2, v3 = _round(v0, v1, v2, v3)
                v0 ^= word
            else:
                v0 = mix(v0 ^ word)
            word, shift = zero, zero
    return seen


def hash_texts(
    texts: Sequence[str], columns: int, key: bytes = FILES_KEY
) -> tuple[NDArray[np.uint64], NDArray[np.uint64], NDArray[np.uint64]]:
    """Hash the texts of a chunk.

    Parameters
    ----------
    texts
        The texts row by row, `columns` texts in each; column 0 holds an address, column 1 a location.
    columns
        Texts per row.
    key
        16 bytes, or `UNKEYED`.

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
    k0, k1 = np.frombuffer(key or FILES_KEY, "<u8")
    keyed = key != UNKEYED
    joined = "\0".join(texts).encode("utf-8", "surrogatepass")
    if (
        hash_rows(np.frombuffer(joined, np.uint8), columns, keyed, k0, k1, out, network, area)
        != rows * columns
    ):
        joined = "\0".join([text.replace("\0", "\x01") for text in texts]).encode("utf-8", "surrogatepass")
        hash_rows(np.frombuffer(joined, np.uint8), columns, keyed, k0, k1, out, network, area)
    return out, network, area
