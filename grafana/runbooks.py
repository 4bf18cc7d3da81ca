"""`python -m grafana.runbooks URL` sets the address of the runbooks in alerts and dashboards."""

from __future__ import annotations

import argparse
import re

from deploy.kubernetes import generate as kubernetes
from grafana import generate

HERE = "docs/runbooks.md"


def address(text: str) -> str:
    """Check that a text can be the beginning of a link."""
    if text != HERE and not re.fullmatch(r"https?://[^\s#/]+(/[^\s#]*)?", text):
        raise argparse.ArgumentTypeError(
            f"{text!r} is not a valid address: use http(s)://HOST/PATH without a #, or {HERE}"
        )
    return text


def main() -> None:
    """Change the address in the rules and their tests, then regenerate dashboards and Kubernetes resources."""
    parser = argparse.ArgumentParser(prog="python -m grafana.runbooks", description=__doc__)
    parser.add_argument(
        "url",
        type=address,
        help="address of docs/runbooks.md, or of the page that `make docs` builds from it, without the # of an alert's "
        f"section; {HERE} restores the default. This changes tracked files: commit them to your own branch",
    )
    url = parser.parse_args().url
    for path in [*generate.PROMETHEUS.glob("rules/*.yml"), *generate.PROMETHEUS.glob("tests/*.yml")]:
        path.write_text(generate.RUNBOOK.sub(lambda _: url, path.read_text()))
    generate.main()
    kubernetes.main()
    print(f"rules, their tests, dashboards and deploy/kubernetes now link to {url}")


if __name__ == "__main__":
    main()
