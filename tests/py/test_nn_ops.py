"""Softmax, norms, rotary embedding, attention and quantised products, against NumPy in float64
and, where MLX has the op, against MLX."""

import mlx.core as mx
import numpy as np
import pytest

import ops_table as table
import tn
from test_structural import LAYOUTS, refused, scope  # noqa: F401

UNIT = {"float16": 2.0**-11, "bfloat16": 2.0**-8, "float32": 2.0**-24, "float64": 2.0**-53}
HALVES = ["float16", "bfloat16", "float32"]


def normal(dtype, shape, key, scale=1.0):
    v = table.rng_for("nn", shape, key).standard_normal(shape) * scale
    return np.asarray(tn.rounded(v, dtype))


def close(y, want, dtype, ulps=8, terms=None):
    """|error| <= one rounding to the dtype + ulps of float32 (float64) of the size of the terms."""
    assert not y.status, y.error
    assert y.dtype == dtype and y.shape == want.shape
    got = tn.numpy(y)
    size = np.abs(want) if terms is None else np.maximum(np.abs(want), terms)
    step = UNIT["float64" if dtype == "float64" else "float32"]
    limit = UNIT[dtype] * np.abs(want) * 1.01 + ulps * step * size + 6e-8 * (dtype == "float16") + 1e-38
    bad = ~(np.abs(got - want) <= limit) & ~(np.isnan(got) & np.isnan(want))
    assert not bad.any(), (f"{bad.sum()} of {bad.size} differ: {got[bad][:3]}, not {want[bad][:3]}; "
                           f"{np.max((np.abs(got - want) / limit)[bad]):.3g} times the bound")


def to_mx(v, dtype):
    return mx.array(v).astype(getattr(mx, dtype)) if dtype != "float64" else mx.array(v)


def from_mx(a):
    return np.array(a.astype(mx.float32) if a.dtype == mx.bfloat16 else a).astype(np.float64)


# ---- Softmax ---------------------------------------------------------------------------------------------

def softmax(v, axes):
    x = v.astype(np.float64)
    with np.errstate(invalid="ignore"):
        e = np.exp(x - np.max(x, axes, keepdims=True))
        return e / np.sum(e, axes, keepdims=True)


@pytest.mark.parametrize("dtype", tn.FLOATS)
def test_softmax(dtype):
    # 40: half an ULP of a difference of 20 changes its exponential by 20 half ULPs
    for shape in [(4, 1), (3, 5), (2, 16), (2, 33), (7, 1000), (3, 4097), (300, 250)]:
        v = normal(dtype, shape, "softmax", 3)
        terms = 1e-30 if dtype != "float64" else 0
        close(tn.softmax(tn.array(v, dtype), (-1,)), softmax(v, -1), dtype, 40, terms)
    for make in LAYOUTS:
        a, _ = make(dtype, (6, 10), "softmax")
        a = tn.astype(tn.mul(tn.sign(a), 1.5), dtype)
        v = tn.numpy(a)
        for axes in [(0,), (1,), (-1, 0)]:
            close(tn.softmax(a, axes), softmax(v, axes), dtype, 16)
        close(tn.softmax(a, None), softmax(v, (0, 1)), dtype, 16)
    big = np.asarray(tn.rounded(np.array([[1e4, 1e4, -1e4], [-np.inf, 0, 0]]), dtype))
    close(tn.softmax(tn.array(big, dtype), (-1,)), np.array([[.5, .5, 0], [0, .5, .5]]), dtype)
    for row in ([np.nan, 0.0], [np.inf, 0.0], [-np.inf, -np.inf]):
        assert np.isnan(tn.numpy(tn.softmax(tn.array(row, dtype), (-1,)))[0])


def test_softmax_dtypes_and_errors():
    for dtype in ("bool", "int8", "uint32", "int64"):
        y = tn.softmax(tn.array([[0, 1, 1]], dtype), (-1,))
        close(y, softmax(np.array([[0, 1, 1]]), -1), "float32")
    refused(tn.softmax(np.ones(3, np.complex64), (0,)), "TN_EDTYPE", "softmax", "complex64")
    refused(tn.softmax(np.ones(3), (1,)), "TN_EAXIS", "softmax")
    refused(tn.softmax(np.ones((3, 3)), (1, -1)), "TN_EAXIS", "twice")
    assert tn.numpy(tn.softmax(np.ones((3, 0), np.float32), (1,))).shape == (3, 0)
    assert tn.numpy(tn.softmax(np.ones((0, 3), np.float32), (1,))).shape == (0, 3)


# ---- Norms ------------------------------------------------------------------------------------------------

def rms_norm(v, w, eps):
    x = v.astype(np.float64)
    y = x / np.sqrt(np.mean(x * x, -1, keepdims=True) + eps)
    return y if w is None else y * w.astype(np.float64)


