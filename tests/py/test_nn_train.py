"""Small networks trained for ten steps here and by mlx.nn, from the same parameters and batches: the losses,
and the parameters at the end."""

import ctypes as c

import mlx.core as mx
import mlx.nn as nn
import mlx.optimizers as optim
import numpy as np
import pytest
from mlx.utils import tree_flatten

import tn
from test_optim import optimizer
from tn_nn import FNS, Model, close, options

STEPS = 10
RNG = np.random.default_rng(21)


class ConvNet(nn.Module):
    """Pictures [N, 8, 8, 2] to 5 classes."""

    def __init__(self):
        super().__init__()
        self.c1, self.b1 = nn.Conv2d(2, 6, 3, padding=1, bias=False), nn.BatchNorm(6)
        self.c2 = nn.Conv2d(6, 8, 3, groups=2)
        self.g2, self.out = nn.GroupNorm(2, 8, pytorch_compatible=True), nn.Linear(32, 5)

    def __call__(self, x):
        x = nn.MaxPool2d(2)(nn.relu(self.b1(self.c1(x))))
        return self.out(nn.gelu(self.g2(self.c2(x))).reshape(x.shape[0], -1))

    @staticmethod
    def batch():
        return RNG.standard_normal((16, 8, 8, 2)).astype(np.float32), RNG.integers(0, 5, 16).astype(np.int32)

    @staticmethod
    def ours(m):
        c1 = m.layer("conv", 2, 6, [3], False, options("ConvOpt", padding=[1]), init="conv2d", name="c1")
        b1 = m.layer("batch_norm", 6, None, name="b1")
        c2 = m.layer("conv", 6, 8, [3], True, options("ConvOpt", groups=2), init="conv2d", name="c2")
        g2 = m.layer("group_norm", 2, 8, options("nn_norm_opt", pytorch_compatible=True), name="g2")
        out = m.layer("linear", 32, 5, True, name="out")

        def call(x):
            x = tn.max_pool(tn.nn_relu(b1(c1(x), True)), [2], None, None)
            return out(tn.reshape(tn.nn_gelu(g2(c2(x))), (16, -1)))

        return call


class Writer(nn.Module):
    """Tokens [N, 12] of 20 to the next ones: a small GPT."""

    def __init__(self):
        super().__init__()
        self.table, self.stack = nn.Embedding(20, 16), nn.TransformerEncoder(2, 16, 4, activation=nn.gelu_approx)

    def __call__(self, x):
        places = nn.SinusoidalPositionalEncoding(16)(mx.arange(12))
        return self.table.as_linear(self.stack(self.table(x) + places, "causal"))

    @staticmethod
    def batch():
        text = RNG.integers(0, 20, (8, 13)).astype(np.int32)
        return text[:, :-1], text[:, 1:]

    @staticmethod
    def ours(m):
        gelu = c.cast(tn.lib.tn_nn_gelu_approx, c.c_void_p).value
        table = m.layer("embedding", 20, 16, name="table")
        stack = m.layer("transformer_encoder", 2, 16, 4, options("nn_transformer_opt", activation=gelu), name="stack")
        causal = tn.SdpaOpt(c.sizeof(tn.SdpaOpt), True, None, None)

        def call(x):
            places = tn.nn_sinusoidal(np.arange(12, dtype=np.int32), 16, None)
            y = stack(tn.add(table(x), places), c.addressof(causal), True)
            return tn.nn_embedding_as_linear(c.addressof(table.struct), y)

        return call


class Listener(nn.Module):
    """Sequences [N, 9, 4] to a number, through a GRU and an LSTM."""

    def __init__(self):
        super().__init__()
        self.gru, self.lstm, self.out = nn.GRU(4, 8), nn.LSTM(8, 6), nn.Linear(6, 1)

    def __call__(self, x):
        return self.out(self.lstm(self.gru(x))[0][:, -1])

    @staticmethod
    def batch():
        x = RNG.standard_normal((8, 9, 4)).astype(np.float32)
        return x, x.sum((1, 2))[:, None]

    @staticmethod
    def ours(m):
        gru, lstm = m.layer("gru", 4, 8, True, name="gru"), m.layer("lstm", 8, 6, True, name="lstm")
        out = m.layer("linear", 6, 1, True, name="out")

        def call(x):
            both = (c.c_void_p * 2)()
            lstm(gru(x, None), None, None, c.cast(both, c.c_void_p))
            return out(tn.squeeze(tn.slice_axis(tn.Array(both[0]), 1, 8, 9), (1,)))

        return call


def losses_of(module, batches, loss):
    other, found = optim.AdamW(learning_rate=0.01), []
    step = nn.value_and_grad(module, lambda x, y: loss(module(x), y))
    for x, y in batches:
        value, grads = step(mx.array(x), mx.array(y))
        other.update(module, grads)
        mx.eval(module.parameters(), other.state)
        found.append(value.item())
    return found


@pytest.mark.parametrize("kind", [ConvNet, Writer, Listener])
def test_ten_steps(kind):
    batches = [kind.batch()] * 2 + [kind.batch() for _ in range(STEPS - 2)]
    real = batches[0][1].dtype.kind == "f"
    with Model() as m:
        module, net = kind(), kind.ours(m)
        m.load(module.parameters())
        want = losses_of(module, batches, nn.losses.mse_loss if real else
                         lambda x, y: nn.losses.cross_entropy(x, y, reduction="mean"))
        got = []
        with optimizer(m, "adamw", learning_rate=0.01) as o:
            for x, y in batches:
                with tn.scope():
                    a, b = tn.array(x), tn.array(y)

                    def run(_in, out, _n, _ud):
                        z = net(a)
                        out[0] = (tn.nn_mse_loss(z, b, 1) if real else tn.nn_cross_entropy(z, b, 1, None)).p
                        return 0

                    out, grads = (c.c_void_p * 1)(), (c.c_void_p * 64)()
                    fn = FNS(run)
                    tn.check(tn.lib.tn_nn_value_and_grad(m.p, c.cast(fn, c.c_void_p), None, tn.make_list([]), 1,
                                                         c.addressof(out), c.addressof(grads)))
                    tn.check(tn.lib.tn_optim_update(o, c.addressof(grads)))
                    tn.check(tn.lib.tn_optim_eval(o, tn.make_list([tn.Array(out[0])])))
                    got.append(float(tn.numpy(tn.Array(out[0]))))
        np.testing.assert_allclose(got, want, rtol=2e-4)
        assert got[1] < got[0]
        values = m.values()
        for n, v in tree_flatten(module.parameters()):
            close(values[n], np.array(v), 5e-3, n)
