"""Functions made of many operations against mlx, each written once (both.py): value, gradients by
every argument, jvp, and vmap of the gradients over all arguments and over the first alone.

The third entry of a row names what mlx lacks: "jvp" (convolutions, most scans, scatters; that of
addmm leaves alpha and beta out), where its gradients are taken along the tangents instead; "vmap"
(quantised products, windows; that of slices put into an array differs from its own loop), where it
loops. "digits": a kernel rounds activations to 2^-15.
"""

import math

import mlx.core as mx
import numpy as np
import pytest

import tn
import tn_trans
from both import OURS, THEIRS
from test_structural import scope  # noqa: F401

INDEX = np.array([2, 0, 2, 3], np.int32)
CALLS = 3


# ---- Layers ----------------------------------------------------------------------------------------

def gelu(o, x):
    return 0.5 * x * (1.0 + o.erf(x / math.sqrt(2.0)))


def silu(o, x):
    return x * o.sigmoid(x)


def mlp(o, x, w, b, v):
    return gelu(o, x @ w + b) @ v


def swiglu(o, x, gate, up, down):
    return (silu(o, x @ gate) * (x @ up)) @ down


def batch_norm(o, x, w, b):
    mean = o.mean(x, 0, True)
    return (x - mean) * o.rsqrt(o.var(x, 0, True) + 1e-3) * w + b


def group_norm(o, x, w):
    g = o.reshape(x, 2, 5, 2, 3)
    g = (g - o.mean(g, (1, 3), True)) * o.rsqrt(o.var(g, (1, 3), True) + 1e-3)
    return o.reshape(g, 2, 5, 6) * w


def residual_norms(o, x, w, v, b):
    x = x + o.rms_norm(x, w, 1e-4)
    return x + o.layer_norm(o.square(x), v, b, 1e-4)


def gru(o, x, h, wx, wh):
    for t in range(3):
        a, r = o.part(x, 1, t, t + 1), h
        a = o.squeeze(a, 1) @ wx
        c = h @ wh
        z = o.sigmoid(o.part(a, -1, 0, 4) + o.part(c, -1, 0, 4))
        r = o.sigmoid(o.part(a, -1, 4, 8) + o.part(c, -1, 4, 8))
        n = o.tanh(o.part(a, -1, 8, 12) + r * o.part(c, -1, 8, 12))
        h = (1.0 - z) * n + z * h
    return h


def lstm(o, x, h, c, w):
    for t in range(3):
        a = o.concat([o.squeeze(o.part(x, 0, t, t + 1), 0), h], -1) @ w
        i, f, g, q = [o.part(a, -1, 3 * k, 3 * k + 3) for k in range(4)]
        c = o.sigmoid(f) * c + o.sigmoid(i) * o.tanh(g)
        h = o.sigmoid(q) * o.tanh(c)
    return o.stack([h, c], 0)


# ---- Attention -------------------------------------------------------------------------------------

CAUSAL = np.tril(np.ones((4, 4), bool))
MASK = np.array([[1, 0, 1, 1, 0], [0, 1, 1, 0, 1], [1, 1, 1, 1, 1]], bool)


def attention_by_hand(o, x, wq, wk, wv):
    q, k, v = x @ wq, x @ wk, x @ wv
    s = q @ o.transpose(k, 0, 2, 1) / math.sqrt(3.0)
    return o.softmax(o.where(o.const(CAUSAL), s, o.const(np.float32(-1e9))), -1) @ v


def attention_grouped(o, q, k, v):
    return o.sdpa(q, k, v, 0.5, causal=True)


def attention_bool(o, q, k, v):
    return o.sdpa(q, k, v, 0.5, mask=o.const(MASK))


def attention_added(o, q, k, v, m):
    return o.sdpa(q, k, v, 0.5, mask=m)


def attention_sinks(o, q, k, v, s):
    return o.sdpa(q, k, v, 0.5, sinks=s)


