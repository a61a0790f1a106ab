"""Checksums of the results of every op, for test_same_bits.py, which runs this file with each
TENON_ISA; and random chains of ops, evaluated at once or op by op.

    python tests/py/same_bits.py THREADS...    one JSON object a line: name -> checksum
"""

import json
import os
import sys
import zlib

import numpy as np

import ops_table as table
import tn
import tn_trans

ELEMENTWISE_LAYOUTS = {1: ["large", "large transposed", "strided", "3-d"],
                       2: ["large", "large strided", "outer", "strided"],
                       3: ["large", "large strided", "outer"]}
REDUCTIONS = [((270, 261), table.contiguous, (0,)), ((270, 261), table.transposed, (0,)),
              ((270, 261), table.contiguous, (1,)), ((table.LARGE,), table.contiguous, None),
              ((5, 19), table.strided, (-1,)), ((3, 4, 5), table.transposed, (0, 2)),
              ((2, 1025), table.contiguous, (1,))]


def bits(a):
    """The elements as bytes, with one NaN for all: its sign is the processor's choice."""
    v = tn.raw(a)
    if a.dtype == "bfloat16":
        v = np.where((v & 0x7FFF) > 0x7F80, 0x7FC0, v).astype(np.uint16)
    elif v.dtype.kind == "c":
        v = v.view(np.float32) if v.ndim else np.array([v.real, v.imag])
    if v.dtype.kind == "f":
        v = np.where(np.isnan(v), v.dtype.type(np.nan), v)
    return v.tobytes()


def checksum(a):
    return zlib.crc32(bits(a))


def tame(dtype, shape, key):
    v = table.rng_for("tame", shape, key).standard_normal(shape)
    return tn.array(np.asarray(tn.rounded(v, dtype)), dtype)


def elementwise():
    for row in table.ELEMENTWISE:
        for dtype in table.ALLOWED[row.dom]:
            for layout in ELEMENTWISE_LAYOUTS[row.arity]:
                yield (row.name, dtype, layout), lambda: tn.call(
                    row.name, *[a for a, _ in table.operands(row, dtype, layout)])


def reductions():
    for row in table.REDUCE:
        for dtype in table.ALLOWED[row.dom]:
            for shape, make, axes in REDUCTIONS:
                yield (row.name, dtype, shape, make.__name__, axes), lambda: tn.call(
                    row.name, make(dtype, shape, "reduce")[0], axes, False)


def layers():
    for dtype in tn.FLOATS[:3] + ["float64"]:
        for shape in [(70, 1000), (3, 7), (2, 4097)]:
            x, w = tame(dtype, shape, "x"), tame(dtype, shape[-1:], "w")
            yield ("softmax", dtype, shape), lambda: tn.softmax(x, (-1,))
            yield ("softmax 0", dtype, shape), lambda: tn.softmax(x, (0,))
            yield ("rms_norm", dtype, shape), lambda: tn.fast_rms_norm(x, w, 1e-5)
            yield ("layer_norm", dtype, shape), lambda: tn.fast_layer_norm(x, w, w, 1e-5)
            yield ("cumsum", dtype, shape), lambda: tn.cumsum(x, -1, False, True)
            yield ("logcumsumexp", dtype, shape), lambda: tn.logcumsumexp(x, 0, False, True)
        for traditional in (False, True):
            y = tame(dtype, (2, 4, 33, 64), "rope")
            yield ("rope", dtype, traditional), lambda: tn.rope(y, 64, 5, traditional)
        for lq, lk in [(1, 300), (70, 130)]:
            q, k, v = [tame(dtype, (1, h, n, 64), "sdpa") for h, n in ((4, lq), (2, lk), (2, lk))]
            yield ("attention", dtype, lq, lk), lambda: tn.sdpa(q, k, v, 0.125, True)


def products():
    for dtype in tn.FLOATS + ["complex64"]:
        for m, k, n in [(1, 700, 300), (5, 300, 130), (70, 257, 67), (130, 300, 200)]:
            a, b = tame(dtype, (m, k), "a"), tame(dtype, (k, n), "b")
            yield ("matmul", dtype, m, k, n), lambda: tn.matmul(a, b)
            t = tn.transpose(tame(dtype, (n, k), "t"), None)
            yield ("matmul of transposed", dtype, m, k, n), lambda: tn.matmul(a, t)
    for bits in (2, 3, 4, 5, 6, 8):
        w = tn.quantize(tame("float32", (96, 256), "w"), 64, bits)
        for m in (1, 4, 40):
            x = tame("float32", (m, 256), "x")
            yield ("quantized_matmul", bits, m), lambda: tn.quantized_matmul(x, *w, True, 64, bits)


def rows(x, u):
    at = tn.array(np.arange(400, dtype=np.int32) * 7 % 90)
    return tn.scatter_add(tn.take(x, at, 0), [at], tn.expand_dims(u, (1,)), (0,))


def apart(f, n):
    """Over the first axis of n arguments."""
    return tn_trans.vmap(f, (0,) * n)


