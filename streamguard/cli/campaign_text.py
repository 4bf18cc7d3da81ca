"""The ranked list of campaigns and lone incidents as text for a terminal. Control characters are replaced."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from streamguard.campaigns.budget import Decision
from streamguard.campaigns.campaign import Campaign
from streamguard.cli.incident_text import reason_line
from streamguard.settings.schema import Detection
from streamguard.text import counted, printable, shortened

WIDTH = 100
"""Maximum length of a line; longer ones are cut, and JSON has the whole."""
SHOWN_NAMES = 3
SHOWN_REASONS = 3
SHOWN_DAYS = 5
"""Days with too many rows that a warning names; it counts all of them."""
NAME_CHARACTERS = 24
_INDENT = " " * 9


def table(campaigns: Sequence[Campaign], decisions: Mapping[str, Decision], total: int) -> str:
    """Campaigns and lone incidents as one table, with who is involved and the strongest reasons below each row.

    Parameters
    ----------
    campaigns
        Rows to print, in their order.
    decisions
        By id of the campaign.
    total
        Number of all rows, printed or not.
    """
    if not total:
        return "no incidents\n"
    lines = [
        f"{'SCORE':>6}  {'RAISED':6}  {'SEVERITY':8}  {'INCIDENTS':>9}  {'ALERTS':>7}  {'FIRST SEEN':19}  "
        f"{'TECHNIQUE':9}  WHAT"
    ]
    for one in campaigns:
        decision = decisions[one.id]
        first, last = (time[:19].replace("T", " ") for time in (one.first_seen, one.last_seen))
        lines += [
            f"{one.score:6.1f}  {'yes' if decision.raised else 'no':6}  {one.severity:8}  {one.size:9,}  "
            f"{one.alerts:7,}  {first}  {one.technique or '-':9}  {_plain(one.kind)}",
            f"{_INDENT}{decision.why} ({decision.level:.1f} bits); until {last}",
            f"{_INDENT}tried: {_names(one.tried, one.users, 'users')}; "
            f"entered: {_names(one.entered, one.accounts, 'users')}",
            f"{_INDENT}from: {_names(one.sources, one.addresses, 'addresses')}",
            *(
                f"{_INDENT}{reason_line(reason, WIDTH - len(_INDENT))}"
                for reason in one.reasons[:SHOWN_REASONS]
            ),
        ]
    if total > len(campaigns):
        lines.append(f"... and {total - len(campaigns):,} more: --top 0 and --json show all")
    return "".join(shortened(line, WIDTH) + "\n" for line in lines)


def warning(busy_days: Mapping[str, int], detection: Detection) -> str | None:
    """A warning of days on which more rows were raised than promised; None if there are none.

    Parameters
    ----------
    busy_days
        Result of `streamguard.campaigns.budget.busy_days`.
    detection
        The promise, and the lever.

    Examples
    --------
    >>> warning({"2025-01-20": 12}, Detection())  # doctest: +NORMALIZE_WHITESPACE
    'warning: more rows were raised than 5 a day (detection.incidents_per_day), on 1 day: 2025-01-20 (12); a higher
    detection.floor_bits than 18 raises fewer'
    """
    if not busy_days:
        return None
    worst = sorted(busy_days, key=lambda day: (-busy_days[day], day))[:SHOWN_DAYS]
    named = ", ".join(f"{day} ({busy_days[day]:,})" for day in sorted(worst))
    first = "" if len(worst) == len(busy_days) else "most on "
    return (
        f"warning: more rows were raised than {detection.incidents_per_day:g} a day (detection.incidents_per_day), on "
        f"{counted(len(busy_days), 'day')}: {first}{named}; a higher detection.floor_bits than "
        f"{detection.floor_bits:g} raises fewer"
    )


def _plain(name: str) -> str:
    return name.replace("_", " ")


def _names(names: Sequence[str], number: int, plural: str) -> str:
    """The number of some names, and the first of them.

    Examples
    --------
    >>> _names((), 0, "users"), _names(("ann",), 1, "users")
    ('none', 'ann')
    >>> _names(("a", "b", "c", "d"), 4, "addresses")
    '4 addresses (a, b, c, ...)'
    """
    shown = [printable(shortened(name, NAME_CHARACTERS)) for name in names[:SHOWN_NAMES]]
    if number <= 1:
        return shown[0] if shown else "none"
    return f"{number:,} {plural} ({', '.join(shown)}{', ...' if number > len(shown) else ''})"