def attention_block(o, x, norm, wq, wkv, wo):
    h = o.rms_norm(x, norm, 1e-5)
    q = o.transpose(o.reshape(h @ wq, 1, 5, 4, 4), 0, 2, 1, 3)
    kv = o.transpose(o.reshape(h @ wkv, 1, 5, 4, 4), 0, 2, 1, 3)
    k, v = o.part(kv, 1, 0, 2), o.part(kv, 1, 2, 4)
    q, k = o.rope(q, 4, 2, base=100.0), o.rope(k, 4, 2, base=100.0)
    y = o.sdpa(q, k, v, 0.5, causal=True)
    return x + o.reshape(o.transpose(y, 0, 2, 1, 3), 1, 5, 16) @ wo


def rope_pairs(o, x):
    return o.rope(x, 4, 3, traditional=True, scale=0.5) * o.rope(o.flip(x, 1), 6, 0)


def rope_wavelengths(o, x):
    return o.rope(x, 4, 1, freqs=o.const(np.array([1.5, 7.0], np.float32)))


# ---- Convolutions ----------------------------------------------------------------------------------

def conv_net(o, x, w, b, v):
    y = o.maximum(o.conv(2, x, w, padding=1) + b, 0.0)
    y = o.max_pool(2, y, 2, 2, 0)
    return o.reshape(y, 2, 12) @ v


def conv_grouped(o, x, w):
    return o.tanh(o.conv(1, x, w, groups=2, dilation=2, stride=2, padding=3))


def conv_separable(o, x, depth, point):
    return o.conv(2, silu(o, o.conv(2, x, depth, groups=3, padding=1)), point)


def conv_back(o, x, w, v):
    y = o.sigmoid(o.conv_transpose(2, x, w, stride=2, padding=1))
    return o.conv(2, y, v)


def conv_volume(o, x, w):
    return o.avg_pool(3, o.conv(3, x, w, padding=1), 2, 1, 0)


def pools(o, x):
    return o.max_pool(1, x, 3, 2, 1) * o.avg_pool(1, x, 3, 2, 1)


# ---- Losses and probabilities ----------------------------------------------------------------------

def cross_entropy(o, x):
    at = o.const(INDEX.reshape(4, 1))
    return o.logsumexp(x, -1) - o.squeeze(o.take_along(x, at, -1), -1)


def label_smoothing(o, x):
    p = x - o.logsumexp(x, -1, True)
    at = o.take_along(p, o.const(INDEX.reshape(4, 1)), -1)
    return -0.9 * o.squeeze(at, -1) - 0.1 * o.mean(p, -1)


def log_chain(o, x, y):
    return o.logsumexp(x - o.softmax(x, -1), -1) + o.logaddexp(o.max(x, -1), o.min(y, -1))


def huber(o, x, y):
    d = o.abs(x - y)
    return o.where(o.less(d, 0.8), 0.5 * o.square(d), 0.8 * (d - 0.4))


def gaussian_nll(o, x, mean, spread):
    var = o.log1p(o.exp(spread)) + 1e-3
    return 0.5 * (o.log(var) + o.square(x - mean) / var)


def focal(o, x):
    p = o.clip(o.sigmoid(x), 0.1, 0.8)
    return -o.power(1.0 - p, 2.5) * o.log(p)


def divergence(o, x, y):
    p = o.softmax(x, (0, 1))
    return o.sum(p * (o.log(p) - y), 0)


# ---- Products --------------------------------------------------------------------------------------

def bilinear(o, x, a, y):
    """einsum("bi,kij,bj->bk")"""
    t = o.expand(x, 0) @ a                        # [k, b, j]
    return o.transpose(o.sum(t * o.expand(y, 0), -1), 1, 0)


def contraction(o, x, y):
    """einsum("abc,dcb->ad")"""
    return o.reshape(x, 3, 8) @ o.transpose(o.reshape(o.transpose(y, 0, 2, 1), 2, 8), 1, 0)


