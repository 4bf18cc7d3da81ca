"""Three brokers that die, freeze and restart: `python -m bench.brokers --faults 30` exits with 0 if all is exact.

Before each fault events are written, and after it the worker has to catch up; it is started again after the exit codes
that ask for it. The final state is compared, to the bit, with a fold of the topic from scratch.
"""

from __future__ import annotations

import argparse
import random
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

from streamguard.errors import ExitCode
from tests.cluster import GROUPS, NODES, TRANSACTIONS, LocalCluster
from tests.harness import Site, WorkerProcess, events, eventually

FAULTS = (
    "leader killed",
    "transaction coordinator killed",
    "leader frozen",
    "group coordinator killed",
    "node restarted",
    "transaction coordinator frozen",
    "worker killed",
)
RESTARTED = {ExitCode.UNAVAILABLE, ExitCode.TEMPORARY, -9}
PARTITIONS = 3


class Drill:
    """One run.

    Parameters
    ----------
    cluster
        The brokers.
    site
        Topics and workers.
    seed
        Seed of the faults.
    """

    def __init__(self, cluster: LocalCluster, site: Site, seed: int) -> None:
        self.cluster = cluster
        self.site = site
        self.done: Counter[str] = Counter()
        self._random = random.Random(seed)
        self._made = 0
        self._topics = site.names["events"], site.names["changelog"]
        self._worker: WorkerProcess | None = None

    def run(self, faults: int) -> list[str]:
        """Run this many faults; return the differences from the expected result."""
        self.produce(600)
        self.catch_up()
        for number in range(faults):
            fault = FAULTS[number % len(FAULTS)]
            self.done[fault] += 1
            print(f"{number + 1:>3} of {faults}: {fault}", flush=True)
            self.inject(fault)
        self.catch_up()
        assert self._worker is not None
        code = self._worker.terminate()
        return ([f"the worker exited with {code}"] if code else []) + self.site.differences()

    def inject(self, fault: str) -> None:
        """Cause one fault, catch up during it, and repair it."""
        if fault == "worker killed":
            assert self._worker is not None
            self._worker.kill()
            self.produce(300)
            self.catch_up()
            return
        who, _, what = fault.rpartition(" ")
        node = self.choose(who)
        if what == "frozen":
            self.cluster.freeze(node)
        elif what == "killed":
            self.cluster.nodes[node].kill()
        else:
            self.cluster.nodes[node].stop()
        self.produce(300)
        self.catch_up()
        if what == "frozen":
            self.cluster.thaw(node)
        else:
            self.cluster.nodes[node].start(180)
        self.cluster.await_in_sync(*self._topics, GROUPS, TRANSACTIONS)

    def choose(self, who: str) -> int:
        """The node with a role for a random partition."""
        app_id, partition = self.site.settings.worker.app_id, self._random.randrange(PARTITIONS)
        if who == "group coordinator":
            return self.cluster.coordinator(GROUPS, app_id)
        if who == "transaction coordinator":
            return self.cluster.coordinator(TRANSACTIONS, f"{app_id}-{partition}")
        if who == "leader":
            return self.cluster.leader(self._random.choice(self._topics), partition)
        return self._random.choice(NODES)

    def produce(self, count: int) -> None:
        """Write events."""
        self.site.produce(events(count, PARTITIONS, seed=self._made, start=self._made))
        self._made += count

    def catch_up(self) -> None:
        """Wait until all events are in checkpoints, and start the worker where it does not run."""
        goal = self.site.ends()

        def caught_up() -> bool:
            if self._worker is None or not self._worker.alive:
                code = None if self._worker is None else self._worker.process.returncode
                assert code is None or code in RESTARTED, f"the worker exited with {code}"
                self._worker = self.site.start()
            return self.site.committed() == goal

        eventually("all events are in checkpoints", caught_up, 300)


def main() -> int:
    """Run the drill, and return 0 if the result is exact."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--faults", type=int, default=30, help="Number of faults.")
    parser.add_argument("--seed", type=int, default=int(time.time()), help="Seed; the time by default.")
    options = parser.parse_args()
    print(f"seed {options.seed}")
    with tempfile.TemporaryDirectory(prefix="streamguard-brokers-") as directory, LocalCluster() as cluster:
        site = Site(
            cluster.bootstrap_servers,
            Path(directory),
            partitions=PARTITIONS,
            replication_factor=len(NODES),
            session_timeout_seconds=10.0,
        )
        drill = Drill(cluster, site, options.seed)
        try:
            wrong = drill.run(options.faults)
        finally:
            site.close()
    for fault, count in sorted(drill.done.items()):
        print(f"  {fault:<32}{count:>6}")
    for line in wrong:
        print(f"WRONG: {line}")
    print("EXACT" if not wrong else "NOT EXACT")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
