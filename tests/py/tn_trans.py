"""Transforms of Python functions of tn.Arrays, for the tests: vjp, jvp, vmap and gradients.

A function takes tn.Arrays and returns one, or a list of them where a transform is told how many.
"""

import ctypes as c
import traceback

import tn

FNS = c.CFUNCTYPE(c.c_int, tn.List, c.POINTER(c.c_void_p), c.c_int, c.c_void_p)
UNMAPPED = -2**63


def fns(f):
    """f as a tn_fns: keep what this returns for as long as it may be called."""
    def call(x, out, n_out, ud):
        try:
            y = f(*[tn.Array(x.v[i]) for i in range(x.n)])
        except Exception:   # not through C
            traceback.print_exc()
            return tn.STATUS["TN_EINTERNAL"]
        for k, a in enumerate(y if isinstance(y, (list, tuple)) else [y]):
            out[k] = tn.operand(a)
        return 0
    return FNS(call)


def _out(n):
    out = (c.c_void_p * n)()
    return out, c.cast(out, c.c_void_p)


def _arrays(out):
    return [tn.Array(p) for p in out]


def _run(name, f, *args):
    back = fns(f)
    tn.check(tn.call(name, c.cast(back, c.c_void_p), None, *args))


def vjp(f, x, cotangents):
    """The gradients of every argument."""
    (value, v), (grads, g) = _out(len(cotangents)), _out(len(x))
    _run("vjp", f, list(x), list(cotangents), v, g)
    return _arrays(grads)


def jvp(f, x, tangents, n=1):
    """The n results and their tangents."""
    (value, v), (along, a) = _out(n), _out(n)
    _run("jvp", f, list(x), list(tangents), n, v, a)
    return _arrays(value), _arrays(along)


def vmap(f, axes=(0,), to=0, n=1):
    """f over axes of its arguments (None: not mapped), its n results along axis `to`."""
    axes = [UNMAPPED if a is None else a for a in axes]

    def mapped(*x):
        out, o = _out(n)
        _run("vmap", f, list(x), axes, n, [to] * n, o)
        return tn.Array(out[0]) if n == 1 else _arrays(out)
    return mapped


def grads(f, which):
    """Of one number, by the arguments `which`: a list."""
    def g(*x):
        (value, v), (out, o) = _out(1), _out(len(which))
        at = (c.c_int * len(which))(*which)
        _run("value_and_grad_of", f, list(x), c.addressof(at), len(which), 1, v, o)
        return _arrays(out)
    return g


def grad(f, which=0):
    """Of one number, by argument `which`."""
    return lambda *x: grads(f, [which])(*x)[0]