def layer_norm(v, w, b, eps):
    x = v.astype(np.float64)
    d = x - np.mean(x, -1, keepdims=True)
    y = d / np.sqrt(np.mean(d * d, -1, keepdims=True) + eps)
    y = y if w is None else y * w.astype(np.float64)
    return y if b is None else y + b.astype(np.float64)


@pytest.mark.parametrize("dtype", HALVES)
@pytest.mark.parametrize("shape", [(5,), (1, 1), (3, 7), (2, 3, 64), (4, 1000), (2, 4097), (300, 260)],
                         ids=str)
def test_norms(dtype, shape):
    v = normal(dtype, shape, "norm", 2)
    for wd in (None, dtype, "float32"):
        w = None if wd is None else normal(wd, shape[-1:], "weight")
        b = None if wd is None else normal(wd, shape[-1:], "bias")
        x = tn.array(v, dtype)
        ta, tb = [None if p is None else tn.array(p, wd) for p in (w, b)]
        close(tn.fast_rms_norm(x, ta, 1e-5), rms_norm(v, w, np.float32(1e-5)), dtype, 16)
        for bias, plain in ((tb, b), (None, None)):
            want = layer_norm(v, w, plain, np.float32(1e-5))
            terms = np.abs(want) + 4 + (0 if plain is None else np.abs(plain))
            close(tn.fast_layer_norm(x, ta, bias, 1e-5), want, dtype, 24, terms)
        if wd == dtype and len(shape) > 1:
            m = mx.fast.rms_norm(to_mx(v, dtype), to_mx(w, dtype), 1e-5)
            np.testing.assert_allclose(tn.numpy(tn.fast_rms_norm(x, ta, 1e-5)), from_mx(m),
                                       rtol=6 * UNIT[dtype] + 1e-5, atol=1e-5)


def test_norms_layouts_and_float64():
    for make in (table.transposed, table.strided, table.backwards, table.row):
        a, v = make("int8", (6, 10), "norm")
        a, v = tn.astype(a, "float32"), np.asarray(v, np.float64)
        close(tn.fast_rms_norm(a, None, 1e-3), rms_norm(v, None, 1e-3), "float32", 16)
        close(tn.fast_layer_norm(a, None, None, 1e-3), layer_norm(v, None, None, 1e-3), "float32", 32, 4)
    v = normal("float64", (4, 50), "norm")
    close(tn.fast_rms_norm(tn.array(v), None, 0.0), rms_norm(v, None, 0), "float64", 16)
    close(tn.fast_layer_norm(tn.array(v), None, None, 0.0), layer_norm(v, None, None, 0), "float64", 64, 4)
    assert tn.numpy(tn.fast_rms_norm(np.ones((0, 4), np.float32), None, 1e-5)).shape == (0, 4)
    zero = tn.numpy(tn.fast_rms_norm(np.zeros((2, 8), np.float32), None, 1e-5))
    np.testing.assert_array_equal(zero, 0)


def test_norms_refused():
    f = lambda *s: np.ones(s, np.float32)  # noqa: E731
    refused(tn.fast_rms_norm(f(2, 3), f(4), 1e-5), "TN_ESHAPE", "rms_norm", "weight", "[4]")
    refused(tn.fast_rms_norm(f(2, 3), f(1, 3), 1e-5), "TN_ESHAPE", "weight")
    refused(tn.fast_layer_norm(f(2, 3), f(3), f(2), 1e-5), "TN_ESHAPE", "layer_norm", "bias")
    refused(tn.fast_rms_norm(np.ones((2, 3), int), None, 1e-5), "TN_EDTYPE", "rms_norm", "int64")
    refused(tn.fast_layer_norm(np.float32(1), None, None, 1e-5), "TN_EDTYPE", "layer_norm")
    refused(tn.fast_rms_norm(tn.add(f(2), f(3)), None, 1e-5), "TN_ESHAPE", "add")


# ---- Rotary embedding -----------------------------------------------------------------------------------------

