"""Layers against mlx.nn: first values, results and gradients over shapes."""

import mlx.core as mx
import mlx.nn as nn
import numpy as np
import pytest

import tn
from tn_nn import Model, close, options, same

RNG = np.random.default_rng(7)


def data(*shape):
    return RNG.standard_normal(shape).astype(np.float32)


# ---- the same seed gives the same parameters ---------------------------------------------------------

SPATIAL = {1: (3,), 2: (3, 2), 3: (2, 3, 2)}
MADE = [
    ("linear", "linear", (5, 3, True), lambda: nn.Linear(5, 3)),
    ("linear", "linear", (5, 3, False), lambda: nn.Linear(5, 3, bias=False)),
    ("embedding", "embedding", (11, 4), lambda: nn.Embedding(11, 4)),
    ("layer_norm", "layer_norm", (6, None), lambda: nn.LayerNorm(6)),
    ("layer_norm", "layer_norm", (6, {"no_bias": True}), lambda: nn.LayerNorm(6, bias=False)),
    ("layer_norm", "layer_norm", (6, {"no_affine": True}), lambda: nn.LayerNorm(6, affine=False)),
    ("rms_norm", "rms_norm", (6, None), lambda: nn.RMSNorm(6)),
    ("conv", "conv1d", (4, 6, [3], True, {"groups": 2}), lambda: nn.Conv1d(4, 6, 3, groups=2)),
    ("conv", "conv2d", (4, 6, [3, 2], True, None), lambda: nn.Conv2d(4, 6, (3, 2))),
    ("conv", "conv3d", (4, 6, [2], False, None), lambda: nn.Conv3d(4, 6, 2, bias=False)),
    ("conv", "conv_transpose1d", (4, 6, [3], True, None), lambda: nn.ConvTranspose1d(4, 6, 3)),
    ("conv", "conv_transpose2d", (4, 6, [3, 2], True, None), lambda: nn.ConvTranspose2d(4, 6, (3, 2))),
    ("conv", "conv_transpose3d", (4, 6, [2], True, None), lambda: nn.ConvTranspose3d(4, 6, 2)),
    ("multi_head_attention", "multi_head_attention", (8, 2, None), lambda: nn.MultiHeadAttention(8, 2)),
    ("multi_head_attention", "multi_head_attention",
     (8, 2, {"bias": True, "query_input_dims": 5, "key_input_dims": 6, "value_dims": 4, "value_output_dims": 3}),
     lambda: nn.MultiHeadAttention(8, 2, 5, 6, None, 4, 3, bias=True)),
]
OPTION = {"layer_norm": "nn_norm_opt", "rms_norm": "nn_norm_opt", "conv": "ConvOpt",
          "multi_head_attention": "nn_attention_opt"}


def make(model, kind, init, args, name=""):
    if kind in OPTION:
        args = args[:-1] + (options(OPTION[kind], **(args[-1] or {})),)
    return model.layer(kind, *args, init=init, name=name)


@pytest.mark.parametrize("kind,init,args,theirs", MADE, ids=[f"{m[1]}-{i}" for i, m in enumerate(MADE)])
def test_first_values(kind, init, args, theirs):
    from mlx.utils import tree_flatten
    tn.lib.tn_random_seed(31)
    mx.random.seed(31)
    with Model() as m:
        make(m, kind, init, args, "a.b")
        got, want = m.values(), dict(tree_flatten(theirs().parameters()))
        assert sorted(got) == sorted("a.b." + n for n in want)
        for n, v in want.items():
            close(got["a.b." + n], np.array(v), 1e-6, n)


# ---- values and gradients ------------------------------------------------------------------------------

INPUTS = {"linear": [(5,), (2, 5), (2, 3, 5)], "layer_norm": [(6,), (2, 6), (2, 3, 6)],
          "rms_norm": [(6,), (4, 6), (2, 3, 6)],
          "conv1d": [(1, 3, 4), (2, 9, 4)], "conv2d": [(2, 5, 6, 4)], "conv3d": [(2, 4, 3, 5, 4)]}


CASES = [(*m, x) for m in MADE for x in INPUTS.get(m[1].replace("_transpose", ""), [])]


@pytest.mark.parametrize("kind,init,args,theirs,shape", CASES, ids=[f"{m[1]}-{i}" for i, m in enumerate(CASES)])
def test_values(kind, init, args, theirs, shape):
    with Model() as m:
        layer, module = make(m, kind, init, args), theirs()
        module.update({n: mx.array(data(*v.shape)) for n, v in module.parameters().items()})
        same(m, layer, module, data(*shape), rtol=5e-6)


@pytest.mark.parametrize("shape", [(), (3,), (2, 3)])
def test_embedding(shape):
    ids = RNG.integers(0, 11, shape).astype(np.int32)
    with Model() as m:
        layer, module = m.layer("embedding", 11, 4), nn.Embedding(11, 4)
        same(m, layer, module, ids)
        same(m, lambda x: tn.nn_embedding_as_linear(tn.c.addressof(layer.struct), x), module,
             data(3, 4), fn=module.as_linear)


