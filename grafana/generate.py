"""`python -m grafana.generate` writes grafana/dashboards/*.json; a test checks that they are current."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path

from grafana.boards import campaigns, detection, kafka, models, overview, serving, worker
from grafana.panels import DATASOURCE, JOB, UID, Json, placed, promql

BOARDS = (overview, detection, campaigns, worker, models, kafka, serving)
DIRECTORY = Path(__file__).parent / "dashboards"
PROMETHEUS = Path(__file__).parent / "prometheus"
RUNBOOK = re.compile(r"(?<=runbook_url: )[^\s#]+(?=#)")
TAG = "streamguard"
JOBS = ["streamguard-worker", "streamguard-campaigns", "streamguard-retrain", "streamguard-serve"]
SELECTED = {"selected": True, "text": JOBS, "value": JOBS}
"""Jobs of a dashboard that is opened. The sources process folds events that workers have folded, too, so sums over both
would count them twice: select the job streamguard-sources alone to see it."""


def runbooks() -> str:
    """Address of the runbooks without the `#` of a section. All rules contain the same address."""
    (found,) = {link for path in PROMETHEUS.glob("rules/*.yml") for link in RUNBOOK.findall(path.read_text())}
    return found


def dashboards() -> Mapping[str, str]:
    """Name and JSON of each dashboard file."""
    return {
        f"{board.NAME}.json": json.dumps(
            _dashboard(f"{TAG}-{board.NAME}", board.TITLE, board.SAYS, board.panels()), indent=1
        )
        + "\n"
        for board in BOARDS
    }


def _dashboard(uid: str, title: str, says: str, panels: Sequence[Json]) -> Json:
    used = json.dumps(panels)
    variables = [
        variable
        for name, variable in _variables().items()
        if name in ("datasource", "job", "instance") or f"${name}" in used or f"${{{name}}}" in used
    ]
    return {
        "uid": uid,
        "title": f"StreamGuard / {title}",
        "description": says,
        "tags": [TAG],
        "schemaVersion": 41,
        "version": 1,
        "editable": False,
        "graphTooltip": 1,
        "timezone": "browser",
        "weekStart": "",
        "fiscalYearStartMonth": 0,
        "liveNow": False,
        "refresh": "30s",
        "time": {"from": "now-1h", "to": "now"},
        "timepicker": {},
        "annotations": {"list": _annotations()},
        "links": [
            {
                "type": "dashboards", "title": "StreamGuard", "tags": [TAG], "asDropdown": False, "includeVars": True,
                "keepTime": True, "targetBlank": False, "icon": "external link", "tooltip": "", "url": "",
            },
        ],
        "templating": {"list": variables},
        "panels": placed(panels),
    }  # fmt: skip


def _variables() -> Mapping[str, Json]:
    return {
        "datasource": {
            "name": "datasource", "label": "Data source", "type": "datasource", "query": "prometheus",
            "current": {"selected": True, "text": "Prometheus", "value": UID},
            "hide": 0, "includeAll": False, "multi": False, "options": [], "refresh": 1, "regex": "",
        },
        "job": _values("job", 'label_values(streamguard_build_info, job)') | {"current": SELECTED},
        "instance": _values("instance", 'label_values(streamguard_build_info{job=~"$job"}, instance)'),
        "partition": _values("partition", f"label_values(streamguard_events_total{{{JOB}}}, partition)"),
        "severity": _values("severity", f"label_values(streamguard_published_incidents_total{{{JOB}}}, severity)"),
        "runbooks": {
            "name": "runbooks", "label": "Runbooks", "type": "constant", "hide": 2,
            "description": "Address of the runbooks; `python -m grafana.runbooks URL` changes it.",
            "query": runbooks(),
            "current": {"text": runbooks(), "value": runbooks()},
        },
    }  # fmt: skip


def _values(name: str, query: str) -> Json:
    return {
        "name": name, "label": name.capitalize(), "type": "query", "datasource": DATASOURCE,
        "definition": query, "query": {"query": query, "refId": f"StandardVariableQuery-{name}"},
        "current": {"selected": True, "text": ["All"], "value": ["$__all"]},
        "includeAll": True, "allValue": ".+", "multi": True, "refresh": 2, "sort": 3 if name == "partition" else 1,
        "hide": 0, "options": [], "regex": "",
    }  # fmt: skip


def _annotations() -> list[Json]:
    def of(name: str, colour: str, expression: str, says: str, tags: str, *, at_value: bool) -> Json:
        return {
            "name": name, "enable": True, "hide": False, "datasource": DATASOURCE, "iconColor": colour,
            "expr": promql(expression), "titleFormat": name, "textFormat": says, "tagKeys": tags, "step": "",
            "useValueForTime": at_value,
        }  # fmt: skip

    return [
        of(
            "Model swapped", "purple", "1000 * (streamguard_model_loaded_timestamp_seconds{WORKER} > 0)",
            "{{instance}} loaded another model", "instance", at_value=True,
        ),
        of(
            "Rebalance", "orange", "increase(streamguard_rebalances_total{WORKER}[$__rate_interval]) > 0",
            "the partitions of {{instance}} were revoked", "instance", at_value=False,
        ),
        of(
            "Start", "blue", "1000 * process_start_time_seconds{WORKER}", "{{job}} {{instance}} started",
            "job,instance",
            at_value=True,
        ),
    ]  # fmt: skip


def main() -> None:
    """Write all dashboards."""
    for name, content in dashboards().items():
        (DIRECTORY / name).write_text(content)


if __name__ == "__main__":
    main()
