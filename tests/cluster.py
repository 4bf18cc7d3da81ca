"""Three Kafka nodes on loopback: leaders and coordinators move, replicas fall behind, nodes restart in turn."""

from __future__ import annotations

import os
import signal
from concurrent.futures import ThreadPoolExecutor
from functools import reduce
from types import TracebackType
from typing import Self

from confluent_kafka.admin import AdminClient

from streamguard.polling import poll_until
from streamguard.testing.broker import LocalKafka, Quorum, free_port

NODES = (1, 2, 3)
GROUPS, TRANSACTIONS = "__consumer_offsets", "__transaction_state"
REPLICATED = {
    "offsets.topic.replication.factor": 3,
    "transaction.state.log.replication.factor": 3,
    "transaction.state.log.min.isr": 2,
    "min.insync.replicas": 2,
    "replica.lag.time.max.ms": 3000,  # a node that is frozen leaves the in-sync replicas after this time
    "controlled.shutdown.enable": "true",
}


class LocalCluster:
    """Three nodes, each broker and controller; a partition of replication factor 3 survives the loss of one."""

    def __init__(self) -> None:
        ports: set[int] = set()
        while len(ports) < len(NODES):
            ports.add(free_port())
        quorum = Quorum(dict(zip(NODES, sorted(ports), strict=True)))
        self.nodes = {
            node: LocalKafka(heap_megabytes=256, settings=REPLICATED, node=node, quorum=quorum)
            for node in NODES
        }

    @property
    def bootstrap_servers(self) -> str:
        return ",".join(node.bootstrap_servers for node in self.nodes.values())

    def __enter__(self) -> Self:
        try:
            with ThreadPoolExecutor(
                len(NODES)
            ) as pool:  # no node is ready before most of the controllers are
                list(pool.map(lambda node: node.start(180), self.nodes.values()))
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """End all nodes."""
        for node in self.nodes.values():
            if node.pid:
                os.kill(node.pid, signal.SIGCONT)
            node.close()

    def leader(self, topic: str, partition: int = 0) -> int:
        """Number of the node that leads a partition."""
        metadata = self._admin().list_topics(topic, timeout=30)
        return int(metadata.topics[topic].partitions[partition].leader)

    def coordinator(self, topic: str, name: str) -> int:
        """Number of the node that coordinates a group (`GROUPS`) or a transactional id (`TRANSACTIONS`).

        A broker chooses the partition by Java's hash code of the name.
        """
        partitions = len(self._admin().list_topics(topic, timeout=30).topics[topic].partitions)
        code = reduce(lambda code, letter: (31 * code + ord(letter)) & 0xFFFFFFFF, name, 0)
        return self.leader(topic, (code & 0x7FFFFFFF) % partitions)

    def in_sync(self, topic: str) -> int:
        """Number of in-sync replicas of the partition that has the fewest."""
        partitions = self._admin().list_topics(topic, timeout=30).topics[topic].partitions
        return min(len(partition.isrs) for partition in partitions.values())

    def await_in_sync(self, *topics: str, timeout: float = 120.0) -> None:
        """Wait until every replica of the topics is in sync again: only then the next node may be lost."""
        poll_until(lambda: all(self.in_sync(topic) == len(NODES) for topic in topics), timeout, 0.5)

    def freeze(self, node: int) -> None:
        """Suspend a node."""
        pid = self.nodes[node].pid
        assert pid
        os.kill(pid, signal.SIGSTOP)

    def thaw(self, node: int) -> None:
        """Continue a suspended node."""
        pid = self.nodes[node].pid
        assert pid
        os.kill(pid, signal.SIGCONT)

    def _admin(self) -> AdminClient:
        return AdminClient({"bootstrap.servers": self.bootstrap_servers, "log_level": 0})
