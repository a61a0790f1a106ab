"""Activations and first values against mlx.nn: values and gradients, at 0, at the corners and far out."""

import inspect

import mlx.core as mx
import mlx.nn as nn
import numpy as np
import pytest

import tn
from tn_nn import Model, close, theirs

CORNERS = [0, -0.0, 0.5, -0.5, 1, -1, 3, -3, 6, 1e-3, -1e-3, 30, -30, 85, -85]
X = np.concatenate([np.float32(CORNERS), np.random.default_rng(2).standard_normal(45).astype(np.float32) * 3])
X = X.reshape(6, 10)

# name: arguments after x
CASES = {
    "relu": [()], "relu2": [()], "relu6": [()], "leaky_relu": [(0.01,), (0.3,)], "elu": [(1.0,), (0.3,)],
    "celu": [(1.0,), (0.3,)], "selu": [()], "gelu": [()], "gelu_approx": [()], "gelu_fast_approx": [()],
    "silu": [()], "mish": [()], "softplus": [()], "softsign": [()], "log_sigmoid": [()], "hardswish": [()],
    "hard_tanh": [(-1.0, 1.0), (-0.3, 2.0)], "hard_shrink": [(0.5,), (0.1,)], "softshrink": [(0.5,), (0.1,)],
    "softmin": [(-1,), (0,)], "log_softmax": [(-1,), (0,)], "glu": [(-1,), (0,)],
}
IN_TENON = {"sigmoid": "sigmoid", "tanh": "tanh", "softmax": "softmax"}


def test_every_activation_is_here():
    source = inspect.getsource(nn.layers.activations)
    names = {line.split("(")[0][4:] for line in source.split("\n") if line.startswith("def ")}
    names -= {"_make_activation_module"}
    assert len(names) == 27
    assert names == set(CASES) | set(IN_TENON) | {"prelu", "step"}


@pytest.mark.parametrize("dtype", ["float32", "float16", "bfloat16"])
@pytest.mark.parametrize("name,args", [(n, a) for n, v in CASES.items() for a in v], ids=str)
def test_activation(name, args, dtype):
    x = tn.rounded(X, dtype)
    rtol = {"float32": 3e-6, "float16": 4e-3, "bfloat16": 3e-2}[dtype]
    with Model() as m:
        got, grads = m.grad(lambda a: tn.call("nn_" + name, tn.astype(a, dtype), *args), x)
    want, their_grads = theirs(None, lambda a: getattr(nn, name)(a, *args), x, dtype=getattr(mx, dtype))
    close(got, want, rtol, "value")
    bad = ~np.isfinite(their_grads["in.0"])  # exp(x) - 1 where x is not below 0: theirs is NaN
    assert np.isfinite(grads["in.0"]).all() and (not bad.any() or name in ("elu", "selu"))
    close(np.where(bad, 0, grads["in.0"]), np.where(bad, 0, their_grads["in.0"]), 4 * rtol, "gradient")


def test_far_out():
    """Gradients stay numbers where an exponential would not."""
    x = np.float32([[200, -200, 1e4, -1e4]])
    for name, args in ((n, a) for n, v in CASES.items() for a in v[:1]):
        with Model() as m:
            got, grads = m.grad(lambda a: tn.call("nn_" + name, a, *args), x)
            assert np.isfinite(got).all() and np.isfinite(grads["in.0"]).all(), name


@pytest.mark.parametrize("alpha", [[0.25], list(range(10))])
def test_prelu(alpha):
    alpha = np.float32(alpha)
    with Model() as m:
        got, grads = m.grad(tn.nn_prelu, X, alpha)
    want, their_grads = theirs(None, nn.prelu, X, alpha)
    close(got, want, 3e-6)
    for n in grads:
        close(grads[n], their_grads[n], 1e-5, n)


@pytest.mark.parametrize("threshold", [0.0, 0.5])
def test_step(threshold):
    with tn.scope():
        got, want = tn.nn_step(X, threshold), nn.step(mx.array(X), threshold)
        assert got.dtype == "int32" and want.dtype == mx.int32
        np.testing.assert_array_equal(tn.numpy(got), np.array(want))


# ---- first values ------------------------------------------------------------------------------------

SHAPES = [(5, 7), (7, 5), (6, 6), (4, 3, 5), (2, 3, 2, 5)]
FANS = [("glorot_normal", (1.0,)), ("glorot_normal", (0.3,)), ("glorot_uniform", (1.0,)), ("glorot_uniform", (2.0,)),
        ("he_normal", (False, 1.0)), ("he_normal", (True, 0.5)), ("he_uniform", (False, 1.0)),
        ("he_uniform", (True, 2.0))]


def seeded(ours, other, rtol):
    tn.lib.tn_random_seed(9)
    mx.random.seed(9)
    with tn.scope():
        got = ours()
        assert got.status == 0, got.error
        want = other()
        assert got.dtype == str(want.dtype).split(".")[-1]
        close(tn.numpy(got), np.array(want.astype(mx.float32)), rtol)


@pytest.mark.parametrize("dtype", ["float32", "float16", "bfloat16"])
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_init(shape, dtype):
    a, d = mx.zeros(shape), getattr(mx, dtype)
    rtol = {"float32": 1e-6, "float16": 2e-3, "bfloat16": 2e-2}[dtype]
    seeded(lambda: tn.nn_init_constant(shape, 0.3, dtype), lambda: nn.init.constant(0.3, d)(a), 0)
    seeded(lambda: tn.nn_init_normal(shape, 0.5, 0.1, dtype), lambda: nn.init.normal(0.5, 0.1, d)(a), rtol)
    seeded(lambda: tn.nn_init_uniform(shape, -0.5, 0.1, dtype), lambda: nn.init.uniform(-0.5, 0.1, d)(a), rtol)
    for name, args in FANS:
        given = (("fan_out" if args[0] else "fan_in"), args[1]) if len(args) == 2 else args
        seeded(lambda: tn.call("nn_init_" + name, shape, *args, dtype),
               lambda: getattr(nn.init, name)(d)(a, *given), rtol)
    if len(shape) == 2:
        for share in (0.0, 0.3, 1.0):
            seeded(lambda: tn.nn_init_sparse(shape, share, 0.5, 0.1, dtype),
                   lambda: nn.init.sparse(share, 0.5, 0.1, d)(a), rtol)
        seeded(lambda: tn.nn_init_orthogonal(shape, 0.7, dtype), lambda: nn.init.orthogonal(0.7, d)(a),
               max(rtol, 2e-5))


def test_identity():
    with tn.scope():
        np.testing.assert_array_equal(tn.numpy(tn.nn_init_identity((4, 4), "float16")), np.eye(4))


@pytest.mark.parametrize("shape", [(200, 120), (120, 200), (1, 1)])
def test_orthogonal(shape):
    tn.lib.tn_random_seed(4)
    with tn.scope():
        q = tn.numpy(tn.nn_init_orthogonal(shape, 1.0, "float32")).astype(np.float64)
        q = q if shape[0] <= shape[1] else q.T
        np.testing.assert_allclose(q @ q.T, np.eye(min(shape)), atol=1e-6)


def test_every_init_is_here():
    names = [n for n, f in inspect.getmembers(nn.init, inspect.isfunction) if not n.startswith("_") and n != "get_args"]
    assert len(names) == 10 and [n for n in names if "nn_init_" + n not in tn.SIGNATURES] == []
