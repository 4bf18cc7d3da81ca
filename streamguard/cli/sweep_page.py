"""The sweep as one HTML page with a picture, without scripts and without requests."""

from __future__ import annotations

import base64
import hashlib
import html
from collections.abc import Mapping, Sequence
from typing import Any

from streamguard.text import printable, shortened

WIDTH, HEIGHT = 720.0, 320.0
"""Plot area in pixels, without its labels."""
MARGIN = 56.0
"""Space for the labels beside and below the plot area, in pixels."""
NAME_CHARACTERS = 60

_CSS = """
:root { color-scheme: light dark; --page: #f6f7f9; --card: #fff; --ink: #1b2430; --soft: #5b6675; --line: #dfe3e8;
  --accent: #2f6fb3; --alarm: #c2410c; }
@media (prefers-color-scheme: dark) { :root { --page: #12161b; --card: #1a2027; --ink: #e4e9ef; --soft: #97a3b1;
  --line: #2c343d; --accent: #6aa5e3; --alarm: #f5925a; } }
body { margin: 0; background: var(--page); color: var(--ink); font: 15px/1.5 system-ui, "DejaVu Sans", sans-serif;
  font-variant-numeric: tabular-nums; }
main { max-width: 920px; margin: 0 auto; padding: 32px 24px 64px; }
section { background: var(--card); border: 1px solid var(--line); border-radius: 10px; padding: 20px 22px;
  margin: 16px 0; }
h1 { font-size: 26px; margin: 0; } h2 { font-size: 18px; margin: 0 0 8px; } .soft { color: var(--soft); }
table { border-collapse: collapse; width: 100%; font-size: 14px; }
th, td { text-align: left; padding: 5px 14px 5px 0; border-bottom: 1px solid var(--line); overflow-wrap: anywhere; }
svg { display: block; max-width: 100%; height: auto; } svg text { fill: var(--soft); font-size: 12px; }
.grid { stroke: var(--line); } .curve { fill: none; stroke: var(--accent); stroke-width: 2; }
.dot { fill: var(--accent); } .here { fill: var(--alarm); }
svg text.here-label { fill: var(--alarm); font-weight: 600; }
.no { color: var(--alarm); font-weight: 600; }
"""


def render(measures: Mapping[str, Any], points: Sequence[Mapping[str, Any]], floor: float) -> str:
    """The page: the curve of budget against campaigns caught, the campaigns, and the points.

    Labels contain texts of others, so all texts are escaped, and the content security policy forbids requests.

    Parameters
    ----------
    measures
        Measures with the floor of the settings.
    points
        The sweep.
    floor
        The floor of the settings, in bits.
    """
    total = measures["total"]
    digest = base64.b64encode(hashlib.sha256(_CSS.encode()).digest()).decode()
    policy = f"default-src 'none'; style-src 'sha256-{digest}'; base-uri 'none'; form-action 'none'"
    missed = [one["name"] for one in measures["outcomes"] if not one["caught"]]
    sentence = (
        f"With a floor of {floor:g} bits, {measures['caught']} of {total} campaigns are raised. A day has "
        f"{measures['raised_per_day']:.2f} raised and {measures['benign_per_day']:.2f} benign rows on average."
    )
    campaigns = _rows(
        ("technique", "campaign", "raised", "rows", "score", "why"),
        (
            (
                one["technique"] or one["found_as"] or "-",
                one["name"],
                "yes" if one["caught"] else "no",
                str(one["rows"]),
                "-" if one["score"] is None else f"{one['score']:.1f}",
                one["why"] or "no incident",
            )
            for one in sorted(measures["outcomes"], key=lambda one: (one["technique"] or "", one["name"]))
        ),
    )
    floors = _rows(
        ("floor in bits", "raised a day", "benign a day", "caught"),
        (
            (f"{p['floor']:g}", f"{p['raised_per_day']:.2f}", f"{p['benign_per_day']:.2f}", f"{p['caught']} of {total}")
            for p in points
        ),
    )  # fmt: skip
    return (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        f'<meta http-equiv="Content-Security-Policy" content="{policy}">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>StreamGuard sweep</title>\n<style>{_CSS}</style>\n</head>\n<body>\n<main>\n"
        f'<h1>Budget and campaigns caught</h1>\n<p class="soft">{_text(sentence)}</p>\n'
        f"<section>\n{_plot(points, total, floor)}\n</section>\n"
        f"<section>\n<h2>Missed</h2>\n<p>{_text(', '.join(map(_short, missed)) or 'none')}</p>\n</section>\n"
        f"<section>\n<h2>Campaigns</h2>\n{campaigns}\n</section>\n"
        f"<section>\n<h2>Floors</h2>\n{floors}\n</section>\n</main>\n</body>\n</html>\n"
    )


def _plot(points: Sequence[Mapping[str, Any]], total: int, floor: float) -> str:
    """The curve as SVG: rows raised a day to the right, campaigns caught upwards."""
    reach = max((p["raised_per_day"] for p in points), default=0.0) or 1.0

    def x(rate: float) -> float:
        return round(MARGIN + rate / reach * WIDTH, 2)

    def y(caught: float) -> float:
        return round(12 + HEIGHT * (1 - caught / max(total, 1)), 2)

    right, bottom = x(reach), y(0)
    parts = []
    for k in range(5):
        rate, share = reach * k / 4, total * k / 4
        parts.append(
            f'<line class="grid" x1="{x(rate)}" x2="{x(rate)}" y1="{y(total)}" y2="{bottom}"/>'
            f'<line class="grid" x1="{MARGIN}" x2="{right}" y1="{y(share)}" y2="{y(share)}"/>'
            f'<text x="{x(rate)}" y="{bottom + 18}" text-anchor="middle">{rate:.3g}</text>'
            f'<text x="{MARGIN - 8}" y="{y(share) + 4}" text-anchor="end">{share:.3g}</text>'
        )
    line = " ".join(f"{x(p['raised_per_day'])},{y(p['caught'])}" for p in points)
    parts.append(f'<polyline class="curve" points="{line}"/>')
    for p in points:
        here = p["floor"] == floor
        at_x, at_y = x(p["raised_per_day"]), y(p["caught"])
        parts.append(
            f'<circle class="{"here" if here else "dot"}" cx="{at_x}" cy="{at_y}" r="{6 if here else 3}">'
            f"<title>floor {p['floor']:g} bits: {p['raised_per_day']:.2f} a day, {p['caught']} caught</title>"
            "</circle>"
        )
        if here:
            parts.append(f'<text class="here-label" x="{at_x + 10}" y="{at_y + 16}">{floor:g} bits</text>')
    parts.append(
        f'<text x="{right}" y="{bottom + 38}" text-anchor="end">rows raised a day</text>'
        f'<text x="{MARGIN + 6}" y="{y(total) + 14}">campaigns caught</text>'
    )
    width, height = WIDTH + MARGIN + 24, HEIGHT + MARGIN
    return f'<svg viewBox="0 0 {width:g} {height:g}" width="{width:g}" role="img">{"".join(parts)}</svg>'


def _rows(head: Sequence[str], rows: Any) -> str:
    cells = "".join(f"<th>{_text(name)}</th>" for name in head)
    body = "".join(
        "<tr>"
        + "".join(f"<td{' class=no' if cell == 'no' else ''}>{_text(_short(cell))}</td>" for cell in row)
        + "</tr>"
        for row in rows
    )
    return f"<table><thead><tr>{cells}</tr></thead><tbody>{body}</tbody></table>"


def _short(text: str) -> str:
    return shortened(printable(text), NAME_CHARACTERS)


def _text(text: str) -> str:
    return html.escape(text)
