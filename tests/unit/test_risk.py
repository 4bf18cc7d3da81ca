"""The scale of risk: strictly monotone, without an upper limit, with severities as its bands."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from streamguard.risk import SEVERITIES, SEVERITY_RISKS, bits, risk, severity
from streamguard.settings.schema import Detection

EVIDENCE = st.floats(-50.0, 5000.0)


@pytest.mark.parametrize(
    ("one_in", "expected"),
    [(1, 0.0), (10, 50.0), (100, 66.6), (1000, 75.0), (10_000, 80.0), (1_000_000, 85.7), (10**12, 92.3)],
)
def test_risk_of_an_event_in_so_many(one_in: int, expected: float) -> None:
    assert risk(math.log2(one_in)) == expected


@given(EVIDENCE, EVIDENCE)
def test_more_evidence_never_has_a_lower_risk_or_severity(one: float, other: float) -> None:
    less, more = sorted((one, other))
    assert risk(less) <= risk(more)
    assert SEVERITIES.index(severity(risk(less))) <= SEVERITIES.index(severity(risk(more)))


@given(EVIDENCE)
def test_published_risk_is_the_formula_rounded_down(evidence: float) -> None:
    decades = max(evidence, 0.0) / math.log2(10)
    exact = 100 * decades / (decades + 1)
    assert exact - 0.1 - 1e-9 <= risk(evidence) <= exact + 1e-9
    assert 0.0 <= risk(evidence) < 100.0


@pytest.mark.parametrize("tenths", range(1000))
def test_risk_of_the_bits_of_a_risk_is_this_risk(tenths: int) -> None:
    """So an event is alerted if and only if its published risk reaches the threshold."""
    limit = bits(tenths / 10)
    assert risk(limit) == tenths / 10
    assert tenths == 0 or risk(math.nextafter(limit, 0.0)) == (tenths - 1) / 10


def test_risk_does_not_saturate_for_evidence_that_occurs() -> None:
    """Up to 200 bits, differences of a tenth of a decade at 10 bits and of 15 bits at 200 remain visible."""
    risks = [risk(evidence) for evidence in (10.0, 10.1, 13.3, 14.0, 20.0, 50.0, 110.0, 185.0, 200.0)]
    assert sorted(set(risks)) == risks


def test_bands_are_those_of_9_14_and_20_bits() -> None:
    assert tuple(risk(evidence) for evidence in (0.0, 9.0, 14.0, 20.0)) == SEVERITY_RISKS
    assert [severity(risk(evidence)) for evidence in (-3.0, 8.9, 9.0, 13.9, 14.0, 19.8, 20.0, 1e4)] == [
        "low", "low", "medium", "medium", "high", "high", "critical", "critical"
    ]  # fmt: skip
    assert [severity(limit) for limit in SEVERITY_RISKS] == list(SEVERITIES)
    assert [severity(round(limit - 0.1, 1)) for limit in SEVERITY_RISKS[1:]] == list(SEVERITIES[:-1])


def test_default_threshold_is_one_event_in_a_thousand() -> None:
    assert Detection().alert_bits == pytest.approx(math.log2(1000), rel=1e-15)
    order = [Detection(alert_risk=tenths / 10).alert_bits for tenths in range(1000)]
    assert (np.diff(order) > 0).all()
