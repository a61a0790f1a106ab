"""Transformer layers and stacks against mlx.nn: values and gradients, with masks, dropout, and layers that
are run again."""

import ctypes as c

import mlx.core as mx
import mlx.nn as nn
import numpy as np
import pytest

import tn
from tn_nn import Model, close, options, same

RNG = np.random.default_rng(5)
FLAG = {"norm_first": ("norm_last", lambda v: not v)}
GELU = c.cast(tn.lib.tn_nn_gelu, c.c_void_p).value


def data(*shape):
    return RNG.standard_normal(shape).astype(np.float32)


def ours(given):
    mine = {}
    for k, v in given.items():
        name, of = FLAG.get(k, (k, lambda v: v))
        mine[name] = GELU if k == "activation" else of(v)
    return options("nn_transformer_opt", **mine)


def look(mask):
    """The address of a tn_sdpa_opt, and what mlx.nn is given."""
    if mask is None:
        return None, None
    opt = tn.SdpaOpt(c.sizeof(tn.SdpaOpt), isinstance(mask, str), None if isinstance(mask, str) else tn.operand(mask),
                     None)
    KEEP.append(opt)
    return c.addressof(opt), mask if isinstance(mask, str) else mx.array(mask)


KEEP = []
SETTINGS = [{}, {"norm_first": False}, {"mlp_dims": 5, "activation": nn.gelu}, {"dropout": 0.3},
            {"dropout": 0.3, "norm_first": False}]
STACKS = [{}, {"norm_first": False, "checkpoint": True}, {"dropout": 0.3}, {"dropout": 0.3, "checkpoint": True},
          {"mlp_dims": 5, "activation": nn.gelu, "checkpoint": True}]
MASKS = [None, "causal", data(2, 1, 5, 5)]
IDS = ["none", "causal", "added"]


def check(m, fn, module, *inputs, call):
    def seeded(f, seed):
        def run(*a):
            seed(17)
            return f(*a)
        return run

    same(m, seeded(fn, tn.lib.tn_random_seed), module, *inputs, fn=seeded(call, mx.random.seed), rtol=3e-5)


@pytest.mark.parametrize("given", SETTINGS, ids=str)
@pytest.mark.parametrize("mask", MASKS, ids=IDS)
def test_encoder_layer(given, mask):
    with Model() as m, tn.scope():
        opt, theirs = look(mask)
        module = nn.TransformerEncoderLayer(8, 2, **given)
        l = m.layer("transformer_encoder_layer", 8, 2, ours(given))
        check(m, lambda x: l(x, opt, True), module, data(2, 5, 8), call=lambda x: module(x, theirs))


@pytest.mark.parametrize("given", SETTINGS, ids=str)
@pytest.mark.parametrize("mask", MASKS, ids=IDS)
def test_decoder_layer(given, mask):
    with Model() as m, tn.scope():
        opt, theirs = look(mask)
        opt2, theirs2 = look(data(5, 6))
        module = nn.TransformerDecoderLayer(8, 2, **given)
        l = m.layer("transformer_decoder_layer", 8, 2, ours(given))
        check(m, lambda x, y: l(x, y, opt, opt2, True), module, data(2, 5, 8), data(2, 6, 8),
              call=lambda x, y: module(x, y, theirs, theirs2))


@pytest.mark.parametrize("given", STACKS, ids=str)
@pytest.mark.parametrize("mask", MASKS, ids=IDS)
def test_encoder(given, mask):
    with Model() as m, tn.scope():
        opt, theirs = look(mask)
        # theirs draws other dropouts when a layer is run again, so gradients are those without
        module = nn.TransformerEncoder(3, 8, 2, **{k: v for k, v in given.items() if k != "checkpoint"})
        l = m.layer("transformer_encoder", 3, 8, 2, ours(given))
        check(m, lambda x: l(x, opt, True), module, data(2, 5, 8), call=lambda x: module(x, theirs))
        if given.get("checkpoint"):  # called in another way, and again in the first
            module.eval()
            check(m, lambda x: l(x, None, False), module, data(2, 4, 8), call=lambda x: module(x, None))
            module.train()
            check(m, lambda x: l(x, opt, True), module, data(2, 5, 8), call=lambda x: module(x, theirs))


@pytest.mark.parametrize("given", STACKS, ids=str)
def test_transformer(given):
    with Model() as m, tn.scope():
        tgt, their_tgt = look("causal")
        mem, their_mem = look(data(5, 6))
        plain = {k: v for k, v in given.items() if k != "checkpoint"}
        module = nn.Transformer(8, 2, 2, 2, **plain)
        l = m.layer("transformer", 8, 2, 2, 2, ours(given))
        check(m, lambda x, y: l(x, y, None, tgt, mem, True), module, data(2, 6, 8), data(2, 5, 8),
              call=lambda x, y: module(x, y, None, their_tgt, their_mem))


def test_first_values():
    from mlx.utils import tree_flatten
    tn.lib.tn_random_seed(8)
    mx.random.seed(8)
    with Model() as m:
        m.layer("transformer", 8, 2, 2, 1, None, name="t")
        module, got = nn.Transformer(8, 2, 2, 1), m.values()
        for n, v in tree_flatten(module.parameters()):
            close(got.pop("t." + n), np.array(v), 1e-6, n)
        assert not got
