"""Campaigns as a table for a terminal. Control characters are replaced."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from streamguard.campaigns.budget import Decision
from streamguard.campaigns.campaign import Campaign
from streamguard.text import counted, printable, shortened

SHOWN_NAMES = 3
NAME_CHARACTERS = 30


def table(campaigns: Sequence[Campaign], decisions: Mapping[str, Decision], total: int) -> str:
    """Campaigns as a table: one row for each, with who was tried, who was entered and from where below.

    Parameters
    ----------
    campaigns
        Campaigns to print.
    decisions
        By id of the campaign.
    total
        Number of all campaigns, printed or not.
    """
    if not total:
        return "no campaigns\n"
    lines = [
        f"{'SCORE':>6}  {'RAISED':6}  {'SEVERITY':8}  {'INCIDENTS':>9}  {'ALERTS':>7}  {'FIRST SEEN':19}  "
        f"{'LAST SEEN':19}  {'TECHNIQUE':9}  WHAT"
    ]
    for one in campaigns:
        first, last = (time[:19].replace("T", " ") for time in (one.first_seen, one.last_seen))
        decision = decisions[one.id]
        lines.append(
            f"{one.score:6.1f}  {'yes' if decision.raised else 'no':6}  {one.severity:8}  {one.size:9,}  "
            f"{one.alerts:7,}  {first}  {last}  {one.technique or '-':9}  {one.kind.replace('_', ' ')}"
        )
        lines.append(
            f"{'':9}tried: {_names(one.tried, one.users, 'user')}; entered: "
            f"{_names(one.entered, one.accounts, 'user')}"
        )
        lines.append(
            f"{'':9}from: {_names(one.sources, one.addresses, 'address')}; {decision.why} ({decision.level:.1f} bits)"
        )
    if total > len(campaigns):
        lines.append(f"... and {total - len(campaigns):,} more: --top 0 and --json show all")
    return "".join(line + "\n" for line in lines)


def _names(names: Sequence[str], number: int, noun: str) -> str:
    """The number of some names, and the first of them.

    Examples
    --------
    >>> _names((), 0, "user"), _names(("ann",), 1, "user"), _names(("a", "b", "c", "d"), 4, "address")
    ('none', 'ann', '4 addresses (a, b, c, ...)')
    """
    shown = [printable(shortened(name, NAME_CHARACTERS)) for name in names[:SHOWN_NAMES]]
    if number <= 1:
        return shown[0] if shown else "none"
    counts = counted(number, noun) if noun != "address" else f"{number:,} addresses"
    return f"{counts} ({', '.join(shown)}{', ...' if number > len(shown) else ''})"
