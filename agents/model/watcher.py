"""Follows the model registry in a thread, and swaps the forest in use between two chunks."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

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
"""A refused version is tried again after this time, because its files may have been repaired."""
RETRY_ANNOUNCED_SECONDS = 1.0
"""The same time after an announced promotion."""
_LISTEN_SECONDS = 0.25
_TROUBLE_SECONDS = 5.0

_log = logging.getLogger(__name__)


class ModelWatcher:
    """Keeps the forest in use equal to the current version of a model registry.

    The state never depends on the forest, so a new forest may be swapped in at any time: only verdicts change.

    Parameters
    ----------
    settings
        Registry and key, brokers and models topic, alert threshold of shadow mode.
    clock
        Returns monotonic seconds.

    Attributes
    ----------
    forest
        The forest in use, or None without a model.
    shadow
        Scores the challenger beside the champion, if `models.shadow` is set.
    peers
        Versions that the other workers use.
    """

    def __init__(self, settings: Settings, clock: Callable[[], float] = time.monotonic) -> None:
        self._settings = settings
        self._clock = clock
        self._champion = _Followed("model", metrics.MODEL_INFO, clock)
        self._challenger = _Followed("challenger", metrics.SHADOW_INFO, clock)
        self._newest = Newest()
        self._swap_guard = SwapGuard()
        self._pointer_error = ""
        self._missed = False
        self._reported: str | None = None
        self._reported_at = -REPEAT_SECONDS
        self._thread: threading.Thread | None = None
        self._stop = threading.Event()
        self.shadow = Shadow(settings.detection)
        self.peers = Peers(settings.worker.app_id, clock)

    @property
    def forest(self) -> Forest | None:
        """The forest in use, or None without a model."""
        return self._champion.forest

    @contextmanager
    def chunk(self) -> Iterator[Forest | None]:
        """Context in which one chunk is handled; yields the forest, which is read once, so a chunk has one version."""
        with self._swap_guard.chunk():
            yield self._champion.forest

    def start(self) -> None:
        """Load the current model, then check the registry at intervals and whenever a promotion is announced."""
        if not self._settings.models.registry:
            return
        compile_forest()  # now, because the first model may be swapped in later, between two chunks
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
        """Load the current version of the registry if it has changed; on any error the old forest stays in use.

        Parameters
        ----------
        announced
            A promotion was announced: versions that were refused recently are tried again sooner.
        """
        try:
            registry = Registry.of(self._settings.models, Path(self._settings.worker.data_dir))
            wanted = registry.current()
            newest = self._newest.beside(registry, wanted) if self._settings.models.shadow else None
        except Exception as error:  # noqa: BLE001 - a bad registry must not stop the worker
            message = (
                f"the pointer or the key of the registry {self._settings.models.registry} cannot be used: {error}; the "
                f"worker keeps {_named('model', self._champion.version)}"
            )
            metrics.MODEL_REFUSALS.labels("pointer").inc()
            if message != self._pointer_error:
                _log.error("%s", message)
            self._pointer_error = message
            return
        self._pointer_error = ""
        metrics.name_version(metrics.MODEL_POINTER, wanted)
        if wanted is None and not self._missed:
            _log.warning(
                "the registry %s has no current model: events are scored by statistics and patterns only; run "
                "`streamguard retrain` to train a model",
                registry.directory,
            )
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
        except Exception as error:  # noqa: BLE001 - polling works without the topic
            _log.warning(
                "the models topic %s cannot be read: %s; the worker notices a promotion when it next checks the "
                "registry, every %g s (models.poll_seconds)",
                self._settings.kafka.models_topic, error, self._settings.models.poll_seconds,
            )  # fmt: skip
        polled_at = self._clock()
        while not self._stop.is_set():
            try:
                announced = self._listen(topic)
                if announced or self._clock() - polled_at >= self._settings.models.poll_seconds:
                    self.poll(announced=announced)
                    polled_at = self._clock()
                self._report(topic)
                self.peers.count_disagreeing(self._champion.version)
            except Exception as error:  # noqa: BLE001 - on any error the worker continues with its forest
                _log.error(
                    "checking for a new model failed: %s; the worker keeps %s and tries again in %g s",
                    error, _named("model", self._champion.version), _TROUBLE_SECONDS, exc_info=error,
                )  # fmt: skip
                self._stop.wait(_TROUBLE_SECONDS)
        if topic is not None:
            topic.report(self.peers.key, None)
            topic.close()

    def _listen(self, topic: ModelsTopic | None) -> bool:
        """Read the models topic for a moment, and return whether a promotion was announced."""
        if topic is None:
            self._stop.wait(_LISTEN_SECONDS)
            return False
        announced = False
        for key, value in topic.read(_LISTEN_SECONDS):
            announced |= self.peers.receive(key, value)
        return announced

    def _report(self, topic: ModelsTopic | None) -> None:
        """Report the version in use if it has changed or the last report is too old."""
        now, version = self._clock(), self._champion.version
        if topic is not None and (version != self._reported or now - self._reported_at >= REPEAT_SECONDS):
            topic.report(self.peers.key, InUse(self._settings.worker.app_id, version))
            self._reported, self._reported_at = version, now


class _Followed:
    """One forest, which is replaced when another version is requested."""

    def __init__(self, role: str, info: Gauge, clock: Callable[[], float]) -> None:
        self._role = role
        self._info = info
        self._clock = clock
        self._refused: dict[str, float] = {}
        self._error = ""
        self.forest: Forest | None = None
        self.version: str | None = None
        self.published = np.nan

    def load(self, registry: Registry, version: str, swap_guard: SwapGuard, *, again: bool) -> bool:
        """Replace the forest by this version; False if it is in use already, or is refused."""
        now = self._clock()
        patience = RETRY_ANNOUNCED_SECONDS if again else RETRY_SECONDS
        self._refused = {refused: at for refused, at in self._refused.items() if now - at < patience}
        if version == self.version:
            self._error = ""
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
            kept = _named(self._role, self.version)
            message = f"{self._role} {version} cannot be used: {error}; the worker keeps {kept}"
            metrics.MODEL_REFUSALS.labels(reason).inc()
            if message != self._error:
                _log.error("%s", message)
            self._error = message
            return False
        self.version, self._error = version, ""
        self.published = published
        metrics.name_version(self._info, version)
        metrics.MODEL_LOADS.inc()
        _log.info("%s %s is in use", self._role, version)
        return True

    def drop(self) -> None:
        """Remove the forest."""
        self.forest = self.version = None
        metrics.name_version(self._info, None)


def _named(role: str, version: str | None) -> str:
    return f"no {role}" if version is None else f"{role} {version}"


def _reason(error: Exception) -> str:
    # The registry also reports an unreadable disk as an ArtifactError; the OSError is then the context.
    if isinstance(error.__context__ if isinstance(error, ArtifactError) else error, OSError):
        return "unreadable"
    return "untrusted" if isinstance(error, ArtifactError) else "unexpected"
