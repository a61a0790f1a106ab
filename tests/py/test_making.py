"""Arrays made, joined, padded, repeated and converted, against NumPy."""

import numpy as np
import pytest

import ops_table as table
import tn
from test_structural import LAYOUTS, SIZES, check, refused, samples, scope  # noqa: F401


# ---- Constants and ranges ---------------------------------------------------------------------------------

@pytest.mark.parametrize("dtype", tn.DTYPES)
def test_constants(dtype):
    own = tn.np_dtype(dtype)
    check(tn.zeros((2, 3), dtype), np.zeros((2, 3), own), dtype)
    check(tn.ones((0, 3), dtype), np.ones((0, 3), own), dtype)
    a = tn.array(np.full((2, 2), 7), dtype)
    check(tn.zeros_like(a), np.zeros((2, 2), own), dtype)
    check(tn.ones_like(a), np.ones((2, 2), own), dtype)
    check(tn.full((3,), tn.scalar(1.0, dtype)), np.ones(3, own), dtype)
    check(tn.full((), tn.scalar(0.0, dtype)), np.zeros((), own), dtype)
    check(tn.scalar_i64(1, dtype), np.ones((), own), dtype)
    for n, m, k in [(3, 3, 0), (3, 5, 1), (5, 3, -2), (4, 4, 9), (2, 3, -9), (0, 3, 0), (3, 0, 1)]:
        check(tn.eye(n, m, k, dtype), np.eye(n, m, k).astype(own), dtype)
        check(tn.tri(n, m, k, dtype), np.tri(n, m, k).astype(own), dtype)


@pytest.mark.parametrize("dtype", SIZES)
def test_triangles(dtype):
    for a, v in samples(dtype, (2, 5, 7)):
        for k in (-8, -2, 0, 1, 3, 9):
            check(tn.tril(a, k), np.tril(v, k), dtype)
            check(tn.triu(a, k), np.triu(v, k), dtype)


RANGES = [(0, 10, 1), (3, 20, 4), (10, 0, -3), (0, 1, 0.1), (-1, 1, 0.3), (5, 5, 1), (5, 3, 1),
          (0.5, 4, 0.5), (0, 3, 5), (1e6, 1e6 + 3, 0.5), (0, 70000, 1)]


@pytest.mark.parametrize("dtype", tn.INTS + tn.FLOATS)
def test_arange(dtype):
    for start, stop, step in RANGES:
        if dtype in tn.INTS and (any(x != int(x) for x in (start, stop, step)) or
                                 max(abs(start), abs(stop)) > 100 and tn.np_dtype(dtype).itemsize < 4
                                 or dtype[0] == "u" and min(start, stop) < 0):
            continue
        want = tn.rounded(start + np.arange(len(np.arange(start, stop, step))) * np.float64(step), dtype)
        check(tn.arange(start, stop, step, dtype), want, dtype)


def test_ranges_refused():
    refused(tn.arange(0, 3, 1, "bool"), "TN_EDTYPE", "arange", "bool")
    refused(tn.arange(0, 3, 1, "complex64"), "TN_EDTYPE")
    refused(tn.arange(0, 3, 1, 77), "TN_EDTYPE")
    refused(tn.arange(0, 3, 0, "int32"), "TN_EVALUE", "arange")
    refused(tn.arange(0, np.inf, 1, "float32"), "TN_EVALUE")
    refused(tn.arange(np.nan, 3, 1, "float32"), "TN_EVALUE")
    refused(tn.linspace(0, 1, -1, "float32"), "TN_EVALUE", "linspace")
    refused(tn.linspace(0, 1, 3, "int32"), "TN_EVALUE", "int32")
    refused(tn.eye(-1, 2, 0, "float32"), "TN_EVALUE", "eye")
    refused(tn.tri(2, 1 << 60, 0, "float32"), "TN_EVALUE", "tri")
    refused(tn.tril(np.ones(3, np.float32), 0), "TN_ESHAPE", "tril")
    refused(tn.triu(np.ones(3, np.float32), 0), "TN_ESHAPE", "triu")
    refused(tn.full((-1,), 1.0), "TN_ESHAPE")
    refused(tn.zeros((1 << 40, 1 << 40), "float32"), "TN_ESHAPE")
    refused(tn.zeros((2,), 14), "TN_EDTYPE")
    refused(tn.full([1] * 17, 1.0), "TN_ESHAPE")


