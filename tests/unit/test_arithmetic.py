"""The fold's own arithmetic against `math` and scipy."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from streamguard.compute import arithmetic
from streamguard.compute.compiler import kernel


@kernel
def exp2(y):  # type: ignore[no-untyped-def]
    return arithmetic.exp2(y)


@kernel
def log2(x):  # type: ignore[no-untyped-def]
    return arithmetic.log2(x)


@kernel
def poisson_bits(k, rate):  # type: ignore[no-untyped-def]
    return arithmetic.poisson_bits(k, rate)


@kernel
def student_bits(z):  # type: ignore[no-untyped-def]
    return arithmetic.student_bits(z)


@kernel
def mix(x):  # type: ignore[no-untyped-def]
    return arithmetic.mix(x)


@given(st.floats(-1000.0, 1000.0))
def test_exp2_is_within_its_error(y: float) -> None:
    assert exp2(y) == pytest.approx(2.0**y, rel=1e-12)


def test_exp2_beyond_its_range() -> None:
    assert exp2(-1000.5) == exp2(-1e300) == exp2(-math.inf) == 0.0
    assert exp2(1e300) == 2.0**1000


@given(st.floats(min_value=2.3e-308, allow_infinity=False))
def test_log2_is_within_its_error(x: float) -> None:
    assert log2(x) == pytest.approx(math.log2(x), abs=1e-11)


@given(st.integers(-1000, 1000))
def test_whole_powers_are_exact(k: int) -> None:
    assert exp2(float(k)) == 2.0**k
    assert log2(2.0**k) == k


def test_log2_of_what_it_is_not_made_for_is_finite() -> None:
    assert all(math.isfinite(log2(x)) for x in (0.0, 5e-324, 1e-310, math.inf))


@given(st.integers(1, 3000), st.floats(0.02, 1000.0))
def test_poisson_bits_bounds_the_tail_from_below(k: int, rate: float) -> None:
    """A bound on P(X >= k), so never more bits than the truth, and close to them away from the mean."""
    bits, truth = poisson_bits(float(k), rate), -stats.poisson.logsf(k - 1, rate) / math.log(2)
    assert bits <= min(truth, 60.0) + 0.01  # Stirling's series at small k
    if k > rate + 4 * math.sqrt(rate) and truth < 59:
        assert bits == pytest.approx(truth, abs=0.25)


def test_poisson_bits_of_no_surprise_and_of_the_impossible() -> None:
    assert poisson_bits(0.0, 5.0) == poisson_bits(5.0, 5.0) == poisson_bits(3.0, 5.0) == 0.0
    assert poisson_bits(1e9, 0.02) == 60.0


@given(st.floats(1.0, 500.0), st.floats(0.0, 100.0), st.floats(0.02, 100.0))
def test_poisson_bits_rise_with_the_count(k: float, more: float, rate: float) -> None:
    assert poisson_bits(k + more, rate) >= poisson_bits(k, rate) - 1e-9


@given(st.floats(-50.0, 50.0))
def test_student_bits_are_the_density_s(z: float) -> None:
    density = stats.t(5)
    assert student_bits(z) == pytest.approx((density.logpdf(0.0) - density.logpdf(z)) / math.log(2), abs=1e-9)


def test_mix_is_splitmix64() -> None:
    """Java's SplittableRandom(0) gives this first."""
    assert int(mix(np.uint64(0x9E3779B97F4A7C15))) == 0xE220A8397B1DCDAF
