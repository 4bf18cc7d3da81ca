"""Renders `report.html`: the report for people, in one file without scripts and without requests."""

from __future__ import annotations

import base64
import hashlib
import itertools
import math
from collections import Counter
from dataclasses import dataclass
from importlib.resources import files
from typing import Any

import msgspec

from streamguard.alerts.incident import rfc3339
from streamguard.batch.reporting.ranking import INCIDENTS_SHOWN, Entry, ranking
from streamguard.events.event_time import epoch_ms
from streamguard.runs.report import Distribution, Report
from streamguard.text import counted, printable

PLOT = (960.0, 240.0)
"""Width and height of the score plot's area, without its labels."""

SHOWN = 25
"""Maximum number of users, addresses and crowds on the page; the JSON has more."""
MAX_JSON = 8000
"""Characters of an event on the page."""
_HOUR_MS = 3_600_000
_DAY_MS = 24 * _HOUR_MS
MAX_DAYS = 62
"""Days of the plot of incidents, the latest ones."""


@dataclass(frozen=True, slots=True)
class Bar:
    """One bar of a plot, in units of the plot area. `tooltip` is shown on hover, `span` and `events` in a table."""

    x: float
    y: float
    width: float
    height: float
    alarming: bool
    tooltip: str
    span: str
    events: int


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
    from jinja2 import DictLoader

    from streamguard.pictures.templates import STYLE, environment

    here = files("streamguard.batch.reporting") / "templates"
    css = STYLE.read_text("utf-8") + (here / "report.css").read_text("utf-8")
    made = environment(DictLoader({"report": (here / "report.html.jinja").read_text("utf-8")}))
    made.filters |= {"count": lambda n: f"{n:,}", "share": _share, "json": _json}
    style = base64.b64encode(hashlib.sha256(css.encode()).digest()).decode()
    entries = ranking(report)
    return made.get_template("report").render(
        report=report,
        css=_Trusted(css),
        style=style,
        plot=PLOT,
        entries=entries[:SHOWN],
        strongest=max((one.evidence for one in entries), default=1.0) or 1.0,
        hidden=len(entries[SHOWN:]),
        incidents_shown=INCIDENTS_SHOWN,
        when=_when(report),
        matrix=_matrix(report, entries[:SHOWN]),
        scores=_scores(report.distribution),
        drift=sorted(report.drift or (), key=lambda d: -d.psi),
        widest=max((group.size for group in report.groups), default=1),
    )


@dataclass(frozen=True, slots=True)
class When:
    """When incidents began: by day of the events that were read, and by hour of the week as shares."""

    days: list[Any]
    hours: list[float]


def _when(report: Report) -> When:
    from streamguard.pictures.drawing import Bar as Day

    begun = [epoch_ms(one.first_seen) or 0 for one in report.incidents]
    by_day = Counter(ms // _DAY_MS for ms in begun)
    ends = [time for one in report.ranges for time in (one.first_seen, one.last_seen) if time is not None]
    days = {*by_day, *((epoch_ms(time) or 0) // _DAY_MS for time in ends)}
    last = max(days, default=0)
    first = max(min(days, default=1), last - MAX_DAYS + 1)
    by_hour = Counter((ms // _HOUR_MS + 72) % 168 for ms in begun)  # 1970 began on a Thursday
    return When(
        [Day(rfc3339(day * _DAY_MS)[:10], by_day[day]) for day in range(first, last + 1)],
        [by_hour[hour] / max(len(begun), 1) for hour in range(168)],
    )


def _matrix(report: Report, entries: list[Entry]) -> list[Any]:
    """The ATT&CK matrix of the patterns of all incidents; a technique links to its strongest incident."""
    from streamguard.pictures.tactics import rows

    counts = Counter(t for one in report.incidents for t in {p.technique for p in one.patterns})
    strongest: dict[str, str] = {}
    for entry in entries:
        for k, one in enumerate(entry.incidents[:INCIDENTS_SHOWN], 1):
            for pattern in one.patterns:
                strongest.setdefault(pattern.technique, f"#e{entry.place}-{k}")
    return rows(counts, lambda technique: strongest.get(technique, "#ranking"))


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


def _json(value: Any) -> str:
    text = msgspec.json.format(msgspec.json.encode(value)).decode()
    if len(text) > MAX_JSON:
        text = text[:MAX_JSON] + "\n(shortened: anomaly_report.json has the rest)"
    return printable(text, keep="\n")


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
            span=f"{k * step:g} to {(k + 1) * step:g}",
            events=count,
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