@pytest.mark.parametrize("dtype", tn.FLOATS)
def test_linspace(dtype):
    for start, stop, n in [(0, 1, 11), (-3, 5, 1), (2, -2, 7), (0, 1, 0), (1, 1, 4), (0, 100, 1001)]:
        got = tn.linspace(start, stop, n, dtype)
        assert got.dtype == dtype
        want = np.linspace(start, stop, n)
        own = {"float16": 2.0**-11, "bfloat16": 2.0**-8}.get(dtype, 2.0**-22)
        np.testing.assert_allclose(tn.numpy(got), want, rtol=own, atol=own * max(abs(start), abs(stop)))
        if n > 1:
            assert tn.numpy(got)[0] == start and tn.numpy(got)[-1] == stop


# ---- Joining and splitting ----------------------------------------------------------------------------------

@pytest.mark.parametrize("dtype", SIZES)
def test_concatenate(dtype):
    arrays = list(samples(dtype, (4, 6)))
    for axis in (0, 1, -1):
        check(tn.concatenate([a for a, _ in arrays], axis),
              np.concatenate([v for _, v in arrays], axis), dtype)
        parts = [arrays[0], table.contiguous(dtype, (4, 0) if axis else (0, 6), "c"), arrays[3]]
        check(tn.concatenate([a for a, _ in parts], axis), np.concatenate([v for _, v in parts], axis))
    for axis in (0, 1, 2, -1, -3):
        check(tn.stack([a for a, _ in arrays], axis), np.stack([v for _, v in arrays], axis), dtype)
    check(tn.concatenate([arrays[1][0]], 0), arrays[1][1])
    same = arrays[2]
    check(tn.concatenate([same[0], same[0]], 1), np.concatenate([same[1]] * 2, 1))
    parts = [table.contiguous(dtype, (3, n), "c") for n in range(1, 40)]
    check(tn.concatenate([a for a, _ in parts], 1), np.concatenate([v for _, v in parts], 1))
    big = table.transposed(dtype, (270, 261), "c")
    check(tn.concatenate([big[0], big[0]], 0), np.concatenate([big[1]] * 2, 0))


def test_concatenate_promotes_and_refuses():
    a, b = tn.array([1, 2], "int8"), tn.array([0.5], "float16")
    check(tn.concatenate([a, b], 0), np.array([1, 2, 0.5], np.float16), "float16")
    c = tn.array(np.ones((2, 3), np.float32))
    refused(tn.concatenate([], 0), "TN_EVALUE", "concatenate")
    refused(tn.concatenate([c], 2), "TN_EAXIS", "axis 2")
    refused(tn.concatenate([c, np.ones((2, 4), np.float32)], 0), "TN_ESHAPE", "[2,3]", "[2,4]")
    refused(tn.concatenate([c, a], 0), "TN_ESHAPE", "concatenate")
    refused(tn.concatenate([tn.array(np.float32(1))], 0), "TN_EAXIS")
    refused(tn.stack([], 0), "TN_EVALUE")
    refused(tn.stack([c], 3), "TN_EAXIS")
    refused(tn.stack([c, a], 0), "TN_ESHAPE")
    bad = tn.add(c, np.ones(7))
    refused(tn.concatenate([c, bad], 0), "TN_ESHAPE", "add")


@pytest.mark.parametrize("dtype", SIZES)
def test_split(dtype):
    for a, v in samples(dtype, (4, 6)):
        for n, axis in [(1, 0), (2, 0), (4, -2), (3, 1), (6, -1)]:
            for part, want in zip(tn.split(a, n, axis), np.split(v, n, axis)):
                check(part, want, dtype)
        for at, axis in [((1, 4), 1), ((2,), 0), ((), 0), ((0, 0, 6), 1), ((-2,), 1), ((4, 2, 9), 1)]:
            for part, want in zip(tn.split_at(a, at, axis), np.split(v, at, axis)):
                check(part, want, dtype)
    for out in (tn.split(a, 4, 1), tn.outputs("split", 2, a, 2, 5)):
        assert all(o.status in (tn.STATUS["TN_ESHAPE"], tn.STATUS["TN_EAXIS"]) for o in out)
    refused(tn.split_at(a, (1,), 2)[1], "TN_EAXIS", "split")


