"""Failpoints: named points at which a process can be made to die, hang or freeze."""

from __future__ import annotations

import os
import signal
import sys
import time

VARIABLE = "STREAMGUARD_FAILPOINT"
"""Environment variable that selects a failpoint: `name`, `name:3` (at the third arrival), `name:3:hang` (sleep for
ever there) or `name:3:freeze` (SIGSTOP, until the process receives SIGCONT)."""

POINTS = (
    "chunk-folded",
    "checkpoint-begun",
    "incidents-acknowledged",
    "transaction-begun",
    "changes-sent",
    "transaction-committed",
    "store-written",
    "offset-committed",
    "restore-fenced",
    "restore-batch-written",
    "restore-done",
)
"""All failpoints of the worker: those of a checkpoint in their order, then those of a restore."""


def _parse(value: str) -> tuple[str, int, str]:
    name, _, rest = value.partition(":")
    count, _, action = rest.partition(":")
    if name not in POINTS or (count and not count.isdigit()) or action not in ("", "hang", "freeze"):
        raise ValueError(
            f"{VARIABLE}={value!r} does not select a failpoint: use one of {', '.join(POINTS)}, optionally with "
            "`:COUNT`, `:COUNT:hang` or `:COUNT:freeze`"
        )
    return name, int(count or 1), action or "die"


_armed, _remaining, _action = _parse(os.environ[VARIABLE]) if os.environ.get(VARIABLE) else ("", 0, "die")


def reach(name: str) -> None:
    """Kill, hang or freeze this process if the environment variable selects this failpoint.

    Examples
    --------
    >>> reach("transaction-committed")
    """
    global _remaining  # the count is per process, because a process dies only once
    if name != _armed:
        return
    _remaining -= 1
    if _remaining:
        return
    sys.stderr.write(f"failpoint {name} reached\n")
    sys.stderr.flush()
    if _action == "hang":
        while True:
            time.sleep(3600)
    os.kill(os.getpid(), signal.SIGSTOP if _action == "freeze" else signal.SIGKILL)
