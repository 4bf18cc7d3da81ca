"""The analyst with a language model: faults of its server, answers that state too much, limits, and the key."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import msgspec
import pytest
from aiohttp import web

from streamguard.alerts.incident import Incident
from streamguard.analyst import rules
from streamguard.analyst.analysis import Analysis
from streamguard.analyst.language.analyst import Analyst
from streamguard.analyst.language.check import RejectedError
from streamguard.analyst.language.client import KEY_VARIABLE, MAX_BYTES, MAX_WAIT_SECONDS, Client
from streamguard.analyst.language.limits import FAILURES, OPEN_SECONDS, Cache, Limits
from streamguard.analyst.language.prompt import PROMPT_VERSION
from streamguard.settings.schema import Analyst as Section
from streamguard.testing.clock import ManualClock
from tests.model_server import Handler, model_server, replying, sending
from tests.unit.test_injection import HARMLESS, attacked

INCIDENT = attacked(HARMLESS)
GOOD = {
    "verdict": "true_positive",
    "summary": "The user USER1 used a new host.",
    "claims": [{"text": "The host HOST1 weighs 12.0 bits.", "refs": ["R1"]}],
}


def said(text: str, refs: tuple[str, ...] = ("R1",), **others: Any) -> dict[str, Any]:
    """A good answer but for this claim."""
    return {**GOOD, "claims": [{"text": text, "refs": list(refs)}], **others}


async def _asked(
    handlers: tuple[Handler, ...], incident: Incident = INCIDENT, **settings: Any
) -> tuple[Analysis, int, list[float]]:
    waits: list[float] = []

    async def wait(seconds: float) -> None:
        waits.append(seconds)

    async with model_server(*handlers) as server:
        section = Section(base_url=server.url, model="small", min_severity="low", **settings)
        analyst = Analyst(section, client=Client(section, wait=wait, environment={}))
        analysis = await analyst.analyse(incident)
        await analyst.close()
        return analysis, len(server.requests), waits


def asked(*handlers: Handler, **settings: Any) -> tuple[Analysis, int, list[float]]:
    """The analysis, the number of requests, and the waits between them."""
    return asyncio.run(_asked(handlers, **settings))


def is_of_the_rules(analysis: Analysis) -> bool:
    """Whether the rules have worded it."""
    return msgspec.structs.replace(analysis, rejected="", tokens=0) == rules.analyse(INCIDENT)


def test_an_answer_that_states_what_the_facts_state_is_used_with_its_texts_restored() -> None:
    analysis, requests, _ = asked(replying(GOOD))
    assert (analysis.analyst, analysis.model, analysis.prompt_version) == ("model", "small", PROMPT_VERSION)
    assert analysis.summary == "The user plainuser used a new host."
    assert analysis.claims[0].text == "The host plainhost weighs 12.0 bits."
    assert (analysis.rejected, analysis.tokens, requests) == ("", 100, 1)


@pytest.mark.parametrize(
    ("reason", "reply"),
    [
        ("form", "no JSON"),
        ("form", json.dumps(GOOD) + " And more."),
        ("form", {**GOOD, "verdict": "harmless"}),
        ("form", {**GOOD, "severity": "low"}),
        ("form", {**GOOD, "claims": []}),
        ("form", said("x" * 401)),
        ("form", said("The host is new.", refs=())),
        ("form", "[" * 100_000),
        ("reference", said("The host is new.", refs=("R1", "R99"))),
        ("number", said("The host HOST1 weighs 13.0 bits.")),
        ("number", {**GOOD, "summary": "There were 4711 attempts."}),
        ("address", said("The address 10.20.1.147 is new.")),
        ("address", said("The address fe80::1:2 is new.")),
        ("name", said("The user is suspected of being a Russian spy.")),
        ("name", said("Mallory did it.")),
        ("name", said("The file evil.exe was seen.")),
        ("placeholder", said("The host HOST99 is new.")),
        ("placeholder", said("The user USER1 has a new host.")),
        ("technique", said("It shows T1566.")),
        ("markup", said("The host is **new**.")),
        ("url", said("See http://evil.example now.")),
        ("characters", said("The host is new\u202e.")),
        ("characters", said("The host\nis new.")),
    ],
)
def test_an_answer_that_states_more_than_its_facts_is_rejected_by_name(reason: str, reply: Any) -> None:
    analysis, _, _ = asked(replying(reply))
    assert analysis.rejected == reason
    assert analysis.tokens == 100
    assert is_of_the_rules(analysis)


def test_an_answer_that_did_not_end_by_itself_is_rejected() -> None:
    for finish in ("length", "content_filter", ""):
        assert asked(replying(GOOD, finish))[0].rejected == "unfinished"


async def _hang(_: web.Request) -> web.StreamResponse:
    await asyncio.Event().wait()
    raise AssertionError


async def _drip(request: web.Request) -> web.StreamResponse:
    response = web.StreamResponse()
    await response.prepare(request)
    await response.write(b"{")
    return await _hang(request)


async def _cut(request: web.Request) -> web.StreamResponse:
    assert request.transport is not None
    request.transport.abort()
    return web.Response()


@pytest.mark.parametrize(
    ("reason", "handler", "requests"),
    [
        ("timeout", _hang, 2),
        ("timeout", _drip, 2),
        ("connection", _cut, 2),
        ("status", sending(500), 2),
        ("status", sending(429), 2),
        ("status", sending(400, b"exceed_context_size_error"), 1),
        ("status", sending(401), 1),
        ("redirect", sending(307, headers={"Location": "http://127.0.0.1:1/v1"}), 1),
        ("protocol", sending(200, b"\xff\x00garbage"), 1),
        ("protocol", sending(200, b'{"choices": []}'), 1),
        ("protocol", sending(200, b"[" * 100_000), 1),
        ("too_large", sending(200, b" " * (MAX_BYTES + 1)), 1),
    ],
)
def test_a_fault_of_the_server_leaves_the_words_of_the_rules(
    reason: str, handler: Handler, requests: int
) -> None:
    analysis, made, _ = asked(handler, timeout_seconds=0.2 if reason == "timeout" else 20.0)
    assert (analysis.rejected, made) == (reason, requests)
    assert is_of_the_rules(analysis)


def test_a_second_attempt_waits_as_long_as_the_server_asks_within_bounds() -> None:
    for header, expected in (("7", 7.0), ("86400", MAX_WAIT_SECONDS), ("soon", 1.0), ("-5", 1.0)):
        busy = sending(429, headers={"Retry-After": header})
        analysis, requests, waits = asked(busy, replying(GOOD))
        assert (analysis.rejected, requests, waits) == ("", 2, [expected])


def test_a_model_that_says_benign_disagrees_and_changes_nothing_else() -> None:
    analysis, _, _ = asked(replying({**GOOD, "verdict": "benign"}))
    expected = rules.analyse(INCIDENT)
    assert analysis.disagreement == "The model says: probably ordinary; the rules decide."
    assert (analysis.verdict, analysis.rule, analysis.next_steps) == (
        expected.verdict,
        expected.rule,
        expected.next_steps,
    )


def test_no_model_is_asked_below_the_severity_or_without_an_address() -> None:
    low = msgspec.structs.replace(INCIDENT, severity="low")

    async def run() -> int:
        async with model_server(replying(GOOD)) as server:
            for section in (Section(base_url=server.url, min_severity="medium"), Section()):
                assert await Analyst(section).analyse(low) == rules.analyse(low)
            return len(server.requests)

    assert asyncio.run(run()) == 0


def test_equal_prompts_are_asked_once_and_rejected_answers_are_not_kept() -> None:
    async def run(reply: Any) -> tuple[int, list[int]]:
        async with model_server(replying(reply)) as server:
            analyst = Analyst(Section(base_url=server.url, min_severity="low"))
            other = attacked({**HARMLESS, "host": "another"})
            made = [await analyst.analyse(one) for one in (INCIDENT, other)]
            await analyst.close()
            if not made[1].rejected:
                assert made[1].claims[0].text == "The host another weighs 12.0 bits."
            return len(server.requests), [one.tokens for one in made]

    assert asyncio.run(run(GOOD)) == (1, [100, 0])
    assert asyncio.run(run(said("Mallory did it."))) == (2, [100, 100])


def test_the_key_is_sent_and_shown_nowhere(tmp_path: Path) -> None:
    file = tmp_path / "key"
    file.write_text("secret-4711\n")

    async def run(environment: dict[str, str], **settings: Any) -> tuple[str | None, str]:
        async with model_server(sending(500)) as server:
            section = Section(base_url=server.url, min_severity="low", **settings)

            async def wait(_: float) -> None: ...

            client = Client(section, wait=wait, environment=environment)
            analyst = Analyst(section, client=client)
            analysis = await analyst.analyse(INCIDENT)
            await analyst.close()
            sent = server.headers[0].get("Authorization") if server.headers else None
            return sent, f"{analysis}{section}{client!r}{analyst!r}"

    for environment, settings in (({}, {"key_file": str(file)}), ({KEY_VARIABLE: "secret-4711"}, {})):
        sent, shown = asyncio.run(run(environment, **settings))
        assert sent == "Bearer secret-4711"
        assert "secret" not in shown
    file.write_text("two\nlines")
    assert asyncio.run(run({}, key_file=str(file)))[0] is None
    assert asyncio.run(run({}, key_file=str(tmp_path / "missing")))[0] is None


def _refusal(limits: Limits) -> str:
    try:
        limits.begin()
    except RejectedError as error:
        return error.reason
    return ""


def test_calls_and_tokens_are_limited_over_the_last_hour_and_day() -> None:
    clock = ManualClock()
    limits = Limits(2, 150, clock)
    assert _refusal(limits) == ""
    limits.end(100, answered=True)
    assert _refusal(limits) == ""
    limits.end(100, answered=True)
    assert _refusal(limits) == "calls_per_hour"
    clock.advance(3600.0)
    assert _refusal(limits) == "tokens_per_day"
    clock.advance(23 * 3600.0)
    assert _refusal(limits) == ""


def test_failures_open_the_breaker_for_a_minute_and_one_trial_closes_it() -> None:
    clock = ManualClock()
    limits = Limits(1000, 1000, clock)
    for _ in range(FAILURES):
        assert _refusal(limits) == ""
        limits.end(0, answered=False)
    assert _refusal(limits) == "breaker"
    clock.advance(OPEN_SECONDS)
    assert [_refusal(limits), _refusal(limits)] == ["", "breaker"]
    limits.end(0, answered=False)
    assert _refusal(limits) == "breaker"
    clock.advance(OPEN_SECONDS)
    assert _refusal(limits) == ""
    limits.end(0, answered=True)
    assert [_refusal(limits), _refusal(limits)] == ["", ""]


def test_the_cache_forgets_what_was_used_least_recently() -> None:
    cache = Cache[int](2)
    cache.put(b"a", 1)
    cache.put(b"b", 2)
    assert cache.get(b"a") == 1
    cache.put(b"c", 3)
    assert [cache.get(key) for key in (b"a", b"b", b"c")] == [1, None, 3]


@pytest.mark.parametrize(
    "url",
    [
        "http://192.0.2.1/v1",
        "ftp://127.0.0.1/",
        "127.0.0.1",
        "https://a:b@c/v1",
        "http://[",
        "https://c/?key=1",
    ],
)
def test_an_address_that_would_show_the_key_is_refused(url: str) -> None:
    with pytest.raises(ValueError, match=r"analyst\.base_url"):
        Section(base_url=url)


def test_http_on_another_machine_has_to_be_allowed() -> None:
    assert Section(base_url="http://192.0.2.1/v1", allow_http=True).base_url
    assert Section(base_url="https://model.example.com/v1").base_url
