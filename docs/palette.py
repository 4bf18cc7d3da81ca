"""Writes a screenshot of Chromium again as a PNG with a palette: a third of the size, without a library for images."""

from __future__ import annotations

import zlib

import numpy as np
from numpy.typing import NDArray

MAX_COLOURS = 64
"""Colours of a picture: text and bars on a plain ground need few."""


def reduced(png: bytes) -> bytes:
    """The picture with at most `MAX_COLOURS` colours, the most frequent, as a PNG with a palette.

    Chromium writes three or four bytes a pixel without interlacing, so only the five filters of PNG are undone here.
    """
    pixels = decoded(png)
    height, width, _ = pixels.shape
    packed = (pixels.astype(np.uint32) << np.array([16, 8, 0], np.uint32)).sum(axis=2, dtype=np.uint32)
    colours, inverse, counts = np.unique(packed, return_inverse=True, return_counts=True)
    kept = colours[np.argsort(-counts, kind="stable")[:MAX_COLOURS]]
    parts = [(colours[:, None] >> shift & 255).astype(np.int32) for shift in (16, 8, 0)]
    wanted = [(kept[None, :] >> shift & 255).astype(np.int32) for shift in (16, 8, 0)]
    nearest = sum((one - other) ** 2 for one, other in zip(parts, wanted, strict=True)).argmin(axis=1)
    indices = nearest[inverse].reshape(height, width).astype(np.uint8)
    rows = np.zeros((height, width + 1), np.uint8)  # the filter of each row: none
    rows[:, 1:] = indices
    palette = b"".join(int(one).to_bytes(3, "big") for one in kept)
    head = width.to_bytes(4, "big") + height.to_bytes(4, "big") + bytes([8, 3, 0, 0, 0])
    chunks = (b"IHDR", head), (b"PLTE", palette), (b"IDAT", zlib.compress(rows.tobytes(), 9)), (b"IEND", b"")
    return png[:8] + b"".join(
        len(body).to_bytes(4, "big") + kind + body + zlib.crc32(kind + body).to_bytes(4, "big")
        for kind, body in chunks
    )


def decoded(png: bytes) -> NDArray[np.uint8]:
    """Red, green and blue of each pixel, uint8 (height, width, 3)."""
    at, data, width, height, channels = 8, b"", 0, 0, 0
    while at < len(png):
        length, kind = int.from_bytes(png[at : at + 4], "big"), png[at + 4 : at + 8]
        body = png[at + 8 : at + 8 + length]
        if kind == b"IHDR":
            width, height = int.from_bytes(body[:4], "big"), int.from_bytes(body[4:8], "big")
            assert body[8] == 8 and body[12] == 0, "eight bits, not interlaced"
            channels = {2: 3, 6: 4}[body[9]]
        data += body if kind == b"IDAT" else b""
        at += length + 12
    raw = np.frombuffer(zlib.decompress(data), np.uint8).reshape(height, width * channels + 1)
    found = np.zeros((height, width, channels), np.uint8)
    above = np.zeros((width, channels), np.uint8)
    for k in range(height):
        row = raw[k, 1:].reshape(width, channels)
        match int(raw[k, 0]):
            case 0:
                line = row
            case 1:
                line = np.cumsum(row, axis=0, dtype=np.uint8)
            case 2:
                line = row + above
            case method:
                line = _by_pixel(method, row, above)
        found[k] = above = line
    return found[:, :, :3]


def _by_pixel(method: int, row: NDArray[np.uint8], above: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """A row whose filter needs the pixel on the left: the average (3), or Paeth's (4)."""
    line: list[list[int]] = []
    left, corner = [0] * row.shape[1], [0] * row.shape[1]
    for pixel, up in zip(row.tolist(), above.tolist(), strict=True):
        if method == 3:
            added = [(a + b) // 2 for a, b in zip(left, up, strict=True)]
        else:
            added = [_paeth(a, b, c) for a, b, c in zip(left, up, corner, strict=True)]
        left = [(one + more) & 255 for one, more in zip(pixel, added, strict=True)]
        line.append(left)
        corner = up
    return np.array(line, np.uint8)


def _paeth(left: int, up: int, corner: int) -> int:
    distances = abs(up - corner), abs(left - corner), abs(left + up - 2 * corner)
    return (left, up, corner)[distances.index(min(distances))]
