"""Pictures in SVG, drawn from numbers: bars, a timeline, the hours of a week. Each has a text for screen readers."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from markupsafe import Markup, escape

DAYS = ("Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun")


class Bar(NamedTuple):
    """A labelled amount."""

    label: str
    amount: float


def bar(share: float, label: str) -> Markup:
    """One bar that fills a share of its width.

    Parameters
    ----------
    share
        From 0 to 1; outside it is cut.
    label
        What it shows, for screen readers.

    Examples
    --------
    >>> str(bar(0.5, "half"))[:60]
    '<svg class="bar" viewBox="0 0 100 8" preserveAspectRatio="no'
    """
    width = 100.0 * min(max(share, 0.0), 1.0)
    return Markup(  # noqa: S704 - numbers, and a label that is escaped
        '<svg class="bar" viewBox="0 0 100 8" preserveAspectRatio="none" role="img" aria-label="{}">'
        '<rect class="track" width="100" height="8" rx="2"/>'
        f'<rect class="fill" width="{width:.1f}" height="8" rx="2"/></svg>'
    ).format(escape(label))


def columns(bars: Sequence[Bar], label: str) -> Markup:
    """Amounts side by side, such as incidents by day; each column has its number as a title."""
    most = max((one.amount for one in bars), default=0.0) or 1.0
    step = 100.0 / max(len(bars), 1)
    parts = [
        Markup(  # noqa: S704
            f'<rect class="fill" x="{k * step:.2f}" y="{40 - 40 * one.amount / most:.2f}" width="{step * 0.8:.2f}" '
            f'height="{40 * one.amount / most:.2f}"><title>'
            "{}</title></rect>"
        ).format(f"{one.label}: {one.amount:,.0f}")
        for k, one in enumerate(bars)
    ]
    head = Markup(
        '<svg class="columns" viewBox="0 0 100 40" preserveAspectRatio="none" role="img" aria-label="{}">'
    ).format(label)
    return head + Markup("").join(parts) + Markup("</svg>")


def steps(points: Sequence[tuple[int, float]], label: str) -> Markup:
    """A value that rises in steps over time, such as the evidence of an incident at each publication.

    Parameters
    ----------
    points
        (epoch milliseconds, value) in the order of time.
    """
    if not points:
        return Markup("")
    first, last = points[0][0], points[-1][0]
    most = max(value for _, value in points) or 1.0
    wide = float(last - first) or 1.0
    path, dots = "", []
    for at, value in points:
        x, y = 3 + 94 * (at - first) / wide, 38 - 34 * value / most
        path += f"M{x:.1f},{y:.1f}" if not path else f"H{x:.1f}V{y:.1f}"
        dots.append(f'<circle class="dot" cx="{x:.1f}" cy="{y:.1f}" r="1.5"/>')
    head = Markup('<svg class="steps" viewBox="0 0 100 40" role="img" aria-label="{}">').format(label)
    return head + Markup(f'<path class="line" d="{path}"/>{"".join(dots)}</svg>')  # noqa: S704 - numbers


def week(shares: Sequence[float], label: str) -> Markup:
    """The 168 hours of a week, Monday first, as a grid of 7 x 24 fields: the darker, the more events.

    Parameters
    ----------
    shares
        Of each hour; any unit.
    """
    most = max(shares, default=0.0) or 1.0
    fields = "".join(
        f'<rect class="hour" x="{10 + 3.7 * (hour % 24):.1f}" y="{3.7 * (hour // 24):.1f}" width="3.4" height="3.4" '
        f'fill-opacity="{share / most:.2f}"><title>{DAYS[hour // 24]} {hour % 24}:00 UTC: {share:.1%}</title></rect>'
        for hour, share in enumerate(shares)
    )
    names = "".join(f'<text x="0" y="{3.7 * k + 3:.1f}">{name}</text>' for k, name in enumerate(DAYS))
    head = Markup('<svg class="week" viewBox="0 0 100 26" role="img" aria-label="{}">').format(label)
    return head + Markup(f"{names}{fields}</svg>")  # noqa: S704 - numbers
