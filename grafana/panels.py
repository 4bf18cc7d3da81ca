"""Panels, variables and dashboards as plain dictionaries in Grafana's JSON model (schema 41, Grafana 12)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

Json = dict[str, Any]
Target = tuple[str, str]
"""(PromQL with macros, legend)."""

DATASOURCE = {"type": "prometheus", "uid": "${datasource}"}
UID = "streamguard-prometheus"
"""Uid of the data source that grafana/provisioning defines."""

JOB = 'job=~"$job", instance=~"$instance"'
MACROS = {
    "[RATE]": "[$__rate_interval]",
    "{WORKER}": f"{{{JOB}}}",
    "{PARTITION}": f'{{{JOB}, partition=~"$partition"}}',
    "{SEVERITY}": f'{{{JOB}, severity=~"$severity"}}',
    "{WORKER_CRITICAL}": f'{{{JOB}, severity="critical"}}',
    "{WORKER_HIGH}": f'{{{JOB}, severity="high"}}',
    "{WORKER_READY}": f'{{{JOB}, state="ready"}}',
    "{WORKER_NOWHERE}": f'{{{JOB}, found="nowhere"}}',
    "{WORKER_MEMORY}": f'{{{JOB}, found="memory"}}',
    "{WORKER_KNOWN}": f'{{{JOB}, found!="nowhere"}}',
    "{PROCESS}": f'{{{JOB}, job=~"streamguard-(worker|sources)"}}',
    "{CAMPAIGNS_PROCESS}": f'{{{JOB}, job="streamguard-campaigns"}}',
    "{SERVE_PROCESS}": f'{{{JOB}, job="streamguard-serve"}}',
    "{SERVE_ERRORS}": f'{{{JOB}, status="5xx"}}',
    "{API}": f'{{{JOB}, route="api"}}',
    "{DAY}": f'{{{JOB}, over="day"}}',
    "{WEEK}": f'{{{JOB}, over="week"}}',
    "{RETRAIN_PROCESS}": f'{{{JOB}, job="streamguard-retrain"}}',
}
"""Abbreviations in expressions, with their meanings."""

GREEN, YELLOW, RED, BLUE, GREY = "green", "yellow", "red", "blue", "#808080"
WIDTH = 24


def promql(expression: str) -> str:
    """Expand the macros of an expression."""
    for macro, meaning in MACROS.items():
        expression = expression.replace(macro, meaning)
    return " ".join(expression.split())


def quantile(q: float, metric: str, by: str = "") -> str:
    """Expression for a quantile of a histogram, over all workers or by a label."""
    return f"histogram_quantile({q}, sum by (le{by and ', '}{by}) (rate({metric}_bucket{{WORKER}}[RATE])))"


def quantiles(metric: str, *asked: float) -> list[Target]:
    """Targets for several quantiles of a histogram."""
    return [(quantile(q, metric), f"p{100 * q:g}") for q in asked]


def thresholds(*steps: tuple[float, str], base: str = GREEN) -> Json:
    """Colours that begin at the given values."""
    first: list[Json] = [{"color": base, "value": None}]
    return {"mode": "absolute", "steps": first + [{"color": colour, "value": at} for at, colour in steps]}


PLAIN = thresholds(base=BLUE)


def _targets(
    targets: Sequence[Target], *, instant: bool, table: bool = False, heatmap: bool = False
) -> list[Json]:
    style = "table" if table else "heatmap" if heatmap else "time_series"
    return [
        {
            "datasource": DATASOURCE,
            "editorMode": "code",
            "expr": promql(expression),
            "format": style,
            "instant": instant,
            "range": not instant,
            "legendFormat": legend or "__auto",
            "refId": chr(ord("A") + i),
        }
        for i, (expression, legend) in enumerate(targets)
    ]


def _panel(
    kind: str, title: str, description: str, size: tuple[int, int], runbooks: Sequence[str] = (), **more: Any
) -> Json:
    return {
        "type": kind,
        "title": title,
        "description": description,
        "gridPos": {"w": size[0], "h": size[1]},
        "links": [
            {"title": f"Runbook: {alert}", "url": f"${{runbooks}}#{alert.lower()}", "targetBlank": True}
            for alert in runbooks
        ],
        **more,
    }


def stat(
    title: str,
    description: str,
    expression: str,
    unit: str,
    *,
    steps: Json = PLAIN,
    legend: str = "",
    name: bool = False,
    decimals: int | None = None,
    empty: str = "unknown",
    mappings: Sequence[Json] = (),
    size: tuple[int, int] = (3, 4),
    runbooks: Sequence[str] = (),
) -> Json:
    """Panel with one current number; `name` shows the legend instead of the number."""
    # Without this mapping an unknown value has the colour of the lowest step, and green would indicate a good value.
    unknown = {
        "type": "special",
        "options": {"match": "null+nan", "result": {"text": empty, "color": GREY, "index": 9}},
    }
    defaults: Json = {"unit": unit, "thresholds": steps, "mappings": [*mappings, unknown], "noValue": empty}
    if decimals is not None:
        defaults["decimals"] = decimals
    return _panel(
        "stat", title, description, size, runbooks,
        datasource=DATASOURCE,
        targets=_targets([(expression, legend)], instant=True),
        fieldConfig={"defaults": defaults, "overrides": []},
        options={
            "colorMode": "background_solid" if steps is not PLAIN else "value",
            "graphMode": "none",
            "justifyMode": "center",
            "orientation": "auto",
            "reduceOptions": {"calcs": ["lastNotNull"], "fields": "", "values": False},
            "textMode": "name" if name else "auto",
            "wideLayout": True,
        },
    )  # fmt: skip


def timeseries(
    title: str,
    description: str,
    targets: Sequence[Target],
    unit: str,
    *,
    stacked: bool = False,
    bars: bool = False,
    lines_at: Json | None = None,
    least: float | None = 0,
    size: tuple[int, int] = (8, 8),
    runbooks: Sequence[str] = (),
) -> Json:
    """Panel with lines over time; `lines_at` draws thresholds."""
    custom = {
        "drawStyle": "bars" if bars else "line",
        "fillOpacity": 60 if bars else 20 if stacked else 8,
        "lineWidth": 1,
        "showPoints": "never",
        "spanNulls": False,
        "stacking": {"mode": "normal" if stacked else "none", "group": "A"},
        "thresholdsStyle": {"mode": "dashed" if lines_at else "off"},
    }
    defaults: Json = {
        "unit": unit,
        "custom": custom,
        "thresholds": lines_at or PLAIN,
        "color": {"mode": "palette-classic"},
    }
    if least is not None:
        defaults["min"] = least
    return _panel(
        "timeseries", title, description, size, runbooks,
        datasource=DATASOURCE,
        targets=_targets(targets, instant=False),
        fieldConfig={"defaults": defaults, "overrides": []},
        options={
            "legend": {"displayMode": "list", "placement": "bottom", "showLegend": True, "calcs": []},
            "tooltip": {"mode": "multi", "sort": "desc"},
        },
    )  # fmt: skip


def heatmap(title: str, description: str, metric: str, *, size: tuple[int, int] = (8, 8)) -> Json:
    """Panel with a histogram over time; the colour shows the number of observations."""
    expression = f"sum by (le) (increase({metric}_bucket{{WORKER}}[RATE]))"
    return _panel(
        "heatmap", title, description, size,
        datasource=DATASOURCE,
        targets=_targets([(expression, "{{le}}")], instant=False, heatmap=True),
        fieldConfig={"defaults": {"unit": "s", "custom": {}}, "overrides": []},
        options={
            "calculate": False,
            "cellGap": 1,
            "color": {"mode": "scheme", "scheme": "Blues", "steps": 64, "exponent": 0.5},
            "filterValues": {"le": 1e-9},
            "rowsFrame": {"layout": "auto"},
            "yAxis": {"unit": "s", "axisPlacement": "left"},
            "tooltip": {"mode": "single", "showColorScale": False, "yHistogram": False},
            "legend": {"show": True},
        },
    )  # fmt: skip


def bars(
    title: str, description: str, expression: str, legend: str, unit: str, *, size: tuple[int, int] = (8, 8)
) -> Json:
    """Panel with one bar for each value of a label, over the selected time range."""
    return _panel(
        "bargauge", title, description, size,
        datasource=DATASOURCE,
        targets=_targets([(expression, legend)], instant=True),
        fieldConfig={"defaults": {"unit": unit, "thresholds": PLAIN, "min": 0, "decimals": 0}, "overrides": []},
        options={
            "displayMode": "basic",
            "orientation": "horizontal",
            "reduceOptions": {"calcs": ["lastNotNull"], "fields": "", "values": False},
            "showUnfilled": True,
            "valueMode": "color",
        },
    )  # fmt: skip


def timeline(
    title: str,
    description: str,
    targets: Sequence[Target],
    mappings: Sequence[Json],
    *,
    size: tuple[int, int] = (8, 6),
    runbooks: Sequence[str] = (),
) -> Json:
    """Panel with states over time."""
    return _panel(
        "state-timeline", title, description, size, runbooks,
        datasource=DATASOURCE,
        targets=_targets(targets, instant=False),
        fieldConfig={
            "defaults": {"unit": "none", "mappings": list(mappings), "thresholds": PLAIN,
            "custom": {"fillOpacity": 70}},
            "overrides": [],
        },
        options={
            "mergeValues": True, "showValue": "auto", "rowHeight": 0.8, "legend": {"showLegend": False},
            "tooltip": {"mode": "single"},
        },
    )  # fmt: skip


def table(
    title: str,
    description: str,
    by: str,
    columns: Sequence[tuple[str, str, str]],
    *,
    size: tuple[int, int] = (16, 8),
) -> Json:
    """Table with a row for each value of the label `by`; columns are (name, unit, expression)."""
    names = {f"Value #{chr(ord('A') + i)}": name for i, (name, _, _) in enumerate(columns)}
    return _panel(
        "table", title, description, size,
        datasource=DATASOURCE,
        targets=_targets([(expression, "") for _, _, expression in columns], instant=True, table=True),
        fieldConfig={
            "defaults": {"unit": "none", "thresholds": PLAIN, "custom": {"align": "auto", "filterable": False}},
            "overrides": [
                {"matcher": {"id": "byName", "options": name}, "properties": [{"id": "unit", "value": unit}]}
                for name, unit, _ in columns
            ],
        },
        options={"showHeader": True, "cellHeight": "sm", "sortBy": [{"displayName": by, "desc": False}]},
        transformations=[
            {"id": "merge", "options": {}},
            {"id": "organize", "options": {"excludeByName": {"Time": True}, "renameByName": names}},
        ],
    )  # fmt: skip


def text(title: str, description: str, markdown: str, *, size: tuple[int, int] = (8, 8)) -> Json:
    """Panel with text in Markdown."""
    return _panel("text", title, description, size, options={"mode": "markdown", "content": markdown.strip()})


def firing(title: str, description: str, *, size: tuple[int, int] = (8, 8)) -> Json:
    """Table of the Prometheus alerts that are firing or pending.

    Grafana's own alert list does not accept a variable as data source, and would show no alert.
    """
    columns = ["alertstate", "severity", "alertname", "job", "instance", "partition"]
    return _panel(
        "table", title, description, size,
        datasource=DATASOURCE,
        targets=_targets([('ALERTS{alertname=~"StreamGuard.*"}', "")], instant=True, table=True),
        fieldConfig={
            "defaults": {
                "unit": "none", "thresholds": PLAIN, "noValue": "no alert is firing",
                "custom": {"align": "auto", "filterable": False},
            },
            "overrides": [],
        },
        options={"showHeader": True, "cellHeight": "sm", "sortBy": [{"displayName": "alertstate", "desc": False}]},
        transformations=[
            {"id": "filterFieldsByName", "options": {"include": {"names": columns}}},
            {"id": "organize", "options": {"indexByName": {name: i for i, name in enumerate(columns)}}},
        ],
    )  # fmt: skip


def row(title: str) -> Json:
    """Heading of the panels that follow."""
    return {"type": "row", "title": title, "collapsed": False, "gridPos": {"w": WIDTH, "h": 1}, "panels": []}


def value_names(**names: tuple[float, str]) -> list[Json]:
    """Mapping from numbers to words: `yes=(1, GREEN)`; an underscore becomes a space."""
    options = {
        f"{value:g}": {"text": name.replace("_", " "), "color": colour, "index": i}
        for i, (name, (value, colour)) in enumerate(names.items())
    }
    return [{"type": "value", "options": options}]


def placed(panels: Sequence[Json]) -> list[Json]:
    """Number the panels and place them from left to right and from top to bottom; a row begins a new line."""
    out: list[Json] = []
    x = y = height = 0
    for number, panel in enumerate(panels, 1):
        size = panel["gridPos"]
        if x and (panel["type"] == "row" or x + size["w"] > WIDTH):
            x, y, height = 0, y + height, 0
        out.append({"id": number, **panel, "gridPos": {"x": x, "y": y, **size}})
        x, height = x + size["w"], max(height, size["h"])
    return out
