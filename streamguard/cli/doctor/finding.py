"""One line of `streamguard doctor`: what was looked at, how it is, what was found, what to do."""

from __future__ import annotations

from typing import Literal

import msgspec

Status = Literal["ok", "warn", "fail"]
"""As it should be; a worker runs, but somebody should know; a worker does not run, or not right."""


class Finding(msgspec.Struct, frozen=True):
    """What a check found.

    Attributes
    ----------
    check
        What was looked at, in a word or two; a check may have several findings.
    remedy
        What to do; empty if there is nothing to do.
    """

    check: str
    status: Status
    found: str
    remedy: str = ""


def ok(check: str, found: str) -> Finding:
    """It is as it should be."""
    return Finding(check, "ok", found)


def warn(check: str, found: str, remedy: str) -> Finding:
    """It works, but not for long, or not everything."""
    return Finding(check, "warn", found, remedy)


def fail(check: str, found: str, remedy: str) -> Finding:
    """A worker does not start, or does not do its work."""
    return Finding(check, "fail", found, remedy)


def worst(findings: list[Finding]) -> Status:
    """The status of all together.

    Examples
    --------
    >>> worst([ok("java", "21"), warn("disk", "1 GB free", "make room")])
    'warn'
    """
    found = {finding.status for finding in findings}
    return "fail" if "fail" in found else "warn" if "warn" in found else "ok"
