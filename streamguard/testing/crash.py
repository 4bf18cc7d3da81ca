"""Named points at which a process can be made to die or to hang: how every step of a checkpoint is tested."""

from __future__ import annotations

import os
import signal
import sys
import time

VARIABLE = "STREAMGUARD_CRASH_POINT"
"""Names the point, `name`, `name:3` (at the third arrival) or `name:3:hang` (sleep for ever there)."""

POINTS = (
    "chunk-folded",
    "checkpoint-begun",
    "incidents-acknowledged",
    "transaction-begun",
    "changes-sent",
    "transaction-committed",
    "table-written",
    "offset-committed",
    "recovery-fenced",
    "recovery-batch-written",
    "recovery-done",
)
"""Every point in the worker, in the order of a checkpoint, then of a recovery."""


def _parse(value: str) -> tuple[str, int, bool]:
    name, _, rest = value.partition(":")
    count, _, action = rest.partition(":")
    if name not in POINTS or (count and not count.isdigit()) or action not in ("", "hang"):
        raise ValueError(
            f"{VARIABLE}={value!r}: use one of {', '.join(POINTS)}, then `:COUNT` or `:COUNT:hang`"
        )
    return name, int(count or 1), action == "hang"


_armed, _remaining, _hang = _parse(os.environ[VARIABLE]) if os.environ.get(VARIABLE) else ("", 0, False)


def point(name: str) -> None:
    """Die by SIGKILL, or hang, if this point is the one named in the environment.

    Examples
    --------
    >>> point("transaction-committed")
    """
    global _remaining  # one process dies once; the count belongs to it
    if name != _armed:
        return
    _remaining -= 1
    if _remaining:
        return
    sys.stderr.write(f"crash point {name} reached\n")
    sys.stderr.flush()
    if _hang:
        while True:
            time.sleep(3600)
    os.kill(os.getpid(), signal.SIGKILL)
