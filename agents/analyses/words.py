"""An analysis as text for a terminal; every text of it is made printable."""

from __future__ import annotations

from collections.abc import Iterator

from streamguard.analyst.analysis import Analysis
from streamguard.analyst.knowledge import STEPS
from streamguard.text import printable


def lines(analysis: Analysis) -> Iterator[str]:
    """The lines of an analysis."""
    for line in _lines(analysis):
        yield printable(line)


def _lines(one: Analysis) -> Iterator[str]:
    yield f"{one.incident_id}  {one.verdict}, confidence {one.confidence:.2f} (rule: {one.rule})"
    for claim in one.claims:
        yield f"  {claim.text} [{', '.join(claim.refs)}]"
    yield from _section("Facts", (f"{fact.id}: {fact.text}" for fact in one.facts))
    yield from _section("Usual for the user", one.ordinary)
    yield from _section("Not known", one.unknown)
    yield from _section("Fields that look like instructions", one.instructions)
    yield from _section("Techniques", (f"{use.id} {use.name} ({use.tactic})" for use in one.techniques))
    yield from _section("Next steps", (f"{id}: {STEPS[id].text}" for id in one.next_steps))
    yield from _section(
        "Similar incidents", (f"{like.incident_id} ({like.similarity:.0%})" for like in one.similar)
    )


def _section(title: str, texts: Iterator[str] | tuple[str, ...]) -> Iterator[str]:
    found = list(texts)
    if found:
        yield f"  {title}:"
        yield from (f"    {text}" for text in found)
