"""Dashboards equal the output of the generator and pass the rules of Grafana's linter and more."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from itertools import combinations
from pathlib import Path
from typing import Any

import pytest
import yaml

from grafana import generate
from grafana.panels import UID
from streamguard import metrics

GRAFANA = Path(generate.__file__).parent
DASHBOARDS = {path.stem: json.loads(path.read_text()) for path in sorted(generate.DIRECTORY.glob("*.json"))}
UNITS = {
    "none", "short", "string", "bool_yes_no", "percentunit", "s", "bytes", "cps", "cpm",
}  # fmt: skip
FIRING = 'ALERTS{alertname=~"StreamGuard.*"}'
"""Prometheus creates this series for the alerts of every job."""
SELECTOR = re.compile(r"\b([a-z_]+)\{([^}]*)\}(\[[^\]]+\])?")
PARTS = ("_bucket", "_sum", "_count")

each = pytest.mark.parametrize("dashboard", DASHBOARDS.values(), ids=list(DASHBOARDS))


def panels(dashboard: Any) -> Iterator[Any]:
    """Panels that are not row headings."""
    return (panel for panel in dashboard["panels"] if panel["type"] != "row")


def targets(dashboard: Any) -> Iterator[tuple[str, str, str]]:
    """(panel, expression, legend)."""
    for panel in panels(dashboard):
        for target in panel.get("targets", []):
            yield panel["title"], target["expr"], target["legendFormat"]


def declared(name: str) -> metrics.Declared | None:
    known = {d.name: d for d in metrics.DECLARED}
    for part in PARTS:
        if (base := known.get(name.removesuffix(part))) and base.kind == "histogram" and name.endswith(part):
            return base
    return known.get(name)


def test_generated_files_are_current() -> None:
    """`python -m grafana.generate` writes the files."""
    made = generate.dashboards()
    assert {path.name for path in generate.DIRECTORY.iterdir()} == made.keys()
    for name, content in made.items():
        assert (generate.DIRECTORY / name).read_text() == content, name


def test_provisioning_matches_the_dashboards() -> None:
    (source,) = yaml.safe_load((GRAFANA / "provisioning/datasources/prometheus.yaml").read_text())[
        "datasources"
    ]
    assert (source["uid"], source["type"], source["editable"]) == (UID, "prometheus", False)
    (provider,) = yaml.safe_load((GRAFANA / "provisioning/dashboards/streamguard.yaml").read_text())[
        "providers"
    ]
    assert provider["options"]["path"] == "/etc/grafana/dashboards"
    scraped = yaml.safe_load((GRAFANA / "prometheus/prometheus.yml").read_text())
    assert source["jsonData"]["timeInterval"] == scraped["global"]["scrape_interval"]
    jobs = {job["job_name"] for job in scraped["scrape_configs"]}
    asked = {
        job
        for d in DASHBOARDS.values()
        for _, e, _ in targets(d)
        for job in re.findall(r'job=~?"([^"$]+)"', e)
    }
    assert asked == {
        "streamguard-(worker|sources)", "streamguard-campaigns", "streamguard-retrain", "streamguard-serve",
    }  # fmt: skip
    assert {"streamguard-worker", "streamguard-sources", *asked} - {"streamguard-(worker|sources)"} <= jobs
    for dashboard in DASHBOARDS.values():
        (variable,) = (v for v in dashboard["templating"]["list"] if v["name"] == "job")
        assert set(variable["current"]["value"]) == {
            job for job in jobs if job.startswith("streamguard-")
        } - {"streamguard-sources"}, "sums over both folds would count events twice"


def test_first_row_shows_the_main_indicators() -> None:
    first = [panel for panel in DASHBOARDS["overview"]["panels"] if panel["gridPos"]["y"] == 0]
    assert [panel["title"] for panel in first] == [
        "Workers ready", "Lag", "Alerted events", "Model", "Model's age", "Last successful retrain",
    ]  # fmt: skip
    assert {panel["type"] for panel in first} == {"stat"} and sum(p["gridPos"]["w"] for p in first) == 24
    coloured = [p["title"] for p in first if len(p["fieldConfig"]["defaults"]["thresholds"]["steps"]) > 1]
    assert coloured == ["Workers ready", "Lag", "Alerted events", "Model's age", "Last successful retrain"]
    for panel in first:
        (unknown,) = (
            m["options"] for m in panel["fieldConfig"]["defaults"]["mappings"] if m["type"] == "special"
        )
        assert unknown["match"] == "null+nan" and unknown["result"]["color"] == "#808080", (
            "green would mean that all is well"
        )


def test_every_metric_is_shown() -> None:
    expressions = [e for d in DASHBOARDS.values() for _, e, _ in targets(d)]
    expressions += [a["expr"] for d in DASHBOARDS.values() for a in d["annotations"]["list"]]
    shown = {name for e in expressions for name, _, _ in SELECTOR.findall(e)}
    described = {found.name for name in shown if (found := declared(name))}
    hidden = {d.name for d in metrics.DECLARED} - described
    # The dashboards show a run's duration, the age of the last successful run, and the model that workers use.
    assert hidden == {
        "streamguard_retrain_since_timestamp_seconds",
        "streamguard_retrain_last_start_timestamp_seconds",
        "streamguard_retrain_last_end_timestamp_seconds",
        "streamguard_retrain_model_published_timestamp_seconds",
    }


@each
def test_dashboard_has_metadata_links_and_annotations(dashboard: Any) -> None:
    name = next(stem for stem, found in DASHBOARDS.items() if found is dashboard)
    assert dashboard["uid"] == f"streamguard-{name}"
    assert dashboard["schemaVersion"] == 41 and dashboard["tags"] == ["streamguard"]
    assert dashboard["editable"] is False and dashboard["refresh"] and dashboard["description"]
    assert [link["tags"] for link in dashboard["links"]] == [["streamguard"]] and dashboard["links"][0][
        "includeVars"
    ]
    annotations = {a["name"]: a for a in dashboard["annotations"]["list"]}
    assert annotations.keys() == {"Model swapped", "Rebalance", "Start"}
    assert all(a["datasource"]["uid"] == "${datasource}" for a in annotations.values())


@each
def test_variables_are_valid_and_used(dashboard: Any) -> None:
    listed = {variable["name"]: variable for variable in dashboard["templating"]["list"]}
    assert list(listed)[:3] == ["datasource", "job", "instance"]
    assert listed["datasource"]["type"] == "datasource" and listed["datasource"]["query"] == "prometheus"
    assert listed["datasource"]["current"]["value"] == UID and listed["datasource"]["label"] == "Data source"
    for name in listed.keys() & {"job", "instance", "partition", "severity"}:
        variable = listed[name]
        assert (variable["type"], variable["label"]) == ("query", name.capitalize())
        assert variable["multi"] and variable["includeAll"] and variable["allValue"] == ".+"
        assert variable["refresh"] == 2, "must be refreshed when the time range changes"
        assert variable["datasource"]["uid"] == "${datasource}"
        assert re.fullmatch(rf"label_values\(.+, {name}\)", variable["query"]["query"])
    text = json.dumps(dashboard["panels"])
    used = {found for pair in re.findall(r"\$(\w+)|\$\{(\w+)\}", text) for found in pair if found}
    builtin = {"__rate_interval", "__range"}
    assert used - builtin == set(listed), "each variable must be defined and used"


@each
def test_panels_are_placed_and_described(dashboard: Any) -> None:
    ids = [panel["id"] for panel in dashboard["panels"]]
    assert len(set(ids)) == len(ids)
    places = [panel["gridPos"] for panel in dashboard["panels"]]
    assert all(p["x"] >= 0 and p["x"] + p["w"] <= 24 for p in places)
    for a, b in combinations(places, 2):
        apart = a["x"] + a["w"] <= b["x"] or b["x"] + b["w"] <= a["x"] or a["y"] + a["h"] <= b["y"]
        assert apart or b["y"] + b["h"] <= a["y"], (a, b)
    for panel in panels(dashboard):
        assert panel["title"] and panel["description"].endswith("."), panel["title"]
        if panel["type"] == "text":
            continue
        assert panel["targets"] and panel["datasource"] == {"type": "prometheus", "uid": "${datasource}"}
        assert all(target["datasource"] == panel["datasource"] for target in panel["targets"])
        field = panel["fieldConfig"]
        units = {p["value"] for o in field["overrides"] for p in o["properties"] if p["id"] == "unit"}
        assert {field["defaults"]["unit"], *units} <= UNITS, panel["title"]


@each
def test_expressions_are_valid(dashboard: Any) -> None:
    annotations = [(a["name"], a["expr"], "") for a in dashboard["annotations"]["list"]]
    for panel, expression, legend in [*targets(dashboard), *annotations]:
        where = (panel, expression)
        if expression == FIRING:
            continue
        selectors = SELECTOR.findall(expression)
        assert selectors, where
        bare = SELECTOR.sub("", expression)
        assert not re.search(r"\b(streamguard|process|python)_", bare), f"no selector: {where}"
        for name, matchers, over in selectors:
            assert 'job=~"$job"' in matchers and 'instance=~"$instance"' in matchers, where
            found = declared(name)
            if not name.startswith(("process_", "python_gc_")) and name != "up":
                assert found is not None, f"{name} is not exported: {where}"
                labels = set(re.findall(r"(\w+)(?:=~|!~|!=|=)", matchers)) - {"job", "instance"}
                assert labels <= found.labels.keys(), where
                for label, value in re.findall(r'(\w+)!?="([^"]*)"', matchers):
                    assert label == "job" or value in found.labels[label], where
            counted = name.endswith("_total") or (found is not None and found.kind == "histogram")
            before = expression[: expression.index(f"{name}{{{matchers}}}{over}")]
            if counted:
                assert before.endswith(("rate(", "increase(")), (
                    f"a counter needs rate() or increase(): {where}"
                )
            if over:
                allowed = (
                    ("[$__rate_interval]",)
                    if before.endswith(" rate(")
                    else ("[$__rate_interval]", "[$__range]")
                )
                assert over in allowed, where
            if name.endswith("_bucket"):
                assert re.search(r"by \(le\b", expression), where
        for label in re.findall(r"\{\{(\w+)\}\}", legend):
            assert label == "le" or re.search(rf"by \([^)]*\b{label}\b", expression), (where, legend)


@each
def test_links_lead_to_existing_pages(dashboard: Any) -> None:
    rules = [
        yaml.safe_load(path.read_text()) for path in sorted((GRAFANA / "prometheus/rules").glob("*.yml"))
    ]
    alerts = {r["alert"].lower() for f in rules for g in f["groups"] for r in g["rules"] if "alert" in r}
    addresses = [link["url"] for panel in panels(dashboard) for link in panel["links"]]
    texts = [panel["options"]["content"] for panel in panels(dashboard) if panel["type"] == "text"]
    addresses += re.findall(r"\]\(([^)]+)\)", "".join(texts))
    assert addresses
    for address in addresses:
        path, _, anchor = address.partition("#")
        if path == "${runbooks}":
            assert anchor in alerts, address
        else:
            assert path.removeprefix("/d/") in {d["uid"] for d in DASHBOARDS.values()}, address
