"""nn_layers.h and nn_functions.h in Python, for the tests: structs read from the headers, layers as
objects, and values and gradients beside those of mlx.nn.

    with tn_nn.Model() as m:
        l = m.layer("linear", 4, 3, True)
        m.load(theirs.parameters())
        out, grads = m.grad(lambda x: l(x), x)
"""

import ctypes as c
import os
import re

import mlx.core as mx
import mlx.nn as nn
import numpy as np
from mlx.utils import tree_flatten, tree_unflatten

import tn
from tn_trans import FNS

KINDS = {"size_t": c.c_size_t, "double": c.c_double, "bool": c.c_bool, "int": c.c_int,
         "int64_t": c.c_int64, "tn_ints": tn.Ints, "tn_spatial": tn.Spatial,
         "tn_conv_opt": tn.ConvOpt, "tn_nn_upsample_mode": c.c_int}
REDUCTIONS = {"none": 0, "mean": 1, "sum": 2}


def _structs():
    found = dict(KINDS)
    for header in ("nn_functions.h", "nn_layers.h"):
        text = open(os.path.join(tn.ROOT, "include", "tenon", header)).read()
        text = re.sub(r"/\*.*?\*/", "", text, flags=re.S)
        for body, name in re.findall(r"typedef struct tn_nn_\w+ \{(.*?)\} (tn_nn_\w+);", text, re.S):
            fields = []
            for kind, names in re.findall(r"(\w+) ([^;]+);", body):
                for n in names.split(","):
                    n = n.strip()
                    kept = c.c_void_p if n.startswith("*") or kind not in found else found[kind]
                    many = re.match(r"(\w+)\[(\d+)\]", n)
                    fields.append((many[1], kept * int(many[2])) if many else (n.lstrip("*"), kept))
            found[name] = type(name, (c.Structure,), {"_fields_": fields})
    return found


STRUCTS = _structs()


def options(name, **given):
    """The address of a tn_<name> (and what keeps it alive), or None without settings."""
    if not given:
        return None
    kind = STRUCTS["tn_" + name] if "tn_" + name in STRUCTS else getattr(tn, name)
    fields, keep = dict(kind._fields_), []
    for k, v in given.items():
        if fields[k] is tn.Spatial:
            v = tn.make_spatial(v)
        elif fields[k] is tn.Ints:
            v = tn.make_ints(v)
        elif fields[k] is c.c_void_p:
            v = v if isinstance(v, int) else tn.operand(v)
        elif isinstance(v, (list, tuple)):
            v = fields[k](*v)
        given[k] = v
        keep.append(v)
    opt = kind(size=c.sizeof(kind), **given)
    KEEP.append((opt, keep))
    del KEEP[:-64]
    return c.addressof(opt)


KEEP = []  # structs whose addresses are in use


class Layer:
    def __init__(self, kind, struct):
        self.kind, self.struct = kind, struct

    def __call__(self, *args):
        return tn.call(f"nn_{self.kind}_call", c.addressof(self.struct), *args)


