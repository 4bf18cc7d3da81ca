"""`python -m tests.simulation`: runs seeds, or replays one of them with its trace."""

from __future__ import annotations

import argparse
import sys
import time
from collections import Counter
from concurrent.futures import ProcessPoolExecutor

from tests.simulation.seams import installed
from tests.simulation.simulation import Outcome, simulate

BLOCK = 50
"""Seeds that a process runs at a time."""


SHOWN = 20
"""Number of failures that are printed one by one."""


def run_block(seeds: range) -> tuple[list[Outcome], Counter[str]]:
    """Run seeds; return those that failed, and what all of them covered."""
    failed, covered = [], Counter[str]()
    with installed():
        for seed in seeds:
            outcome = simulate(seed)
            covered += outcome.covered
            if outcome.violations:
                failed.append(outcome)
    return failed, covered


def replay(seed: int, *, trace: bool) -> int:
    """Run one seed, print what happened, and return the exit code."""
    with installed():
        outcome = simulate(seed, trace=trace)
    for line in outcome.trace:
        print(line)
    for line in outcome.violations:
        print(f"seed {seed}: {line}")
    print(f"seed {seed}: {len(outcome.violations)} violations, faults: {', '.join(outcome.faults)}")
    return 1 if outcome.violations else 0


def main(arguments: list[str]) -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.simulation", description=__doc__)
    parser.add_argument("--seed", type=int, help="replay this seed")
    parser.add_argument("--trace", action="store_true", help="print every step of the seed")
    parser.add_argument("--seeds", type=int, default=10_000, help="number of seeds to run")
    parser.add_argument("--first", type=int, default=0, help="first of these seeds")
    parser.add_argument("--fail-fast", action="store_true", help="end at the first seed that fails")
    parser.add_argument("--processes", type=int, default=2)
    options = parser.parse_args(arguments)
    if options.seed is not None:
        return replay(options.seed, trace=options.trace)
    end = options.first + options.seeds
    blocks = [range(at, min(at + BLOCK, end)) for at in range(options.first, end, BLOCK)]
    started, failures, covered = time.monotonic(), 0, Counter[str]()
    with ProcessPoolExecutor(options.processes) as pool:
        for block, (failed, happened) in zip(blocks, pool.map(run_block, blocks), strict=True):
            covered += happened
            for outcome in failed:
                failures += 1
                if failures <= SHOWN:
                    print(f"seed {outcome.seed}: {outcome.violations[0]}", flush=True)
            if failures and options.fail_fast:
                pool.shutdown(cancel_futures=True)
                return 1
            if sys.stderr.isatty():
                rate = (block.stop - options.first) / (time.monotonic() - started)
                print(f"\r{block.stop - options.first:,} seeds, {rate:.0f}/s ", end="", file=sys.stderr)
    seconds = time.monotonic() - started
    for name, count in sorted(covered.items()):
        print(f"{count:11,}  {name}")
    print(
        f"{options.seeds:,} seeds in {seconds:.0f} s ({options.seeds / seconds:.0f}/s), {failures:,} failed"
    )
    if failures:
        print("replay one with: python -m tests.simulation --seed N --trace")
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
