"""One vocabulary for tn and mlx, so that a test writes a function once:

    def f(o, x, w):                 # x, w: tn.Arrays or mx.arrays, with + - * / @ and unary -
        return o.softmax(x @ w, -1)

f(OURS, ...) and f(THEIRS, ...). Axes are given as in MLX; reductions keep none unless told to.
"""

import types

import mlx.core as mx
import mlx.nn as nn
import numpy as np

import tn
import tn_trans

SAME = ["abs", "arctan2", "cos", "erf", "exp", "expm1", "log", "log1p", "logaddexp", "maximum",
        "minimum", "power", "sigmoid", "sin", "sqrt", "square", "tanh", "where", "greater", "less",
        "equal", "rsqrt", "reciprocal", "stop_gradient", "real", "imag", "conj", "erfinv"]
REDUCTIONS = ["sum", "prod", "min", "max", "logsumexp", "mean"]
SCANS = ["cumsum", "cumprod", "cummax", "cummin", "logcumsumexp"]


def axes(a):
    return a if a is None or isinstance(a, (tuple, list)) else (a,)


def ours_var(a, axis=None, keep=False, ddof=0):
    return tn.var(a, axes(axis), keep, ddof)


def ours_part(a, axis, begin, end):
    return tn.slice_axis(a, axis, begin, end)


def ours_rows(a, index, u, how):
    """u [n, ...] combined into the rows index [n] of a."""
    u = tn.expand_dims(u, (1,))
    return tn.call("scatter" + how, a, [tn.array(index)], u, (0,))


def ours_grad(f, n=1):
    """Of one number, by the first n arguments: a list."""
    return tn_trans.grads(f, list(range(n)))


OURS = types.SimpleNamespace(
    name="tenon", const=lambda x, dtype=None: tn.array(np.asarray(x), dtype), shape=lambda a: a.shape,
    reshape=lambda a, *s: tn.reshape(a, s), transpose=lambda a, *x: tn.transpose(a, x or None),
    expand=lambda a, axis: tn.expand_dims(a, axes(axis)), squeeze=lambda a, axis: tn.squeeze(a, axes(axis)),
    moveaxis=tn.moveaxis, broadcast=lambda a, *s: tn.broadcast_to(a, s),
    concat=tn.concatenate, stack=tn.stack, part=ours_part, flip=lambda a, axis: tn.flip(a, axes(axis)),
    tile=tn.tile, repeat=tn.repeat, tril=tn.tril, triu=tn.triu,
    pad=lambda a, widths: tn.pad(a, [w[0] for w in widths], [w[1] for w in widths], 0.0),
    update=lambda a, u, start: tn.slice_update(a, u, start, None),
    take=lambda a, i, axis: tn.take(a, i, axis), take_along=tn.take_along_axis, put_along=tn.put_along_axis,
    rows=ours_rows, sort=tn.sort, argsort=tn.argsort, topk=tn.topk,
    softmax=lambda a, axis: tn.softmax(a, axes(axis)), var=ours_var,
    clip=tn.clip, addmm=tn.addmm,
    rms_norm=tn.fast_rms_norm, layer_norm=tn.fast_layer_norm, rope=tn.rope, sdpa=tn.sdpa,
    conv=lambda nd, x, w, **s: tn.conv(f"{nd}d", x, w, **s),
    conv_transpose=lambda nd, x, w, **s: tn.conv(f"_transpose{nd}d", x, w, **s),
    max_pool=lambda nd, x, k, stride, pad: tn.max_pool(x, (k,) * nd, (stride,) * nd, (pad,) * nd),
    avg_pool=lambda nd, x, k, stride, pad: tn.avg_pool(x, (k,) * nd, (stride,) * nd, (pad,) * nd),
    quantize=tn.quantize, quantized_matmul=tn.quantized_matmul, dequantize=tn.dequantize,
    grad=ours_grad, vmap=lambda f, in_axes: tn_trans.vmap(f, in_axes),
    complex=lambda a, b: a + b * 1j)
for name in SAME:
    setattr(OURS, name, lambda *a, name=name: tn.call(name, *a))
for name in REDUCTIONS:
    setattr(OURS, name, lambda a, axis=None, keep=False, name=name: tn.call(name, a, axes(axis), keep))
for name in SCANS:
    setattr(OURS, name, lambda a, axis, reverse=False, inclusive=True, name=name:
            tn.call(name, a, axis, reverse, inclusive))


