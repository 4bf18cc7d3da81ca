"""Where runbooks are read: `python -m grafana.runbooks URL` says so to alerts and dashboards alike.

URL is what is before the `#` of an alert's section: where your people read docs/runbooks.md, or the page that
`make docs` makes of it.
"""

from __future__ import annotations

import re
import sys

from deploy.kubernetes import generate as kubernetes
from grafana import generate


def main() -> None:
    """Change the rules and their tests, then all that is made from them."""
    if len(sys.argv) != 2 or not re.fullmatch(r"[^\s#]+", sys.argv[1]):
        sys.exit("usage: python -m grafana.runbooks URL")
    for path in [*generate.PROMETHEUS.glob("rules/*.yml"), *generate.PROMETHEUS.glob("tests/*.yml")]:
        path.write_text(generate.RUNBOOK.sub(lambda _: sys.argv[1], path.read_text()))
    generate.main()
    kubernetes.main()


if __name__ == "__main__":
    main()