@pytest.mark.parametrize("dtype", SIZES)
def test_pad(dtype):
    for a, v in samples(dtype, (3, 5)):
        for low, high in [((1, 2), (0, 3)), ((0, 0), (0, 0)), ((0, 0), (2, 0))]:
            for value in (0, 1):
                check(tn.pad(a, low, high, value), np.pad(v, list(zip(low, high)), constant_values=value),
                      dtype)
    check(tn.pad(tn.array(np.zeros((0, 2)), dtype), (1, 0), (1, 1), 1),
          np.pad(np.zeros((0, 2), tn.np_dtype(dtype)), ((1, 1), (0, 1)), constant_values=1))
    refused(tn.pad(a, (1,), (1,), 0), "TN_ESHAPE", "pad")
    refused(tn.pad(a, (-1, 0), (0, 0), 0), "TN_EVALUE", "pad")
    refused(tn.pad(a, (0, 0), ((1 << 63) - 1, 0), 0), "TN_ESHAPE", "too large")
    refused(tn.pad(a, (0, 0), (0, 0), np.ones(2)), "TN_ESHAPE", "one number")


@pytest.mark.parametrize("dtype", SIZES)
def test_repetition(dtype):
    for a, v in samples(dtype, (3, 4)):
        for n in (0, 1, 3):
            for axis in (0, 1, -1):
                check(tn.repeat(a, n, axis), np.repeat(v, n, axis), dtype)
        for reps in [(2,), (3, 1), (2, 3), (2, 1, 2), (0, 2), ()]:
            check(tn.tile(a, reps), np.tile(v, reps), dtype)
        for axes in [(0,), (1,), (0, 1), (), None, (-1,)]:
            check(tn.flip(a, axes), np.flip(v, axes), dtype)
    check(tn.flip(tn.array(np.zeros((0, 2)), dtype), None), np.zeros((0, 2), tn.np_dtype(dtype)))
    refused(tn.repeat(a, -1, 0), "TN_EVALUE", "repeat")
    refused(tn.repeat(a, 2, 2), "TN_EAXIS", "repeat")
    refused(tn.repeat(a, 1 << 62, 0), "TN_EVALUE")
    refused(tn.tile(a, (-1,)), "TN_EVALUE", "tile")
    refused(tn.tile(a, [1] * 17), "TN_ESHAPE", "tile")
    refused(tn.flip(a, (2,)), "TN_EAXIS", "flip")


# ---- Conversions --------------------------------------------------------------------------------------------

def converted(v, dtype, to):
    """Integers keep their low bits, floats round once, and to integers truncate; complex numbers
    lose their imaginary part; anything but 0 is true."""
    if to == "bool":
        return v != 0
    if dtype == "complex64" and to != "complex64":
        v = v.real
    if to in tn.INTS and v.dtype.kind == "f":
        return np.trunc(v.astype(np.float64)).astype(np.int64).astype(to)
    if to == "complex64":
        with np.errstate(over="ignore"):
            return v.astype(to)
    if to in tn.FLOATS:
        return tn.rounded(v if v.dtype.kind in "iub" and to != "bfloat16" else
                          v.astype(np.float64), to)
    return v.astype(tn.np_dtype(to))


def fits(v, to):
    """v without the floats whose conversion to the integer dtype C leaves open."""
    if v.dtype.kind == "c":
        v = v.real
    with np.errstate(all="ignore"):
        ok = (np.trunc(v.astype(np.float64)) >= float(np.iinfo(to).min)) & \
             (v.astype(np.float64) < float(np.iinfo(to).max))
    return ok


@pytest.mark.parametrize("dtype", tn.DTYPES)
@pytest.mark.parametrize("to", tn.DTYPES)
def test_astype(dtype, to):
    for make in LAYOUTS + [table.contiguous]:
        a, v = make(dtype, (7, 61), "astype")
        if to in tn.INTS and np.asarray(v).dtype.kind in "fc":
            v = np.where(fits(v, to), v, np.array(1, v.dtype))
            a = tn.array(v, dtype)
        if dtype in ("int64", "uint64") and to == "bfloat16":   # f64 would round twice
            v = np.asarray(v) % 1000
            a = tn.array(v, dtype)
        check(tn.astype(a, to), converted(np.asarray(v), dtype, to), to)
    a, v = table.contiguous(dtype, (table.LARGE,), "astype")
    if to not in tn.INTS or v.dtype.kind not in "fc":
        if not (dtype in ("int64", "uint64") and to == "bfloat16"):
            check(tn.astype(a, to), converted(v, dtype, to), to)
    if dtype != to:
        refused(tn.astype(a, -1), "TN_EDTYPE", "astype")
