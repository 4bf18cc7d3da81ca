"""The hours of a week as a small picture of characters: a row for each day, a column for each hour."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

DAYS = ("Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun")
HOURS = 24
_BLOCKS = (
    "\N{MIDDLE DOT}\N{LOWER ONE EIGHTH BLOCK}\N{LOWER ONE QUARTER BLOCK}\N{LOWER THREE EIGHTHS BLOCK}"
    "\N{LOWER HALF BLOCK}\N{LOWER FIVE EIGHTHS BLOCK}\N{LOWER THREE QUARTERS BLOCK}\N{LOWER SEVEN EIGHTHS BLOCK}"
    "\N{FULL BLOCK}"
)
_ASCII = ".-=+*#%@"


def week(shares: Sequence[float], blocks: bool = True) -> Iterator[str]:
    """Lines of the picture. An hour with any event differs from one without; the fullest one is full.

    Parameters
    ----------
    shares
        Share of each of the 168 hours, Monday 0 h first.
    blocks
        Whether block characters may be used; otherwise it consists of ASCII.

    Examples
    --------
    >>> shares = [0.0] * 168
    >>> shares[8], shares[9], shares[24 + 23] = 0.5, 0.1, 0.4
    >>> for line in list(week(shares, blocks=False))[:3]:
    ...     print(line)
           0     6     12    18
      Mon  ........@=..............
      Tue  .......................%
    """
    signs = _BLOCKS if blocks else _ASCII
    most = max(shares, default=0.0)
    yield f"       {'0':6}{'6':6}{'12':6}18"
    for number, day in enumerate(DAYS):
        hours = shares[number * HOURS : (number + 1) * HOURS]
        yield f"  {day}  " + "".join(_sign(share, most, signs) for share in hours)


def _sign(share: float, most: float, signs: str) -> str:
    if share <= 0.0:
        return signs[0]
    return signs[min(1 + int(share / most * (len(signs) - 1)), len(signs) - 1)]
