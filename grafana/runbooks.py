"""Where runbooks are read: `python -m grafana.runbooks URL` says so to alerts and dashboards alike."""

from __future__ import annotations

import argparse
import re

from deploy.kubernetes import generate as kubernetes
from grafana import generate

HERE = "docs/runbooks.md"


def address(text: str) -> str:
    """What a link can begin with."""
    if text != HERE and not re.fullmatch(r"https?://[^\s#/]+(/[^\s#]*)?", text):
        raise argparse.ArgumentTypeError(f"{text!r} is neither http(s)://HOST/PATH without a # nor {HERE}")
    return text


def main() -> None:
    """Change the rules and their tests, then all that is made from them."""
    parser = argparse.ArgumentParser(prog="python -m grafana.runbooks", description=__doc__)
    parser.add_argument(
        "url",
        type=address,
        help="where your people read docs/runbooks.md, or the page that `make docs` makes of it; before the # of an "
        f"alert's section. {HERE} goes back. Tracked files are changed: commit them to your own branch",
    )
    url = parser.parse_args().url
    for path in [*generate.PROMETHEUS.glob("rules/*.yml"), *generate.PROMETHEUS.glob("tests/*.yml")]:
        path.write_text(generate.RUNBOOK.sub(lambda _: url, path.read_text()))
    generate.main()
    kubernetes.main()
    print(f"rules, their tests, dashboards and deploy/kubernetes link to {url}")


if __name__ == "__main__":
    main()
