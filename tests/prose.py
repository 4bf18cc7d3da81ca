"""`python -m tests.prose`: finds phrases that the language guide of CONTRIBUTING.md replaces; `make lint` runs it."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parents[1]

CHECKED = (
    *(
        "README.md",
        "CONTRIBUTING.md",
        "SECURITY.md",
        "RELEASING.md",
        "docs/",
        "streamguard/",
        "agents/",
        "batch/",
        "serving/",
    ),
    *("bench/", "grafana/", "deploy/", "Makefile", "Dockerfile", "docker-compose.yml", "pyproject.toml"),
)
"""Files and directories whose prose is checked. The changelog quotes old names."""

PASSED_OVER = (
    "deploy/kubernetes/components/dashboards/",
    "grafana/dashboards/",
    "streamguard/settings/load.py",
)
"""Generated from checked files, or a list of old names that are refused with the new one."""

COUNTED_NOUNS = (
    "incidents|events|users|workers|rows|records|partitions|brokers|versions|alerts|files|offsets|models"
)

PHRASES = {
    r"\btold\b|\btells?\b|\btelling\b": "say, print, log, report, publish or show",
    r"\bto be had\b|\bcannot be had\b": "is unavailable",
    r"\banew\b": "again, from the beginning, or start over",
    r"\bmend(s|ed|ing)?\b": "fix, repair or correct",
    r"\bat the (most|least)\b": "at most, at least",
    r"\blest\b": "so that ... not",
    r"\blikewise\b": "in the same way, or repeat the noun",
    r"\bwhence\b|\bhence\b|\bthereof\b|\bwherewith\b": "plain words",
    r"\bwill (not )?do\b(?=[.,;:)]|$)": "is enough, is accepted",
    r"\bhears?\b|\bheard\b(?! of)": "receives, is called with, is notified of",
    r"\botherwise than\b": "different from",
    r"\bno news\b": "expected, not an anomaly",
    r"\bwho (wants|comes|has|reads|looks|owns)\b(?=[^?]{0,60}\b(sets|deletes|gets|finds|says|is|has)\b)": "a noun",
    r"\bflagg(ed|ing)\b": "alerted (an event), at risk (a user)",
    r"\bstretch(es)?\b": "offset range",
    r"\bhearsay\b": "peers",
    rf"\b1 ({COUNTED_NOUNS})\b": "1 incident",
    r"\b(most|least)_(trimmed|rows|alert_ratio|overlap|drift|injected_auc|groups)\b": "max_, min_",
    r"\bcrash points?\b": "failpoint",
    r"\bin the place of\b": "instead of",
    r"\bfor want of\b": "because ... is missing",
    r"\bof its own accord\b": "by itself",
}
"""What is not written, and what is written instead."""

UNCOUNTED = rf"\{{[^{{}}\n]*\}} ({COUNTED_NOUNS})\b"
"""A number of things in an f-string, which is wrong for the number 1; checked in the product."""


def checked_files() -> list[Path]:
    """Tracked files whose prose is checked."""
    listed = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    names = [
        name for name in listed.splitlines() if name.startswith(CHECKED) and not name.startswith(PASSED_OVER)
    ]
    return [ROOT / name for name in names if (ROOT / name).is_file() and not (ROOT / name).is_symlink()]


def findings(text: str, python: bool = False) -> Iterator[tuple[int, str, str]]:
    """(line, phrase, what to write) of each phrase in a text.

    Parameters
    ----------
    python
        The text is a module of the product, where `counted` writes a number with its noun.

    Examples
    --------
    >>> list(findings("one\\n1 incidents"))
    [(2, '1 incidents', '1 incident')]
    >>> list(findings("f'{number:,} users'", python=True))
    [(1, '{number:,} users', "counted(number, 'user')")]
    """
    phrases = PHRASES | {UNCOUNTED: "counted(number, 'user')"} if python else PHRASES
    for pattern, instead in phrases.items():
        for found in re.finditer(pattern, text, re.IGNORECASE):
            yield text.count("\n", 0, found.start()) + 1, found[0], instead


def main() -> int:
    """Print every finding; 1 if there is one."""
    count = 0
    for path in checked_files():
        try:
            text = path.read_text()
        except UnicodeDecodeError:
            continue
        product = path.suffix == ".py" and path.relative_to(ROOT).parts[0] in (
            "streamguard",
            "agents",
            "batch",
            "serving",
        )
        for line, phrase, instead in sorted(findings(text, python=product)):
            print(f"{path.relative_to(ROOT)}:{line}: {phrase!r}: write {instead}")
            count += 1
    return 1 if count else 0


if __name__ == "__main__":
    sys.exit(main())
