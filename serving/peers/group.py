"""The peers of a server: which partitions each of them holds, and a question to as few as answer for all of them."""

from __future__ import annotations

import logging
import secrets
import threading
import time
from collections.abc import Collection, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from typing import NamedTuple, TypeVar

from streamguard.errors import TemporaryError
from streamguard.metrics import SERVE_PEER_REQUESTS
from streamguard.serving.peers.answers import Held, PeerState
from streamguard.serving.peers.client import (
    TIMEOUT_SECONDS,
    Address,
    Client,
    PeerRefusedError,
    PeerUnavailableError,
    UnknownQuestionError,
)
from streamguard.serving.peers.partitions import ranges
from streamguard.serving.peers.signing import Asker

PATH = "/v1/peer/"
"""Beginning of the routes that servers ask each other."""
HELD_PATH = PATH + "partitions"
POLL_SECONDS = 2.0
"""Interval at which peers are asked what they hold."""
ASK_SECONDS = 3.0
"""How long a question may wait for peers, another holder of the same partitions included."""
THREADS = 64
"""Questions to peers at the same time. As many more threads ask them what they hold: neither waits for the other."""
MAX_WAITING = 20
"""Questions that wait for peers at the same time. Each occupies a thread of the server, and answering a peer needs one,
too: if all of them waited, two servers would wait for each other."""

_MARGIN_SECONDS = 0.2
"""How much longer than the limit of a request its thread is waited for: the thread knows the reason better."""

T = TypeVar("T")
_log = logging.getLogger(__name__)


class _Peer(NamedTuple):
    """What is known of a peer."""

    ready: frozenset[int] = frozenset()
    trouble: str = "it has not been asked yet"


class BusyError(TemporaryError):
    """Too many questions wait for peers."""


class Asked(NamedTuple):
    """Answers of peers.

    Attributes
    ----------
    answers
        One for each peer that was asked, with the partitions that it was asked for.
    missing
        Partitions for which no peer has answered.
    reasons
        Why, of the peers that failed.
    """

    answers: list[tuple[frozenset[int], object]]
    missing: frozenset[int]
    reasons: tuple[str, ...]