CONV = [{"stride": 2}, {"padding": 1}, {"dilation": 2}, {"stride": 2, "padding": 2, "dilation": 2}]


@pytest.mark.parametrize("axes", [1, 2])
@pytest.mark.parametrize("settings", CONV, ids=str)
def test_conv_settings(axes, settings):
    ours = {k: [v] * axes for k, v in settings.items()}
    x = data(2, *[9, 8][:axes], 3)
    with Model() as m:
        l = m.layer("conv", 3, 4, [3] * axes, True, options("ConvOpt", **ours),
                    init=f"conv{axes}d")
        same(m, l, getattr(nn, f"Conv{axes}d")(3, 4, 3, **settings), x, rtol=5e-6)
    with Model() as m:
        l = m.layer("conv", 3, 4, [3] * axes, True, options("ConvOpt", **ours), init=f"conv_transpose{axes}d")
        same(m, l, getattr(nn, f"ConvTranspose{axes}d")(3, 4, 3, **settings), x, rtol=5e-6)


@pytest.mark.parametrize("axes", [1, 2, 3])
def test_output_padding(axes):
    """Values alone: their gradient lacks the places that are added."""
    module = getattr(nn, f"ConvTranspose{axes}d")(3, 4, 3, stride=2, output_padding=1)
    x = data(2, *[4, 3, 2][:axes], 3)
    with Model() as m, tn.scope():
        l = m.layer("conv", 3, 4, [3], True, options("ConvOpt", stride=[2], output_padding=[1]),
                    init=f"conv_transpose{axes}d")
        m.load(module.parameters())
        close(tn.numpy(l(tn.array(x))), np.array(module(mx.array(x))), 5e-6)


@pytest.mark.parametrize("mask", [None, "causal", "bool", "add"])
@pytest.mark.parametrize("heads,settings,dims", [
    (1, {}, (8, 8, 8)), (4, {"bias": True}, (8, 8, 8)),
    (2, {"query_input_dims": 5, "key_input_dims": 6, "value_dims": 4, "value_output_dims": 3}, (5, 6, 6))])
def test_attention(heads, settings, dims, mask):
    q, k, v = data(2, 5, dims[0]), data(2, 5, dims[1]), data(2, 5, dims[2])
    their_mask = {"bool": np.tril(np.ones((5, 5), bool)), "add": data(2, 1, 5, 5)}.get(mask)
    module = nn.MultiHeadAttention(8, heads, **settings)
    with Model() as m:
        l = m.layer("multi_head_attention", 8, heads, options("nn_attention_opt", **settings))

        def ours(a, b, c):
            opt = tn.SdpaOpt(tn.c.sizeof(tn.SdpaOpt), mask == "causal", tn.operand(their_mask), None)
            return l(a, b, c, tn.c.addressof(opt))

        given = mask if mask == "causal" else None if mask is None else mx.array(their_mask)
        same(m, ours, module, q, k, v, fn=lambda a, b, c: module(a, b, c, given), rtol=1e-5)


# ---- dropout and positions --------------------------------------------------------------------------------

@pytest.mark.parametrize("name,shape", [("", (4, 5)), ("2d", (3, 4, 5)), ("2d", (2, 3, 4, 5)),
                                        ("3d", (2, 3, 4, 5)), ("3d", (2, 2, 3, 4, 5))])
def test_dropout(name, shape):
    """The same seed drops the same."""
    x, module = data(*shape), getattr(nn, f"Dropout{name}")(0.4)
    tn.lib.tn_random_seed(5)
    mx.random.seed(5)
    with tn.scope():
        drop = getattr(tn, f"nn_dropout{name}")
        got = tn.numpy(drop(x, 0.4, True))
        np.testing.assert_array_equal(got == 0, np.array(module(mx.array(x))) == 0)
        close(got[got != 0], (x / 0.6)[got != 0], 1e-6)
        assert (got == 0).any() and (got != 0).any()
        np.testing.assert_array_equal(tn.numpy(drop(x, 0.4, False)), x)
        np.testing.assert_array_equal(tn.numpy(drop(x, 0.0, True)), x)


@pytest.mark.parametrize("settings", [{}, {"cos_first": True, "full_turns": True}, {"scale": 1.0},
                                      {"min_freq": 0.01, "max_freq": 2.0}], ids=str)
@pytest.mark.parametrize("dims", [2, 8])
def test_sinusoidal(settings, dims):
    x = np.arange(12, dtype=np.float32).reshape(3, 4)
    want = nn.SinusoidalPositionalEncoding(dims, **settings)(mx.array(x))
    with tn.scope():
        got = tn.nn_sinusoidal(x, dims, options("nn_sinusoidal_opt", **settings))
        close(tn.numpy(got), np.array(want), 2e-5)


