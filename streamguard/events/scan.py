"""Finds values in JSON text without recursion, in linear time, whether or not the text is valid JSON throughout."""

from __future__ import annotations

import numpy as np

from streamguard.compute.compiler import inline, kernel

_QUOTE, _BACKSLASH, _COMMA, _COLON, _OPEN, _BRACE, _U = 34, 92, 44, 58, 91, 123, 117
_CLOSES = 2
"""A closing bracket's code less that of its opening bracket."""


@inline
def _after_blank(data, p):  # type: ignore[no-untyped-def]
    while p < data.shape[0] and data[p] in (32, 9, 10, 13):
        p += 1
    return p


@inline
def _after_text(data, p):  # type: ignore[no-untyped-def]
    """Place after the closing quote of the text that begins at `p`; -1 without one."""
    p += 1
    while p < data.shape[0]:
        if data[p] == _QUOTE:
            return p + 1
        p += 2 if data[p] == _BACKSLASH else 1
    return -1


@inline
def _after_value(data, p, stack):  # type: ignore[no-untyped-def]
    """Place after the value that begins at `p`, and its depth; -1 if brackets or quotes do not match."""
    if data[p] == _QUOTE:
        return _after_text(data, p), 0
    depth = deepest = 0
    start = p
    while p < data.shape[0]:
        byte = data[p]
        if byte == _QUOTE:
            if depth == 0:
                return -1, 0
            p = _after_text(data, p)
            if p < 0:
                return -1, 0
            continue
        if byte in (_OPEN, _BRACE):
            if depth == 0 and p > start:
                return -1, 0
            stack[depth] = byte
            depth += 1
            deepest = max(deepest, depth)
        elif byte in (_OPEN + _CLOSES, _BRACE + _CLOSES):
            if depth == 0:
                break
            depth -= 1
            if stack[depth] + _CLOSES != byte:
                return -1, 0
            if depth == 0:
                return p + 1, deepest
        elif depth == 0 and (byte in (_COMMA, _COLON, 32, 9, 10, 13)):
            break
        p += 1
    return (p if depth == 0 and p > start else -1), deepest


@inline
def _hex(data, p, end):  # type: ignore[no-untyped-def]
    """Code of the four hexadecimal digits at `p`; -1 if they are not there."""
    if p + 4 > end:
        return -1
    code = 0
    for k in range(p, p + 4):
        digit = data[k]
        if 48 <= digit <= 57:
            digit -= 48
        elif 65 <= digit <= 70 or 97 <= digit <= 102:
            digit = (digit | 32) - 87
        else:
            return -1
        code = code * 16 + digit
    return code


@inline
def _place_of_name(data, start, end, names):  # type: ignore[no-untyped-def]
    """Row of `names` that equals the text between two quotes; -1 if none does."""
    for k in range(names.shape[0]):
        p, j, same = start, 0, True
        while same and p < end:
            code = np.int64(data[p])
            p += 1
            if code == _BACKSLASH:
                code = np.int64(_hex(data, p + 1, end) if data[p] == _U else -1)
                p += 5
            same = bool(0 < code < 128 and j < names.shape[1] and names[k, j] == code)
            j += 1
        if same and (j == names.shape[1] or names[k, j] == 0):
            return k
    return -1


@kernel
def children(data, names, spans):  # type: ignore[no-untyped-def]
    """Find the values in an object or a list.

    Parameters
    ----------
    data
        uint8 (bytes,), beginning with a bracket.
    names
        uint8 (m, width): names of an object's members, padded with zeros.
    spans
        int64 (m, 2), overwritten with the place of each value and of its end: of the member with the name (of the
        last one, if there are several), or of the first m elements of a list; (0, 0) where there is none.

    Returns
    -------
    end : int
        Place after the closing bracket; if the brackets, quotes, commas and colons do not fit, -1 less the place where
        they do not.
    depth : int
        Number of brackets around the innermost value.
    """
    n = data.shape[0]
    spans[:, :] = 0
    stack = np.empty(n, np.uint8)
    closing, is_object = data[0] + _CLOSES, data[0] == _BRACE
    deepest = number = 0
    p = _after_blank(data, 1)
    if p < n and data[p] == closing:
        return p + 1, 1
    while p < n:
        slot = number if number < spans.shape[0] else -1
        if is_object:
            end = _after_text(data, p) if data[p] == _QUOTE else -1
            if end < 0:
                break
            slot = _place_of_name(data, p + 1, end - 1, names)
            p = _after_blank(data, end)
            if p >= n or data[p] != _COLON:
                break
            p = _after_blank(data, p + 1)
            if p >= n:
                break
        end, depth = _after_value(data, p, stack)
        if end < 0:
            break
        deepest = max(deepest, depth)
        if slot >= 0:
            spans[slot, 0], spans[slot, 1] = p, end
        number += 1
        p = _after_blank(data, end)
        if p >= n:
            break
        if data[p] == closing:
            return p + 1, deepest + 1
        if data[p] != _COMMA:
            break
        p = _after_blank(data, p + 1)
    return -1 - p, deepest + 1


@kernel
def unescape(data, out):  # type: ignore[no-untyped-def]
    """Write the text between two quotes as UTF-8, as far as it is valid.

    Half a surrogate pair becomes U+FFFD. A backslash that begins no escape, a control character and invalid UTF-8 stay
    as they are.

    Parameters
    ----------
    data
        uint8 (bytes,), without the quotes.
    out
        uint8 (bytes,), overwritten.

    Returns
    -------
    length : int
        Number of bytes written.
    faults : int
        Number of half pairs, backslashes and control characters that JSON does not allow.
    """
    n, p, q, faults = data.shape[0], 0, 0, 0
    while p < n:
        byte = data[p]
        if byte != _BACKSLASH or p + 1 == n:
            faults += byte < 32 or byte == _BACKSLASH
            out[q] = byte
            p, q = p + 1, q + 1
            continue
        kind = data[p + 1]
        code = np.int64(-1)
        if kind == _U:
            code = _hex(data, p + 2, n)
        elif kind in (_QUOTE, _BACKSLASH, 47):
            code = np.int64(kind)
        elif kind == 98:
            code = np.int64(8)
        elif kind == 102:
            code = np.int64(12)
        elif kind == 110:
            code = np.int64(10)
        elif kind == 114:
            code = np.int64(13)
        elif kind == 116:
            code = np.int64(9)
        if code < 0:
            faults += 1
            out[q] = byte
            p, q = p + 1, q + 1
            continue
        p += 6 if kind == _U else 2
        if 0xD800 <= code < 0xE000:
            low = np.int64(-1)
            if code < 0xDC00 and p + 1 < n and data[p] == _BACKSLASH and data[p + 1] == _U:
                low = _hex(data, p + 2, n)
            if 0xDC00 <= low < 0xE000:
                code = 0x10000 + ((code - 0xD800) << 10) + (low - 0xDC00)
                p += 6
            else:
                faults += 1
                code = np.int64(0xFFFD)
        if code < 0x80:
            out[q] = code
            q += 1
            continue
        width = 2 if code < 0x800 else 3 if code < 0x10000 else 4
        for k in range(width - 1, 0, -1):
            out[q + k] = 0x80 | (code & 0x3F)
            code >>= 6
        out[q] = ((0xF00 >> width) & 0xFF) | code
        q += width
    return q, faults
