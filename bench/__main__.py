"""Measures every figure that StreamGuard promises on this machine: `python -m bench [NAME...]`."""

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
from streamguard.text import counted

NAMES = (
    "forest", "single", "metrics", "users", "startup", "backlog", "latency", "swap", "memory", "fuzz", "batch",
    "retrain_users", "serving", "serving_cost", "detection", "situations", "analyst",
)  # fmt: skip
"""Modules of this package with a function `measure(*, quick)`; those that measure in this process come first."""


def title(name: str) -> str:
    """What a benchmark measures: the first line of its module's docstring."""
    return (importlib.import_module(f"bench.{name}").__doc__ or "").splitlines()[0]


def run(name: str, *, quick: bool) -> list[Figure]:
    """Measure the figures of one benchmark."""
    figures: list[Figure] = importlib.import_module(f"bench.{name}").measure(quick=quick)
    return figures


def main() -> int:
    """Run the chosen benchmarks; return 1 if a figure misses its limit, except with --quick."""
    parser = argparse.ArgumentParser(prog="python -m bench", description=__doc__)
    parser.add_argument(
        "names",
        nargs="*",
        metavar="NAME",
        help=f"Benchmarks to run: {', '.join(NAMES)}. Without a NAME all of them run.",
    )
    parser.add_argument(
        "--quick",
        action="store_true",
        help="Run small and inexact versions, to check that all benchmarks run.",
    )
    parser.add_argument("--json", type=Path, metavar="FILE", help="File to write the figures to, as JSON.")
    parser.add_argument(
        "--data", type=Path, action="append", default=[], metavar="FILE",
        help="Labelled file to measure detection on, as `streamguard evaluate` does. Repeat it for several files.",
    )  # fmt: skip
    options = parser.parse_args()
    if unknown := set(options.names) - set(NAMES):
        parser.error(f"there is no benchmark {', '.join(sorted(unknown))}: choose from {', '.join(NAMES)}")
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
        report(str(path), "result of `streamguard evaluate`.", labelled(path), time.monotonic() - begun)
    if options.json:
        options.json.write_bytes(msgspec.json.encode({"machine": machine, "figures": results}))
    missed = [figure for figures in results.values() for figure in figures if figure.met is False]
    if missed:
        print(f"\n{counted(len(missed), 'figure')} missed: " + "; ".join(figure.what for figure in missed))
    return 1 if missed and not options.quick else 0


if __name__ == "__main__":
    sys.exit(main())