def theirs_part(a, axis, begin, end):
    return a[(slice(None),) * (axis % a.ndim) + (slice(begin, end),)]


def theirs_update(a, u, start):
    a = a + 0
    a[tuple(slice(s, s + n) for s, n in zip(start, u.shape))] = u
    return a


def theirs_rows(a, index, u, how):
    at = a.at[mx.array(index)]
    return {"_add": at.add, "_max": at.maximum, "_min": at.minimum}[how](u)


def theirs_rope(x, dims, offset, traditional=False, base=0.0, scale=0.0, freqs=None):
    return mx.fast.rope(x, dims, traditional=traditional, base=None if freqs is not None else base or 10000.0,
                        scale=scale or 1.0, offset=offset, freqs=freqs)


def theirs_sdpa(q, k, v, scale, causal=False, mask=None, sinks=None):
    return mx.fast.scaled_dot_product_attention(q, k, v, scale=scale, sinks=sinks,
                                                mask="causal" if causal else mask)


def theirs_conv(nd, x, w, groups=1, stride=1, padding=0, dilation=1):
    return [mx.conv1d, mx.conv2d, mx.conv3d][nd - 1](x, w, stride=stride, padding=padding,
                                                     dilation=dilation, groups=groups)


def theirs_conv_transpose(nd, x, w, groups=1, stride=1, padding=0, dilation=1):
    return [mx.conv_transpose1d, mx.conv_transpose2d, mx.conv_transpose3d][nd - 1](
        x, w, stride=stride, padding=padding, dilation=dilation, groups=groups)


def theirs_grad(f, n=1):
    g = mx.grad(f, argnums=list(range(n)))
    return (lambda *x: [g(*x)]) if n == 1 else lambda *x: list(g(*x))


def flip(a, axis):
    return mx.take(a, mx.arange(a.shape[axis] - 1, -1, -1), axis)


THEIRS = types.SimpleNamespace(
    name="mlx", const=lambda x, dtype=None: mx.array(np.asarray(x)), shape=lambda a: tuple(a.shape),
    reshape=lambda a, *s: mx.reshape(a, s), transpose=lambda a, *x: mx.transpose(a, x or None),
    expand=mx.expand_dims, squeeze=mx.squeeze, moveaxis=mx.moveaxis,
    broadcast=lambda a, *s: mx.broadcast_to(a, s), concat=mx.concatenate, stack=mx.stack,
    part=theirs_part, flip=flip, tile=mx.tile, repeat=mx.repeat, tril=mx.tril, triu=mx.triu,
    pad=lambda a, widths: mx.pad(a, widths), update=theirs_update,
    take=lambda a, i, axis: mx.take(a, i, axis), take_along=mx.take_along_axis, put_along=mx.put_along_axis,
    rows=theirs_rows, sort=mx.sort, argsort=mx.argsort, topk=mx.topk,
    softmax=lambda a, axis: mx.softmax(a, axes(axis)),
    var=lambda a, axis=None, keep=False, ddof=0: mx.var(a, axis, keepdims=keep, ddof=ddof),
    clip=mx.clip, addmm=mx.addmm, rms_norm=mx.fast.rms_norm, layer_norm=mx.fast.layer_norm,
    rope=theirs_rope, sdpa=theirs_sdpa, conv=theirs_conv, conv_transpose=theirs_conv_transpose,
    max_pool=lambda nd, x, k, stride, pad: getattr(nn, f"MaxPool{nd}d")(k, stride, pad)(x),
    avg_pool=lambda nd, x, k, stride, pad: getattr(nn, f"AvgPool{nd}d")(k, stride, pad)(x),
    quantize=mx.quantize, quantized_matmul=mx.quantized_matmul, dequantize=mx.dequantize,
    grad=theirs_grad, vmap=lambda f, in_axes: mx.vmap(f, in_axes), complex=lambda a, b: a + b * 1j)
for name in SAME:
    setattr(THEIRS, name, getattr(mx, name))
for name in REDUCTIONS:
    setattr(THEIRS, name, lambda a, axis=None, keep=False, name=name: getattr(mx, name)(a, axis, keepdims=keep))
for name in SCANS:
    setattr(THEIRS, name, lambda a, axis, reverse=False, inclusive=True, name=name:
            getattr(mx, name)(a, axis, reverse=reverse, inclusive=inclusive))
