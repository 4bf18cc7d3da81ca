"""The measures of the ranked list as text: one line each, a row for each labelled campaign, and the sweep."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from streamguard.text import counted, printable, shortened

NAME_CHARACTERS = 28


def summary(measures: Mapping[str, Any]) -> list[str]:
    """What was raised, what of it was benign, mixed or named, and how much there is to read."""
    purity, per, read = (measures[name] for name in ("purity", "rows_per_campaign", "rows_to_read"))
    lines = [
        f"raised      {counted(measures['raised'], 'row')}, {measures['benign']:,} of them benign "
        f"({measures['benign_per_day']:.1f} a day); {measures['caught']} of {measures['total']} campaigns raised"
    ]
    if per is not None and purity is not None:
        until = "never seen" if read is None else f"seen after {counted(read, 'row')}"
        lines += [
            f"            rows for each of them: {per:.2f}; purity {purity:.1%}",
            f"to read     all campaigns but one are {until}",
            f"entered     {measures['named']} of {counted(measures['accounts'], 'account')} named, "
            f"{measures['wrong']} wrong",
        ]
    return lines


def outcomes(measures: Mapping[str, Any]) -> list[str]:
    """A table with a row for each labelled campaign, by technique."""
    lines = [f"{'TECHNIQUE':9}  {'CAMPAIGN':{NAME_CHARACTERS}}  {'RAISED':6}  {'ROWS':>4}  {'SCORE':>6}  WHY"]
    for one in sorted(
        measures["outcomes"], key=lambda one: (one["technique"] or "", one["found_as"] or "", one["name"])
    ):
        score = "-" if one["score"] is None else f"{one['score']:.1f}"
        name = shortened(printable(one["name"]), NAME_CHARACTERS)
        technique = shortened(printable(one["technique"] or one["found_as"] or "-"), 9)
        lines.append(
            f"{technique:9}  {name:{NAME_CHARACTERS}}  {'yes' if one['caught'] else 'no':6}  {one['rows']:>4}  "
            f"{score:>6}  {one['why'] or 'no incident'}"
        )
    return lines


def curve(points: Sequence[Mapping[str, Any]], total: int, floor: float) -> list[str]:
    """The sweep: for each floor its cost in rows a day, and the campaigns that are caught.

    Floors with the same result as the one below are left out.

    Parameters
    ----------
    total
        Number of labelled campaigns.
    floor
        The floor of the settings, which is marked.
    """
    lines = [f"{'FLOOR':>5}  {'RAISED A DAY':>12}  {'BENIGN A DAY':>12}  {'CAUGHT':>9}"]
    before = None
    for one in points:
        result = (one["raised_per_day"], one["benign_per_day"], one["caught"])
        if result != before or one["floor"] == floor:
            mark = "  <- detection.floor_bits" if one["floor"] == floor else ""
            share = f"{one['caught']} of {total}"
            lines.append(
                f"{one['floor']:5.1f}  {result[0]:12.2f}  {result[1]:12.2f}  {share:>9}{mark}".rstrip()
            )
        before = result
    return lines
