"""Attention and quantised products, against NumPy in float64 and against MLX."""

import mlx.core as mx
import numpy as np
import pytest

import ops_table as table
import tn
from test_nn_ops import HALVES, UNIT, from_mx, normal, to_mx
from test_structural import refused, scope  # noqa: F401


def dot(a, b):
    """a @ b without the threads of NumPy's BLAS, which get in the way of ours."""
    return np.einsum("...ij,...jk->...ik", a, b)


def attention(q, k, v, scale, causal=False, mask=None, sinks=None):
    q, k, v = [x.astype(np.float64) for x in (q, k, v)]
    g = q.shape[1] // k.shape[1]
    k, v = np.repeat(k, g, 1), np.repeat(v, g, 1)
    s = dot(q * scale, np.swapaxes(k, -1, -2))
    if causal:
        mask = np.tri(s.shape[-2], s.shape[-1], s.shape[-1] - s.shape[-2], bool)
    if mask is not None:
        s = np.where(mask, s, -np.inf) if mask.dtype == bool else s + mask
    if sinks is not None:
        s = np.concatenate([s, np.broadcast_to(sinks.reshape(1, -1, 1, 1), s.shape[:3] + (1,))], -1)
    with np.errstate(all="ignore"):
        m = np.max(s, -1, keepdims=True, initial=-np.inf)
        e = np.exp(s - np.where(np.isfinite(m), m, 0))
        total = np.sum(e, -1, keepdims=True)
        p = e / np.where(total == 0, 1, total)
    return dot(p[..., :-1] if sinks is not None else p, v)


SHAPES = [  # B, Hq, Hkv, Lq, Lk, D, Dv
    (1, 1, 1, 1, 1, 1, 1), (1, 4, 4, 1, 33, 64, 64), (2, 6, 2, 1, 70, 32, 32), (1, 9, 3, 5, 5, 64, 64),
    (1, 2, 1, 7, 20, 13, 13), (2, 2, 2, 3, 9, 80, 5), (1, 3, 3, 40, 40, 7, 96), (1, 8, 1, 65, 130, 128, 128),
    (1, 2, 2, 9, 4, 16, 16), (1, 1, 1, 17, 300, 72, 40), (3, 4, 2, 2, 257, 24, 33)]


def check(got, want, dtype, what):
    assert not got.status, got.error
    assert got.dtype == dtype and got.shape == want.shape
    limit = (2 * UNIT[dtype] if dtype != "float32" else 0) * np.abs(want) + 2e-5 * 1 + \
        (UNIT[dtype] * 4 if dtype != "float32" else 0)
    diff = np.abs(tn.numpy(got) - want)
    assert (diff <= limit).all(), f"{what}: {diff.max()}"


@pytest.mark.parametrize("dtype", HALVES)
@pytest.mark.parametrize("sizes", SHAPES, ids=str)
def test_attention(sizes, dtype):
    b, hq, hkv, lq, lk, d, dv = sizes
    q, k, v = [normal(dtype, s, n) for n, s in
               enumerate([(b, hq, lq, d), (b, hkv, lk, d), (b, hkv, lk, dv)])]
    rng = table.rng_for("attention", sizes)
    scale = float(np.float32(1 / np.sqrt(d)))
    tq, tk, tv = [tn.array(x, dtype) for x in (q, k, v)]
    some = rng.random((b, hq, lq, lk)) < 0.6
    some[0, 0, 0] = False    # a query that may look nowhere: zeros
    added = rng.standard_normal((lq, lk)).astype(np.float32)
    hard = np.where(rng.random((b, 1, lq, lk)) < 0.3, -np.inf, added).astype(np.float32)
    sinks = rng.standard_normal(hq).astype(np.float32)
    masks = [{}, {"causal": True}, {"mask": some}, {"mask": some[:1, :1]}, {"mask": some[0, 0, :1]},
             {"mask": added}, {"mask": hard}]
    for opt in masks:
        for sink in (None, sinks):
            with tn.scope():
                want = attention(q, k, v, scale, sinks=sink, **opt)
                m = opt.get("mask")
                got = tn.sdpa(tq, tk, tv, scale, opt.get("causal", False),
                              None if m is None else tn.array(m), None if sink is None else tn.array(sink))
                check(got, want, dtype, f"{list(opt)} {'sinks' if sink is not None else ''}")
    half = tn.array(added, dtype)   # an additive mask of the queries' dtype
    check(tn.sdpa(tq, tk, tv, scale, mask=half), attention(q, k, v, scale, mask=tn.numpy(half)), dtype,
          "mask of the same dtype")


