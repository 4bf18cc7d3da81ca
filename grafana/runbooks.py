"""Where runbooks are read: `python -m grafana.runbooks URL` says so to alerts and dashboards alike.

URL is what is before the `#` of an alert's section: where your people read docs/runbooks.md, or the page that
`make docs` makes of it.
"""

from __future__ import annotations

import re
import sys
from pathlib import Path

PROMETHEUS = Path(__file__).parent / "prometheus"
_LINK = re.compile(r"(?<=runbook_url: )[^\s#]+(?=#)")


def address() -> str:
    """What the rules say; they all say the same."""
    (found,) = {
        link for path in (PROMETHEUS / "rules").glob("*.yml") for link in _LINK.findall(path.read_text())
    }
    return found


def main() -> None:
    """Change the rules, then all that is made from them."""
    if len(sys.argv) != 2 or not re.fullmatch(r"[^\s#]+", sys.argv[1]):
        sys.exit("usage: python -m grafana.runbooks URL")
    for path in [*PROMETHEUS.glob("rules/*.yml"), *PROMETHEUS.glob("tests/*.yml")]:
        path.write_text(_LINK.sub(lambda _: sys.argv[1], path.read_text()))
    from deploy.kubernetes import generate as kubernetes
    from grafana import generate

    generate.main()
    kubernetes.main()


if __name__ == "__main__":
    main()
