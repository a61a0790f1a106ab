"""Sorting, scans, statistics and matrix products, against NumPy in float64."""

import numpy as np
import pytest

import ops_table as table
import tn
import ulp
from test_structural import LAYOUTS, check, refused, samples, scope  # noqa: F401

KEYS = ["bool", "uint8", "int16", "int32", "uint64", "int64", "float16", "bfloat16", "float32",
        "float64", "complex64"]


# ---- Sorting -----------------------------------------------------------------------------------------------

@pytest.mark.parametrize("dtype", KEYS)
def test_sort(dtype):
    """Ascending, stable, NaN last. -0 and 0 are equal and stay as they stand."""
    for shape in [(5, 40), (3, 7, 4), (2, 1000), (1, 1), (3, 0)]:
        for make in LAYOUTS if shape == (5, 40) else [table.contiguous, table.transposed]:
            a, v = make(dtype, shape, "sort")
            for axis in range(-1, len(shape)):
                with tn.scope():
                    order = np.argsort(v, axis, kind="stable")
                    check(tn.argsort(a, axis), order.astype(np.uint32), "uint32")
                    check(tn.sort(a, axis), np.take_along_axis(v, order, axis), dtype)


@pytest.mark.parametrize("dtype", ["float32", "int64", "uint8", "bfloat16"])
def test_sort_large(dtype):
    for shape, axis in [((table.LARGE,), 0), ((300, 271), 1), ((271, 300), 0)]:
        a, v = table.contiguous(dtype, shape, "sort")
        order = np.argsort(v, axis, kind="stable")
        check(tn.argsort(a, axis), order.astype(np.uint32))
        check(tn.sort(a, axis), np.take_along_axis(v, order, axis))
    for v in (np.arange(5000), np.arange(5000)[::-1], np.zeros(5000), np.arange(5000) % 7):
        check(tn.sort(tn.array(v, dtype), 0), np.sort(tn.rounded(v, dtype)))


@pytest.mark.parametrize("dtype", KEYS)
def test_topk(dtype):
    for a, v in samples(dtype, (4, 9)):
        for k in (0, 1, 5):
            check(tn.topk(a, min(k, 4), 0), np.sort(v, 0, kind="stable")[4 - min(k, 4):], dtype)
            check(tn.topk(a, k, -1), np.sort(v, 1, kind="stable")[:, 9 - k:], dtype)


def test_sort_refused():
    a = tn.array(np.ones((2, 3), np.float32))
    for name in ("sort", "argsort"):
        refused(tn.call(name, a, 2), "TN_EAXIS", name, "axis 2")
        refused(tn.call(name, tn.array(np.float32(1)), 0), "TN_EAXIS", name)
    refused(tn.topk(a, 4, 1), "TN_EVALUE", "topk", "4")
    refused(tn.topk(a, -1, 1), "TN_EVALUE", "topk")
    refused(tn.topk(a, 1, -3), "TN_EAXIS", "topk")


# ---- Scans ---------------------------------------------------------------------------------------------------

def logaddexp_scan(x, axis):
    with np.errstate(all="ignore"):
        return np.logaddexp.accumulate(x, axis)


SCANS = {"cumsum": (np.cumsum, lambda t: 0), "cumprod": (np.cumprod, lambda t: 1),
         "cummax": (np.maximum.accumulate, lambda t: low(t)),
         "cummin": (np.minimum.accumulate, lambda t: high(t)),
         "logcumsumexp": (logaddexp_scan, lambda t: -np.inf)}


def low(t):
    return False if t == np.bool_ else np.iinfo(t).min if t.kind in "iu" else -np.inf


def high(t):
    return True if t == np.bool_ else np.iinfo(t).max if t.kind in "iu" else np.inf


def scanned(name, v, axis, reverse, inclusive):
    f, identity = SCANS[name]
    x = np.flip(v, axis) if reverse else v
    y = f(x, axis).astype(v.dtype) if v.dtype != np.longdouble else f(x, axis)
    if not inclusive and v.shape[axis]:
        first = np.full_like(np.take(y, [0], axis), identity(v.dtype))
        y = np.concatenate([first, np.take(y, range(v.shape[axis] - 1), axis)], axis)
    return np.flip(y, axis) if reverse else y


def scan_operand(dtype, make, shape, name):
    a, v = make(dtype, shape, "scan")
    if dtype in tn.FLOATS + ["complex64"]:   # of one size, so that sums mean something
        rng = table.rng_for("scan", dtype, shape)
        v = np.asarray(tn.rounded(rng.uniform(0.5, 1.5, v.shape) * rng.choice([-1, 1], v.shape), dtype))
        a = tn.transpose(tn.array(np.array(v.T, order="C"), dtype), None)
    return a, v