def cosine(o, x, y):
    def unit(a):
        return a * o.rsqrt(o.sum(o.square(a), -1, True) + 1e-6)
    return unit(x) @ o.transpose(unit(y), 1, 0)


def distances(o, x, y):
    d = o.expand(x, 1) - o.expand(y, 0)
    return o.exp(-0.5 * o.sqrt(o.sum(o.square(d), -1) + 1e-3))


def covariance(o, x):
    c = x - o.mean(x, 0, True)
    c = o.transpose(c, 1, 0) @ c / 3.0
    return o.triu(c, 1) + o.tril(o.square(c), 0)


def lower_triangular(o, c, a, b):
    return o.addmm(c, o.tril(a, 0), b, 0.5, 2.0)


def quantized(o, x):
    w = np.sin(np.arange(6 * 64, dtype=np.float32)).reshape(6, 64)
    q = o.quantize(o.const(w), 32, 4)
    return o.quantized_matmul(o.tanh(o.quantized_matmul(x, *q, True, 32, 4)), *q, False, 32, 4)


def quantized_scales(o, x, scales, biases):
    w = o.const((np.arange(6 * 8, dtype=np.uint64) * 2654435761 % 2**32).astype(np.uint32).reshape(6, 8))
    y = o.quantized_matmul(o.tanh(x), w, scales, biases, True, 32, 4)
    return y @ o.dequantize(w, o.square(scales), biases, 32, 4)


def quantized_and_back(o, w, x):
    """What is lost is no function of w, but the edges of each group are."""
    q = o.quantize(w, 32, 4)
    return x @ o.transpose(o.dequantize(*q, 32, 4), 1, 0) + q[1] * o.square(q[2])


# ---- Picking, sorting, scanning --------------------------------------------------------------------

def embedding(o, table, w):
    return o.mean(o.take(table, o.const(np.array([[2, 0, 2], [1, 3, -1]], np.int32)), 0), 1) @ w


def segment_softmax(o, x, u):
    e = o.exp(u)
    total = o.rows(0.0 * x, INDEX, e, "_add")
    return e / o.take(total, o.const(INDEX), 0) + o.take(x, o.const(INDEX), 0)


def segment_largest(o, x, u):
    return o.square(o.rows(x, INDEX, u, "_max")) - o.rows(x, INDEX, u, "_min")


def sorted_gaps(o, x, w):
    s = o.sort(x, 0)
    return (o.part(s, 0, 1, 5) - o.part(s, 0, 0, 4)) * w


def by_rank(o, x, y):
    return o.take_along(y, o.stop_gradient(o.argsort(x, 1)), 1) * o.sort(x, 1)


def put(o, x, u):
    at = o.const(np.array([[0, 2, 1], [3, 3, 0]], np.int32))
    return o.tanh(o.put_along(x, at, u, 0)) * x


def experts(o, x, gate, w):
    g = x @ gate
    least = o.min(o.topk(g, 2, -1), -1, True)
    g = o.softmax(o.where(o.less(g, o.stop_gradient(least)), o.const(np.float32(-1e9)), g), -1)
    y = o.moveaxis(o.expand(x, 0) @ w, 0, 1)      # [n, e, m]
    return o.sum(o.expand(g, -1) * y, 1)


def rendering(o, density, colour):
    d = o.log1p(o.exp(density))
    seen = o.exp(-o.cumsum(d, 1, inclusive=False))
    return o.sum(o.expand(seen * (1.0 - o.exp(-d)), -1) * colour, 1)


def returns(o, reward, keep):
    k = o.sigmoid(keep)
    return o.cumsum(reward * o.cumprod(k, 0, inclusive=False), 0, reverse=True)


def envelopes(o, x):
    return o.cummax(x, 1) - o.cummin(x, 1, reverse=True)


