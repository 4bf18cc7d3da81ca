"""Runs one campaigns process, from its settings to its exit code."""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import sys
import threading
from typing import NoReturn

from streamguard import metrics
from streamguard.agents import errors
from streamguard.agents.campaigns.progress import CampaignsProgress
from streamguard.agents.campaigns.rounds import Rounds
from streamguard.agents.campaigns.service import CampaignsService
from streamguard.agents.process.health import HealthServer
from streamguard.errors import ExitCode
from streamguard.kafka import topics
from streamguard.kafka.connection import Brokers
from streamguard.settings.schema import Settings

STOP_SECONDS = 5.0
"""How long the process may take to end after SIGTERM. After that it ends anyway, because a round that is not published
is computed again by the next start, and the brokers abort its transaction."""

_log = logging.getLogger(__name__)


def run(settings: Settings) -> int:
    """Publish campaigns until SIGTERM or SIGINT, and return the exit code (`streamguard.errors`).

    Whatever ends the process, its last line in the log has the reason and the exit code.
    """
    ending = errors.Ending
    ending.program, ending.part = "campaigns process", "campaigns"
    ending.kept = "nothing is lost: the next start computes every campaign again"
    ending.rivals = "another campaigns process of this application has taken the campaigns topic over"
    try:
        return _run(settings)
    except BaseExceptionGroup as group:
        return errors.report(_first(group))
    except Exception as error:  # noqa: BLE001 - Python would exit with 1
        return errors.report(error)


def _run(settings: Settings) -> int:
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: _end())
    errors.Ending.brokers = brokers = Brokers.of(settings)
    if brokers.exposed:
        _log.warning("%s", brokers.exposed)
    rounds = Rounds(settings.campaigns.round_seconds)
    progress = CampaignsProgress(rounds)
    metrics.CAMPAIGNS_LAG_SECONDS.set_function(rounds.waiting_seconds)
    own = settings.campaigns
    health = HealthServer(
        progress,
        metrics.CAMPAIGNS,
        metrics.CAMPAIGNS_READY,
        own.metrics_host,
        own.metrics_port,
        own.metrics_allowed_hosts,
    )
    for deviation in topics.require(settings, topics.CAMPAIGNS_ROLES):
        _log.warning("%s", deviation)
    health.start()
    _log.info(
        "the campaigns process of %s is starting",
        settings.worker.app_id,
        extra={"metrics_port": health.port, "pid": os.getpid()},
    )
    asyncio.run(_until_stopped(CampaignsService(settings, progress, rounds)))
    return _ended()


async def _until_stopped(service: CampaignsService) -> None:
    """Run the service until a signal arrives or it fails."""
    work = asyncio.ensure_future(service.run())
    stopped = asyncio.Event()

    def stop() -> None:
        late = threading.Timer(STOP_SECONDS, _end)
        late.daemon = True
        late.start()
        stopped.set()

    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop)
    waiting = asyncio.ensure_future(stopped.wait())
    await asyncio.wait([work, waiting], return_when=asyncio.FIRST_COMPLETED)
    if work.done():
        waiting.cancel()
        work.result()
        return
    work.cancel()
    await asyncio.wait([work])
    if not work.cancelled() and (failure := work.exception()) is not None:
        _log.warning("an error at the end, which loses nothing: %s", failure)


def _first(group: BaseExceptionGroup[BaseException]) -> BaseException:
    """The error of a group of tasks that explains the others, which were cancelled."""
    found: BaseException = group
    while isinstance(found, BaseExceptionGroup):
        found = found.exceptions[0]
    return found


def _ended() -> int:
    """Log the last line of a process that was stopped, and return its exit code."""
    _log.info(
        "the campaigns process has ended; the campaigns topic holds its last round",
        extra={"exit_code": int(ExitCode.OK)},
    )
    return ExitCode.OK


def _end() -> NoReturn:
    """Exit at once: there is nothing to save."""
    code = _ended()
    logging.shutdown()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)
