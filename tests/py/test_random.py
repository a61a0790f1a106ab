"""Random numbers: MLX's streams bit for bit, from the same keys and from the same seeds."""

import mlx.core as mx
import numpy as np
import pytest

import tn
import ulp
from test_structural import check, refused, scope  # noqa: F401

SHAPES = [(), (1,), (2,), (3,), (7,), (4, 5), (2, 3, 4), (0,), (3, 0), (1001,), (4097,), (70001,)]
SEEDS = [0, 1, 42, (1 << 32) - 1, 1 << 32, (1 << 64) - 1, 0x123456789abcdef]


def key(seed):
    return tn.random_key(seed), mx.random.key(seed)


def threefry(key, c0, c1):
    """20 rounds of Threefry-2x32 on arrays of counters."""
    k = [np.uint32(key[0]), np.uint32(key[1])]
    k.append(k[0] ^ k[1] ^ np.uint32(0x1BD11BDA))
    x, y = c0.astype(np.uint32) + k[0], c1.astype(np.uint32) + k[1]
    for i in range(5):
        for r in ((13, 15, 26, 6), (17, 29, 16, 24))[i % 2]:
            x = x + y
            y = (y << np.uint32(r) | y >> np.uint32(32 - r)) ^ x
        x, y = x + k[(i + 1) % 3], y + k[(i + 2) % 3] + np.uint32(i + 1)
    return x, y


def bits(shape, width, key):
    """MLX's RandomBits, which its Python package does not show: pairs of counters (i, i + half),
    for an odd number of words one more block whose second counter is 0."""
    size = int(np.prod(shape))
    words = (size * width + 3) // 4
    half, odd = words // 2, words % 2
    i = np.arange(half)
    x, y = threefry(key, i, i + half + odd)
    last = threefry(key, np.array([half]), np.array([0]))[0][:odd]
    out = np.concatenate([x, last, y]).astype("<u4").tobytes()[:size * width]
    return np.frombuffer(out, {1: np.uint8, 2: np.uint16, 4: np.uint32}[width]).reshape(shape)


def same(got, want):
    """Bit for bit, NaN included."""
    assert not got.status, got.error
    assert got.dtype == str(want.dtype).split(".")[-1].replace("bool_", "bool")
    assert got.shape == tuple(want.shape)
    if want.dtype in (mx.float16, mx.bfloat16, mx.float32):
        bits = {2: mx.uint16, 4: mx.uint32}[want.itemsize]
        want = np.array(mx.view(want, bits)) if want.ndim else np.array(mx.view(want.reshape(1), bits))
    else:
        want = np.array(want)
    np.testing.assert_array_equal(tn.raw(got).reshape(-1).view(want.dtype), want.reshape(-1))


@pytest.mark.parametrize("seed", SEEDS)
def test_keys(seed):
    k, m = key(seed)
    same(k, m)
    for n in (1, 2, 3, 5, 100):
        same(tn.random_split(k, n), mx.random.split(m, n))
    a = tn.split(tn.random_split(k, 2), 2, 0)
    check(tn.random_bits((5,), 4, tn.reshape(a[1], (2,))), bits((5,), 4, np.array(mx.random.split(m)[1])))
    np.testing.assert_array_equal(bits((7, 2), 4, np.array(m)), np.array(mx.random.split(m, 7)))


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("width", [1, 2, 4])
def test_bits(shape, width):
    for seed in (0, 3):
        k, m = key(seed)
        check(tn.random_bits(shape, width, k), bits(shape, width, np.array(m)))


@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float32"])
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_uniform(shape, dtype):
    k, m = key(7)
    d = getattr(mx, dtype)
    same(tn.random_uniform(None, None, shape, dtype, k), mx.random.uniform(shape=shape, dtype=d, key=m))
    low, high = np.float32(-2.5), np.float32(3.25)
    same(tn.random_uniform(low, high, shape, dtype, k),
         mx.random.uniform(-2.5, 3.25, shape=shape, dtype=d, key=m))


def test_uniform_bounds_are_arrays():
    k, m = key(9)
    low, high = np.arange(5, dtype=np.float32), np.arange(5, dtype=np.float32) + np.float32(0.5)
    same(tn.random_uniform(low, high, (4, 5), "float32", k),
         mx.random.uniform(mx.array(low), mx.array(high), (4, 5), mx.float32, m))
    v = tn.numpy(tn.random_uniform(None, None, (70001,), "float32", k))
    assert (v >= 0).all() and (v < 1).all() and abs(v.mean() - 0.5) < 0.01