def log_sums(o, x):
    return o.logcumsumexp(x, -1) * o.logcumsumexp(o.square(x), 0, reverse=True)


def products(o, x, y):
    return o.prod(o.sigmoid(x), 1) + o.prod(o.part(y, 0, 0, 3), (0, 1)) - o.max(y, 1) * o.min(y)


# ---- Shapes and mixtures ---------------------------------------------------------------------------

def shapes(o, x):
    a = o.pad(o.flip(x, 1), [(1, 0), (0, 2)])
    a = o.concat([o.tile(a, (1, 2)), o.repeat(a, 2, 1)], 0)
    a = o.reshape(o.sin(o.transpose(a, 1, 0)), 2, 6, 8)
    return o.moveaxis(a, 2, 0) + o.broadcast(o.reshape(o.part(x, 1, 0, 2), 6), 8, 2, 6)


def updates(o, x, u):
    y = o.update(o.exp(x), o.square(u), (1, 1))
    return o.update(y, o.part(y, 0, 0, 1), (2, 0)) * x


def waves(o, x, y):
    r = o.sqrt(o.square(x) + o.square(y) + 1e-2)
    return o.sin(3.0 * o.arctan2(y, x)) * o.power(r, 1.3) + o.expm1(o.erfinv(o.tanh(x) * 0.9))


def complex_field(o, a, b, c):
    z = o.complex(a, b)
    w = z * o.conj(o.exp(o.complex(0.0 * c, c))) / (o.complex(c, a) + 3.0)
    return o.abs(z) + o.real(w * w)


def newton(o, x):
    y = x
    for _ in range(5):
        y = 0.5 * (y + x / y)
    return y


def gradient_penalty(o, x, w, v):
    def score(x):
        return o.sum(o.tanh(x @ w) @ v)
    g = o.grad(score)(x)[0]
    return o.sqrt(o.sum(o.square(g), -1) + 1e-2)


def inner_map(o, x, w):
    def one(x, w):
        return o.softmax(w @ x, -1)
    return o.vmap(one, (0, None))(x, w)


def inner_hessian(o, x, w):
    def loss(x):
        return o.sum(o.log1p(o.exp(w @ x)))

    def along(x, v):
        return o.sum(o.grad(loss)(x)[0] * v)
    return o.grad(along)(x, o.stop_gradient(o.cos(x)))[0]


