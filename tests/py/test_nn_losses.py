"""Losses against mlx.nn.losses: values and gradients, every setting, every reduction."""

import ctypes as c

import mlx.core as mx
import mlx.nn as nn
import numpy as np
import pytest

import tn
from tn_nn import FNS, Model, close, options, theirs, REDUCTIONS

RNG = np.random.default_rng(11)
losses = nn.losses


def data(*shape):
    return RNG.standard_normal(shape).astype(np.float32)


def same(ours, their_loss, *inputs, rtol=4e-6, dtype="float32"):
    for name, r in REDUCTIONS.items():
        with Model() as m:
            cast = (lambda a: tn.astype(a, dtype) if a.dtype == "float32" else a)
            got, grads = m.grad(lambda *x: ours(*map(cast, x), r), *inputs)
        want, their_grads = theirs(None, lambda *x: their_loss(*x, reduction=name), *inputs,
                                   dtype=getattr(mx, dtype))
        close(got, want, rtol, name)
        assert sorted(grads) == sorted(their_grads)
        for n in grads:
            close(grads[n], their_grads[n], 4 * rtol, f"{name} {n}")


SHAPES = [((7,), 0), ((4, 7), -1), ((4, 7), 0), ((2, 3, 7), 1), ((2, 3, 7), -1), ((2, 3, 7), -3)]


@pytest.mark.parametrize("shape,axis", SHAPES, ids=str)
@pytest.mark.parametrize("smooth", [0.0, 0.1])
@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("probable", [False, True])
def test_cross_entropy(shape, axis, smooth, weighted, probable):
    rest = tuple(np.delete(shape, axis))
    targets = RNG.integers(-shape[axis], shape[axis], rest).astype(np.int32)
    if probable:
        targets = np.array(mx.softmax(mx.array(3 * data(*shape)), axis=axis))
    w = np.abs(data(*rest)) if weighted else None

    def ours(x, t, r):
        opt = options("nn_cross_entropy_opt", axis=[axis], weights=w, label_smoothing=smooth)
        return tn.nn_cross_entropy(x, t, r, opt)

    def other(x, t, reduction):
        return losses.cross_entropy(x, t, None if w is None else mx.array(w), axis, smooth, reduction)

    same(ours, other, 3 * data(*shape), targets)


def test_cross_entropy_numbers():
    """Defaults; u32 targets; large logits and impossible classes."""
    x = np.array([[1e4, 0, -1e4, -np.inf], [3e38, 1, 2, 3]], np.float32)
    with tn.scope():
        got = tn.nn_cross_entropy(x, np.array([1, 0], np.uint32), 0, None)
        np.testing.assert_array_equal(tn.numpy(got), [1e4, 0])
        bad = tn.nn_cross_entropy(x, np.array([1, 4], np.int64), 0, None)
        with pytest.raises(tn.Error) as e:
            tn.numpy(bad)
        assert e.value.code == tn.STATUS["TN_EINDEX"]


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_cross_entropy_halves(dtype):
    """One rounding of the exact value: better than reducing in the dtype."""
    x, t = 3 * data(5, 300), RNG.integers(0, 300, 5).astype(np.int32)
    x = tn.rounded(x, dtype)
    want = np.array(losses.cross_entropy(mx.array(x), mx.array(t)))
    with tn.scope():
        got = tn.nn_cross_entropy(tn.array(x, dtype), t, 0, None)
        assert got.dtype == dtype
        close(tn.numpy(got), tn.rounded(want, dtype), 1e-3 if dtype == "float16" else 8e-3)
    for smooth in (0.0, 0.1):
        opt = options("nn_cross_entropy_opt", label_smoothing=smooth)
        with Model() as m:
            _, grads = m.grad(lambda a, i: tn.nn_cross_entropy(tn.astype(a, dtype), i, 0, opt), x, t)
        _, exact = theirs(None, lambda a, i: losses.cross_entropy(a, i, label_smoothing=smooth), x, t)
        close(grads["in.0"], exact["in.0"], 1e-3 if dtype == "float16" else 8e-3)