@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float32"])
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_normal_and_gumbel(shape, dtype):
    """The streams are MLX's; logarithm and inverse error function are ours, in float32 an ULP or
    two from its own in some places. Halves hide nearly all of it."""
    k, m = key(11)
    d = getattr(mx, dtype)
    for got, want in [(tn.random_normal(shape, dtype, k), mx.random.normal(shape, d, key=m)),
                      (tn.random_gumbel(shape, dtype, k), mx.random.gumbel(shape, d, key=m))]:
        assert got.dtype == dtype and got.shape == tuple(want.shape)
        w = np.array(want.astype(mx.float32)).astype(np.float64)
        far = ulp.distance(tn.numpy(got), w, dtype, 1.0)   # -log(1 - t) is t: ULPs of 1
        assert (far <= (4 if dtype == "float32" else 1)).all()
        assert far.size < 20 or np.mean(far == 0) > (0.8 if dtype == "float32" else 0.999)


@pytest.mark.parametrize("dtype", ["int8", "uint8", "int16", "int32", "uint32", "int64"])
def test_randint(dtype):
    k, m = key(5)
    for low, high in [(0, 10), (-5, 100), (3, 4), (0, 100000)]:
        if dtype[0] == "u" and low < 0 or high > np.iinfo(dtype).max:
            continue
        for shape in SHAPES[:8]:
            same(tn.random_randint(tn.array(low), tn.array(high), shape, dtype, k),
                 mx.random.randint(low, high, shape, getattr(mx, dtype), m))


def test_bernoulli():
    k, m = key(6)
    for p in (0.0, 0.1, 0.5, 0.999, 1.0):
        for shape in ((), (3, 4), (1000,)):
            same(tn.random_bernoulli(np.float32(p), shape, k), mx.random.bernoulli(p, shape, m))
    p = np.linspace(0, 1, 50).astype(np.float32)
    same(tn.random_bernoulli(p, (3, 50), k), mx.random.bernoulli(mx.array(p), (3, 50), m))


def test_categorical():
    """MLX draws logits of shape [1, n] along the last axis by an inverse-CDF search instead, with
    other results from the same key; those are not compared."""
    rng = np.random.default_rng(1)
    for shape in [(10,), (4, 9), (3, 5, 100), (32000,), (2, 32000)]:
        logits = rng.standard_normal(shape).astype(np.float32)
        for seed in range(8):
            k, m = key(seed)
            for axis in {-1, 0} if shape[0] > 2 else {-1}:
                same(tn.random_categorical(logits, axis, k),
                     mx.random.categorical(mx.array(logits), axis, key=m))
    sure = np.array([-np.inf, 0, -np.inf], np.float32)
    assert tn.numpy(tn.random_categorical(sure, 0, key(1)[0])) == 1


@pytest.mark.parametrize("seed", SEEDS)
def test_default_sequence(seed):
    """Without a key: the thread's own sequence, as mx.random.seed starts MLX's."""
    tn.random_seed(seed)
    mx.random.seed(seed)
    for _ in range(3):
        same(tn.random_gumbel((3,), "float16", None), mx.random.gumbel((3,), mx.float16))
        same(tn.random_uniform(None, None, (2, 2), "float32", None), mx.random.uniform(shape=(2, 2)))
    a = tn.numpy(tn.random_bits((4,), 4, None))
    assert (a != tn.numpy(tn.random_bits((4,), 4, None))).any()


def test_refused():
    k = tn.random_key(0)
    refused(tn.random_bits((2,), 3, k), "TN_EVALUE", "random_bits", "3")
    refused(tn.random_bits((-2,), 4, k), "TN_ESHAPE", "random_bits")
    refused(tn.random_bits(None, 4, k), "TN_ESHAPE")
    refused(tn.random_bits((1 << 62, 1 << 62), 4, k), "TN_ESHAPE")
    refused(tn.random_bits([1] * 17, 4, k), "TN_ESHAPE")
    for bad in (np.zeros(2, np.int32), np.zeros(3, np.uint32), np.zeros((1, 2), np.uint32)):
        refused(tn.random_bits((2,), 4, bad), "TN_EVALUE", "key")
        refused(tn.random_split(bad, 2), "TN_EVALUE", "key")
    refused(tn.random_split(k, -1), "TN_ESHAPE")
    for name in ("random_normal", "random_gumbel"):
        for dtype in ("int32", "float64", "complex64", "bool"):
            y = tn.call(name, (2,), dtype, k)
            assert y.status == tn.STATUS["TN_EDTYPE"] and dtype in y.error
    refused(tn.random_uniform(None, None, (2,), "int8", k), "TN_EDTYPE", "random_uniform", "int8")
    refused(tn.random_uniform(np.ones(3, np.float32), None, (2,), "float32", k), "TN_ESHAPE")
    refused(tn.random_randint(0, 3, (2,), "float32", k), "TN_EDTYPE", "random_randint", "float32")
    assert tn.random_randint(None, 3, (2,), "int32", k).status < 0
    assert tn.random_bernoulli(None, (2,), k).status < 0
    refused(tn.random_categorical(np.ones(3, np.float32), 1, k), "TN_EAXIS", "axis 1")
    refused(tn.random_categorical(tn.add(np.ones(3), np.ones(2)), 0, k), "TN_ESHAPE", "add")
