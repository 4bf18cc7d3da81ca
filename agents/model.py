"""The forest in use: a thread polls the registry and swaps one reference between two chunks."""

from __future__ import annotations

import logging
import threading
import time

from agents.metrics import MODEL_FAILURES, MODEL_INFO, MODEL_LOADED
from streamguard.features import NAMES
from streamguard.forest import Forest
from streamguard.models.manifest import ArtifactError
from streamguard.models.registry import Registry

POLL_SECONDS = 5.0

_log = logging.getLogger(__name__)


class ModelWatch:
    """Follows a model registry.

    State never depends on the forest, so a new one may come at any moment: only verdicts change.

    Parameters
    ----------
    directory
        The registry; empty for none.

    Attributes
    ----------
    forest
        What to score with now; None while there is no model. Read it once per chunk.
    """

    def __init__(self, directory: str) -> None:
        self._directory = directory
        self._version: str | None = None
        self._refused: str | None = None
        self._said = ""
        self._stop = threading.Event()
        self.forest: Forest | None = None

    def start(self) -> None:
        """Load the current model, then look for another one from time to time."""
        if not self._directory:
            return
        self.poll()
        threading.Thread(target=self._watch, name="model-watch", daemon=True).start()

    def stop(self) -> None:
        """End the thread."""
        self._stop.set()

    def _watch(self) -> None:
        while not self._stop.wait(POLL_SECONDS):
            self.poll()

    def poll(self) -> None:
        """Load the registry's current version if it is another one; on any doubt the old one stays."""
        version = None
        try:
            registry = Registry(self._directory, feature_names=NAMES)
            version = registry.current()
            if version is None or version in (self._version, self._refused):
                self._said = ""
                return
            forest = registry.load(version)
        except Exception as error:  # noqa: BLE001 - a bad model must not stop the worker
            # The registry reports a disk that does not answer as an ArtifactError too.
            if isinstance(error, ArtifactError) and not isinstance(error.__context__, OSError):
                self._refused = version
            self._say(f"model {version}" if version else "the registry's pointer", error)
            return
        self.forest = forest
        if self._version is not None:
            MODEL_INFO.remove(self._version)
        self._version, self._refused, self._said = version, None, ""
        MODEL_INFO.labels(version).set(1)
        MODEL_LOADED.set(time.time())
        _log.info("model %s in use", version)

    def _say(self, what: str, error: Exception) -> None:
        """Log and count a failure, but not again at every poll."""
        said = f"{what} refused, version {self._version} stays: {error}"
        if said != self._said:
            MODEL_FAILURES.inc()
            _log.error("%s", said)
        self._said = said