def test_gradient_is_one_pass():
    """No second array of the size of the logits, forwards; backwards, only the gradient."""
    rows, classes = 256, 4096
    x, t = data(rows, classes), RNG.integers(0, classes, rows).astype(np.int32)
    size = x.nbytes
    with tn.scope():
        a, i = tn.array(x), tn.array(t)
        tn.lib.tn_memory_clear_cache()
        tn.lib.tn_memory_reset_peak()
        before = tn.lib.tn_memory_stats().active
        tn.evaluate(tn.nn_cross_entropy(a, i, 1, None))
        assert tn.lib.tn_memory_stats().peak - before < size / 8
    with Model() as m:
        tn.lib.tn_memory_reset_peak()
        before = tn.lib.tn_memory_stats().active
        m.grad(lambda a, i: tn.nn_cross_entropy(a, i, 1, None), x, t)
        assert tn.lib.tn_memory_stats().peak - before < 2.2 * size  # the logits and their gradient
    for dtype in ("float16", "bfloat16"):
        with tn.scope():
            a, i = tn.array(x, dtype), tn.array(t)
            fn = FNS(lambda in_, out, n, ud: out.__setitem__(0, tn.nn_cross_entropy(
                tn.Array(in_.v[0]), tn.Array(in_.v[1]), 1, None).p) or 0)
            out, grads, which = (c.c_void_p * 1)(), (c.c_void_p * 1)(), (c.c_int * 1)(0)
            tn.lib.tn_memory_reset_peak()
            before = tn.lib.tn_memory_stats().active
            tn.check(tn.lib.tn_value_and_grad_of(c.cast(fn, c.c_void_p), None, tn.make_list([a, i]), which, 1, 1,
                                                 c.addressof(out), c.addressof(grads)))
            tn.evaluate(tn.Array(out[0]), tn.Array(grads[0]))
            assert tn.lib.tn_memory_stats().peak - before < 1.1 * size / 2  # in their dtype


@pytest.mark.parametrize("shape,axis", SHAPES, ids=str)
def test_nll(shape, axis):
    targets = RNG.integers(-shape[axis], shape[axis], tuple(np.delete(shape, axis))).astype(np.int32)
    same(lambda x, t, r: tn.nn_nll_loss(x, t, axis, r),
         lambda x, t, reduction: losses.nll_loss(x, t, axis, reduction), data(*shape), targets)


@pytest.mark.parametrize("logits", [True, False])
@pytest.mark.parametrize("weighted", [False, True])
def test_binary_cross_entropy(logits, weighted):
    x, t = data(4, 5), RNG.uniform(0, 1, (4, 5)).astype(np.float32)
    w = np.abs(data(4, 5)) if weighted else None
    if not logits:
        x = 1 / (1 + np.exp(-x))
    same(lambda x, t, r: tn.nn_binary_cross_entropy(x, t, w, logits, r),
         lambda x, t, reduction: losses.binary_cross_entropy(
             x, t, None if w is None else mx.array(w), logits, reduction), x, t)
    if not logits:  # certain and wrong: bounded
        with tn.scope():
            got = tn.numpy(tn.nn_binary_cross_entropy(np.float32([0, 1, 0]), np.float32([1, 0, 0]), None, False, 0))
            np.testing.assert_array_equal(got, [100, 100, 0])


