"""What workers tell each other on the models topic: promotions and versions in use. Nothing depends on it."""

from __future__ import annotations

import logging
import secrets
import time
from collections import Counter
from collections.abc import Callable

from streamguard.kafka.announcements import PROMOTED_KEY, InUse, Promoted, decode
from streamguard.metrics import MODEL_DISAGREEMENT

REPEAT_SECONDS = 30.0
"""How often a worker says what it uses."""
FORGET_SECONDS = 100.0
"""A worker that has not been heard for this long, three repetitions, is not there any more."""
LASTING_SECONDS = 120.0
"""Workers see a promotion at different moments; from here on, a disagreement is worth a warning."""
MAX_WORKERS = 1000
_KEY_BYTES = 16

_log = logging.getLogger(__name__)


class Peers:
    """Which versions the other workers of an application use, as far as they were heard lately.

    Parameters
    ----------
    app_id
        Of the application; what others say is not taken in.
    clock
        Monotonic seconds.

    Attributes
    ----------
    key : bytes
        What this worker's own messages are known by.

    Examples
    --------
    >>> peers = Peers("streamguard")
    >>> peers.hear(b"another", b'{"app_id": "streamguard", "version": "0123456789ab"}')
    False
    >>> peers.judge(None)
    1
    """

    def __init__(self, app_id: str, clock: Callable[[], float] = time.monotonic) -> None:
        self.key = secrets.token_hex(_KEY_BYTES // 2).encode()
        self._app_id = app_id
        self._clock = clock
        self._heard: dict[bytes, tuple[float, str | None]] = {}
        self._since: float | None = None
        self._warned = False

    def hear(self, key: bytes | None, value: bytes | None) -> bool:
        """Take in a message; whether it says that a version was promoted."""
        if key == PROMOTED_KEY:
            return value is not None and decode(value, Promoted) is not None
        if key is None or key == self.key or len(key) > _KEY_BYTES:
            return False
        if value is None:
            self._heard.pop(key, None)
            return False
        told = decode(value, InUse)
        if told is not None and told.app_id == self._app_id:
            self._heard.pop(key, None)
            self._heard[key] = (self._clock(), told.version)
            if len(self._heard) > MAX_WORKERS:
                del self._heard[next(iter(self._heard))]
        return False

    def judge(self, own: str | None) -> int:
        """How many workers use another version than `own`; a warning once it has lasted."""
        now = self._clock()
        self._heard = {key: said for key, said in self._heard.items() if now - said[0] <= FORGET_SECONDS}
        others = Counter(version for _, version in self._heard.values() if version != own)
        count = others.total()
        MODEL_DISAGREEMENT.set(count)
        if not count:
            if self._warned:
                _log.info("all workers use model %s", own)
            self._since, self._warned = None, False
        elif self._since is None:
            self._since = now
        elif now - self._since > LASTING_SECONDS and not self._warned:
            self._warned = True
            found = ", ".join(f"{n} use {version or 'none'}" for version, n in others.most_common(5))
            _log.warning(
                "workers disagree for %.0f s: this one uses model %s, of the others %s; compare their "
                "models.registry and what they refused",
                now - self._since, own, found,
            )  # fmt: skip
        return count
