"""The forest in use: a thread follows the registry and swaps one reference between two chunks."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import numpy as np
from prometheus_client import Gauge

from streamguard import metrics
from streamguard.agents.model.peers import REPEAT_SECONDS, Peers
from streamguard.agents.model.shadow import Newest, Shadow
from streamguard.agents.model.swap import SwapGuard
from streamguard.kafka.announcements import InUse, ModelsTopic
from streamguard.models.forest import Forest
from streamguard.models.manifest import ArtifactError
from streamguard.models.registry import Registry
from streamguard.settings.schema import Settings
from streamguard.state.warmup import compile_forest

RETRY_SECONDS = 60.0
"""A refused version is looked at again after this time: somebody may have mended it."""
RETRY_ANNOUNCED_SECONDS = 1.0
"""Or after this, if a promotion is announced."""
_LISTEN_SECONDS = 0.25
_TROUBLE_SECONDS = 5.0

_log = logging.getLogger(__name__)


class ModelWatcher:
    """Follows a model registry.

    State never depends on the forest, so a new one may come at any moment: only verdicts change.

    Parameters
    ----------
    settings
        Registry and key, brokers and models topic, alert threshold for the shadow.
    clock
        Monotonic seconds.

    Attributes
    ----------
    forest
        None while there is no model.
    shadow
        Scores the challenger beside it, if the settings ask for it.
    peers
        What other workers use.
    """

    def __init__(self, settings: Settings, clock: Callable[[], float] = time.monotonic) -> None:
        self._settings = settings
        self._clock = clock
        self._champion = _Followed("model", metrics.MODEL_INFO, clock)
        self._challenger = _Followed("challenger", metrics.SHADOW_INFO, clock)
        self._newest = Newest()
        self._swap_guard = SwapGuard()
        self._pointer_said = ""
        self._missed = False
        self._told: str | None = None
        self._told_at = -REPEAT_SECONDS
        self._thread: threading.Thread | None = None
        self._stop = threading.Event()
        self.shadow = Shadow(settings.detection)
        self.peers = Peers(settings.worker.app_id, clock)

    @property
    def forest(self) -> Forest | None:
        """What to score with now."""
        return self._champion.forest

    @contextmanager
    def chunk(self) -> Iterator[Forest | None]:
        """The forest for one chunk, whose handling is the context: it is read once, so the chunk has one version."""
        with self._swap_guard.chunk():
            yield self._champion.forest

    def start(self) -> None:
        """Load the current model, then look for another one from time to time and when one is announced."""
        if not self._settings.models.registry:
            return
        compile_forest()  # the first model may come later, between two chunks
        self.poll()
        self._thread = threading.Thread(target=self._watch, name="model-watch", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """End the thread."""
        self._stop.set()
        if self._thread is not None:
            self._thread.join(3.0)
        self._swap_guard.close()

    def poll(self, *, announced: bool = False) -> None:
        """Load what the registry names now, if it is something else; on any doubt the old one stays.

        Parameters
        ----------
        announced
            Also look again at what was refused lately.
        """
        try:
            registry = Registry.of(self._settings.models)
            wanted = registry.current()
            newest = self._newest.beside(registry, wanted) if self._settings.models.shadow else None
        except Exception as error:  # noqa: BLE001 - a bad registry must not stop the worker
            said = f"the registry's pointer refused, version {self._champion.version} stays: {error}"
            metrics.MODEL_REFUSALS.labels("pointer").inc()
            if said != self._pointer_said:
                _log.error("%s", said)
            self._pointer_said = said
            return
        self._pointer_said = ""
        metrics.name_version(metrics.MODEL_POINTER, wanted)
        if wanted is None and not self._missed:
            _log.warning("the registry %s names no model: events are scored without one", registry.directory)
        self._missed = wanted is None
        if wanted is not None and self._champion.load(registry, wanted, self._swap_guard, again=announced):
            metrics.MODEL_LOADED.set(time.time())
            metrics.MODEL_PUBLISHED.set(self._champion.published)
        if newest is not None:
            self._challenger.load(registry, newest, self._swap_guard, again=announced)
        if newest is None or self._challenger.version == wanted:  # promoted, and the next one was refused
            self._challenger.drop()
        self.shadow.challenger = self._challenger.forest

    def _watch(self) -> None:
        topic = None
        try:
            topic = ModelsTopic(self._settings)
        except Exception as error:  # noqa: BLE001 - polling does without
            _log.warning("cannot listen to %s: %s", self._settings.kafka.models_topic, error)
        looked = self._clock()
        while not self._stop.is_set():
            try:
                announced = self._listen(topic)
                if announced or self._clock() - looked >= self._settings.models.poll_seconds:
                    self.poll(announced=announced)
                    looked = self._clock()
                self._tell(topic)
                self.peers.judge(self._champion.version)
            except Exception as error:  # noqa: BLE001 - whatever it is, the worker goes on with what it has
                _log.error("following the models failed: %s", error, exc_info=error)
                self._stop.wait(_TROUBLE_SECONDS)
        if topic is not None:
            topic.tell(self.peers.key, None)
            topic.close()

    def _listen(self, topic: ModelsTopic | None) -> bool:
        """Hear what is said for a moment; whether a promotion was announced."""
        if topic is None:
            self._stop.wait(_LISTEN_SECONDS)
            return False
        announced = False
        for key, value in topic.read(_LISTEN_SECONDS):
            announced |= self.peers.hear(key, value)
        return announced

    def _tell(self, topic: ModelsTopic | None) -> None:
        """Say which version is in use, if it is another one or was not said lately."""
        now, version = self._clock(), self._champion.version
        if topic is not None and (version != self._told or now - self._told_at >= REPEAT_SECONDS):
            topic.tell(self.peers.key, InUse(self._settings.worker.app_id, version))
            self._told, self._told_at = version, now


class _Followed:
    """One forest that is replaced when the registry names another one."""

    def __init__(self, what: str, info: Gauge, clock: Callable[[], float]) -> None:
        self._what = what
        self._info = info
        self._clock = clock
        self._refused: dict[str, float] = {}
        self._said = ""
        self.forest: Forest | None = None
        self.version: str | None = None
        self.published = np.nan

    def load(self, registry: Registry, version: str, swap_guard: SwapGuard, *, again: bool) -> bool:
        """Replace the forest by this version; False if it is that, or was refused."""
        now = self._clock()
        patience = RETRY_ANNOUNCED_SECONDS if again else RETRY_SECONDS
        self._refused = {refused: at for refused, at in self._refused.items() if now - at < patience}
        if version == self.version:
            self._said = ""
        if version == self.version or version in self._refused:
            return False
        try:
            with swap_guard.swap() as give_way:
                forest = registry.load(version, give_way)
                published = registry.published(version)
                self.forest = forest
        except Exception as error:  # noqa: BLE001 - a bad model must not stop the worker
            reason = _reason(error)
            if reason == "untrusted":
                self._refused[version] = now
            said = f"{self._what} {version} refused, version {self.version} stays: {error}"
            metrics.MODEL_REFUSALS.labels(reason).inc()
            if said != self._said:
                _log.error("%s", said)
            self._said = said
            return False
        self.version, self._said = version, ""
        self.published = published
        metrics.name_version(self._info, version)
        metrics.MODEL_LOADS.inc()
        _log.info("%s %s in use", self._what, version)
        return True

    def drop(self) -> None:
        """Have no forest any more."""
        self.forest = self.version = None
        metrics.name_version(self._info, None)


def _reason(error: Exception) -> str:
    # The registry reports a disk that does not answer as an ArtifactError too.
    if isinstance(error.__context__ if isinstance(error, ArtifactError) else error, OSError):
        return "unreadable"
    return "untrusted" if isinstance(error, ArtifactError) else "unexpected"
