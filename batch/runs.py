"""Directories of runs: written aside, published by one rename, `latest` moved in one step, old ones removed."""

from __future__ import annotations

import os
import re
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
from streamguard.files.disk import sync, sync_tree

REPORT = "anomaly_report.json"
_ID = re.compile(r"\d{8}T\d{12}Z-[0-9a-f]{4}")
_LATEST = "latest"
_LOCK = ".lock"
_PARTIAL = ".partial"


class RunsError(CannotWriteError):
    """A directory of runs cannot be used; the message says why, and what to do."""


class BusyError(TemporaryError):
    """Another process is writing there."""


class _Continued(msgspec.Struct):
    continues: str | None = None


class Run:
    """A run that is being written, and the only one in its directory; made by `Runs.begin`.

    Used as a context, it is discarded at the end unless it was published.

    Attributes
    ----------
    id : str
        UTC time and a random suffix; ids sort by time.
    directory : Path
        Where to write; no reader looks there.
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
        """Remove what was not published, and let the next run begin."""
        if self._lock < 0:
            return
        shutil.rmtree(self.directory, ignore_errors=True)
        os.close(self._lock)
        self._lock = -1


class Runs:
    """The runs below one directory.

    Parameters
    ----------
    directory
        Made by the first run; a missing one has no runs.

    Notes
    -----
    A run is `<id>/`; while it is written, `.<id>.partial/`. `latest` is a relative link to the run published last.
    Who writes holds a lock that the system gives back when the process ends, however it ends: a partial run
    found with the lock in hand is nobody's.

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

    def __init__(self, directory: str | Path) -> None:
        self.directory = Path(directory)

    def begin(self) -> Run:
        """Start a run, after what killed runs left behind is removed.

        Raises
        ------
        BusyError
            If another run is being written here.
        RunsError
            If the directory cannot be written.
        """
        try:
            held = lock.acquire(self.directory / _LOCK)
        except BlockingIOError:
            raise BusyError(
                f"another run is writing to {self.directory}: wait for its end, or name another output directory"
            ) from None
        except OSError as error:
            raise RunsError(f"cannot write runs to {self.directory}: {error.strerror}") from None
        try:
            for left in self.directory.glob(f".*{_PARTIAL}"):
                shutil.rmtree(left, ignore_errors=True)
            id = f"{datetime.now(UTC):%Y%m%dT%H%M%S%f}Z-{secrets.token_hex(2)}"
            aside = self._aside(id)
            try:
                aside.mkdir()
            except OSError as error:
                raise RunsError(f"cannot write runs to {self.directory}: {error.strerror}") from None
        except BaseException:
            os.close(held)
            raise
        return Run(id, aside, held)

    @property
    def busy(self) -> bool:
        """Whether a run is being written here now."""
        return lock.is_held(self.directory / _LOCK)

    def publish(self, run: Run) -> Path:
        """Make a run visible, whole and on the disk, and `latest`.

        Returns
        -------
        Path
            Its directory from now on.
        """
        sync_tree(run.directory)
        target = self.directory / run.id
        run.directory.rename(target)
        sync(self.directory)
        link = self.directory / f".{_LATEST}{_PARTIAL}"
        with suppress(FileNotFoundError):
            link.unlink()
        link.symlink_to(run.id)
        link.replace(self.directory / _LATEST)
        sync(self.directory)
        return target

    def latest(self) -> Path | None:
        """The run published last; None before the first.

        Raises
        ------
        RunsError
            If `latest` is not a link to a run.
        """
        link = self.directory / _LATEST
        try:
            name = str(link.readlink())
        except FileNotFoundError:
            return None
        except OSError as error:
            raise RunsError(f"{link} is not a link to a run ({error.strerror}): remove it") from None
        run = self.directory / name
        if not _ID.fullmatch(name) or not run.is_dir():
            raise RunsError(
                f"{link} leads to {name!r}, which is no run: remove it, or link it to one of the runs"
            )
        return run

    def published(self) -> list[str]:
        """Ids of all runs that are whole, oldest first."""
        if not self.directory.is_dir():
            return []
        return sorted(path.name for path in self.directory.iterdir() if _ID.fullmatch(path.name))

    def prune(self, keep: int, needed: Iterable[str] = ()) -> list[str]:
        """Remove all but the newest runs; the latest, and what its report says it continues, stay in any case.

        Parameters
        ----------
        keep
            How many to keep.
        needed
            Ids of others that stay.

        Returns
        -------
        list of str
            Ids of the removed.
        """
        latest = self.latest()
        spared = {*needed} if latest is None else {*needed, latest.name, _continued(latest)}
        removed = [id for id in self.published()[: -keep or None] if id not in spared]
        for id in removed:
            aside = self._aside(id)
            (self.directory / id).rename(aside)
            shutil.rmtree(aside, ignore_errors=True)
        return removed

    def _aside(self, id: str) -> Path:
        return self.directory / f".{id}{_PARTIAL}"


def _continued(run: Path) -> str | None:
    try:
        return msgspec.json.decode((run / REPORT).read_bytes(), type=_Continued).continues
    except (OSError, msgspec.DecodeError, UnicodeDecodeError):
        return None
