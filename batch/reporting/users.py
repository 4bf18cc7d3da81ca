"""Assesses and exports the users of a run, one partition after the other, in bounded memory."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from streamguard.batch.detection.users import UserAssessment, UserFindings
from streamguard.batch.folding.fold_result import FoldResult, UserTable
from streamguard.batch.reporting import export

if TYPE_CHECKING:
    from streamguard.batch.detection.detect import DetectionResult


def export_users(result: FoldResult, detected: DetectionResult, directory: Path) -> UserFindings:
    """Write a file of `streamguard.batch.reporting.export.features` per partition; return what the report needs.

    Parameters
    ----------
    directory
        Output directory.
    """
    groups = 0 if detected.peers is None else len(detected.peers.groups)
    named = {
        (one.origin.partition, one.entity.value) for one in result.incidents if one.entity.kind == "user"
    }
    findings = UserFindings(detected.assessor, groups, named)
    for partition in sorted(result.users):
        export.features(_assessed(result, partition, detected, findings), partition, directory)
    return findings


def _assessed(
    result: FoldResult, partition: int, detected: DetectionResult, findings: UserFindings
) -> Iterator[tuple[UserTable, UserAssessment]]:
    for users in result.users[partition]:
        found = detected.assessor.assess(users)
        findings.add(users, found)
        yield users, found
