"""Checks for `streamguard doctor` whether a worker would start with the changelog, copies and topics as they are.

The functions that decide are those of a worker. What a worker repairs by itself is not reported.
"""

from __future__ import annotations

import asyncio
import fcntl
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import msgspec
from aiokafka.errors import KafkaError

from streamguard.agents.errors import RefusedError
from streamguard.agents.task import compatibility
from streamguard.agents.task.changelog import CommittedReader
from streamguard.agents.task.compatibility import Bounds, OpenTransactionError, SavedState
from streamguard.agents.task.identity import Topics
from streamguard.cli.doctor.finding import Finding, fail, ok, warn
from streamguard.errors import StreamGuardError, TemporaryError
from streamguard.events.hashing import UNKEYED
from streamguard.kafka import topics
from streamguard.kafka.connection import Brokers
from streamguard.settings.schema import Settings
from streamguard.state.identity import StateIdentity, TopicIdentity
from streamguard.state.partition import HASH_KEY, META
from streamguard.state.store import COMPLETE_KEY, LOCAL, ChangelogPosition
from streamguard.text import counted

READ_SECONDS = 20.0
"""How long changelogs are read; large ones take longer, and what is left is not compared."""

_REMEDIES = re.compile(r"; (?=to start over|restore it|set kafka)|: (?=start the worker)|\. (?=If )")
"""Where the remedies begin in a worker's messages."""

NEW_KEY = (
    "to get a random key, set another worker.app_id, run `streamguard topics create` and start the workers: they learn "
    "again from the first event that Kafka still has. See docs/security.md"
)


class Saved(NamedTuple):
    """What one partition of the changelog contains of the last checkpoint."""

    bounds: Bounds
    state: SavedState
    next_offset: int | None
    source: TopicIdentity | None
    keyed: bool


def state(settings: Settings, cluster: Any, committed: dict[int, int]) -> Iterator[Finding]:
    """Compare the changelog, the local copies and the events topic of each partition, as a worker does at its start.

    Parameters
    ----------
    settings
        Brokers, data directory and application id.
    cluster
        Kafka's description of the topics.
    committed
        Offsets that the group has committed.
    """
    names = topics.names(settings)
    if not {names["events"], names["changelog"]} <= set(cluster.topics):
        yield ok("state", "not compared: a topic does not exist yet")
        return
    try:
        yield from asyncio.run(
            _compared(settings, sorted(cluster.topics[names["events"]].partitions), committed)
        )
    except topics.TopicsMismatchError:
        yield ok("state", "not compared: a topic differs from the settings, see `topics`")
    except KafkaError as error:
        remedy = "if the client is not authorized, see `permissions`; otherwise read the brokers' logs"
        yield fail("state", f"Kafka rejected the request: {error}", remedy)


async def _compared(settings: Settings, partitions: list[int], committed: dict[int, int]) -> list[Finding]:
    described = await Topics.describe(settings)
    found: list[Finding] = []
    unkeyed: list[int] = []
    compared = 0
    try:
        async with asyncio.timeout(READ_SECONDS):
            for number in partitions:
                try:
                    saved, source = await _read(settings, described, number)
                except TemporaryError as error:
                    found.append(_refused(error))
                    continue
                held, local = copy_of(settings, number)
                offset = committed.get(number)
                found += compare(described, number, saved, source, offset, held=held, local=local)
                if saved.state.exists and not saved.keyed:
                    unkeyed.append(number)
                compared += 1
    except TimeoutError:
        found.append(
            ok(
                "state",
                f"{counted(len(partitions) - compared, 'partition')} not compared in {READ_SECONDS:g} s",
            )
        )
    if unkeyed:
        found.append(unkeyed_warning(unkeyed))
    if compared and all(finding.status == "ok" for finding in found):
        found.insert(
            0, ok("state", f"{described.changelog} and {counted(compared, 'partition')} belong together")
        )
    return found


def unkeyed_warning(partitions: list[int]) -> Finding:
    """The warning of states that keep the hash of version 0.1."""
    return warn(
        "state",
        f"the states of the partitions {partitions} were begun by version 0.1 and keep its hash without a key: a "
        "sender can choose a text with the hash of another one, which may then appear in incidents of other users",
        NEW_KEY,
    )