def test_attention_caches():
    """Keys and values as slices of a longer cache, kept [.., L, D] or [.., D, L], of other dtypes."""
    for kd in HALVES:
        q = normal("float32", (1, 4, 3, 16), "q")
        k, v = normal(kd, (1, 2, 50, 16), "k"), normal(kd, (1, 2, 50, 16), "v")
        want = attention(q, k[:, :, 5:30], v[:, :, 5:30], 0.25, True)
        cut = lambda a: tn.slice(a, (0, 0, 5, 0), (1, 2, 30, 16), None)  # noqa: E731
        plain = [cut(tn.array(x, kd)) for x in (k, v)]
        turned = [cut(tn.swapaxes(tn.array(np.array(np.swapaxes(x, 2, 3), order="C"), kd), 2, 3))
                  for x in (k, v)]
        model = [cut(tn.transpose(tn.array(np.array(x.transpose(0, 2, 1, 3), order="C"), kd),
                                  (0, 2, 1, 3))) for x in (k, v)]
        for tk, tv in (plain, turned, model, (turned[0], plain[1])):
            check(tn.sdpa(q, tk, tv, 0.25, True), want, "float32", kd)


@pytest.mark.parametrize("causal", [False, True])
def test_attention_as_mlx(causal):
    q, k, v = [normal("float32", s, n) for n, s in
               enumerate([(2, 6, 10, 24), (2, 3, 14, 24), (2, 3, 14, 24)])]
    want = mx.fast.scaled_dot_product_attention(*[mx.array(x) for x in (q, k, v)], scale=0.2,
                                                mask="causal" if causal else None)
    np.testing.assert_allclose(tn.numpy(tn.sdpa(q, k, v, 0.2, causal)), np.array(want), rtol=0, atol=1e-5)


def test_attention_float64_and_empty():
    q, k, v = [normal("float64", (1, 2, 5, 8), n) for n in range(3)]
    got = tn.sdpa(q, k, v, 0.5, True)
    np.testing.assert_allclose(tn.numpy(got), attention(q, k, v, 0.5, True), rtol=1e-12, atol=1e-13)
    f = lambda *s: np.ones(s, np.float32)  # noqa: E731
    assert tn.numpy(tn.sdpa(f(1, 2, 0, 4), f(1, 2, 3, 4), f(1, 2, 3, 4), 1.0)).shape == (1, 2, 0, 4)
    np.testing.assert_array_equal(tn.numpy(tn.sdpa(f(1, 2, 3, 4), f(1, 2, 0, 4), f(1, 2, 0, 4), 1.0)), 0)


def test_attention_refused():
    f = lambda *s: tn.array(np.ones(s, np.float32))  # noqa: E731
    q, k = f(1, 4, 3, 8), f(1, 2, 5, 8)
    word = "scaled_dot_product_attention"
    for a in [(f(4, 3, 8), k, k), (q, f(1, 3, 5, 8), f(1, 3, 5, 8)), (q, f(1, 2, 5, 7), k),
              (q, k, f(1, 2, 6, 8)), (f(2, 4, 3, 8), k, k), (q, f(1, 0, 5, 8), f(1, 0, 5, 8)),
              (tn.array(np.ones((1, 4, 3, 8), int)), k, k)]:
        refused(tn.sdpa(*a, 1.0), "TN_ESHAPE", word)
    for m in (f(3, 4), f(1, 1, 1, 3, 5), f(2, 1, 3, 5), tn.array(np.ones((3, 5), int))):
        refused(tn.sdpa(q, k, k, 1.0, mask=m), "TN_ESHAPE", word, "mask")
    refused(tn.sdpa(q, k, k, 1.0, True, f(3, 5)), "TN_EVALUE", "causal")
    refused(tn.sdpa(q, k, k, 1.0, sinks=f(2)), "TN_ESHAPE", "sinks")


# ---- Quantised matrices: shapes, dtypes, refusals (values bit for bit: test_quant.py) ---------------------------

