"""What workers tell each other on the models topic: promotions and versions in use. Nothing depends on it."""

from __future__ import annotations

import logging
import secrets
import time
from collections import Counter
from collections.abc import Callable

import msgspec
from confluent_kafka import OFFSET_END, Consumer, KafkaError, KafkaException, Producer, TopicPartition

from streamguard.brokers import Brokers
from streamguard.metrics import MODEL_DISAGREEMENT
from streamguard.models.announcement import PROMOTED_KEY, InUse, Promoted, decode
from streamguard.settings import Settings

REPEAT_SECONDS = 30.0
"""How often a worker says what it uses."""
FORGET_SECONDS = 100.0
"""A worker that has not been heard for this long, three repetitions, is not there any more."""
LASTING_SECONDS = 120.0
"""Workers see a promotion at different moments; from here on, a disagreement is worth a warning."""
MOST_WORKERS = 1000
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
            if len(self._heard) > MOST_WORKERS:
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


class ModelsTopic:
    """The models topic, read from its end without a group, by one thread.

    No trouble of a broker is raised, and none is logged again before the topic has worked in between.
    """

    def __init__(self, settings: Settings) -> None:
        self._topic = settings.kafka.models_topic
        self._troubled = False
        common = Brokers.of(settings).librdkafka() | {
            "client.id": "streamguard-models",
            "topic.metadata.refresh.interval.ms": 30_000,
            "allow.auto.create.topics": False,
            "error_cb": self._trouble,
        }
        self._consumer = Consumer(
            common
            | {
                "group.id": "-",  # demanded, but never joined
                "enable.auto.commit": False,
                "auto.offset.reset": "latest",
                "queued.max.messages.kbytes": 1024,
            }
        )
        self._producer = Producer(common | {"message.timeout.ms": 10_000, "on_delivery": self._delivered})
        self._consumer.assign([TopicPartition(self._topic, 0, OFFSET_END)])

    def read(self, timeout: float) -> list[tuple[bytes | None, bytes | None]]:
        """(key, value) of messages that are there, at most 100; waits up to `timeout` seconds for the first."""
        first = self._consumer.poll(timeout)
        self._producer.poll(0)
        messages = [] if first is None else [first, *self._consumer.consume(99, 0)]
        good = []
        for message in messages:
            if message.error() is not None:
                self._trouble(message.error())
            else:
                self._troubled = False
                good.append((message.key(), message.value()))
        return good

    def tell(self, key: bytes, said: InUse | None) -> None:
        """Say what a worker uses; None: it is gone."""
        try:
            self._producer.produce(self._topic, said and msgspec.json.encode(said), key, partition=0)
        except KafkaException as error:
            self._trouble(error.args[0])
        except BufferError:
            pass  # a broker that is away for long: the next repetition says the same

    def close(self) -> None:
        """Send what is unsent, for a second at the most."""
        self._producer.flush(1.0)
        self._consumer.close()

    def _delivered(self, error: KafkaError | None, _: object) -> None:
        if error is not None:
            self._trouble(error)

    def _trouble(self, error: KafkaError) -> None:
        if not self._troubled:
            self._troubled = True
            _log.warning(
                "the models topic %s does not work (%s): promotions are seen at the next look at the registry",
                self._topic, error.str(),
            )  # fmt: skip
