"""tn_vmap against mx.vmap: axes in and out, nested, of gradients and under them."""

import mlx.core as mx
import numpy as np
import pytest

import tn
from test_structural import scope  # noqa: F401
from tn_trans import grad, vmap

RNG = np.random.default_rng(3)

CASES = {
    "matmul": (lambda a, b: tn.matmul(a, b), lambda a, b: a @ b, [(3, 4), (4, 2)]),
    "matrix by vector": (lambda a, b: tn.matmul(a, b), lambda a, b: a @ b, [(3, 4), (4,)]),
    "softmax": (lambda a, b: tn.mul(tn.softmax(a, (-1,)), b),
                lambda a, b: mx.softmax(a, -1) * b, [(3, 4), (4,)]),
    "reductions": (lambda a, b: tn.add(tn.max(a, (0,), False), tn.logsumexp(b, None, False)),
                   lambda a, b: mx.max(a, 0) + mx.logsumexp(b), [(3, 4), (2, 2)]),
    "shapes": (lambda a, b: tn.concatenate([tn.transpose(a, None), tn.reshape(b, (1, 3))], 0),
               lambda a, b: mx.concatenate([a.T, b.reshape(1, 3)], 0), [(3, 4), (3,)]),
    "take": (lambda a, b: tn.take(a, tn.argsort(b, 0), 1),
             lambda a, b: mx.take(a, mx.argsort(b), 1), [(3, 4), (4,)]),
    "take along": (lambda a, b: tn.take_along_axis(a, tn.argsort(b, 1), 1),
                   lambda a, b: mx.take_along_axis(a, mx.argsort(b, 1), 1), [(3, 4), (3, 4)]),
    "scan and sort": (lambda a, b: tn.sub(tn.cumsum(a, 1, False, True), tn.sort(b, 0)),
                      lambda a, b: mx.cumsum(a, 1) - mx.sort(b, 0), [(3, 4), (3, 4)]),
    "where": (lambda a, b: tn.where(tn.greater(a, b), tn.exp(a), tn.abs(b)),
              lambda a, b: mx.where(a > b, mx.exp(a), mx.abs(b)), [(3, 4), (4,)]),
}
AXES = [(0, 0), (1, 0), (-1, -1), (0, None), (None, 0), (None, -1)]


def inputs(shapes, axes, n=5):
    x = []
    for shape, axis in zip(shapes, axes):
        shape = list(shape)
        if axis is not None:
            shape.insert(axis if axis >= 0 else len(shape) + 1 + axis, n)
        x.append(RNG.standard_normal(shape).astype(np.float32))
    return x


def close(got, want):
    want = np.array(want)
    assert got.shape == want.shape
    np.testing.assert_allclose(tn.numpy(got), want, rtol=2e-5, atol=2e-5)


@pytest.mark.parametrize("axes", AXES, ids=str)
@pytest.mark.parametrize("name", CASES)
def test_axes(name, axes):
    ours, theirs, shapes = CASES[name]
    x = inputs(shapes, axes)
    for to in (0, 1, -1):
        want = mx.vmap(theirs, axes, to)(*map(mx.array, x))
        close(vmap(ours, axes, to)(*map(tn.array, x)), want)


@pytest.mark.parametrize("name", CASES)
def test_nested(name):
    ours, theirs, shapes = CASES[name]
    x = inputs(inputs_twice(shapes), (None, None))
    want = mx.vmap(mx.vmap(theirs, (0, None), 0), (0, 0), 1)(*map(mx.array, x))
    close(vmap(vmap(ours, (0, None)), (0, 0), 1)(*map(tn.array, x)), want)


def inputs_twice(shapes):
    return [(4, 3) + tuple(shapes[0]), (4,) + tuple(shapes[1])]


@pytest.mark.parametrize("name", CASES)
def test_gradients(name):
    ours, theirs, shapes = CASES[name]
    x = inputs(shapes, (0, None))

    def loss(*v):
        return tn.sum(tn.square(ours(*v)), None, False)

    def loss_theirs(*v):
        return mx.square(theirs(*v)).sum()

    a, m = list(map(tn.array, x)), list(map(mx.array, x))
    close(vmap(grad(loss), (0, None))(*a), mx.vmap(mx.grad(loss_theirs), (0, None))(*m))

    def total(*v):
        return tn.sum(vmap(loss, (0, None))(*v), None, False)

    def total_theirs(*v):
        return mx.vmap(loss_theirs, (0, None))(*v).sum()

    close(grad(total)(*a), mx.grad(total_theirs)(*m))
    if name not in ("take", "take along"):   # their second argument is for sorting
        close(grad(total, 1)(*a), mx.grad(total_theirs, 1)(*m))


def test_sizes_that_differ():
    a, b = tn.array(np.ones((2, 3), np.float32)), tn.array(np.ones((3, 3), np.float32))
    with pytest.raises(tn.Error, match="has size 3, but the mapped axis of argument 0 has 2"):
        vmap(tn.add, (0, 0))(a, b)
    with pytest.raises(ValueError):
        mx.vmap(mx.add)(mx.ones((2, 3)), mx.ones((3, 3)))