def differentiable(dtype):
    """Names, functions and their arguments, large enough for several threads."""
    q, k, v = [tame(dtype, (2, h, n, 24), "sdpa") for h, n in ((4, 130), (2, 170), (2, 170))]
    sinks, mask = tame("float32", (4,), "sinks"), tn.greater(tame("float32", (130, 170), "mask"), -0.5)
    yield "attention", lambda *a: tn.sdpa(*a, 0.2, True), (q, k, v)
    yield "attention with a mask", lambda *a: tn.sdpa(*a[:3], 0.2, mask=mask, sinks=a[3]), (q, k, v, sinks)
    x, w = tame(dtype, (3, 150, 257), "x"), tame(dtype, (257,), "w")
    yield "rms_norm", lambda x, w: tn.fast_rms_norm(x, w, 1e-5), (x, w)
    yield "layer_norm", lambda x, w: tn.fast_layer_norm(x, w, w, 1e-5), (x, w)
    yield "rms_norms", apart(lambda x, w: tn.fast_rms_norm(x, w, 1e-5), 2), (x, tame(dtype, (3, 257), "w"))
    image, taps = tame(dtype, (3, 17, 19, 8), "image"), tame(dtype, (16, 3, 3, 4), "taps")
    yield "conv", lambda x, w: tn.conv("2d", x, w, groups=2, stride=2, padding=1), (image, taps)
    yield "max_pool", lambda x: tn.max_pool(x, 3, 2, 1), (image,)
    yield "softmax", lambda x: tn.softmax(x, (-1,)), (x,)
    yield "log sums", lambda x: tn.logcumsumexp(x, 1, False, True), (x,)
    yield "products", lambda x: tn.cumprod(x, 1, False, True), (x,)
    yield "rows", rows, (tame(dtype, (400, 33), "table"), tame(dtype, (400, 33), "rows"))
    yield "matmul", tn.matmul, (tame(dtype, (70, 257), "a"), tame(dtype, (257, 67), "b"))


def gradients():
    for dtype in tn.FLOATS:
        for name, f, x in differentiable(dtype):
            for k in range(len(x)):
                loss = lambda *a: tn.sum(tn.square(f(*a)), None, False)  # noqa: E731
                yield ("gradient", name, dtype, k), lambda: tn_trans.grad(loss, k)(*x)


# ---- Chains -------------------------------------------------------------------------------------------------

SHAPES = [(24, 37), (1, 37), (24, 1), (37,), ()]
CHAIN_DTYPES = ["float32", "float32", "float32", "float16", "bfloat16", "int32", "bool", "float64",
                "uint8", "int64"]


def chain(seed, after=lambda a: None):
    """The last arrays of a random graph; `after` sees each array as it is made. What is chosen
    depends on the seed and on shapes and dtypes only."""
    rng = np.random.default_rng(seed)
    pick = lambda v: v[int(rng.integers(len(v)))]  # noqa: E731
    shapes = SHAPES if seed % 4 else [(300, 260), (1, 260), (300, 1)]
    pool = [tame_or_any(pick(CHAIN_DTYPES), shapes[i % len(shapes)], (seed, i)) for i in range(6)]
    for _ in range(int(rng.integers(5, 40))):
        kind, a = rng.random(), pick(pool)
        if kind < 0.62:
            row = pick(table.ELEMENTWISE)
            y = tn.call(row.name, *[pick(pool) for _ in range(row.arity)])
        elif kind < 0.72:
            y = tn.astype(a, pick(CHAIN_DTYPES))
        elif kind < 0.84:
            row, axes = pick(table.REDUCE), pick([None, (0,), (-1,)])
            y = tn.call(row.name, a, axes, True)
        elif kind < 0.89:
            y = tn.flip(a, None)
        elif kind < 0.94:
            y = tn.transpose(tn.contiguous(tn.transpose(a, None)), None)
        else:
            y = tn.softmax(a, (-1,))
        if y.status:
            continue   # dtypes or axes that do not fit
        after(y)
        pool.append(y)
    return pool[-4:]


def tame_or_any(dtype, shape, key):
    return table.contiguous(dtype, shape, key)[0] if key[1] % 2 else tame(dtype, shape, key)


def chains():
    for seed in range(60):
        for i in range(4):
            yield ("chain", seed, i), lambda: chain(seed)[i]


def main(threads):
    """Nothing is printed when TENON_ISA asks for what this machine lacks."""
    isa = tn.isa().decode()
    if os.environ.get("TENON_ISA", isa) != isa:
        return
    for group in (elementwise, reductions, layers, products, gradients, chains):
        for n in threads:
            tn.check(tn.set_threads(n))
            sums = {}
            with tn.scope():
                for name, make in group():
                    with tn.scope():
                        sums[" ".join(map(str, name))] = checksum(make())
            print(json.dumps({"group": group.__name__, "threads": n, "isa": isa,
                              "sums": sums}), flush=True)


if __name__ == "__main__":
    main([int(a) for a in sys.argv[1:]])