@pytest.mark.parametrize("bits", [2, 3, 4, 5, 6, 8])
@pytest.mark.parametrize("group", [32, 64, 128])
@pytest.mark.parametrize("dtype", HALVES)
def test_quantized(bits, group, dtype):
    w = normal(dtype, (3, 8, 256), "w")
    q, s, b = tn.quantize(tn.array(w, dtype), group, bits)
    assert (q.shape, s.shape, b.shape) == ((3, 8, 8 * bits), (3, 8, 256 // group), (3, 8, 256 // group))
    assert (q.dtype, s.dtype, b.dtype) == ("uint32", dtype, dtype)
    d = tn.dequantize(q, s, b, group, bits)
    assert d.shape == (3, 8, 256) and d.dtype == dtype
    step, low = [np.repeat(np.abs(tn.numpy(t)), group, -1) for t in (s, b)]
    rounding = (np.abs(w) + low + step * 2**bits) * 2 * UNIT[dtype]   # of scales, biases and result
    assert (np.abs(tn.numpy(d) - w) <= step + rounding).all()
    want = mx.quantize(to_mx(w, dtype), group_size=group, bits=bits)
    np.testing.assert_array_equal(tn.numpy(q), np.array(want[0]))
    wide = [tn.astype(t, "float32") for t in (s, b)]   # the product does not round w to the dtype
    dense = tn.numpy(tn.dequantize(q, *wide, group, bits)).astype(np.float64)
    for rows in (1, 2, 8, 9, 40):
        for transpose, k in ((True, 256), (False, 8)):
            x = normal(dtype, (3, rows, k), "x")
            m = dense if not transpose else np.swapaxes(dense, -1, -2)
            y = tn.quantized_matmul(tn.array(x, dtype), q, s, b, transpose, group, bits)
            product(y, x, m, dtype)
    two = [tn.squeeze(tn.slice_axis(t, 0, 1, 2), (0,)) for t in (q, s, b)]   # views; a batch of x
    x = normal(dtype, (2, 3, 5, 256), "x")
    product(tn.quantized_matmul(tn.array(x, dtype), *two, True, group, bits), x, dense[1].T, dtype)
    x = normal(dtype, (256,), "x")
    product(tn.quantized_matmul(tn.array(x, dtype), *two, True, group, bits), x, dense[1].T, dtype)


def product(y, x, m, dtype):
    """Two int8 planes: 1e-4 of the size of the terms, and the rounding to the dtype."""
    assert not y.status, y.error
    x = x.astype(np.float64)
    want = x @ m
    assert y.dtype == dtype and y.shape == want.shape
    limit = 1e-4 * (np.abs(x) @ np.abs(m)) + (UNIT[dtype] * 1.01) * np.abs(want)
    assert (np.abs(tn.numpy(y) - want) <= limit).all()


def test_quantized_as_mlx():
    w, x = normal("float32", (24, 128), "w"), normal("float32", (2, 5, 128), "x")
    parts = mx.quantize(mx.array(w), group_size=64, bits=4)
    want = mx.quantized_matmul(mx.array(x), *parts, transpose=True, group_size=64, bits=4)
    q, s, b = tn.quantize(w, 64, 4)
    got = tn.numpy(tn.quantized_matmul(x, q, s, b, True, 64, 4))
    np.testing.assert_allclose(got, from_mx(want), rtol=0, atol=2e-4 * 11)


def test_quantized_refused():
    w = tn.array(np.ones((8, 128), np.float32))
    q, s, b = tn.quantize(w, 64, 4)
    for group, bits in [(64, 7), (64, 1), (64, 9), (16, 4), (0, 4), (256, 4), (-64, 4)]:
        assert all(o.status == tn.STATUS["TN_EVALUE"] for o in tn.quantize(w, group, bits))
        refused(tn.dequantize(q, s, b, group, bits), "TN_EVALUE", "dequantize")
        refused(tn.quantized_matmul(w, q, s, b, True, group, bits), "TN_EVALUE", "quantized_matmul")
    refused(tn.quantize(np.ones((8, 100), np.float32), 64, 4)[2], "TN_ESHAPE", "quantize", "[8,100]")
    refused(tn.quantize(np.ones(64, np.float32), 64, 4)[0], "TN_ESHAPE", "two axes")
    refused(tn.quantize(np.ones((8, 64)), 64, 4)[0], "TN_EDTYPE", "float64")
    refused(tn.dequantize(q, s, b, 32, 4), "TN_ESHAPE", "dequantize")
    refused(tn.dequantize(q, s, b, 64, 8), "TN_ESHAPE")
    refused(tn.dequantize(s, s, b, 64, 4), "TN_EDTYPE", "uint32")
    refused(tn.dequantize(q, s, tn.astype(b, "float16"), 64, 4), "TN_EDTYPE")
    refused(tn.quantized_matmul(np.ones((2, 64), np.float32), q, s, b, True, 64, 4), "TN_ESHAPE", "[2,64]")
    refused(tn.quantized_matmul(np.ones((2, 128), np.float32), q, s, b, False, 64, 4), "TN_ESHAPE")
    refused(tn.quantized_matmul(np.ones((2, 128)), q, s, b, True, 64, 4), "TN_EDTYPE", "float64")
    q3 = [tn.stack([t, t, t], 0) for t in (q, s, b)]
    refused(tn.quantized_matmul(np.ones((2, 4, 128), np.float32), *q3, True, 64, 4), "TN_ESHAPE", "batch")
