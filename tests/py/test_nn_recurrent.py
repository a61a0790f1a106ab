"""Recurrent and bilinear layers and upsampling against mlx.nn."""

import ctypes as c

import mlx.core as mx
import mlx.nn as nn
import numpy as np
import pytest

import tn
from tn_nn import Model, close, options, same

RNG = np.random.default_rng(3)


def data(*shape):
    return RNG.standard_normal(shape).astype(np.float32)


MAKE = {"rnn": (nn.RNN, (None,)), "gru": (nn.GRU, ()), "lstm": (nn.LSTM, ())}


def made(m, kind, bias):
    cls, extra = MAKE[kind]
    module = cls(4, 3, bias=bias)
    for n in ("bias", "b", "bhn"):  # mlx.nn keeps a None there, which is no parameter
        if n in module and module[n] is None:
            del module[n]
            object.__setattr__(module, n, None)
    return m.layer(kind, 4, 3, bias, *extra), module


@pytest.mark.parametrize("kind", ["rnn", "gru"])
@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("batch", [(), (2,), (2, 3)], ids=str)
@pytest.mark.parametrize("steps", [1, 5])
@pytest.mark.parametrize("given", [False, True])
def test_recurrent(kind, bias, batch, steps, given):
    x, h = data(*batch, steps, 4), data(*batch, 3)
    with Model() as m:
        l, module = made(m, kind, bias)
        if given:
            same(m, lambda a, b: l(a, b), module, x, h, rtol=1e-5)
        else:
            same(m, lambda a: l(a, None), module, x, rtol=1e-5)


def test_rnn_with_relu():
    with Model() as m:
        relu = c.cast(tn.lib.tn_nn_relu, c.c_void_p).value
        l, module = m.layer("rnn", 4, 3, True, relu), nn.RNN(4, 3, nonlinearity=nn.relu)
        same(m, lambda a, b: l(a, b), module, data(2, 5, 4), data(2, 3), rtol=1e-5)


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("batch", [(), (2,), (2, 3)], ids=str)
@pytest.mark.parametrize("state", ["", "h", "hc", "c"])
@pytest.mark.parametrize("which", [0, 1])
def test_lstm(bias, batch, state, which):
    x, h, cell = data(*batch, 5, 4), data(*batch, 3), data(*batch, 3)
    inputs = [x] + [h] * ("h" in state) + [cell] * ("c" in state)

    def split(args):
        rest = list(args[1:])
        return args[0], rest.pop(0) if "h" in state else None, rest.pop(0) if "c" in state else None

    with Model() as m:
        l, module = made(m, "lstm", bias)

        def ours(*args):
            out = (c.c_void_p * 2)()
            l(*split(args), c.cast(out, c.c_void_p))
            return tn.Array(out[which])

        same(m, ours, module, *inputs, fn=lambda *a: module(*split(a))[which], rtol=1e-5)


@pytest.mark.parametrize("kind", ["rnn", "gru", "lstm", "bilinear"])
def test_first_values(kind):
    from mlx.utils import tree_flatten
    tn.lib.tn_random_seed(8)
    mx.random.seed(8)
    with Model() as m:
        if kind == "bilinear":
            m.layer("bilinear", 4, 3, 5, True)
            module = nn.Bilinear(4, 3, 5)
        else:
            m.layer(kind, 4, 3, True, *MAKE[kind][1])
            module = MAKE[kind][0](4, 3)
        got = m.values()
        for n, v in tree_flatten(module.parameters()):
            close(got.pop(n), np.array(v), 1e-6, n)
        assert not got


@pytest.mark.parametrize("batch", [(2,), (2, 3)], ids=str)
@pytest.mark.parametrize("bias", [True, False])
def test_bilinear(batch, bias):
    with Model() as m:
        same(m, m.layer("bilinear", 4, 3, 5, bias), nn.Bilinear(4, 3, 5, bias=bias), data(*batch, 4),
             data(*batch, 3), rtol=1e-5)


# ---- upsampling ---------------------------------------------------------------------------------------

MODES = {"nearest": 0, "linear": 1, "cubic": 2}
SCALES = [2, 3, 1, 1.5, 2.6, 0.5, 0.4]  # at 2.7 theirs has places whose four weights are 0, from rounding


@pytest.mark.parametrize("mode,corners,smooth", [("nearest", False, False), ("linear", False, False),
                                                 ("linear", True, False), ("linear", False, True),
                                                 ("cubic", False, False), ("cubic", True, False),
                                                 ("cubic", False, True)])
@pytest.mark.parametrize("scale", SCALES + [(2, 0.6), (1.3, 3)], ids=str)
def test_upsample(mode, corners, smooth, scale):
    shapes = [(2, 5, 7, 3)] if isinstance(scale, tuple) else [(2, 7, 3), (2, 5, 6, 3), (1, 3, 4, 5, 2)]
    module = nn.Upsample(scale, mode, corners, smooth)
    each = tuple(map(float, scale)) if isinstance(scale, tuple) else (0.0,) * 3
    for shape in shapes:
        with Model() as m:
            opt = options("nn_upsample_opt", mode=MODES[mode], align_corners=corners, antialias=smooth, scale=each)
            same(m, lambda x: tn.nn_upsample(x, float(scale if not any(each) else 0), opt), module,
                 data(*shape), fn=module, load=False, rtol=2e-5)


def test_upsample_half():
    """f16 stays f16."""
    x = np.arange(24, dtype=np.float16).reshape(1, 4, 3, 2)
    want = nn.Upsample(2.0, "linear")(mx.array(x.astype(np.float32)))
    with tn.scope():
        got = tn.nn_upsample(tn.array(x), 2.0, options("nn_upsample_opt", mode=1))
        assert got.dtype == "float16"
        close(tn.numpy(got).astype(np.float32), np.array(want), 1e-3)