async def _read(settings: Settings, described: Topics, number: int) -> tuple[Saved, Bounds]:
    """The last checkpoint in the changelog, and the offsets of the events topic."""
    wanted = (b"m", HASH_KEY, COMPLETE_KEY, compatibility.TOPIC_KEY)
    found: dict[bytes, bytes | None] = {}
    async with CommittedReader(Brokers.of(settings), described.changelog, number) as reader:
        bounds = await reader.bounds()
        async for changes, _ in reader.batches(bounds.start, bounds.stable):
            found.update(change for change in changes if change[0] in wanted)
        source = await reader.bounds(described.source.topic)
    meta = found.get(b"m")
    identity = StateIdentity.decoded(meta[META.size :]) if meta else None
    topic = found.get(compatibility.TOPIC_KEY)
    former = msgspec.json.decode(topic, type=TopicIdentity) if topic else None
    return (
        Saved(
            bounds,
            SavedState(identity, meta is not None, int(found.get(COMPLETE_KEY) or 0)),
            META.unpack_from(meta)[1] if meta else None,
            identity.source if identity is not None else former,
            found.get(HASH_KEY) not in (None, UNKEYED),
        ),
        source,
    )


def compare(
    described: Topics,
    number: int,
    saved: Saved,
    source: Bounds,
    committed: int | None,
    *,
    held: bool,
    local: ChangelogPosition | None,
) -> list[Finding]:
    """What a worker would refuse.

    Parameters
    ----------
    described, number
        The topics as they are now, and the partition.
    saved
        Its changelog.
    source
        Offsets of the events topic.
    committed
        Offset that the group has committed.
    held
        Whether a process has the local copy open: a worker, which has made these checks at its start.
    local
        How far the local copy goes; None if there is none, or if it cannot be read.
    """
    identity = described.identity(number)
    of_copy = local.identity if local is not None else None
    if of_copy is not None and (of_copy.app_id, of_copy.partition) != (identity.app_id, number):
        local = of_copy = None  # a worker puts it aside
    try:
        if not held and not compatibility.continues(local, identity, saved.bounds):
            compatibility.check_whole(described.changelog, identity, saved.bounds, local, saved.state)
        compatibility.check_identity(described.changelog, identity, saved.state.identity)
        if saved.state.exists:
            compatibility.check_source(described.source, number, source, saved.source, saved.next_offset)
        elif local is None and not held:
            topic, app = described.source.topic, described.app_id
            compatibility.check_unlearned(topic, described.changelog, number, app, committed)
    except OpenTransactionError:
        return []  # see the check `transactions`
    except RefusedError as error:
        return [_refused(error)]
    return []


def _refused(error: StreamGuardError) -> Finding:
    """A worker's refusal as a finding: the remedies follow what was found, the least destructive one first."""
    text = str(error)
    parts = _REMEDIES.split(text, maxsplit=1)
    found, remedy = parts if len(parts) == 2 else (text, "see the message")
    return fail("state", f"a worker does not start: {found}", remedy)


def copy_of(settings: Settings, number: int) -> tuple[bool, ChangelogPosition | None]:
    """Whether a process has the local copy open, and how far it goes; it is opened for reading only."""
    import rocksdict

    path = Path(settings.worker.data_dir) / settings.worker.app_id / f"partition-{number:04d}"
    try:
        with (path / "LOCK").open("r+") as lock:
            try:
                fcntl.lockf(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError:
                return True, None
    except OSError:
        return False, None  # there is no copy, or this user may not read it
    try:
        options = rocksdict.Options(raw_mode=True)
        db = rocksdict.Rdict(
            str(path),
            options,
            column_families={"default": options},
            access_type=rocksdict.AccessType.read_only(),
        )
        try:
            stored = db.get(LOCAL)
        finally:
            db.close()
        return False, msgspec.json.decode(stored, type=ChangelogPosition) if stored is not None else None
    except Exception:  # noqa: BLE001 - rocksdict raises nothing narrower; a worker puts a damaged copy aside
        return False, None
