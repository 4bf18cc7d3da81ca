"""Directories of published runs: which runs exist, and which one is the latest."""

from __future__ import annotations

import re
from pathlib import Path

REPORT = "anomaly_report.json"
FEATURES = "features"
TRAINING = "training_data"
"""Directory of a run with one Parquet file of users for each partition."""
LATEST = "latest"
_ID = re.compile(r"\d{8}T\d{12}Z-[0-9a-f]{4}")


class PublishedRuns:
    """The published runs in one directory.

    Parameters
    ----------
    directory
        A missing directory has no runs.

    Notes
    -----
    A run is the directory `<id>/`. `latest` is a relative link to the run published last. It serves people; where it is
    missing or broken, such as on a file system without links, the newest run is the latest one.

    Examples
    --------
    >>> import tempfile
    >>> directory = Path(tempfile.mkdtemp())
    >>> (directory / "20260101T000000000000Z-abcd").mkdir()
    >>> PublishedRuns(directory).published()
    ['20260101T000000000000Z-abcd']
    """

    def __init__(self, directory: str | Path) -> None:
        self.directory = Path(directory)

    def latest(self) -> Path | None:
        """Directory of the run that `latest` links to; of the newest run if it is no link to a run; or None."""
        published = self.published()
        try:
            linked = str((self.directory / LATEST).readlink())
        except OSError:
            linked = ""
        name = linked if linked in published else next(reversed(published), None)
        return None if name is None else self.directory / name

    def published(self) -> list[str]:
        """Ids of all published runs, oldest first."""
        if not self.directory.is_dir():
            return []
        return sorted(path.name for path in self.directory.iterdir() if _ID.fullmatch(path.name))