PAIRS = [
    ("mse", lambda x, y, r: tn.nn_mse_loss(x, y, r), losses.mse_loss),
    ("l1", lambda x, y, r: tn.nn_l1_loss(x, y, r), losses.l1_loss),
    ("smooth_l1", lambda x, y, r: tn.nn_smooth_l1_loss(x, y, 1.0, r), losses.smooth_l1_loss),
    ("smooth_l1-0.3", lambda x, y, r: tn.nn_smooth_l1_loss(x, y, 0.3, r),
     lambda x, y, reduction: losses.smooth_l1_loss(x, y, 0.3, reduction)),
    ("huber", lambda x, y, r: tn.nn_huber_loss(x, y, 1.0, r), losses.huber_loss),
    ("huber-0.3", lambda x, y, r: tn.nn_huber_loss(x, y, 0.3, r),
     lambda x, y, reduction: losses.huber_loss(x, y, 0.3, reduction)),
    ("log_cosh", lambda x, y, r: tn.nn_log_cosh_loss(x, y, r), losses.log_cosh_loss),
    ("hinge", lambda x, y, r: tn.nn_hinge_loss(x, y, r), losses.hinge_loss),
    ("kl_div", lambda x, y, r: tn.nn_kl_div_loss(x, y, -1, r), losses.kl_div_loss),
    ("kl_div-0", lambda x, y, r: tn.nn_kl_div_loss(x, y, 0, r),
     lambda x, y, reduction: losses.kl_div_loss(x, y, 0, reduction)),
    ("cosine", lambda x, y, r: tn.nn_cosine_similarity_loss(x, y, 1, 1e-8, r), losses.cosine_similarity_loss),
    ("cosine-eps", lambda x, y, r: tn.nn_cosine_similarity_loss(x, y, 0, 5.0, r),
     lambda x, y, reduction: losses.cosine_similarity_loss(x, y, 0, 5.0, reduction)),
]


@pytest.mark.parametrize("dtype", ["float32", "float16"])
@pytest.mark.parametrize("name,ours,other", PAIRS, ids=[p[0] for p in PAIRS])
def test_pair(name, ours, other, dtype):
    same(ours, other, data(4, 5), data(4, 5), dtype=dtype, rtol=1e-5 if dtype == "float32" else 1e-2)


def test_log_cosh_is_bounded():
    with tn.scope():
        got = tn.numpy(tn.nn_log_cosh_loss(np.float32([1000, -1000, 0]), np.float32([0, 0, 0]), 0))
        np.testing.assert_allclose(got, [1000 - np.log(2)] * 2 + [0], rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("full,eps", [(False, 1e-6), (True, 1e-6), (False, 0.5)])
def test_gaussian_nll(full, eps):
    same(lambda x, y, v, r: tn.nn_gaussian_nll_loss(x, y, v, full, eps, r),
         lambda x, y, v, reduction: losses.gaussian_nll_loss(x, y, v, full, eps, reduction),
         data(4, 5), data(4, 5), np.abs(data(4, 5)))


@pytest.mark.parametrize("margin", [0.0, 0.5])
def test_margin_ranking(margin):
    y = np.sign(data(4, 5))
    same(lambda a, b, y, r: tn.nn_margin_ranking_loss(a, b, y, margin, r),
         lambda a, b, y, reduction: losses.margin_ranking_loss(a, b, y, margin, reduction),
         data(4, 5), data(4, 5), y)


@pytest.mark.parametrize("given", [{}, {"p": 1}, {"p": 3, "margin": 0.2, "eps": 1e-3}, {"axis": 0}], ids=str)
def test_triplet(given):
    mine = {k: [v] if k == "axis" else v for k, v in given.items()}
    same(lambda a, b, n, r: tn.nn_triplet_loss(a, b, n, r, options("nn_triplet_opt", **mine)),
         lambda a, b, n, reduction: losses.triplet_loss(a, b, n, reduction=reduction, **given),
         data(4, 5), data(4, 5), data(4, 5), rtol=1e-5)


def test_every_loss_is_here():
    """mlx.nn.losses has none that Tenon lacks."""
    import inspect
    names = [n for n, f in inspect.getmembers(losses, inspect.isfunction) if not n.startswith("_") and n != "get_args"]
    assert len(names) == 14 and [n for n in names if "nn_" + n not in tn.SIGNATURES] == []
