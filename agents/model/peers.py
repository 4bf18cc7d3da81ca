"""Tracks the model versions that other workers report on the models topic; scoring does not depend on them."""

from __future__ import annotations

import logging
import secrets
import time
from collections import Counter
from collections.abc import Callable

from streamguard.kafka.announcements import PROMOTED_KEY, InUse, Promoted, decode
from streamguard.metrics import MODEL_DISAGREEMENT

REPEAT_SECONDS = 30.0
"""Interval at which a worker reports the version that it uses."""
FORGET_SECONDS = 100.0
"""A worker without a report for this long, more than three intervals, is no longer counted."""
LASTING_SECONDS = 120.0
"""A disagreement that lasts longer is logged as a warning: workers notice a promotion at different moments."""
MAX_WORKERS = 1000
_KEY_BYTES = 16

_log = logging.getLogger(__name__)


class Peers:
    """Versions that the other workers of an application have reported recently.

    Parameters
    ----------
    app_id
        Id of the application; reports of other applications are ignored.
    clock
        Returns monotonic seconds.

    Attributes
    ----------
    key : bytes
        Message key of this worker's own reports.

    Examples
    --------
    >>> peers = Peers("streamguard")
    >>> peers.receive(b"another", b'{"app_id": "streamguard", "version": "0123456789ab"}')
    False
    >>> peers.count_disagreeing(None)
    1
    """

    def __init__(self, app_id: str, clock: Callable[[], float] = time.monotonic) -> None:
        self.key = secrets.token_hex(_KEY_BYTES // 2).encode()
        self._app_id = app_id
        self._clock = clock
        self._reports: dict[bytes, tuple[float, str | None]] = {}
        self._since: float | None = None
        self._warned = False

    def receive(self, key: bytes | None, value: bytes | None) -> bool:
        """Process a message of the models topic.

        Returns
        -------
        bool
            Whether the message announces a promotion.
        """
        if key == PROMOTED_KEY:
            return value is not None and decode(value, Promoted) is not None
        if key is None or key == self.key or len(key) > _KEY_BYTES:
            return False
        if value is None:
            self._reports.pop(key, None)
            return False
        in_use = decode(value, InUse)
        if in_use is not None and in_use.app_id == self._app_id:
            self._reports.pop(key, None)
            self._reports[key] = (self._clock(), in_use.version)
            if len(self._reports) > MAX_WORKERS:
                del self._reports[next(iter(self._reports))]
        return False

    def count_disagreeing(self, own: str | None) -> int:
        """Count the workers that use another version than `own`; log a warning once if the disagreement lasts."""
        now = self._clock()
        self._reports = {
            key: report for key, report in self._reports.items() if now - report[0] <= FORGET_SECONDS
        }
        others = Counter(version for _, version in self._reports.values() if version != own)
        count = others.total()
        MODEL_DISAGREEMENT.set(count)
        if not count:
            if self._warned:
                _log.info("all workers now use model %s", own or "none")
            self._since, self._warned = None, False
        elif self._since is None:
            self._since = now
        elif now - self._since > LASTING_SECONDS and not self._warned:
            self._warned = True
            versions = ", ".join(f"model {version or 'none'}: {n}" for version, n in others.most_common(5))
            _log.warning(
                "the workers have used different models for %.0f s: this worker uses model %s; number of other "
                "workers by model: %s; compare models.registry of the workers, and look in their logs for refused "
                "models",
                now - self._since, own or "none", versions,
            )  # fmt: skip
        return count
