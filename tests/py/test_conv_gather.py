"""Convolution, pooling, gather and scatter against MLX."""

import mlx.core as mx
import mlx.nn as nn
import numpy as np
import pytest

import tn
from test_structural import scope  # noqa: F401

RNG = np.random.default_rng(7)
NAMES = {1: "1d", 2: "2d", 3: "3d"}


def normal(*shape):
    return RNG.standard_normal(shape).astype(np.float32)


def close(got, want, what):
    want = np.array(want)
    assert not got.status, f"{what}: {got.error}"
    assert got.shape == want.shape, f"{what}: {got.shape}, not {want.shape}"
    np.testing.assert_allclose(tn.numpy(got), want, rtol=1e-4, atol=1e-4, err_msg=str(what))


def equal(got, want, what):
    want = np.array(want)
    assert not got.status, f"{what}: {got.error}"
    assert got.shape == want.shape, f"{what}: {got.shape}, not {want.shape}"
    np.testing.assert_array_equal(tn.numpy(got), want, err_msg=str(what))


# ---- Convolution ---------------------------------------------------------------------------------------

def sizes(nd):
    groups = int(RNG.integers(1, 4))
    places = tuple(int(i) for i in RNG.integers(5, 10, nd))
    taps = tuple(int(i) for i in RNG.integers(1, 4, nd))
    x = normal(2, *places, groups * 3)
    w = normal(groups * 2, *taps, 3)
    return x, w, groups


@pytest.mark.parametrize("nd", [1, 2, 3])
def test_conv(nd):
    for _ in range(12):
        x, w, groups = sizes(nd)
        s, p, d = [tuple(int(i) for i in RNG.integers(a, b, nd)) for a, b in [(1, 4), (0, 3), (1, 3)]]
        if nd == 3:
            groups, w = 1, normal(4, *w.shape[1:-1], x.shape[-1])   # MLX: 3 axes have one group
        kw = dict(stride=s, padding=p, dilation=d)
        one = kw if nd > 1 else {k: v[0] for k, v in kw.items()}
        want = getattr(mx, "conv" + NAMES[nd])(mx.array(x), mx.array(w), **one, groups=groups)
        close(tn.conv(NAMES[nd], x, w, groups=groups, **kw), want, (x.shape, w.shape, kw, groups))


@pytest.mark.parametrize("nd", [1, 2, 3])
def test_conv_general(nd):
    for _ in range(12):
        x, w, groups = sizes(nd)
        if nd == 3:
            groups, w = 1, normal(4, *w.shape[1:-1], x.shape[-1])
        s, lo, hi, d, e = [[int(i) for i in RNG.integers(a, b, nd)]
                           for a, b in [(1, 4), (0, 4), (0, 4), (1, 3), (1, 4)]]
        flip = bool(RNG.integers(2))
        want = mx.conv_general(mx.array(x), mx.array(w), s, (lo, hi), d, e, groups, flip)
        got = tn.conv("_general", x, w, groups=groups, flip=flip, stride=s, padding=lo,
                      padding_high=hi, dilation=d, input_dilation=e)
        close(got, want, (x.shape, w.shape, s, lo, hi, d, e, groups, flip))


@pytest.mark.parametrize("nd", [1, 2, 3])
def test_conv_transpose(nd):
    for _ in range(12):
        x, w, groups = sizes(nd)
        if nd == 3:
            groups, w = 1, normal(4, *w.shape[1:-1], x.shape[-1])
        s, p, d = [tuple(int(i) for i in RNG.integers(a, b, nd)) for a, b in [(1, 4), (0, 2), (1, 3)]]
        more = tuple(int(RNG.integers(0, i)) for i in s)
        kw = dict(stride=s, padding=p, dilation=d, output_padding=more)
        if any(2 * a > (k - 1) * b for a, k, b in zip(p, w.shape[1:], d)):
            continue   # cuts more than the kernel adds: MLX slices before it spreads
        one = kw if nd > 1 else {k: v[0] for k, v in kw.items()}
        want = getattr(mx, "conv_transpose" + NAMES[nd])(mx.array(x), mx.array(w), **one, groups=groups)
        close(tn.conv("_transpose" + NAMES[nd], x, w, groups=groups, **kw), want,
              (x.shape, w.shape, kw, groups))


