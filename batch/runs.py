"""Writes directories of runs: creates, publishes and removes them; publishing is atomic."""

from __future__ import annotations

import os
import secrets
import shutil
from collections.abc import Iterable
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from types import TracebackType

import msgspec

from streamguard.errors import CannotWriteError, TemporaryError
from streamguard.files import lock
from streamguard.files.disk import cannot_write, sync, sync_tree
from streamguard.runs.directory import LATEST, REPORT, PublishedRuns

_LOCK = ".lock"
_PARTIAL = ".partial"


class BusyError(TemporaryError):
    """Another process is writing to the same directory."""


class _Continued(msgspec.Struct):
    continues: str | None = None


class Run:
    """A run that is being written; `Runs.begin` creates it, and only one exists per directory of runs.

    A run used as a context manager is discarded at the end unless it was published.

    Attributes
    ----------
    id : str
        UTC time and a random suffix; ids sort by time.
    directory : Path
        Temporary directory of the run; readers ignore it.
    """

    def __init__(self, id: str, directory: Path, held: int) -> None:
        self.id = id
        self.directory = directory
        self._lock = held

    def __enter__(self) -> Run:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Remove the run if it was not published, and release the lock."""
        if self._lock < 0:
            return
        shutil.rmtree(self.directory, ignore_errors=True)
        os.close(self._lock)
        self._lock = -1


class Runs(PublishedRuns):
    """The runs in one directory, with what writes them.

    Parameters
    ----------
    directory
        The first run creates it; a missing directory has no runs.

    Notes
    -----
    A run is the directory `.<id>.partial/` while it is written. The writing process holds a lock, which the system
    releases when the process ends in any way. A partial run that is found while holding the lock therefore belongs to a
    process that has ended.

    Examples
    --------
    >>> import tempfile
    >>> runs = Runs(Path(tempfile.mkdtemp()) / "runs")
    >>> with runs.begin() as run:
    ...     _ = (run.directory / "result").write_text("whole")
    ...     path = runs.publish(run)
    >>> runs.latest() == path and (path / "result").read_text()
    'whole'
    """

    def begin(self) -> Run:
        """Remove the partial runs of killed processes, and start a run.

        Raises
        ------
        BusyError
            If another run is being written here.
        CannotWriteError
            If the directory cannot be written.
        """
        try:
            held = lock.acquire(self.directory / _LOCK)
        except BlockingIOError:
            raise BusyError(
                f"another run is writing to {self.directory}: wait until it ends, or specify another output directory"
            ) from None
        except OSError as error:
            raise self._unwritable(error) from None
        try:
            for left in self.directory.glob(f".*{_PARTIAL}"):
                shutil.rmtree(left, ignore_errors=True)
            id = f"{datetime.now(UTC):%Y%m%dT%H%M%S%f}Z-{secrets.token_hex(2)}"
            aside = self._aside(id)
            try:
                aside.mkdir()
            except OSError as error:
                raise self._unwritable(error) from None
        except BaseException:
            os.close(held)
            raise
        return Run(id, aside, held)

    @property
    def busy(self) -> bool:
        """Whether a run is currently being written here."""
        return lock.is_held(self.directory / _LOCK)

    def publish(self, run: Run) -> Path:
        """Sync a run to the disk, make it visible with one rename, and point `latest` to it.

        The run is complete with the rename. A link that cannot be changed is removed, so that the newest run counts.

        Returns
        -------
        Path
            The published directory.
        """
        sync_tree(run.directory)
        target = self.directory / run.id
        run.directory.rename(target)
        sync(self.directory)
        link, latest = self.directory / f".{LATEST}{_PARTIAL}", self.directory / LATEST
        try:
            link.unlink(missing_ok=True)
            link.symlink_to(run.id)
            link.replace(latest)
            sync(self.directory)
        except OSError:
            with suppress(OSError):
                latest.unlink(missing_ok=True)
        return target

    def prune(self, keep: int, needed: Iterable[str] = ()) -> list[str]:
        """Remove all but the newest runs; the latest run, and the run that it continues, are always kept.

        Parameters
        ----------
        keep
            Number of newest runs to keep.
        needed
            Ids of other runs to keep.

        Returns
        -------
        list of str
            Ids of the removed runs.
        """
        latest = self.latest()
        kept = {*needed} if latest is None else {*needed, latest.name, _continued(latest)}
        removed = [id for id in self.published()[: -keep or None] if id not in kept]
        for id in removed:
            aside = self._aside(id)
            try:
                (self.directory / id).rename(aside)
            except OSError:  # the next run removes it
                continue
            shutil.rmtree(aside, ignore_errors=True)
        return removed

    def _unwritable(self, error: OSError) -> CannotWriteError:
        return cannot_write(f"runs to {self.directory}", error, "choose another --output")

    def _aside(self, id: str) -> Path:
        return self.directory / f".{id}{_PARTIAL}"


def _continued(run: Path) -> str | None:
    try:
        return msgspec.json.decode((run / REPORT).read_bytes(), type=_Continued).continues
    except (OSError, msgspec.DecodeError, UnicodeDecodeError):
        return None