class PeerGroup:
    """The other servers.

    Parameters
    ----------
    addresses
        Where they are; the server's own address may be among them, so that all have the same settings.
    client
        Asks one of them.
    topic
        The state changelog; a server that follows another one is none of them.
    itself
        For whom they are asked what they hold.

    Attributes
    ----------
    server
        Random id of this process.
    """

    def __init__(self, addresses: Sequence[Address], client: Client, topic: str, itself: Asker) -> None:
        self.server = secrets.token_hex(8)
        self._client, self._topic, self._itself = client, topic, itself
        self._peers = {address: _Peer() for address in addresses}
        self._own: set[Address] = set()
        self._waiting = threading.BoundedSemaphore(MAX_WAITING)
        self._pool = ThreadPoolExecutor(THREADS, "peer")
        self._check_pool = ThreadPoolExecutor(THREADS, "peer-check")
        self._checks: dict[Address, Future[None]] = {}

    def watch(self, stop: threading.Event) -> None:
        """Ask the peers what they hold, again and again, until `stop` is set."""
        while not stop.is_set():
            try:
                self.poll()
            except Exception:  # noqa: BLE001 - whatever it is, peers have to be asked again
                _log.exception("peers cannot be asked what they hold; the server tries again")
            stop.wait(POLL_SECONDS)
        for pool in (self._pool, self._check_pool):
            pool.shutdown(wait=False, cancel_futures=True)

    def poll(self) -> None:
        """Ask every peer once what it holds, unless it still owes the answer to the last time."""
        for address in self._peers:
            last = self._checks.get(address)
            if address not in self._own and (last is None or last.done()):
                self._checks[address] = self._check_pool.submit(self._examine, address)
        done, _ = wait(self._checks.values(), TIMEOUT_SECONDS)
        for check in done:
            check.result()  # raises what was not expected

    def _examine(self, address: Address) -> None:
        try:
            held = self._client.ask(address, HELD_PATH, {}, self._itself, Held)
        except (PeerUnavailableError, PeerRefusedError) as error:
            self._failed(address, str(error))
            return
        if held.server == self.server:
            self._own.add(address)
            found = _Peer(trouble="")
        elif held.topic != self._topic:
            self._failed(
                address, f"{address.text} follows {held.topic[:300]}, and this server follows {self._topic}"
            )
            return
        else:
            found = _Peer(frozenset(held.ready), "")
        if self._peers[address] != found and address not in self._own:
            _log.info("the peer %s answers for partitions %s", address.text, ranges(found.ready) or "none")
        self._peers[address] = found

    def _failed(self, address: Address, reason: str) -> None:
        SERVE_PEER_REQUESTS.labels("failed").inc()
        if self._peers[address].trouble != reason:
            _log.warning("a peer cannot be asked: %s", reason)
        self._peers[address] = _Peer(trouble=reason)

    def states(self) -> tuple[PeerState, ...]:
        """The peers as they were last seen, without this server itself."""
        return tuple(
            PeerState(address.text, ranges(peer.ready), peer.trouble)
            for address, peer in self._peers.items()
            if address not in self._own
        )

    def ready(self) -> frozenset[int]:
        """Partitions for which some peer can answer."""
        return frozenset().union(*(peer.ready for peer in self._peers.values()))

    def ask(
        self,
        partitions: Collection[int],
        path: str,
        parameters: dict[str, str],
        asker: Asker,
        kind: type[object],
    ) -> Asked:
        """Ask peers that together hold these partitions; another holder is asked if one fails.

        Every partition is asked of one peer, also if several hold it. After 3 s in total, what has not been answered is
        missing.

        Raises
        ------
        PeerRefusedError
            If a peer refuses the question for this caller. The peer counts as able to answer others.
        BusyError
            If too many questions wait already.
        """
        if not self._waiting.acquire(blocking=False):
            raise BusyError(f"{MAX_WAITING} questions wait for other servers already: ask again in a moment")
        try:
            return self._ask(partitions, path, parameters, asker, kind)
        finally:
            self._waiting.release()

    def _ask(
        self,
        partitions: Collection[int],
        path: str,
        parameters: dict[str, str],
        asker: Asker,
        kind: type[object],
    ) -> Asked:
        left, answers = frozenset(partitions), list[tuple[frozenset[int], object]]()
        reasons: list[str] = []
        failed: set[Address] = set()
        ends = time.monotonic() + ASK_SECONDS
        while left and (seconds := ends - time.monotonic()) > 0:
            chosen = self._chosen(left, failed)
            if not chosen:
                break

            def one(address: Address, own: frozenset[int], limit: float) -> object | None:
                try:
                    answer = self._client.ask(
                        address, path, {**parameters, "partitions": ranges(own)}, asker, kind, limit
                    )
                except PeerRefusedError:
                    SERVE_PEER_REQUESTS.labels("refused").inc()
                    raise
                except PeerUnavailableError as error:
                    failed.add(address)
                    reasons.append(str(error))
                    if isinstance(error, UnknownQuestionError):
                        SERVE_PEER_REQUESTS.labels("failed").inc()
                    else:
                        self._failed(address, str(error))
                    return None
                SERVE_PEER_REQUESTS.labels("answered").inc()
                return answer

            limit = min(seconds, TIMEOUT_SECONDS)
            asked = {address: self._pool.submit(one, address, own, limit) for address, own in chosen.items()}
            wait(asked.values(), limit + _MARGIN_SECONDS)
            for address, own in chosen.items():
                if not asked[address].done():
                    asked[address].cancel()
                    failed.add(address)
                    reasons.append(f"{address.text} does not answer within {limit:.1f} s")
                elif (answer := asked[address].result()) is not None:
                    answers.append((own, answer))
                    left -= own
        reasons += [
            peer.trouble for address, peer in self._peers.items() if peer.trouble and address not in failed
        ]
        return Asked(answers, left, tuple(reasons))

    def _chosen(self, left: frozenset[int], failed: set[Address]) -> dict[Address, frozenset[int]]:
        """Peers for these partitions, the one with most of them first."""
        chosen: dict[Address, frozenset[int]] = {}
        able = {address: peer.ready for address, peer in self._peers.items() if address not in failed}
        while True:
            best = max(able, key=lambda address: len(able[address] & left), default=None)
            if best is None or not (own := able.pop(best) & left):
                return chosen
            chosen[best] = own
            left -= own
