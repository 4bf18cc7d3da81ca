"""Alert rules, runbooks and the Alertmanager configuration match each other and the declared metrics."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from grafana.generate import runbooks
from streamguard.metrics import DECLARED

ROOT = Path(__file__).parents[2]
PROMETHEUS = ROOT / "grafana" / "prometheus"
RULES = sorted((PROMETHEUS / "rules").glob("*.yml"))
TESTS = sorted((PROMETHEUS / "tests").glob("*.yml"))
ALERTMANAGER = ROOT / "grafana" / "alertmanager" / "alertmanager.yml"
RUNBOOKS = ROOT / "docs" / "runbooks.md"
FROM_ELSEWHERE = {
    "up", "scrape_duration_seconds", "process_start_time_seconds",
    "alertmanager_notifications_failed_total", "prometheus_notifications_dropped_total",
}  # fmt: skip
"""Series of Prometheus, of Alertmanager, and of the process collector of the client library."""
LEVELS = {"critical", "warning", "info"}


def rules() -> list[dict[str, Any]]:
    groups = [group for path in RULES for group in yaml.safe_load(path.read_text())["groups"]]
    return [rule for group in groups for rule in group["rules"]]


ALERTS = {rule["alert"]: rule for rule in rules() if "alert" in rule}
RECORDED = {rule["record"] for rule in rules() if "record" in rule}


def texts(rule: dict[str, Any]) -> list[str]:
    """The expression of a rule and the queries in its annotations."""
    asked = [re.findall(r'(?:printf|query) "([^"]*)"', text) for text in rule.get("annotations", {}).values()]
    return [rule["expr"], *(text for found in asked for text in found)]


def used(expression: str) -> set[str]:
    """Names of series in an expression."""
    bare = re.sub(r"\{[^}]*\}|\b(?:by|on|without|ignoring) \([^)]*\)", "", expression)
    names = set(re.findall(r"[a-zA-Z_][\w:]*", re.sub(r"\[[^\]]*\]|offset \w+", "", bare)))
    return {
        name for name in names if ":" in name or name.startswith("streamguard_") or name in FROM_ELSEWHERE
    }


def declared() -> dict[str, set[str]]:
    """Labels of each series, by its name in Prometheus."""
    found: dict[str, set[str]] = {}
    for metric in DECLARED:
        names = [metric.name]
        if metric.kind == "histogram":
            names = [f"{metric.name}{suffix}" for suffix in ("_bucket", "_count", "_sum")]
        for name in names:
            found.setdefault(name, set()).update(metric.labels)
    return found


def run(*command: str) -> None:
    done = subprocess.run(command, capture_output=True, text=True, cwd=PROMETHEUS)
    assert done.returncode == 0, done.stdout + done.stderr


def test_promtool_accepts_configuration_and_rules() -> None:
    run("promtool", "check", "config", "prometheus.yml")
    run("promtool", "check", "rules", *map(str, RULES))


@pytest.mark.parametrize("path", TESTS, ids=lambda path: path.stem)
def test_alerts_fire_and_stay_quiet_as_expected(path: Path) -> None:
    run("promtool", "test", "rules", str(path))


def test_amtool_accepts_the_alertmanager_configuration() -> None:
    run("amtool", "check-config", str(ALERTMANAGER))


def test_each_alert_is_tested_both_firing_and_quiet() -> None:
    fires, quiet = set(), set()
    for path in TESTS:
        for test in yaml.safe_load(path.read_text())["tests"]:
            for case in test["alert_rule_test"]:
                expected = case.get("exp_alerts", [])
                (fires if expected else quiet).add(case["alertname"])
    assert fires == quiet == ALERTS.keys()


@pytest.mark.parametrize("name", ALERTS)
def test_alert_has_severity_annotations_and_runbook(name: str) -> None:
    rule = ALERTS[name]
    assert re.fullmatch(r"StreamGuard[A-Z]\w+", name)
    assert rule["labels"]["severity"] in LEVELS
    assert rule["annotations"].keys() == {"summary", "description", "runbook_url"}
    assert rule["annotations"]["runbook_url"] == f"{runbooks()}#{name.lower()}"


def test_every_used_series_is_declared_and_every_recorded_series_is_used() -> None:
    known = declared().keys() | RECORDED | FROM_ELSEWHERE
    asked = {name for rule in rules() for text in texts(rule) for name in used(text)}
    assert asked - known == set()
    assert RECORDED - asked == set()
    assert {"streamguard_lag_seconds", "streamguard_retrain_running", "up"} <= asked


def test_every_label_in_a_selector_exists() -> None:
    labels = declared()
    for rule in rules():
        for text in texts(rule):
            for name, selector in re.findall(r"(streamguard_\w+)\{([^}]*)\}", text):
                named = set(re.findall(r"(\w+)\s*[=!]~?", selector))
                assert named <= labels[name] | {"job", "instance", "namespace"}, (name, named)


def test_each_alert_has_a_runbook_and_each_runbook_an_alert() -> None:
    pages = dict(re.findall(r"^### (\w+)\n(.*?)(?=^##|\Z)", RUNBOOKS.read_text(), re.MULTILINE | re.DOTALL))
    assert pages.keys() == ALERTS.keys()
    for name, page in pages.items():
        assert re.findall(r"^\*\*(\w+)\.\*\*", page, re.MULTILINE) == [
            "Meaning",
            "Diagnosis",
            "Mitigation",
            "Recovery",
        ], name
        for other in re.findall(r"StreamGuard[A-Z]\w+", page):
            assert other in ALERTS, (name, other)
        for metric in re.findall(r"\b(?:streamguard_\w+|job:streamguard_[\w:]+)", page):
            series = declared().keys() | {metric.name for metric in DECLARED} | RECORDED
            assert metric in series, (name, metric)


def test_inhibitions_refer_to_existing_alerts() -> None:
    config = yaml.safe_load(ALERTMANAGER.read_text())
    for inhibition in config["inhibit_rules"]:
        for matcher in [*inhibition["source_matchers"], *inhibition["target_matchers"]]:
            name, regular, pattern = re.fullmatch(r'(\w+)=(~?)"(.*)"', matcher).groups()  # type: ignore[union-attr]
            assert name == "alertname"
            branches = re.search(r"\(([^)]*)\)", pattern) if regular else None
            wanted = (
                {pattern.replace(branches[0], branch) for branch in branches[1].split("|")}
                if branches
                else {pattern}
            )
            assert wanted <= ALERTS.keys(), wanted - ALERTS.keys()


def test_every_severity_has_a_receiver() -> None:
    config = yaml.safe_load(ALERTMANAGER.read_text())
    receivers = {receiver["name"] for receiver in config["receivers"]}
    routes = {route["matchers"][0]: route["receiver"] for route in config["route"]["routes"]}
    assert config["route"]["receiver"] in receivers
    assert set(routes.values()) <= receivers
    assert set(routes) | {'severity="warning"'} == {f'severity="{level}"' for level in LEVELS}