def rope(v, dims, offset, traditional, base, scale, freqs):
    x = v.astype(np.float64)
    t = np.arange(x.shape[-2])
    start = np.reshape(offset, (-1,) + (1,) * (x.ndim - 1)) if np.ndim(offset) else offset
    inverse = 1 / freqs.astype(np.float64) if freqs is not None else \
        np.float64(np.float32(base)) ** (-2 * np.arange(dims // 2) / dims)
    angle = (start + t[:, None]) * np.float64(np.float32(scale)) * inverse
    c, s = np.cos(angle), np.sin(angle)
    y = x.copy()
    if traditional:
        a, b = x[..., 0:dims:2], x[..., 1:dims:2]
        y[..., 0:dims:2], y[..., 1:dims:2] = a * c - b * s, a * s + b * c
    else:
        a, b = x[..., :dims // 2], x[..., dims // 2:dims]
        y[..., :dims // 2], y[..., dims // 2:dims] = a * c - b * s, a * s + b * c
    return y


@pytest.mark.parametrize("traditional", [False, True])
@pytest.mark.parametrize("dtype", HALVES)
@pytest.mark.parametrize("shape,dims", [((1, 1, 2), 2), ((2, 3, 8), 8), ((2, 4, 5, 16), 8),
                                        ((1, 2, 9, 34), 34), ((3, 2, 2, 7, 12), 10),
                                        ((1, 8, 130, 80), 80), ((2, 1, 33, 66), 6)], ids=str)
def test_rope(shape, dims, dtype, traditional):
    v = normal(dtype, shape, "rope")
    rng = table.rng_for("rope", shape)
    freqs = rng.uniform(1, 100, dims // 2).astype(np.float32)
    for offset in (0, 7, rng.integers(0, 90, shape[0])):
        for base, scale, f in [(0.0, 0.0, None), (500000.0, 0.25, None), (100.0, 2.0, None),
                               (0.0, 1.0, freqs), (0.0, 0.5, freqs)]:
            want = rope(v, dims, offset, traditional, base or 1e4, scale or 1, f)
            y = tn.rope(tn.array(v, dtype), dims, offset, traditional, base, scale,
                        None if f is None else tn.array(f))
            # angles up to 440 carry float32's error into the turn
            far = (np.max(offset) + shape[-2]) * max(scale, 1)
            close(y, want, dtype, 4 + 4 * far, np.abs(v.astype(np.float64)) + 2)


@pytest.mark.parametrize("traditional", [False, True])
def test_rope_as_mlx(traditional):
    v = normal("float32", (2, 3, 11, 24), "rope")
    for offset, base, scale in [(0, 10000.0, 1.0), (50, 1000.0, 0.5)]:
        want = mx.fast.rope(mx.array(v), 16, traditional=traditional, base=base, scale=scale,
                            offset=offset)
        got = tn.numpy(tn.rope(tn.array(v), 16, offset, traditional, base, scale))
        np.testing.assert_allclose(got, np.array(want), rtol=0, atol=2e-5)
    freqs = np.linspace(1, 50, 8).astype(np.float32)
    want = mx.fast.rope(mx.array(v), 16, traditional=traditional, base=None, scale=1.0, offset=3,
                        freqs=mx.array(freqs))
    got = tn.numpy(tn.rope(tn.array(v), 16, 3, traditional, freqs=tn.array(freqs)))
    np.testing.assert_allclose(got, np.array(want), rtol=0, atol=2e-5)
    want = mx.fast.rope(mx.array(v), 16, traditional=traditional, base=10000.0, scale=1.0,
                        offset=mx.array([4, 9]))
    got = tn.numpy(tn.rope(tn.array(v), 16, [4, 9], traditional))
    np.testing.assert_allclose(got, np.array(want), rtol=0, atol=2e-5)


def test_rope_layouts():
    v = normal("float32", (2, 5, 3, 8), "rope")   # [B, T, H, D] seen as [B, H, T, D], as models do
    x = tn.transpose(tn.array(v), (0, 2, 1, 3))
    close(tn.rope(x, 8, 5), rope(v.transpose(0, 2, 1, 3), 8, 5, False, 1e4, 1, None), "float32", 40, 3)
    x = tn.slice(tn.array(v), (0, 1, 0, 0), (2, 5, 3, 8), (1, 2, 1, 1))
    close(tn.rope(x, 4, 5), rope(v[:, 1::2], 4, 5, False, 1e4, 1, None), "float32", 40, 3)
    assert tn.numpy(tn.rope(np.ones((1, 2, 0, 8), np.float32), 8, 0)).shape == (1, 2, 0, 8)
    v = normal("float64", (1, 2, 3, 8), "rope")
    close(tn.rope(tn.array(v), 8, 1), rope(v, 8, 1, False, 1e4, 1, None), "float64", 2.0**32, 3)


def test_rope_refused():
    x = tn.array(np.ones((2, 3, 8), np.float32))
    refused(tn.rope(np.ones((3, 8), np.float32), 8, 0), "TN_ESHAPE", "rope", "three axes")
    refused(tn.rope(np.ones((2, 3, 8), int), 8, 0), "TN_ESHAPE", "rope")
    for dims in (0, -2, 7, 10):
        refused(tn.rope(x, dims, 0), "TN_EVALUE", "rope", str(dims))
    refused(tn.rope(x, 8, [1, 2, 3]), "TN_ESHAPE", "offset")
    refused(tn.rope(x, 8, [[1, 2]]), "TN_ESHAPE", "offset")
    refused(tn.rope(x, 8, 0, freqs=tn.array(np.ones(3, np.float32))), "TN_ESHAPE", "freqs")
    refused(tn.rope(x, 8, 0, freqs=tn.array(np.ones(4, int))), "TN_EDTYPE", "freqs")
    refused(tn.call("fast_rope", x, 8, tn.array(np.float32(0)), None), "TN_EDTYPE", "offset")
