"""Renders `report.html`: the report for people, in one file without scripts and without requests."""

from __future__ import annotations

import base64
import hashlib
import itertools
import math
from dataclasses import dataclass
from importlib.resources import files
from typing import Any

import msgspec

from streamguard.runs.report import Distribution, Report
from streamguard.text import counted, printable, shortened

PLOT = (960.0, 240.0)
"""Width and height of the score plot's area, without its labels."""

SHOWN = 20
"""Maximum number of incidents, and of users, on the page; the JSON has more."""

_TEXT = {"long": 160, "cell": 60}
"""Maximum number of characters shown of a text."""


@dataclass(frozen=True, slots=True)
class Bar:
    """One bar of a plot, in units of the plot area; `tooltip` is shown on hover."""

    x: float
    y: float
    width: float
    height: float
    alarming: bool
    tooltip: str


@dataclass(frozen=True, slots=True)
class Tick:
    """A tick mark of an axis."""

    at: float
    label: str


@dataclass(frozen=True, slots=True)
class Scores:
    """Plot of the score distribution, with counts on a logarithmic axis."""

    bars: list[Bar]
    across: list[Tick]
    up: list[Tick]
    threshold: float


def render(report: Report) -> str:
    """Render the report as HTML.

    The senders of events control the texts of the report, such as the names of users. Therefore all texts are escaped,
    and the content security policy of the page forbids scripts and requests.
    """
    from jinja2 import DictLoader, Environment, StrictUndefined

    here = files("streamguard.batch.reporting") / "templates"
    css = (here / "report.css").read_text("utf-8")
    environment = Environment(
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        loader=DictLoader({"report": (here / "report.html.jinja").read_text("utf-8")}),
    )
    environment.filters |= {
        "count": lambda n: f"{n:,}",
        "counted": counted,
        "share": _share,
        "cut": _cut,
        "when": lambda text: "" if text is None else text[:19].replace("T", " "),
        "plain": lambda name: name.replace("_", " "),
        "json": _json,
    }
    style = base64.b64encode(hashlib.sha256(css.encode()).digest()).decode()
    return environment.get_template("report").render(
        report=report,
        css=_Trusted(css),
        style=style,
        plot=PLOT,
        shown=SHOWN,
        scores=_scores(report.distribution),
        drift=sorted(report.drift or (), key=lambda d: -d.psi),
        widest=max((group.size for group in report.groups), default=1),
    )


class _Trusted(str):
    """The style sheet, which is inserted without escaping: its digest in the content security policy must match."""

    __slots__ = ()

    def __html__(self) -> str:
        return str(self)


def _share(value: float) -> str:
    """Format a share as a percentage; small shares get more decimals.

    Examples
    --------
    >>> [_share(x) for x in (0.0, 0.00012, 0.1234, 1.0)]
    ['0 %', '0.012 %', '12.3 %', '100 %']
    """
    percent = 100.0 * value
    if percent in (0.0, 100.0):
        return f"{percent:.0f} %"
    return f"{percent:.3f} %" if percent < 0.1 else f"{percent:.2f} %" if percent < 10 else f"{percent:.1f} %"


def _cut(value: Any, kind: str = "cell") -> str:
    """Shorten a text, and replace characters that could reorder or hide the text around it."""
    return shortened(printable(str(value)), _TEXT[kind])


def _json(value: Any) -> str:
    return printable(msgspec.json.format(msgspec.json.encode(value)).decode(), keep="\n")


def _scores(distribution: Distribution) -> Scores:
    width, height = PLOT
    events, step = distribution.events, distribution.width
    decades = max(math.ceil(math.log10(max(*events, 1, 1) + 1)), 1)
    reach = len(events) * step

    def across(bits: float) -> float:
        return round(bits / reach * width, 2)

    def up(count: float) -> float:
        """Height of a bar; that of a single event is visible, too."""
        return round(height * (math.log10(count) + 0.3) / (decades + 0.3), 2) if count else 0.0

    bars = [
        Bar(
            x=across(k * step),
            y=height - up(count),
            width=max(across(step) - 1.0, 0.5),
            height=up(count),
            alarming=k * step >= distribution.alert_bits,
            tooltip=f"{k * step:g} to {(k + 1) * step:g} bits: {counted(count, 'event')}",
        )
        for k, count in enumerate(events)
        if count
    ]
    every = _round_step(reach / 8)
    return Scores(
        bars=bars,
        across=[Tick(across(k * every), f"{k * every:g}") for k in range(int(reach / every) + 1)],
        up=[Tick(height - up(10**k), f"{10**k:,}") for k in range(decades + 1)],
        threshold=across(distribution.alert_bits),
    )


def _round_step(minimum: float) -> int:
    """The smallest of 1, 2, 5, 10, 20, ... that is at least the minimum.

    Examples
    --------
    >>> _round_step(0.3), _round_step(3.2), _round_step(12)
    (1, 5, 20)
    """
    return next(step for power in itertools.count() for step in _decade(power) if step >= minimum)


def _decade(power: int) -> list[int]:
    return [m * int(10**power) for m in (1, 2, 5)]