# name: function, shapes of its arguments, what mlx lacks, numbers all positive
CASES = {
    "mlp": (mlp, [(3, 4), (4, 5), (5,), (5, 2)]),
    "swiglu": (swiglu, [(3, 4), (4, 6), (4, 6), (6, 4)]),
    "batch norm": (batch_norm, [(5, 3), (3,), (3,)]),
    "group norm": (group_norm, [(2, 5, 6), (6,)]),
    "residual norms": (residual_norms, [(3, 6), (6,), (6,), (6,)]),
    "gru": (gru, [(2, 3, 3), (2, 4), (3, 12), (4, 12)]),
    "lstm": (lstm, [(3, 2, 4), (2, 3), (2, 3), (7, 12)]),
    "attention by hand": (attention_by_hand, [(2, 4, 5), (5, 3), (5, 3), (5, 4)]),
    "attention of groups": (attention_grouped, [(2, 4, 3, 4), (2, 2, 5, 4), (2, 2, 5, 3)]),
    "attention, bool mask": (attention_bool, [(1, 2, 3, 4), (1, 2, 5, 4), (1, 2, 5, 4)]),
    "attention, added mask": (attention_added, [(1, 4, 3, 4), (1, 2, 5, 4), (1, 2, 5, 4), (4, 1, 5)]),
    "attention, sinks": (attention_sinks, [(2, 4, 3, 4), (2, 2, 5, 4), (2, 2, 5, 4), (4,)]),
    "attention block": (attention_block, [(1, 5, 16), (16,), (16, 16), (16, 16), (16, 16)]),
    "rope in pairs": (rope_pairs, [(1, 2, 3, 6)]),
    "rope, wavelengths": (rope_wavelengths, [(1, 2, 3, 6)]),
    "conv net": (conv_net, [(2, 4, 4, 2), (3, 3, 3, 2), (3,), (12, 2)], "jvp vmap"),
    "conv in groups": (conv_grouped, [(2, 9, 4), (6, 3, 2)], "jvp"),
    "conv, separable": (conv_separable, [(1, 4, 5, 3), (3, 3, 3, 1), (4, 1, 1, 3)], "jvp vmap"),
    "conv transposed": (conv_back, [(1, 3, 3, 2), (3, 3, 3, 2), (2, 2, 2, 3)], "jvp vmap"),
    "conv, volume": (conv_volume, [(1, 3, 3, 3, 2), (2, 2, 2, 2, 2)], "jvp vmap"),
    "pools": (pools, [(2, 7, 3)], "vmap"),
    "cross-entropy": (cross_entropy, [(4, 5)]),
    "label smoothing": (label_smoothing, [(4, 5)]),
    "log chain": (log_chain, [(3, 5), (3, 4)]),
    "huber": (huber, [(4, 3), (4, 3)]),
    "gaussian nll": (gaussian_nll, [(4, 3), (3,), (4, 1)]),
    "focal": (focal, [(4, 5)]),
    "divergence": (divergence, [(3, 4), (3, 4)]),
    "bilinear": (bilinear, [(4, 3), (2, 3, 5), (4, 5)]),
    "contraction": (contraction, [(3, 2, 4), (2, 4, 2)]),
    "cosine": (cosine, [(3, 4), (2, 4)]),
    "distances": (distances, [(3, 4), (5, 4)]),
    "covariance": (covariance, [(5, 3)]),
    "lower triangular": (lower_triangular, [(2,), (3, 3), (3, 2)], "jvp"),
    "quantized": (quantized, [(2, 64)], "jvp vmap digits"),
    "quantized, by scales": (quantized_scales, [(2, 64), (6, 2), (6, 2)], "jvp vmap digits"),
    "quantized and back": (quantized_and_back, [(3, 32), (3, 32)], "jvp vmap"),
    "embedding": (embedding, [(4, 3), (3, 2)]),
    "segment softmax": (segment_softmax, [(5, 3), (4, 3)], "jvp"),
    "segment largest": (segment_largest, [(5, 3), (4, 3)], "jvp"),
    "sorted gaps": (sorted_gaps, [(5, 3), (3,)]),
    "by rank": (by_rank, [(3, 4), (3, 4)]),
    "put": (put, [(4, 3), (2, 3)], "jvp"),
    "experts": (experts, [(5, 3), (3, 4), (4, 3, 2)]),
    "rendering": (rendering, [(2, 5), (2, 5, 3)]),
    "returns": (returns, [(5, 2), (5, 2)], "jvp"),
    "envelopes": (envelopes, [(3, 6)], "jvp"),
    "log sums": (log_sums, [(3, 5)], "jvp"),
    "products": (products, [(3, 4), (3, 4)]),
    "shapes": (shapes, [(3, 4)]),
    "updates": (updates, [(4, 4), (2, 2)], "vmap"),
    "waves": (waves, [(3, 4), (3, 4)]),
    "complex field": (complex_field, [(3, 4), (3, 4), (4,)]),
    "newton": (newton, [(3, 4)], "", True),
    "gradient penalty": (gradient_penalty, [(3, 4), (4, 5), (5, 2)]),
    "a map inside": (inner_map, [(3, 4), (2, 4)]),
    "a second derivative inside": (inner_hessian, [(4,), (3, 4)]),
}