@pytest.mark.parametrize("heads", [1, 2, 3, 8, 12, 20])
@pytest.mark.parametrize("dtype", ["float32", "float16"])
def test_alibi(heads, dtype):
    want = nn.ALiBi.create_alibi_matrix(3 + 4, 7, heads, offset=4, dtype=getattr(mx, dtype))
    with tn.scope():
        got = tn.nn_alibi(3, 7, heads, 4, dtype)
        assert got.dtype == dtype
        close(tn.numpy(got), np.array(want), 1e-6 if dtype == "float32" else 1e-3)


def test_rope():
    x = data(2, 3, 5, 8)
    for traditional in (False, True):
        want = nn.RoPE(6, traditional=traditional)(mx.array(x), offset=3)
        opt = tn.RopeOpt(tn.c.sizeof(tn.RopeOpt), traditional, 0.0, 0.0, None)
        with tn.scope():
            close(tn.numpy(tn.nn_rope(x, 6, 3, tn.c.addressof(opt))), np.array(want), 2e-6)


# ---- normalisation over other axes, statistics ------------------------------------------------------------

SHAPED = [(4, 6), (3, 5, 6), (2, 3, 4, 6), (2, 3, 2, 2, 6)]


@pytest.mark.parametrize("shape", SHAPED[:3], ids=str)
@pytest.mark.parametrize("given", [{}, {"affine": False}, {"momentum": 0.7, "eps": 0.1},
                                   {"track_running_stats": False}], ids=str)
def test_batch_norm(shape, given):
    mine = {{"affine": "no_affine", "track_running_stats": "no_running"}.get(k, k): v or True for k, v in given.items()}
    module = nn.BatchNorm(6, **given)
    with Model() as m:
        l = m.layer("batch_norm", 6, options("nn_norm_opt", **mine))
        if given.get("affine", True):
            module.update({"weight": mx.array(data(6)), "bias": mx.array(data(6))})
        m.load(module.parameters())
        for step in range(3):  # the statistics run on, in both
            x = data(*shape) * (step + 1) + step
            same(m, lambda a: l(a, True), module, x, load=False, rtol=2e-5)
            stop = {k: v for k, v in m.values().items() if "running" in k}
            assert set(stop) == (set() if "track_running_stats" in given else {"running_mean", "running_var"})
            for n, v in stop.items():
                assert v.any()
                close(v, np.array(module[n]), 1e-5, n)
        module.eval()
        same(m, lambda a: l(a, False), module, data(*shape), load=False, rtol=2e-5)


def test_batch_norm_statistics_are_not_trained():
    with Model() as m:
        m.layer("batch_norm", 6, None, name="norm")
        assert tn.lib.tn_params_trainable(m.p) == 2
        tn.lib.tn_params_freeze(m.p, b"*", False)
        assert tn.lib.tn_params_trainable(m.p) == 2
        tn.lib.tn_params_freeze(m.p, b"*", True)
        assert tn.lib.tn_params_trainable(m.p) == 0


@pytest.mark.parametrize("shape", SHAPED, ids=str)
@pytest.mark.parametrize("groups", [1, 2, 6])
@pytest.mark.parametrize("given", [{}, {"affine": False}, {"pytorch_compatible": True, "eps": 0.1}], ids=str)
def test_group_norm(shape, groups, given):
    if groups == 6 and len(shape) == 2:
        pytest.skip("one number a group: 0 and its gradient of rounding errors")
    mine = {"no_affine" if k == "affine" else k: v or True for k, v in given.items()}
    with Model() as m:
        l, module = m.layer("group_norm", groups, 6, options("nn_norm_opt", **mine)), nn.GroupNorm(groups, 6, **given)
        if given.get("affine", True):
            module.update({"weight": mx.array(data(6)), "bias": mx.array(data(6))})
        same(m, l, module, data(*shape), rtol=2e-5)


@pytest.mark.parametrize("shape", SHAPED[1:], ids=str)
@pytest.mark.parametrize("given", [{}, {"affine": True}, {"eps": 0.1}], ids=str)
def test_instance_norm(shape, given):
    with Model() as m:
        l, module = m.layer("instance_norm", 6, options("nn_norm_opt", **given)), nn.InstanceNorm(6, **given)
        if "affine" in given:
            module.update({"weight": mx.array(data(6)), "bias": mx.array(data(6))})
        same(m, l, module, data(*shape), rtol=2e-5)


@pytest.mark.parametrize("axes", [1, 2, 3])
@pytest.mark.parametrize("kernel,stride,padding", [(2, None, 0), (3, 2, 1), (2, 1, 0)])
@pytest.mark.parametrize("kind", ["Max", "Avg"])
def test_pooling(kind, axes, kernel, stride, padding):
    """Pooling layers are functions."""
    module = getattr(nn, f"{kind}Pool{axes}d")(kernel, stride, padding)
    fn = tn.max_pool if kind == "Max" else tn.avg_pool
    with Model() as m:
        same(m, lambda x: fn(x, [kernel], [stride] if stride else None, [padding]), module,
             data(2, *[7, 6, 5][:axes], 3), fn=module, load=False, rtol=5e-6)
