"""Every figure that StreamGuard promises, measured on this machine: `python -m bench [NAME...]`."""

from __future__ import annotations

import argparse
import importlib
import os
import platform
import sys
import time
from pathlib import Path

import msgspec

from bench.figures import Figure, table

NAMES = (
    "forest", "single", "metrics", "users", "startup", "backlog", "latency", "swap", "memory", "batch", "detection",
)  # fmt: skip
"""Modules here with a function `measure(*, quick)`; those that measure in this process come first."""


def title(name: str) -> str:
    """What a bench measures: the first line of its module."""
    return (importlib.import_module(f"bench.{name}").__doc__ or "").splitlines()[0]


def run(name: str, *, quick: bool) -> list[Figure]:
    """The figures of one bench."""
    figures: list[Figure] = importlib.import_module(f"bench.{name}").measure(quick=quick)
    return figures


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m bench", description=__doc__)
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"{', '.join(NAMES)}; all, if none is given")
    parser.add_argument("--quick", action="store_true", help="small and inexact: to see that all of it runs")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures there, too")
    parser.add_argument(
        "--data", type=Path, action="append", default=[], metavar="FILE",
        help="measure detection on a labelled file as `streamguard evaluate` does; may be repeated",
    )  # fmt: skip
    options = parser.parse_args()
    if unknown := set(options.names) - set(NAMES):
        parser.error(f"no bench is called {', '.join(sorted(unknown))}: choose among {', '.join(NAMES)}")
    names = options.names or ([] if options.data else NAMES)
    machine = f"{platform.machine()}, {os.cpu_count()} cores, Python {platform.python_version()}"
    print(f"{machine}, load {os.getloadavg()[0]:.1f}", flush=True)
    results: dict[str, list[Figure]] = {}

    def report(name: str, headline: str, figures: list[Figure], seconds: float) -> None:
        results[name] = figures
        print(f"\n{name}: {headline} ({seconds:.0f} s)\n{table(figures)}", flush=True)

    for name in names:
        begun = time.monotonic()
        report(name, title(name), run(name, quick=options.quick), time.monotonic() - begun)
    for path in options.data:
        from bench.detection import labelled

        begun = time.monotonic()
        report(str(path), "`streamguard evaluate` on it.", labelled(path), time.monotonic() - begun)
    if options.json:
        options.json.write_bytes(msgspec.json.encode({"machine": machine, "figures": results}))
    missed = [figure for figures in results.values() for figure in figures if figure.met is False]
    if missed:
        print(f"\n{len(missed)} missed: " + "; ".join(figure.what for figure in missed))
    return 1 if missed and not options.quick else 0


if __name__ == "__main__":
    sys.exit(main())