@pytest.mark.parametrize("dtype", tn.DTYPES)
@pytest.mark.parametrize("name", SCANS)
def test_scans(name, dtype):
    if name == "logcumsumexp" and dtype == "complex64":
        return refused(tn.logcumsumexp(np.ones(2, np.complex64), 0, False, True), "TN_EDTYPE", name)
    widens = dtype == "bool" and name in ("cumsum", "cumprod")
    out = "int32" if widens else dtype
    if name == "logcumsumexp" and dtype not in tn.FLOATS:
        out = "float32"
    for shape in [(4, 9), (3, 5, 4), (2, 400), (1, 3), (0, 3), (3, 0)]:
        for make in (table.contiguous, table.strided):
            a, v = scan_operand(dtype, make, shape, name)
            v = ulp.wide(v.astype(np.float32) if dtype not in tn.FLOATS else v, out) \
                if out in tn.FLOATS else v.astype(out)
            if out == "complex64" and name not in ("cumsum", "cumprod"):
                continue
            for axis in range(-1, len(shape)):
                for reverse in (False, True):
                    for inclusive in (False, True):
                        with tn.scope(), np.errstate(all="ignore"):
                            y = tn.call(name, a, axis, reverse, inclusive)
                            assert y.dtype == out
                            want = scanned(name, v, axis, reverse, inclusive)
                            close(tn.numpy(y), want, out, name, v, axis)


def close(got, want, dtype, name, v, axis):
    assert got.shape == want.shape
    if dtype not in tn.FLOATS + ["complex64"] or name in ("cummax", "cummin"):
        return np.testing.assert_array_equal(got, want.astype(got.dtype))
    n = v.shape[axis]
    size = np.sum(np.abs(v), axis, keepdims=True) if name == "cumsum" else np.abs(want)
    unit = {"float16": 2.0**-11, "bfloat16": 2.0**-8}.get(dtype, 0)
    step = 2.0**-53 if dtype == "float64" else 2.0**-24
    if name == "logcumsumexp":
        size = np.where(np.isfinite(size), size, 0) + 8
    limit = (n * step + unit) * size * 1.01 + {"float16": 2.0**-25, "float64": 1e-320}.get(dtype, 1e-44)
    ok = (np.abs(got - want) <= limit) | (got == want) | (np.isnan(got) & np.isnan(want))
    assert ok.all(), (np.asarray(got)[~ok][:3], np.asarray(want)[~ok][:3])


@pytest.mark.parametrize("name", ["cummax", "cummin"])
def test_scans_carry_nan(name):
    v = np.array([1, 3, np.nan, 2, -np.inf, np.inf], np.float32)
    for w in (v, v.astype(np.float16), v.astype(np.float64)):
        check(tn.call(name, w, 0, False, True), SCANS[name][0](w))
    large = table.values("float32", table.LARGE, "scan")
    check(tn.call(name, np.nan_to_num(large), 0, False, True), SCANS[name][0](np.nan_to_num(large)))
    refused(tn.call(name, v, 1, False, True), "TN_EAXIS", name)


# ---- Statistics ----------------------------------------------------------------------------------------------

@pytest.mark.parametrize("dtype", tn.DTYPES)
@pytest.mark.parametrize("name", ["mean", "var", "std"])
def test_statistics(name, dtype):
    out = dtype if dtype in tn.FLOATS + ["complex64"] else "float32"
    extra = () if name == "mean" else (0,)
    for a, v in samples(dtype, (7, 30), [table.contiguous, table.transposed]):
        rng = table.rng_for(name, dtype)
        v = np.asarray(tn.rounded(rng.uniform(0, 3, v.shape) + (1j if dtype == "complex64" else 0),
                                  dtype))
        a = tn.transpose(tn.array(np.array(v.T, order="C"), dtype), None)
        if dtype == "complex64" and name != "mean":
            refused(tn.call(name, a, None, False, 0), "TN_EDTYPE")
            continue
        for axes in [(0,), (1,), None, (), (0, 1)]:
            for keep in (False, True):
                y = tn.call(name, a, axes, keep, *extra)
                x = v.astype(np.complex128 if dtype == "complex64" else np.float64)
                want = getattr(np, name)(x, axis=axes, keepdims=keep)
                assert y.dtype == out and y.shape == want.shape
                unit = {"float16": 2.0**-10, "bfloat16": 2.0**-7, "float64": 1e-14}.get(dtype, 2e-6)
                np.testing.assert_allclose(tn.numpy(y), want, rtol=unit, atol=unit)
    for ddof in (0, 1, 7) if name != "mean" and dtype == "float32" else ():
        want = getattr(np, name)(v.astype(np.float64), axis=0, ddof=min(ddof, 6))
        if ddof == 7:   # no degree of freedom left: infinite, as dividing by 0
            assert not np.isfinite(tn.numpy(tn.call(name, a, (0,), False, ddof))).any()
        else:
            np.testing.assert_allclose(tn.numpy(tn.call(name, a, (0,), False, ddof)), want, rtol=2e-6)


