"""A measured figure with its limit, as a row of a table and as JSON."""

from __future__ import annotations

import operator
from collections.abc import Sequence

import msgspec

_RULES = {"<=": operator.le, ">=": operator.ge, "<": operator.lt}


class Figure(msgspec.Struct, frozen=True):
    """One measured number.

    Parameters
    ----------
    what
        Description of the figure.
    reached
        The measured number.
    unit
        Unit of `reached` and of the limit.
    wanted
        A comparison with a limit, such as `<= 15`; empty for a figure without a limit.

    Examples
    --------
    >>> Figure("CPU an event", 12.0, "us", "<= 15").met
    True
    """

    what: str
    reached: float
    unit: str = ""
    wanted: str = ""

    @property
    def met(self) -> bool | None:
        """Whether the number is within its limit; None if it has none."""
        if not self.wanted:
            return None
        rule, limit = self.wanted.split()
        return bool(_RULES[rule](self.reached, float(limit)))


def table(figures: Sequence[Figure]) -> str:
    """The figures as a table of text: what, reached, wanted, verdict."""
    rows = [("what", "reached", "wanted", "verdict")]
    for figure in figures:
        verdict = {True: "reached", False: "MISSED", None: ""}[figure.met]
        rows.append((figure.what, f"{number(figure.reached)} {figure.unit}".rstrip(), figure.wanted, verdict))
    width = [max(len(row[column]) for row in rows) for column in range(3)]
    return "\n".join(
        f"  {what:<{width[0]}}  {reached:>{width[1]}}  {wanted:>{width[2]}}  {verdict}".rstrip()
        for what, reached, wanted, verdict in rows
    )


def number(value: float) -> str:
    """A number with three significant digits, or with all digits before the decimal point.

    Examples
    --------
    >>> number(0.0123), number(7.0), number(12.345), number(123456.7)
    ('0.012', '7', '12.3', '123,457')
    """
    if value == int(value) or abs(value) >= 100:
        return f"{value:,.0f}"
    return f"{value:.{1 if abs(value) >= 10 else 2 if abs(value) >= 1 else 3}f}"
