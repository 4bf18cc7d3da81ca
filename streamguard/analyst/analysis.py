"""The record of the analyses topic: what an analyst says of an incident, as JSON of bounded size."""

from __future__ import annotations

from typing import Annotated, Any, Literal

import msgspec

SCHEMA_VERSION = 1
"""Rises when a field changes its meaning or is removed; a new field leaves it as it is."""
MAX_SUMMARY = 2_000
"""Characters of a summary."""
MAX_TEXT = 600
"""Characters of a claim."""
MAX_CLAIMS = 16
"""Claims of an analysis."""
MAX_SIMILAR = 5
"""Similar incidents of an analysis."""

Verdict = Literal["true_positive", "suspicious", "benign", "insufficient_data"]
"""Verdicts of OCSF's Incident Finding (`verdict_id` 2, 4, 5 and 7), in the spelling of the API."""


def _described(text: str, **limits: Any) -> msgspec.Meta:
    return msgspec.Meta(description=text, **limits)


Ref = Annotated[str, _described("Id of a fact, such as `R1` or `P2`", pattern=r"^[A-Z][0-9]{1,3}\Z")]


class Fact(msgspec.Struct, frozen=True):
    """One thing that the incident states, by which claims are checked."""

    id: Ref
    text: Annotated[str, _described("The fact in words", max_length=MAX_TEXT)]


class Claim(msgspec.Struct, frozen=True):
    """One sentence of an analysis, with the facts that it rests on."""

    text: Annotated[str, _described("The sentence", max_length=MAX_TEXT)]
    refs: Annotated[tuple[Ref, ...], _described("Ids of the facts that it rests on")]


class TechniqueUse(msgspec.Struct, frozen=True):
    """An ATT&CK technique of the incident."""

    id: Annotated[str, _described("Id, such as `T1110.001`")]
    name: Annotated[str, _described("Name in ATT&CK")]
    tactic: Annotated[str, _described("Tactic in ATT&CK")]


class Similar(msgspec.Struct, frozen=True):
    """An earlier incident with alike evidence."""

    incident_id: Annotated[str, _described("Its id")]
    similarity: Annotated[float, _described("Cosine of the vectors of bits", ge=0, le=1)]


class Analysis(msgspec.Struct, frozen=True, kw_only=True):
    """What an analyst says of an incident; the latest record of an incident counts."""

    schema_version: Annotated[int, _described("Version of this schema")] = SCHEMA_VERSION
    incident_id: Annotated[str, _described("Id of the incident, or of the campaign")]
    revision: Annotated[int, _described("Number of alerts of the incident that was analysed", ge=1)]
    analyst: Annotated[
        Literal["rules", "model"],
        _described("`rules`: deterministic; `model`: a language model wrote the prose"),
    ]
    model: Annotated[str | None, _described("Name of the language model; null for `rules`")] = None
    prompt_version: Annotated[str | None, _described("Version of the prompt; null for `rules`")] = None
    verdict: Annotated[
        Verdict, _described("Verdict in OCSF's words; it never changes risk, severity or state")
    ]
    rule: Annotated[str, _described("Name of the rule that the deterministic verdict follows from")]
    confidence: Annotated[float, _described("How sure the verdict is", ge=0, le=1)]
    disagreement: Annotated[
        str, _described("How a language model's verdict differs from that of the rules; empty if it does not")
    ] = ""
    summary: Annotated[str, _described("What happened, in a few sentences", max_length=MAX_SUMMARY)]
    claims: Annotated[tuple[Claim, ...], _described("Sentences with their facts", max_length=MAX_CLAIMS)]
    facts: Annotated[tuple[Fact, ...], _described("What claims refer to")]
    ordinary: Annotated[tuple[str, ...], _described("What of the incident is usual for the user")] = ()
    unknown: Annotated[tuple[str, ...], _described("What the incident does not show")] = ()
    instructions: Annotated[
        tuple[str, ...],
        _described("Fields of the event whose text looks like instructions to a reader or a model"),
    ] = ()
    techniques: Annotated[tuple[TechniqueUse, ...], _described("ATT&CK techniques, the strongest first")]
    next_steps: Annotated[tuple[str, ...], _described("Ids of steps of the playbook, in their order")]
    similar: Annotated[tuple[Similar, ...], _described("Earlier incidents, the most alike first")] = ()
    rejected: Annotated[
        str,
        _described("Why the answer of the language model was not used; empty if it was, or none was asked"),
    ] = ""
    tokens: Annotated[int, _described("Tokens that the language model has used", ge=0)] = 0
    ms: Annotated[float, _described("Milliseconds that the analysis took", ge=0)] = 0.0


_encoder = msgspec.json.Encoder()
_decoder = msgspec.json.Decoder(Analysis)


def encode(analysis: Analysis) -> bytes:
    """The analysis as JSON."""
    return _encoder.encode(analysis)


def decode(value: bytes) -> Analysis:
    """An analysis from JSON; fields of later versions are ignored.

    Raises
    ------
    msgspec.ValidationError
        If a field is missing or does not fit.
    """
    return _decoder.decode(value)


def json_schema() -> dict[str, Any]:
    """JSON Schema (2020-12) of `Analysis`; `analysis.schema.json` beside this module holds it."""
    _, components = msgspec.json.schema_components([Analysis], ref_template="#/$defs/{name}")
    analysis = components.pop("Analysis")
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **analysis, "$defs": components}
