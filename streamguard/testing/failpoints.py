"""Named points at which a process can be made to die, hang or freeze."""

from __future__ import annotations

import os
import signal
import sys
import time

VARIABLE = "STREAMGUARD_FAILPOINT"
"""The point: `name`, `name:3` (at the third arrival), `name:3:hang` (sleep for ever there) or `name:3:freeze`
(SIGSTOP, until somebody sends SIGCONT)."""

POINTS = (
    "chunk-folded",
    "checkpoint-begun",
    "incidents-acknowledged",
    "transaction-begun",
    "changes-sent",
    "transaction-committed",
    "store-written",
    "offset-committed",
    "recovery-fenced",
    "recovery-batch-written",
    "recovery-done",
)
"""Every point in the worker, in the order of a checkpoint, then of a recovery."""


def _parse(value: str) -> tuple[str, int, str]:
    name, _, rest = value.partition(":")
    count, _, action = rest.partition(":")
    if name not in POINTS or (count and not count.isdigit()) or action not in ("", "hang", "freeze"):
        raise ValueError(
            f"{VARIABLE}={value!r}: use one of {', '.join(POINTS)}, then `:COUNT`, `:COUNT:hang` or "
            "`:COUNT:freeze`"
        )
    return name, int(count or 1), action or "die"


_armed, _remaining, _action = _parse(os.environ[VARIABLE]) if os.environ.get(VARIABLE) else ("", 0, "die")


def reach(name: str) -> None:
    """Die by SIGKILL, or hang or freeze, if this point is the one named in the environment.

    Examples
    --------
    >>> reach("transaction-committed")
    """
    global _remaining  # one process dies once; the count belongs to it
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
