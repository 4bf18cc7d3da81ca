"""`python -m deploy.kubernetes.generate`: resources made from the files that Prometheus and Grafana read elsewhere."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

GRAFANA = Path(__file__).parents[2] / "grafana"
COMPONENTS = Path(__file__).with_name("components")
_LABELS = {"app.kubernetes.io/name": "streamguard"}


def resources() -> Mapping[Path, str]:
    """File -> YAML."""
    return {
        COMPONENTS / "monitoring" / "prometheus-rule.yaml": _text("grafana/prometheus/rules", [_rule()]),
        COMPONENTS / "dashboards" / "dashboards.yaml": _text("grafana/dashboards", _dashboards()),
    }


def _rule() -> dict[str, Any]:
    """The groups of all rule files, by the files' names."""
    groups = [
        group
        for path in sorted((GRAFANA / "prometheus" / "rules").glob("*.yml"))
        for group in yaml.safe_load(path.read_text())["groups"]
    ]
    return {
        "apiVersion": "monitoring.coreos.com/v1",
        "kind": "PrometheusRule",
        "metadata": {"name": "streamguard", "labels": _LABELS},
        "spec": {"groups": groups},
    }


def _dashboards() -> list[dict[str, Any]]:
    """One ConfigMap each, with the label that the sidecar of Grafana's chart looks for."""
    return [
        {
            "apiVersion": "v1",
            "kind": "ConfigMap",
            "metadata": {
                "name": f"streamguard-dashboard-{path.stem}",
                "labels": {**_LABELS, "grafana_dashboard": "1"},
            },
            "data": {f"streamguard-{path.name}": path.read_text()},
        }
        for path in sorted((GRAFANA / "dashboards").glob("*.json"))
    ]


class _Dumper(yaml.SafeDumper):
    """Texts of many lines stay readable."""


_Dumper.add_representer(
    str,
    lambda dumper, text: dumper.represent_scalar(
        "tag:yaml.org,2002:str", text, style="|" if "\n" in text else None
    ),
)


def _text(origin: str, documents: list[dict[str, Any]]) -> str:
    head = f"# Made by deploy/kubernetes/generate.py from {origin}: change those.\n"
    body: str = yaml.dump_all(documents, Dumper=_Dumper, sort_keys=False, allow_unicode=True, width=120)
    return head + body


def main() -> None:
    """Write every file."""
    for path, text in resources().items():
        path.write_text(text)


if __name__ == "__main__":
    main()
