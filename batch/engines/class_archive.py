"""`python -m streamguard.batch.engines.class_archive` creates the JVM's class-data archive.

With it Spark starts about 3 seconds sooner. It is created once for each Java and Spark, in the user's cache. Spark also
runs without it.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from streamguard.batch.engines.jvm import Jvm


def main() -> int:
    """Create the archive unless it exists; 0 if it exists afterwards."""
    from streamguard.jvm.jars import JarsUnavailableError
    from streamguard.jvm.java import JavaNotFoundError

    try:
        archive = Jvm().archive
        if archive.is_file():
            return 0
        archive.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=archive.parent) as directory:
            aside = Path(directory) / archive.name
            command = [sys.executable, "-m", "streamguard.batch.engines.class_archive", str(aside)]
            run = subprocess.run(
                command, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=300, check=False
            )
            if run.returncode or not aside.is_file():
                last = (run.stderr.strip() or "the archive was not written").splitlines()[-1]
                raise OSError(f"recording the classes failed: {last}")
            aside.rename(archive)
    except (OSError, subprocess.SubprocessError, JarsUnavailableError, JavaNotFoundError) as error:
        print(f"no archive of Spark's classes was created: {error}; Spark starts slower", file=sys.stderr)  # noqa: T201
        return 1
    return 0


def record(archive: Path) -> None:
    """Run a small fold on a temporary Kafka; Java writes the archive when Spark ends."""
    from confluent_kafka import Producer
    from confluent_kafka.admin import AdminClient, NewTopic
    from pyspark import SparkContext

    from streamguard.batch.engines import session, spark
    from streamguard.batch.source.offset_range import OffsetRange
    from streamguard.batch.source.sources import KafkaSource
    from streamguard.kafka.connection import Brokers
    from streamguard.settings.schema import Settings
    from streamguard.testing.broker import LocalKafka

    settings, topic = Settings(), "warm"
    with LocalKafka() as kafka, tempfile.TemporaryDirectory() as scratch:
        brokers = Brokers(kafka.bootstrap_servers)
        client = brokers.librdkafka()
        admin = AdminClient(client)
        admin.create_topics([NewTopic(topic, 1, 1)])[topic].result(30)
        producer = Producer(client)
        producer.produce(topic, b'{"timestamp": 1700000000000, "user": "a", "event_type": "auth_attempt"}')
        producer.flush(30)
        flags = Jvm().archiving_flags(archive)
        with session.opened(settings.spark, Path(scratch), java_flags=flags) as running:
            source = KafkaSource(brokers, topic)
            spark.fold(source, [OffsetRange(0, 0, 1)], settings, Path(scratch), lambda _: None, running)
    java: Any = SparkContext._gateway
    java.proc.stdin.close()
    java.proc.wait(240)


if __name__ == "__main__":
    if sys.argv[1:]:
        record(Path(sys.argv[1]))
    else:
        sys.exit(main())