def test_statistics_special():
    check(tn.mean(tn.array(np.full(70000, 60000.0), "float16"), None, False), np.float16(60000))
    v = tn.array(np.ones((0, 2), np.float32))
    assert np.isnan(tn.numpy(tn.mean(v, (0,), False))).all()
    refused(tn.mean(v, (2,), False), "TN_EAXIS", "mean")
    refused(tn.var(v, (0, 0), False, 0), "TN_EAXIS", "var")
    big = np.float32(1e4) + table.rng_for("var").uniform(0, 1, 10001).astype(np.float32)
    np.testing.assert_allclose(tn.numpy(tn.var(big, None, False, 1)), np.var(big.astype(float), ddof=1),
                               rtol=1e-3)


@pytest.mark.parametrize("dtype", KEYS)
def test_clip(dtype):
    for a, v in samples(dtype, (4, 9)):
        if dtype == "complex64":
            continue
        lo, hi = np.sort(v[0, :2]) if not np.isnan(v[0, :2].astype(float)).any() else v[1, :2] * 0
        lo, hi = [tn.array(np.asarray(x), dtype) for x in (lo, hi)]
        x, y = tn.numpy(lo), tn.numpy(hi)
        with np.errstate(all="ignore"):
            np.testing.assert_array_equal(tn.numpy(tn.clip(a, lo, hi)), np.minimum(np.maximum(v, x), y))
            np.testing.assert_array_equal(tn.numpy(tn.clip(a, None, hi)), np.minimum(v, y))
            np.testing.assert_array_equal(tn.numpy(tn.clip(a, lo, None)), np.maximum(v, x))
        check(tn.clip(a, None, None), v, dtype)
    refused(tn.clip(None, 0.0, 1.0), "TN_EVALUE")


# ---- Products ------------------------------------------------------------------------------------------------

SHAPES = [((3, 4), (4, 5)), ((4,), (4,)), ((4,), (4, 5)), ((3, 4), (4,)), ((2, 3, 4), (4, 5)),
          ((2, 3, 4), (2, 4, 5)), ((2, 1, 3, 4), (5, 4, 2)), ((4,), (3, 4, 2)), ((3, 2, 4), (4,)),
          ((1, 1), (1, 1)), ((0, 4), (4, 3)), ((3, 0), (0, 5)), ((2, 0, 4), (4, 3)), ((3, 4), (4, 0)),
          ((1, 300), (300, 70)), ((33, 65), (65, 129)), ((130, 257), (257, 67)), ((2, 2, 0), (0, 3)),
          ((0, 2, 3), (0, 3, 4)), ((5, 1, 7), (7, 1))]


def orders(v, dtype):
    """The same matrix plain, transposed in memory, strided and reversed."""
    yield tn.array(v, dtype)
    if v.ndim > 1:
        yield tn.swapaxes(tn.array(np.ascontiguousarray(np.swapaxes(v, -1, -2)), dtype), -1, -2)
    wide = np.repeat(v, 2, -1)
    yield tn.slice(tn.array(wide, dtype), [0] * v.ndim, wide.shape, [1] * (v.ndim - 1) + [2])
    yield tn.flip(tn.array(np.flip(v), dtype), None)


def product_limit(a, b, dtype):
    """Half ULPs of the sum of magnitudes, one a term, in the accumulator; one rounding at the end."""
    size = np.matmul(np.abs(a), np.abs(b))
    k = a.shape[-1]
    step = 2.0**-53 if dtype == "float64" else 2.0**-24
    unit = {"float16": 2.0**-11, "bfloat16": 2.0**-8}.get(dtype, 0)
    return (k * step * (3 if dtype == "complex64" else 1) + unit) * size * 1.01 + 1e-45


