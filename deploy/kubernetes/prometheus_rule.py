"""`python deploy/kubernetes/prometheus_rule.py`: makes the PrometheusRule from the rule files that Prometheus reads."""

from __future__ import annotations

from pathlib import Path

import yaml

ROOT = Path(__file__).parents[2]
RULES = ROOT / "grafana" / "prometheus" / "rules"
RESOURCE = Path(__file__).with_name("components") / "monitoring" / "prometheus-rule.yaml"
HEAD = "# Made by deploy/kubernetes/prometheus_rule.py from grafana/prometheus/rules: change those.\n"


def resource() -> str:
    """The PrometheusRule as YAML, with the groups of all rule files, by the files' names."""
    groups = [
        group for path in sorted(RULES.glob("*.yml")) for group in yaml.safe_load(path.read_text())["groups"]
    ]
    body = {
        "apiVersion": "monitoring.coreos.com/v1",
        "kind": "PrometheusRule",
        "metadata": {"name": "streamguard", "labels": {"app.kubernetes.io/name": "streamguard"}},
        "spec": {"groups": groups},
    }
    text: str = yaml.safe_dump(body, sort_keys=False, allow_unicode=True, width=120)
    return HEAD + text


if __name__ == "__main__":
    RESOURCE.write_text(resource())