def test_pooling():
    for nd, (largest, mean) in enumerate([(nn.MaxPool1d, nn.AvgPool1d), (nn.MaxPool2d, nn.AvgPool2d),
                                          (nn.MaxPool3d, nn.AvgPool3d)], 1):
        for k, s, p in [(2, 2, 0), (3, 2, 1), (3, 3, 1), (4, 1, 2), (2, 3, 0), (5, 2, 0)]:
            x = normal(2, *(11, 9, 8)[:nd], 5)
            equal(tn.max_pool(x, k, s, p), largest(k, s, p)(mx.array(x)), (nd, k, s, p))
            close(tn.avg_pool(x, k, s, p), mean(k, s, p)(mx.array(x)), (nd, k, s, p))


# ---- Gather and scatter ----------------------------------------------------------------------------------

@pytest.mark.parametrize("dtype", ["int32", "uint32", "int64"])
def test_along_axis(dtype):
    for axis in (0, 1, 2, -1):
        a = normal(4, 5, 6)
        shape = list(a.shape)
        shape[axis] = 9
        n = a.shape[axis]
        x = RNG.integers(-n if dtype[0] == "i" else 0, n, shape).astype(dtype)
        equal(tn.take_along_axis(a, x, axis), mx.take_along_axis(mx.array(a), mx.array(x), axis), axis)
        # places that differ: MLX does not say which of several values stays
        x = np.take(np.argsort(RNG.random(a.shape), axis), range(3), axis).astype(dtype)
        u = normal(*x.shape)
        equal(tn.put_along_axis(a, x, u, axis),
              mx.put_along_axis(mx.array(a), mx.array(x), mx.array(u), axis), axis)


def test_gather():
    """Advanced indexing with several arrays is a gather of slices of 1 along their axes."""
    a = normal(7, 5, 6)
    x, z = RNG.integers(-7, 7, (4, 1)).astype(np.int32), RNG.integers(0, 6, 3).astype(np.uint32)
    got = tn.squeeze(tn.gather(a, [x, z], (0, 2), (1, 5, 1)), (2, 4))
    equal(got, mx.array(a)[mx.array(x), :, mx.array(z)], "two axes")
    got = tn.squeeze(tn.gather(a, [x], (0,), (1, 5, 6)), (2,))
    equal(got, mx.array(a)[mx.array(x)], "one axis")
    b = RNG.integers(0, 5, (4, 3)).astype(np.int32)
    got = tn.squeeze(tn.gather(a, [x, b, z], (0, 1, 2), (1, 1, 1)), (2, 3, 4))
    equal(got, mx.array(a)[mx.array(x), mx.array(b), mx.array(z)], "all axes")


@pytest.mark.parametrize("dtype", ["int32", "float32"])
@pytest.mark.parametrize("mode", ["add", "multiply", "maximum", "minimum"])
def test_scatter(mode, dtype):
    name = {"add": "add", "multiply": "prod", "maximum": "max", "minimum": "min"}[mode]
    a = RNG.integers(-3, 4, (7, 5, 6)).astype(dtype)
    x, z = RNG.integers(-7, 7, (4, 1)).astype(np.int32), RNG.integers(0, 6, 3).astype(np.int32)
    u = RNG.integers(-2, 3, (4, 3, 1, 5, 1)).astype(dtype)
    want = getattr(mx.array(a).at[mx.array(x), :, mx.array(z)], mode)(mx.array(u.reshape(4, 3, 5)))
    equal(tn.call("scatter_" + name, a, [x, z], u, (0, 2)), want, mode)
    u = RNG.integers(-2, 3, (4, 1, 1, 5, 6)).astype(dtype)
    want = getattr(mx.array(a).at[mx.array(x)], mode)(mx.array(u.reshape(4, 1, 5, 6)))
    equal(tn.call("scatter_" + name, a, [x], u, (0,)), want, mode)
