"""Reads incidents from the alerts topic as they are published, prints the severe ones, and collects all of them."""

from __future__ import annotations

import threading
from dataclasses import dataclass, field

import click
from confluent_kafka import OFFSET_END, Consumer, TopicPartition

from streamguard.alerts.incident import Incident, decode
from streamguard.cli.incident_text import paragraph

SHOWN = ("high", "critical")


@dataclass
class Seen:
    """What was published since the watch began.

    Attributes
    ----------
    incidents
        Incident id -> the latest record of the incident.
    events
        Incident id -> ids of the events that its records contain.
    latencies
        Milliseconds from the event of each record to the record itself.
    """

    incidents: dict[str, Incident] = field(default_factory=dict)
    events: dict[str, set[str]] = field(default_factory=dict)
    latencies: list[float] = field(default_factory=list)


class Watch(threading.Thread):
    """A consumer of the alerts topic in its own thread.

    Parameters
    ----------
    bootstrap_servers, topic
        Where incidents are published. The watch begins at the end of the topic.
    """

    def __init__(self, bootstrap_servers: str, topic: str) -> None:
        super().__init__(daemon=True)
        self.seen = Seen()
        self._stop_watching = threading.Event()
        self._consumer = Consumer(
            {
                "bootstrap.servers": bootstrap_servers,
                "group.id": "streamguard-demo",
                "enable.auto.commit": False,
                "log_level": 2,
            }
        )
        partitions = self._consumer.list_topics(topic, timeout=10).topics[topic].partitions
        ends = [
            TopicPartition(
                topic, p, self._consumer.get_watermark_offsets(TopicPartition(topic, p), timeout=10)[1]
            )
            for p in partitions
        ]
        self._consumer.assign(ends or [TopicPartition(topic, 0, OFFSET_END)])

    def run(self) -> None:
        """Read until `finish` is called and no record is left."""
        while True:
            message = self._consumer.poll(0.2)
            if message is None:
                if self._stop_watching.is_set():
                    break
                continue
            if message.error() is None:
                self._take(decode(message.value()), message.timestamp()[1])
        self._consumer.close()

    def finish(self) -> Seen:
        """Read the remaining records and stop."""
        self._stop_watching.set()
        self.join()
        return self.seen

    def _take(self, incident: Incident, published_ms: int) -> None:
        name = incident.id
        before = self.seen.incidents.get(name)
        self.seen.incidents[name] = incident
        event = incident.event
        self.seen.events.setdefault(name, set()).add(event["event_id"])
        self.seen.latencies.append(published_ms - event["timestamp"])
        if incident.severity in SHOWN and (before is None or before.severity not in SHOWN):
            click.echo(paragraph(incident))
