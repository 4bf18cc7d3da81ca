"""The fold's own arithmetic compared with `math` and SciPy."""

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
def test_exp2_is_within_its_error_bound(y: float) -> None:
    assert exp2(y) == pytest.approx(2.0**y, rel=1e-12)


def test_exp2_saturates_outside_its_range() -> None:
    assert exp2(-1000.5) == exp2(-1e300) == exp2(-math.inf) == 0.0
    assert exp2(1e300) == 2.0**1000


@given(st.floats(min_value=2.3e-308, allow_infinity=False))
def test_log2_is_within_its_error_bound(x: float) -> None:
    assert log2(x) == pytest.approx(math.log2(x), abs=1e-11)


@given(st.integers(-1000, 1000))
def test_integer_powers_are_exact(k: int) -> None:
    assert exp2(float(k)) == 2.0**k
    assert log2(2.0**k) == k


def test_log2_is_finite_outside_its_domain() -> None:
    assert all(math.isfinite(log2(x)) for x in (0.0, 5e-324, 1e-310, math.inf))


@given(st.integers(1, 3000), st.floats(0.02, 1000.0))
def test_poisson_bits_never_exceed_the_exact_tail(k: int, rate: float) -> None:
    """They bound P(X >= k): never more bits than the exact value, and close to it away from the mean."""
    bits, truth = poisson_bits(float(k), rate), -stats.poisson.logsf(k - 1, rate) / math.log(2)
    assert bits <= min(truth, 60.0) + 0.01  # tolerance for Stirling's series at small k
    if k > rate + 4 * math.sqrt(rate) and truth < 59:
        assert bits == pytest.approx(truth, abs=0.25)


def test_poisson_bits_range_from_0_to_60() -> None:
    assert poisson_bits(0.0, 5.0) == poisson_bits(5.0, 5.0) == poisson_bits(3.0, 5.0) == 0.0
    assert poisson_bits(1e9, 0.02) == 60.0


@given(st.floats(1.0, 500.0), st.floats(0.0, 100.0), st.floats(0.02, 100.0))
def test_poisson_bits_increase_with_the_count(k: float, more: float, rate: float) -> None:
    assert poisson_bits(k + more, rate) >= poisson_bits(k, rate) - 1e-9


@given(st.floats(-50.0, 50.0))
def test_student_bits_equal_the_t_density(z: float) -> None:
    density = stats.t(5)
    assert student_bits(z) == pytest.approx((density.logpdf(0.0) - density.logpdf(z)) / math.log(2), abs=1e-9)


def test_mix_equals_splitmix64() -> None:
    """The first output of Java's SplittableRandom(0)."""
    assert int(mix(np.uint64(0x9E3779B97F4A7C15))) == 0xE220A8397B1DCDAF