@pytest.mark.parametrize("dtype", tn.FLOATS + ["complex64"])
@pytest.mark.parametrize("sa,sb", SHAPES, ids=str)
def test_matmul(dtype, sa, sb):
    rng = table.rng_for("matmul", sa, sb)
    u, w = [np.asarray(tn.rounded(rng.standard_normal(s) + (1j * rng.standard_normal(s)
            if dtype == "complex64" else 0), dtype)) for s in (sa, sb)]
    wide = np.complex128 if dtype == "complex64" else np.float64
    want = np.matmul(u.astype(wide), w.astype(wide))
    limit = product_limit(u.astype(wide), w.astype(wide), dtype)
    first = None
    for x in orders(u, dtype):
        for y in orders(w, dtype):
            with tn.scope():
                z = tn.matmul(x, y)
                assert z.dtype == dtype and z.shape == want.shape
                got = tn.numpy(z)
            assert (np.abs(got - want) <= limit).all()
            first = got if first is None else first
            np.testing.assert_array_equal(got, first)   # layouts change no bit


def test_matmul_exact_and_mixed():
    """Small integers have exact products in any order; halves beside float32 are widened."""
    rng = table.rng_for("matmul exact")
    for m, k, n in [(1, 1000, 64), (3, 1000, 63), (8, 513, 200), (65, 300, 33), (200, 130, 190)]:
        u, w = rng.integers(-8, 9, (m, k)), rng.integers(-8, 9, (k, n))
        for da, db, out in [("float32",) * 3, ("float64",) * 3, ("float32", "bfloat16", "float32"),
                            ("float16", "float32", "float32"), ("float16", "bfloat16", "float32"),
                            ("float32", "complex64", "complex64"), ("int32", "float32", "float32")]:
            z = tn.matmul(tn.array(u, da), tn.array(w, db))
            assert z.dtype == out
            np.testing.assert_array_equal(tn.numpy(z), u @ w)


def test_matmul_special_values():
    a = np.array([[np.inf, 1], [np.nan, 0], [0, 2]], np.float32)
    b = np.array([[1, 0], [2, -np.inf]], np.float32)
    with np.errstate(all="ignore"):
        np.testing.assert_array_equal(tn.numpy(tn.matmul(a, b)), a @ b)


def test_matmul_refused():
    a = tn.array(np.ones((2, 3), np.float32))
    refused(tn.matmul(a, a), "TN_ESHAPE", "matmul", "[2,3]")
    refused(tn.matmul(a, np.float32(1)), "TN_ESHAPE", "matmul")
    refused(tn.matmul(a, np.ones((4, 3), np.float32).T[:2].copy()), "TN_ESHAPE")
    refused(tn.matmul(np.ones((2, 3, 4), np.float32), np.ones((3, 4, 5), np.float32)), "TN_ESHAPE",
            "batch")
    refused(tn.matmul(np.ones((2, 3), int), np.ones((3, 2), int)), "TN_EDTYPE", "int64")
    refused(tn.matmul(tn.add(a, np.ones(9)), a), "TN_ESHAPE", "add")


@pytest.mark.parametrize("dtype", tn.FLOATS + ["complex64"])
def test_addmm(dtype):
    rng = table.rng_for("addmm", dtype)
    a, b = tn.rounded(rng.standard_normal((5, 6)), dtype), tn.rounded(rng.standard_normal((6, 7)), dtype)
    unit = {"float16": 4e-3, "bfloat16": 4e-2, "float64": 1e-14}.get(dtype, 2e-6)
    for cs in [(5, 7), (7,), (5, 1), (1, 1), ()]:
        c = np.asarray(tn.rounded(rng.standard_normal(cs), dtype))
        for alpha, beta in [(1, 1), (0.5, -2), (1, 0), (0, 1), (2, 0.25)]:
            y = tn.addmm(tn.array(c, dtype), tn.array(a, dtype), tn.array(b, dtype), alpha, beta)
            assert y.dtype == dtype and y.shape == (5, 7)
            want = alpha * (a.astype(complex) @ b.astype(complex)) + beta * c.astype(complex)
            np.testing.assert_allclose(tn.numpy(y), want if dtype == "complex64" else want.real,
                                       rtol=unit, atol=4 * unit)
    batch = tn.addmm(np.ones(2, np.float32), np.ones((3, 4, 5), np.float32), np.ones((5, 2), np.float32), 1, 1)
    check(batch, np.full((3, 4, 2), 6, np.float32))


def test_addmm_refused():
    f = lambda *s: np.ones(s, np.float32)  # noqa: E731
    refused(tn.addmm(f(3), f(2, 3), f(3, 2), 1, 1), "TN_ESHAPE")
    refused(tn.addmm(f(2), f(2, 3), f(2, 2), 1, 1), "TN_ESHAPE", "matmul")
    refused(tn.addmm(np.ones(2, int), np.ones((2, 2), int), np.ones((2, 2), int), 1, 1), "TN_EDTYPE")
