"""`python -m deploy.kubernetes.generate` writes Kubernetes resources from the files of Prometheus and Grafana."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

GRAFANA = Path(__file__).parents[2] / "grafana"
COMPONENTS = Path(__file__).with_name("components")
_LABELS = {"app.kubernetes.io/name": "streamguard"}


def resources() -> Mapping[Path, str]:
    """Path and YAML of each file."""
    return {
        COMPONENTS / "monitoring" / "prometheus-rule.yaml": _text("grafana/prometheus/rules", [_rule()]),
        COMPONENTS / "dashboards" / "dashboards.yaml": _text("grafana/dashboards", _dashboards()),
    }


def _rule() -> dict[str, Any]:
    """Resource with the groups of all rule files, in the order of the file names."""
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
    """One ConfigMap for each dashboard, with the label that the sidecar of Grafana's chart selects."""
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
    """Dumper that keeps multi-line texts readable."""


_Dumper.add_representer(
    str,
    lambda dumper, text: dumper.represent_scalar(
        "tag:yaml.org,2002:str", text, style="|" if "\n" in text else None
    ),
)


def _text(origin: str, documents: list[dict[str, Any]]) -> str:
    head = f"# Generated from {origin} by deploy/kubernetes/generate.py: edit the source instead.\n"
    body: str = yaml.dump_all(documents, Dumper=_Dumper, sort_keys=False, allow_unicode=True, width=120)
    return head + body


def main() -> None:
    """Write all files."""
    for path, text in resources().items():
        path.write_text(text)


if __name__ == "__main__":
    main()