class Model:
    """A parameter tree and layers in it."""

    def __enter__(self):
        self.p, self.layers, self.calls, self.inputs = tn.lib.tn_params_new(), [], 0, []
        return self

    def __exit__(self, *_):
        tn.lib.tn_params_free(self.p)

    def layer(self, kind, *args, init=None, name=""):
        """A tn_nn_<kind>, made by tn_nn_<init or kind>_init."""
        struct = STRUCTS["tn_nn_" + kind]()
        self.layers.append(struct)
        tn.check(tn.call(f"nn_{init or kind}_init", c.addressof(struct), self.p, name.encode(), *args))
        return Layer(kind, struct)

    def names(self):
        all_ = [tn.lib.tn_params_name(self.p, i).decode() for i in range(tn.lib.tn_params_count(self.p))]
        return [n for n in all_ if not n.startswith("grad.")]

    def slot(self, i):
        """Layers come before inputs of gradients."""
        return c.cast(tn.lib.tn_params_slot(self.p, i), c.POINTER(c.c_void_p))

    def values(self):
        return {n: tn.numpy(tn.Array(self.slot(i)[0])) for i, n in enumerate(self.names())}

    def load(self, params, dtype=None):
        """mlx.nn's parameters; the names must be the same."""
        theirs = dict(tree_flatten(params))
        assert sorted(theirs) == sorted(self.names())
        with tn.scope():
            for i, n in enumerate(self.names()):
                a = np.array(theirs[n].astype(mx.float32))
                assert tn.Array(self.slot(i)[0]).shape == a.shape, n
                tn.check(tn.lib.tn_assign(self.slot(i), tn.array(a, dtype).p))

    def grad(self, fn, *inputs):
        """Value of sum(fn(*inputs) * weights) with fixed weights, and gradients: {name: array} and
        the parameters' part first, then those of the float inputs, named "in.<i>"."""
        frozen = [tn.lib.tn_params_frozen(self.p, i) for i in range(len(self.names()))]
        names = [n for n, f in zip(self.names(), frozen) if not f]
        floats = [i for i, x in enumerate(inputs) if np.asarray(x).dtype.kind == "f"]
        slots = (c.c_void_p * (len(floats) + 1))()
        with tn.scope():
            for k, i in enumerate(floats):   # inputs become parameters of their own for the call
                tn.check(tn.lib.tn_params_add(self.p, f"grad.{self.calls}.{i}".encode(),
                                              c.addressof(slots) + 8 * k, tn.operand(inputs[i])))
            self.inputs.append(slots)
            ints = {i: tn.array(x) for i, x in enumerate(inputs) if i not in floats}

            def run(_in, out, _n, _ud):
                args = [ints.get(i) or tn.Array(slots[floats.index(i)]) for i in range(len(inputs))]
                y = fn(*args)
                out[0] = loss(y).p
                out[1] = y.p
                return 0

            def loss(y):
                w = weights(y.shape).astype(np.float32)
                return tn.sum(tn.mul(tn.astype(y, "float32"), w), None, False)

            callback, n = FNS(run), len(names) + len(floats)
            out, grads = (c.c_void_p * 2)(), (c.c_void_p * max(n, 1))()
            tn.check(tn.lib.tn_nn_value_and_grad(
                self.p, c.cast(callback, c.c_void_p), None, tn.make_list([]), 2, c.addressof(out),
                c.addressof(grads)))
            tn.lib.tn_params_freeze(self.p, b"grad.*", True)
            self.calls += 1
            got = {k: tn.numpy(tn.Array(g)) for k, g in zip(names + [f"in.{i}" for i in floats], grads)}
            return tn.numpy(tn.Array(out[1])), got


def weights(shape):
    """What a result is multiplied with before it is summed: other for each element."""
    n = int(np.prod(shape, dtype=int))
    return np.cos(np.arange(n) * 1.7 + 0.3).reshape(shape)


def theirs(module, fn, *inputs, dtype=mx.float32):
    """The same by mlx.nn: value, and gradients by parameters and float inputs."""
    xs = [mx.array(x).astype(dtype) if np.asarray(x).dtype.kind == "f" else mx.array(x) for x in inputs]
    floats = [i for i, x in enumerate(inputs) if np.asarray(x).dtype.kind == "f"]

    def run(params, args):
        if module is not None:
            module.update(tree_unflatten(list(params.items())) if params else {})
        full = list(xs)
        for i, a in zip(floats, args):
            full[i] = a
        y = fn(*full)
        return (y.astype(mx.float32) * mx.array(weights(y.shape).astype(np.float32))).sum(), y

    params = dict(tree_flatten(module.trainable_parameters())) if module is not None else {}
    which = (0, 1) if params and floats else 0 if params else 1
    (_, y), grads = mx.value_and_grad(run, argnums=which)(params, [xs[i] for i in floats])
    gp, gx = grads if params and floats else (grads, []) if params else ({}, grads)
    if module is not None and params:
        module.update(tree_unflatten(list(params.items())))
    got = {k: np.array(v.astype(mx.float32)) for k, v in gp.items()}
    got |= {f"in.{i}": np.array(g.astype(mx.float32)) for i, g in zip(floats, gx)}
    return np.array(y.astype(mx.float32) if y.dtype == mx.bfloat16 else y), got


def close(got, want, rtol, what=""):
    got, want = np.asarray(got), np.asarray(want)
    assert got.shape == want.shape, (what, got.shape, want.shape)
    scale = np.abs(want[np.isfinite(want)]).max() if np.isfinite(want).any() else 1
    np.testing.assert_allclose(got, want, rtol=rtol, atol=rtol * max(scale, 1e-2), err_msg=what)


def same(model, layer, module, *inputs, fn=None, rtol=2e-6, load=True):
    """Values and gradients of a layer are those of its module, from the same parameters."""
    if load:
        model.load(module.parameters())
    got, grads = model.grad(layer, *inputs)
    want, their_grads = theirs(module, fn or module, *inputs)
    close(got, want, rtol, "value")
    assert sorted(grads) == sorted(their_grads)
    for n in grads:
        close(grads[n], their_grads[n], 4 * rtol, n)


__all__ = ["Model", "close", "nn", "options", "same", "theirs", "weights", "REDUCTIONS"]
