"""How far a result may be from the exact one, in units in the last place of its dtype."""

import numpy as np

# precision in bits, exponents of the smallest normal number and of the first that overflows
FORMAT = {"float16": (11, -14, 16), "bfloat16": (8, -126, 128), "float32": (24, -126, 128),
          "float64": (53, -1022, 1024)}


def wide(v, dtype):
    """v in a dtype with room to compute its exact results: float64, long double or complex128."""
    if dtype == "complex64":
        return np.asarray(v).astype(np.complex128)
    return np.asarray(v).astype(np.longdouble if dtype == "float64" else np.float64)


def distance(got, want, dtype, scale=0.0):
    """|got - want| in ULPs of the larger of |want| and scale. NaN equals NaN, an infinity counts as
    the first number that overflows, and an infinity that should be none (or the other way round,
    where `want` is infinite itself) is infinitely wrong."""
    p, low, high = FORMAT[dtype]
    want = np.asarray(want)
    got = np.asarray(got).astype(want.dtype)
    roomy = np.finfo(want.dtype).maxexp > high
    top = np.ldexp(want.dtype.type(1), high) if roomy else np.inf
    with np.errstate(all="ignore"):
        size = np.maximum(np.minimum(np.abs(want), top), scale)
        exponent = np.frexp(np.where(np.isfinite(size), size, 1))[1] - 1
        unit = np.ldexp(np.ones_like(want), np.maximum(exponent, low) - p + 1)
        d = np.abs(np.clip(got, -top, top) - np.clip(want, -top, top)) / unit
    d = np.where(np.isnan(got) & np.isnan(want), 0, d)
    d = np.where(np.isnan(got) != np.isnan(want), np.inf, d)
    d = np.where(np.isinf(want), np.where(got == want, 0, np.inf), d)
    return d


def distance_complex(got, want):
    """|got - want| in float32's ULPs of |want|, for finite numbers."""
    want = np.asarray(want)
    with np.errstate(all="ignore"):
        d = np.abs(np.asarray(got).astype(np.complex128) - want)
        unit = np.exp2(np.floor(np.log2(np.maximum(np.abs(want), 2.0**-126)))) * 2.0**-23
        return np.where(np.isfinite(want), d / unit, 0)
