"""`python -m tests.simulation.mutants`: breaks lines of the worker one by one, and counts the seeds until one fails."""

from __future__ import annotations

import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).parents[2]
SEEDS = 1500


class Mutant(NamedTuple):
    """A fault in the product: in a file below `agents`, `old` is replaced by `new`."""

    name: str
    file: str
    old: str
    new: str


MUTANTS = (
    Mutant(
        "a checkpoint does not wait for its incidents",
        "task/checkpoint.py",
        "                await future",
        "                pass",
    ),
    Mutant(
        "values of a snapshot that is being saved are read from the store",
        "task/checkpoint.py",
        "        if self._saving:",
        "        if False:",
    ),
    Mutant(
        "the position of a checkpoint skips the next one",
        "task/checkpoint.py",
        "ChangelogPosition.at(position,",
        "ChangelogPosition.at(position + 2,",
    ),
    Mutant(
        "a profile that has changed since is deleted as aged out",
        "task/sweep.py",
        "last < limit and key not in changed",
        "last < limit",
    ),
    Mutant(
        "profiles are deleted before they have aged out",
        "task/sweep.py",
        "limit = self._state.expired_before",
        "limit = self._state.expired_before + 3",
    ),
    Mutant(
        "a worker does not fence the one before it",
        "task/changelog.py",
        'transactional_id=f"{app_id}-{partition}"',
        'transactional_id=f"{app_id}-{id(brokers)}-{partition}"',
    ),
    Mutant(
        "a changelog that was created again is not noticed by its offsets",
        "task/changelog.py",
        "            if acknowledged[0][0] < self.end:",
        "            if False:",
    ),
    Mutant(
        "the changelog is read with uncommitted records",
        "task/changelog.py",
        '            isolation_level="read_committed",',
        '            isolation_level="read_uncommitted",',
    ),
    Mutant(
        "the last stable offset is taken for the high watermark",
        "task/changelog.py",
        "await self._watermarks.end_offsets([tp])",
        "await self._consumer.end_offsets([tp])",
    ),
    Mutant(
        "the identity of the changelog is not compared",
        "task/compatibility.py",
        "    if stored.changelog_id != identity.changelog_id:",
        "    if False:",
    ),
    Mutant(
        "the id of the events topic is not compared",
        "task/compatibility.py",
        "    if stored is not None and stored != source:",
        "    if False:",
    ),
    Mutant(
        "a lost changelog counts as a first start",
        "task/compatibility.py",
        "    if committed:",
        "    if False:",
    ),
    Mutant(
        "a copy that misses deleted records of the changelog is continued",
        "task/compatibility.py",
        "and bounds.start <= local.position <= bounds.end",
        "and local.position <= bounds.end",
    ),
    Mutant(
        "a changelog without its beginning counts as complete",
        "task/compatibility.py",
        "    if bounds.start > saved.complete_from:",
        "    if False:",
    ),
    Mutant(
        "events that expired unread are not noticed",
        "task/compatibility.py",
        "    if bounds.start > next_offset:",
        "    if False:",
    ),
    Mutant(
        "a copy of another partition is used",
        "task/local_copy.py",
        "if found is not None and (found.app_id, found.partition) != (identity.app_id, identity.partition):",
        "if False:",
    ),
    Mutant(
        "a copy that may have missed a deletion is used",
        "task/local_copy.py",
        "elif local is not None and not -_CLOCK_MS <= now_ms() - local.complete_ms <= COPY_MS:",
        "elif False:",
    ),
    Mutant(
        "the ids of the topics are never asked again",
        "task/topic_watch.py",
        "        if not self._doubt.is_set() and not self._asking.locked():\n            return",
        "        return",
    ),
    Mutant(
        "a pause of the process raises no doubt",
        "task/topic_watch.py",
        "PAUSE_SECONDS = 0.2",
        "PAUSE_SECONDS = 1e9",
    ),
    Mutant(
        "the offset of a checkpoint is that of its end",
        "task/partition_task.py",
        "                self.checkpointed_offset = reached",
        "                self.checkpointed_offset = self.processed_offset",
    ),
    Mutant(
        "the state is cleaned after the checkpoint",
        "task/partition_task.py",
        "                self.state.clean()\n"
        "                await self._checkpointer.save(changes, published, forwarded)",
        "                await self._checkpointer.save(changes, published, forwarded)\n"
        "                self.state.clean()",
    ),
    Mutant(
        "a partition starts one offset too late",
        "task/partition_task.py",
        "        self.processed_offset = self.fetched_offset = start",
        "        self.processed_offset = self.fetched_offset = start + 1",
    ),
    Mutant(
        "forwarded records have a transaction of their own",
        "task/changelog.py",
        "            others = [await self._forward(batch) for batch in forwarded]",
        "            await self._producer.commit_transaction()\n"
        "            await self._producer.begin_transaction()\n"
        "            others = [await self._forward(batch) for batch in forwarded]",
    ),
    Mutant(
        "what a checkpoint has forwarded is forwarded by the next one, too",
        "output/forwarding.py",
        "held, self._held, self.size = self._held, defaultdict(list), 0",
        "held = dict(self._held)",
    ),
    Mutant(
        "a changelog whose beginning was deleted is not repaired",
        "task/restore.py",
        "    if bounds.start <= int(found or 0):",
        "    if True:",
    ),
    Mutant(
        "a failed publication is ignored",
        "output/publisher.py",
        "        except Exception as error:  # noqa: BLE001 - after any failure the checkpoint must not follow\n"
        "            end(error)",
        "        except Exception:\n            pass",
    ),
)


def seeds_until_caught(mutant: Mutant, directory: Path) -> int | None:
    """Number of seeds until the simulation of a broken copy fails; None if it does not."""
    for name in ("agents", "batch", "streamguard", "tests"):
        shutil.copytree(ROOT / name, directory / name, symlinks=True)
    file = directory / "agents" / mutant.file
    source = file.read_text()
    assert source.count(mutant.old) == 1, f"{mutant.file} has no single {mutant.old!r}"
    file.write_text(source.replace(mutant.old, mutant.new))
    run = subprocess.run(
        [sys.executable, "-m", "tests.simulation", "--seeds", str(SEEDS), "--processes", "1", "--fail-fast"],
        cwd=directory,
        capture_output=True,
        text=True,
    )
    if run.returncode == 0:
        return None
    line = next((line for line in run.stdout.splitlines() if line.startswith("seed ")), None)
    if line is None:
        raise RuntimeError(run.stderr)
    print(f"    {line[:200]}", flush=True)
    return int(line.split(":")[0].removeprefix("seed ")) + 1


def main(selected: list[str]) -> int:
    caught, missed = 0, 0
    for mutant in MUTANTS:
        if selected and not any(word in mutant.name for word in selected):
            continue
        with tempfile.TemporaryDirectory() as directory:
            seeds = seeds_until_caught(mutant, Path(directory))
        caught, missed = caught + (seeds is not None), missed + (seeds is None)
        print(f"{'MISSED' if seeds is None else f'seed {seeds - 1:6,}'}  {mutant.name}", flush=True)
    print(f"{caught} caught, {missed} missed")
    return 1 if missed else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
