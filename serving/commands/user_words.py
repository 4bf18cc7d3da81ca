"""One user in words for a terminal: what is usual, what is unusual now, live beside batch, and the incidents."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence

from streamguard.alerts.usual import amount, span
from streamguard.serving.commands import incident_table
from streamguard.serving.commands.terminal import INDENT, fitted, moment, padded, plain, wrapped
from streamguard.serving.commands.week import week
from streamguard.serving.query.users import UserAnswer
from streamguard.serving.replica.profile import UserProfile, Usual
from streamguard.serving.results.users import BatchUser
from streamguard.text import counted, shortened

MAX_VALUE = 60
"""Characters of a usual value; JSON has the whole one."""
MAX_INCIDENTS = 10
"""Incidents that are printed, the latest; JSON has more."""
_LABEL = 10
"""Columns of the name of a field."""


def words(found: UserAnswer, width: int) -> str:
    """A user in words.

    Parameters
    ----------
    width
        Columns of the terminal; no line needs more.
    """
    lines = [fitted(f"user {found.user}", width)]
    if found.profiles_missing:
        lines += wrapped(f"The profile is not known now: {found.profiles_missing}.", width, "")
    elif not found.profiles:
        lines += wrapped("No profile: no event of this name was folded, or it has aged out.", width, "")
    if len(found.profiles) > 1:
        lines += wrapped(
            f"{counted(len(found.profiles), 'partition')} have events of this user: two senders use different "
            "partitioners, so each profile sees a part only.",
            width,
            "",
        )
    for profile in found.profiles:
        lines += _profile(profile, width)
    lines += ["", "Live beside batch", *_batch(found, width)]
    lines += ["", "Incidents"]
    shown = found.incidents[:MAX_INCIDENTS]
    lines += incident_table.table(shown, width) if shown else [INDENT + "none"]
    if len(found.incidents) > len(shown):
        lines += wrapped(
            f"... {len(found.incidents) - len(shown)} more: streamguard incidents list --all", width
        )
    if found.as_of:
        lines += [
            "",
            *wrapped(
                "; ".join(f"{one.source}: {span(one.staleness_ms / 1000)} old" for one in found.as_of),
                width,
                "",
            ),
        ]
    return "\n".join(line.rstrip() for line in lines)


def _profile(one: UserProfile, width: int) -> Iterator[str]:
    yield from wrapped(
        f"{one.maturity}: {counted(one.events, 'event')} on {counted(one.active_days, 'day')} from "
        f"{moment(one.first_seen)} to {moment(one.last_seen)} UTC; {one.events_a_day:.1f} a day, "
        f"{amount(one.bytes_a_day)} a day; {one.failure_share:.1%} fail; partition {one.partition}, up to offset "
        f"{one.source_offset:,}",
        width,
        "",
    )
    yield from ("", "Unusual now")
    for sentence in one.unusual_now or ("nothing",):
        yield from wrapped(sentence, width)
    yield from ("", "Usual")
    for usual in one.usual:
        yield from _usual(usual, width)
    for name, typical in (("interval", one.interval), ("volume", one.volume)):
        if typical is not None:
            yield from _labelled(name, typical.words, width)
    yield from ("", *wrapped(f"Hours of the week: {one.hours.words}", width, "", INDENT))
    yield from week(one.hours.shares, _draws_blocks())
    yield from ("", "Rates: now | usual")
    for rate in one.rates:
        yield from _labelled(
            span(rate.half_life_seconds),
            f"events {rate.events:.1f} | {rate.usual_events:.1f}; failures {rate.failures:.1f} | "
            f"{rate.usual_failures:.1f}; bytes {amount(rate.bytes)} | {amount(rate.usual_bytes)}",
            width,
        )
    if one.failures_in_a_row:
        yield from wrapped(
            f"{counted(one.failures_in_a_row, 'failure')} since the last successful login", width
        )
    if one.decisions:
        yield from ("", "Decisions in force")
    for made in one.decisions:
        until = f" until {moment(made.until)} UTC" if made.until else ""
        yield from wrapped(
            f"{made.decision}: {plain(made.field)} {shortened(made.value, MAX_VALUE)}{until}", width
        )


def _usual(usual: Usual, width: int) -> Iterator[str]:
    values = [*usual.values, *([usual.rest] if usual.rest is not None else [])]
    if values:
        text = ", ".join(f"{shortened(one.value, MAX_VALUE)} {one.share:.0%}" for one in values)
        yield from _labelled(usual.field, text, width)


def _labelled(label: str, text: str, width: int) -> list[str]:
    """A text behind its label, in lines that are indented below it."""
    return wrapped(text, width, f"{INDENT}{padded(fitted(label, _LABEL), _LABEL)}  ", " " * (_LABEL + 4))


def _batch(found: UserAnswer, width: int) -> Iterator[str]:
    if found.batch is None or not found.batch.entries:
        missing = found.batch_missing or "the latest run has no event of this user"
        yield from wrapped(f"batch: {missing}", width)
        return
    live = {one.partition: one for one in found.profiles}
    for entry in found.batch.entries:
        summary = entry.summary
        yield from _table(_pairs(live.get(summary.partition), summary), width)
        yield from wrapped(f"run {found.batch.as_of.source}, partition {summary.partition}", width)
    groups = {one.number: one for one in found.batch.groups}
    for number in dict.fromkeys(one.summary.peer_group for one in found.batch.entries):
        if number in groups:
            group = groups[number]
            traits = ", ".join(f"{plain(one.feature)} {one.apart:+.1f}" for one in group.traits)
            yield from wrapped(
                f"peer group {number}: {counted(group.size, 'user')}, {group.at_risk} at risk"
                f"{f'; unlike the median user in {traits}' if traits else ''}",
                width,
            )
    for why in found.batch.why:
        yield from wrapped(f"why: {why}", width)
    for compared in found.comparisons:
        yield from wrapped(f"{plain(compared.verdict)}: {compared.message}", width)


def _pairs(live: UserProfile | None, batch: BatchUser) -> list[tuple[str, str, str]]:
    """(what, live, batch) of what both layers or one of them know."""
    group = (
        "no group"
        if batch.peer_group is None
        else f"group {batch.peer_group}, {batch.peer_bits or 0:.1f} bits"
    )
    rows = [
        ("events", "-", f"{batch.total_events:,}"),
        ("sources", "-", f"{batch.unique_ips:,}"),
        ("failures", "-", f"{batch.failed_auth_rate:.1%} of logins"),
        ("first seen", "-", moment(batch.first_seen)),
        ("last seen", "-", moment(batch.last_seen)),
        ("peers", "-", group),
        ("evidence", "-", f"{batch.evidence_bits:.1f} bits, {'' if batch.is_anomaly else 'not '}at risk"),
    ]
    if live is None:
        return rows
    sources = sum(len(one.values) for one in live.usual if one.field == "source")
    beside = {
        "events": f"{live.events:,}",
        "sources": f"{sources} usual",
        "failures": f"{live.failure_share:.1%} of events",
        "first seen": moment(live.first_seen),
        "last seen": moment(live.last_seen),
        "evidence": f"{live.open_incident.evidence_bits:.1f} bits, open" if live.open_incident else "-",
    }
    return [(what, beside.get(what, "-"), of_batch) for what, _, of_batch in rows]


def _table(rows: Sequence[tuple[str, str, str]], width: int) -> Iterator[str]:
    yield fitted(f"{INDENT}{'':10}  {'LIVE':18}  BATCH", width)
    for what, live, batch in rows:
        yield fitted(f"{INDENT}{what:10}  {live:18}  {batch}", width)


def _draws_blocks() -> bool:
    """Whether standard output can show the characters of the picture."""
    try:
        "\N{FULL BLOCK}".encode(sys.stdout.encoding or "ascii")
    except (UnicodeEncodeError, LookupError):
        return False
    return True
