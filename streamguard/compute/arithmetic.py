"""Arithmetic of the fold, identical to the bit on every machine: only +, -, *, / and bit operations, without libm and
without reordering."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from llvmlite import ir
from numba.core import types
from numba.extending import intrinsic

from streamguard.compute.compiler import inline

LN2 = 0.6931471805599453
LOG2_E = 1.4426950408889634


@intrinsic  # type: ignore[untyped-decorator]
def _float_bits(typing_context: Any, x: Any) -> Any:
    return types.int64(types.float64), lambda context, builder, sig, args: builder.bitcast(
        args[0], ir.IntType(64)
    )


@intrinsic  # type: ignore[untyped-decorator]
def _bits_float(typing_context: Any, x: Any) -> Any:
    return types.float64(types.int64), lambda context, builder, sig, args: builder.bitcast(
        args[0], ir.DoubleType()
    )


@intrinsic  # type: ignore[untyped-decorator]
def popcount(typing_context: Any, x: Any) -> Any:
    """Number of set bits of a uint64."""
    return types.uint64(types.uint64), lambda context, builder, sig, args: builder.ctpop(args[0])


@inline
def exp2(y):  # type: ignore[no-untyped-def]
    """2**y for y in [-1000, 1000], with a relative error below 1e-12; 0 below this range, 2**1000 above it."""
    if y < -1000.0:
        return 0.0
    if y > 1000.0:
        y = 1000.0
    k = math.floor(y + 0.5)
    r = (y - k) * LN2
    p = 1 / 3628800
    for c in (1 / 362880, 1 / 40320, 1 / 5040, 1 / 720, 1 / 120, 1 / 24, 1 / 6, 0.5, 1.0, 1.0):
        p = p * r + c
    return p * _bits_float((np.int64(k) + 1023) << 52)


@inline
def log2(x):  # type: ignore[no-untyped-def]
    """log2(x) of a positive normal number, with an absolute error below 1e-11."""
    b = _float_bits(x)
    e = ((b >> 52) & 0x7FF) - 1023
    m = _bits_float((b & 0xFFFFFFFFFFFFF) | 0x3FF0000000000000)
    if m > 1.4142135623730951:
        m *= 0.5
        e += 1
    s = (m - 1.0) / (m + 1.0)
    z = s * s
    p = 1 / 15
    for c in (1 / 13, 1 / 11, 1 / 9, 1 / 7, 1 / 5, 1 / 3, 1.0):
        p = p * z + c
    return e + 2.0 * LOG2_E * s * p


@inline
def mix(x):  # type: ignore[no-untyped-def]
    """Finalizer of SplitMix64 (Steele, Lea, Flood 2014): every output bit depends on every input bit."""
    x ^= x >> np.uint64(30)
    x *= np.uint64(0xBF58476D1CE4E5B9)
    x ^= x >> np.uint64(27)
    x *= np.uint64(0x94D049BB133111EB)
    return x ^ (x >> np.uint64(31))


@inline
def poisson_bits(k, rate):  # type: ignore[no-untyped-def]
    """-log2 P(X >= k) of a Poisson variable with mean `rate`, for real k, at most 60 bits.

    It uses Stirling's series for ln k! and the geometric bound of the tail, P(X >= k) <= pmf(k) / (1 - rate / (k + 1)).
    The result is 0 if k does not exceed the mean.
    """
    if k < 1.0 or k <= rate:
        return 0.0
    log_factorial = k * log2(k) - k * LOG2_E + 0.5 * log2(6.283185307179586 * k) + LOG2_E / (12.0 * k)
    bits = rate * LOG2_E - k * log2(rate) + log_factorial + log2(1.0 - rate / (k + 1.0))
    return min(max(bits, 0.0), 60.0)


@inline
def student_bits(z):  # type: ignore[no-untyped-def]
    """Surprisal of a standardised deviation under Student's t with 5 degrees of freedom: -log2 of its kernel."""
    return 3.0 * log2(1.0 + z * z / 5.0)