class Case:
    """One row, with numbers: arguments, tangents and weights of the results are the same for both."""

    def __init__(self, name):
        f, shapes, lacks, positive = (*CASES[name], *("", False)[len(CASES[name]) - 2:])
        self.tolerance = 3e-4 if "digits" in lacks else 3e-5
        rng = np.random.default_rng(sum(map(ord, name)))
        self.f, self.shapes, self.lacks, self.n = f, shapes, lacks.split(), len(shapes)
        self.x = [self.numbers(rng, s, positive) for s in shapes]
        self.many = [np.stack([x] + [self.numbers(rng, x.shape, positive) for _ in range(CALLS - 1)])
                     for x in self.x]
        self.tangents = [self.numbers(rng, s, False) for s in shapes]

    def close(self, got, want, what):
        want = np.array(want)
        assert got.shape == want.shape, what
        np.testing.assert_allclose(tn.numpy(got), want, rtol=self.tolerance,
                                   atol=self.tolerance * (1 + np.abs(want).max()), err_msg=what)

    @staticmethod
    def numbers(rng, shape, positive):
        x = rng.standard_normal(shape).astype(np.float32)
        return np.abs(x) + np.float32(0.5) if positive else x

    def value(self, o):
        return lambda *x: self.f(o, *x)

    def loss(self, o):
        """The result weighted with different numbers and summed."""
        def weighted(*x):
            y = self.f(o, *x)
            shape = o.shape(y)
            weights = np.cos(np.arange(math.prod(shape), dtype=np.float32)).reshape(shape) + np.float32(0.3)
            return o.sum(y * o.const(weights))
        return weighted




@pytest.fixture(params=CASES)
def case(request):
    return Case(request.param)


def both(arrays):
    return [tn.array(a) for a in arrays], [mx.array(a) for a in arrays]


def test_value_and_gradients(case):
    ours, theirs = both(case.x)
    case.close(case.value(OURS)(*ours), case.value(THEIRS)(*theirs), "value")
    got, want = OURS.grad(case.loss(OURS), case.n)(*ours), THEIRS.grad(case.loss(THEIRS), case.n)(*theirs)
    for k in range(case.n):
        case.close(got[k], want[k], f"gradient {k}")
        assert np.abs(np.array(want[k])).max() > 0, f"gradient {k} is nothing"


def test_along_tangents(case):
    (ours, theirs), (t, u) = both(case.x), both(case.tangents)
    _, got = tn_trans.jvp(case.loss(OURS), ours, t)
    if "jvp" not in case.lacks:
        along = tn_trans.jvp(case.value(OURS), ours, t)[1][0]
        case.close(along, mx.jvp(case.value(THEIRS), theirs, u)[1][0], "jvp")
    grads = THEIRS.grad(case.loss(THEIRS), case.n)(*theirs)
    parts = [np.sum(np.array(g, np.float64) * v) for g, v in zip(grads, case.tangents)]
    size = sum(np.sum(np.abs(np.array(g, np.float64) * v)) for g, v in zip(grads, case.tangents))
    assert abs(tn.numpy(got[0]) - sum(parts)) <= case.tolerance * (1 + size)


@pytest.mark.parametrize("all_of_them", [True, False], ids=["all mapped", "the first mapped"])
def test_gradients_of_many(case, all_of_them):
    axes = [0 if all_of_them or k == 0 else None for k in range(case.n)]
    ours, theirs = both([m if a == 0 else x for m, x, a in zip(case.many, case.x, axes)])
    got = tn_trans.vmap(OURS.grad(case.loss(OURS), case.n), axes, n=case.n)(*ours)
    grad = THEIRS.grad(case.loss(THEIRS), case.n)
    if "vmap" in case.lacks:
        calls = [grad(*[x[b] if a == 0 else x for x, a in zip(theirs, axes)]) for b in range(CALLS)]
        want = [mx.stack([c[k] for c in calls]) for k in range(case.n)]
    else:
        want = mx.vmap(grad, tuple(axes))(*theirs)
    for k, g in enumerate(got if case.n > 1 else [got]):
        case.close(g, want[k], f"gradients {k}")
