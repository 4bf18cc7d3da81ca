"""Opens the local copy of a partition, and puts aside one that cannot be used; the changelog has all of it."""

from __future__ import annotations

import contextlib
import logging
import shutil
import time
from pathlib import Path
from typing import Literal

from streamguard.kafka.topics import DELETION_MS
from streamguard.metrics import COPIES_REPLACED
from streamguard.state.identity import StateIdentity
from streamguard.state.store import DamagedCopyError, StateStore, StoreMemory, now_ms

COPY_MS = DELETION_MS - 86_400_000
"""Age from which a local copy is discarded, because it may have missed the deletion of a user. It is one day shorter
than the changelog keeps deletions, to allow for clocks that differ."""
_CLOCK_MS = 86_400_000
"""A copy that claims to be complete this far in the future was written under a wrong clock: its age is unknown."""

Reason = Literal["damaged", "misplaced", "superseded", "outdated", "unfinished"]

_log = logging.getLogger(__name__)


class LocalCopy:
    """The directory of one partition's copy, with the store that is open in it.

    Parameters
    ----------
    path
        The directory.
    identity
        What a copy in it has to belong to.
    memory
        Memory shared by all state stores of the worker.

    Attributes
    ----------
    store
        The open store.
    """

    def __init__(self, path: Path, identity: StateIdentity, memory: StoreMemory) -> None:
        self._path = path
        self._memory = memory
        self._number = identity.partition
        self._drop_old()
        try:
            self.store = StateStore(path, memory)
        except DamagedCopyError as error:
            self._replace("damaged", f"is damaged ({error.reason}); nothing is lost")
        local = self.store.local
        found = local.identity if local is not None else None
        if found is not None and (found.app_id, found.partition) != (identity.app_id, identity.partition):
            self.replace(
                "misplaced", f"belongs to partition {found.partition} of {found.app_id}; nothing is lost"
            )
        elif local is not None and not local.complete_ms:
            self.replace("unfinished", "is unfinished, because its restore was interrupted")
        elif local is not None and not -_CLOCK_MS <= now_ms() - local.complete_ms <= COPY_MS:
            self.replace("outdated", "is so old that it may have missed the deletion of a user")

    def close(self) -> None:
        """Close the store."""
        with contextlib.suppress(DamagedCopyError):
            self.store.close()

    def replace(self, reason: Reason, sentence: str) -> None:
        """Close the copy, put it aside, and open an empty one.

        Parameters
        ----------
        reason
            For the metric and the name of the directory.
        sentence
            What is wrong, for the log; its subject is the copy.
        """
        self.close()
        self._replace(reason, sentence)

    def _replace(self, reason: Reason, sentence: str) -> None:
        """Rename the directory; only the newest one of a partition is kept, so that they do not fill the disk.

        An outdated copy is deleted, because it may contain the profile of a user who is to be forgotten.
        """
        if reason in ("outdated", "unfinished"):
            _remove(self._path)
            kept = "it was deleted"
        else:
            for older in self._aside():
                _remove(older)
            aside = self._path.with_name(
                f"{self._path.name}.{reason}-{time.strftime('%Y%m%dT%H%M%SZ', time.gmtime())}"
            )
            self._path.rename(aside)
            kept = f"it is kept as {aside}, which may be deleted"
        COPIES_REPLACED.labels(reason).inc()
        _log.warning(
            "the local copy of partition %d %s: %s, and the worker reads the whole changelog again",
            self._number,
            sentence,
            kept,
            extra={"directory": str(self._path), "reason": reason},
        )
        self.store = StateStore(self._path, self._memory)

    def _aside(self) -> list[Path]:
        return sorted(self._path.parent.glob(f"{self._path.name}.*-*"))

    def _drop_old(self) -> None:
        """Delete a copy that was put aside so long ago that it may contain the profile of a forgotten user."""
        for path in self._aside():
            with contextlib.suppress(OSError):
                if time.time() - path.stat().st_ctime > COPY_MS / 1000:
                    _remove(path)


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)
