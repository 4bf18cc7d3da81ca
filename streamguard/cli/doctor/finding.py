"""A finding of `streamguard doctor`: the check, its status, what it found, and the remedy."""

from __future__ import annotations

from typing import Literal

import msgspec

Status = Literal["ok", "warn", "fail"]
"""`ok`: as required. `warn`: a worker runs, but a person should act. `fail`: a worker does not run correctly."""


class Finding(msgspec.Struct, frozen=True):
    """Result of a check; a check may have several.

    Attributes
    ----------
    check
        Name of the check.
    status
        See `Status`.
    found
        What the check found.
    remedy
        What to do; empty if the status is `ok`.
    """

    check: str
    status: Status
    found: str
    remedy: str = ""


def ok(check: str, found: str) -> Finding:
    """A finding that is as required."""
    return Finding(check, "ok", found)


def warn(check: str, found: str, remedy: str) -> Finding:
    """A finding with which a worker runs, but perhaps not for long or not with everything."""
    return Finding(check, "warn", found, remedy)


def fail(check: str, found: str, remedy: str) -> Finding:
    """A finding with which a worker does not start or does not work correctly."""
    return Finding(check, "fail", found, remedy)


def worst(findings: list[Finding]) -> Status:
    """The worst status of the findings.

    Examples
    --------
    >>> worst([ok("java", "21"), warn("disk", "1 GB free", "make room")])
    'warn'
    """
    found = {finding.status for finding in findings}
    return "fail" if "fail" in found else "warn" if "warn" in found else "ok"
