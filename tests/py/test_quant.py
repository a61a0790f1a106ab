"""Tenon's affine quantisation against the mlx package: quantize and dequantize bit for bit,
quantized_matmul within 1e-4 (float32 x).

    python tests/py/test_quant.py build/tests/quant_driver        (needs mlx[cpu]==0.32.4, numpy)
"""
import struct
import subprocess
import sys

import mlx.core as mx
import numpy as np

KINDS = [mx.float32, mx.float16, mx.bfloat16]
count = failed = 0


def ok(cond, what):
    global count, failed
    count += 1
    failed += not cond
    print(f"{'' if cond else 'not '}ok {count} - {what}")


def raw(a):
    """The bytes of an mlx array; 16-bit floats by their bits."""
    if a.dtype in (mx.float16, mx.bfloat16):
        a = mx.view(a, mx.uint16)
    return np.array(a).tobytes()


def back(data, shape, dtype):
    if dtype == mx.float32:
        return mx.array(np.frombuffer(data, np.float32).reshape(shape))
    if dtype == mx.uint32:
        return mx.array(np.frombuffer(data, np.uint32).reshape(shape))
    return mx.view(mx.array(np.frombuffer(data, np.uint16).reshape(shape)), dtype)


class Driver:
    def __init__(self, path):
        self.p = subprocess.Popen([path], stdin=subprocess.PIPE, stdout=subprocess.PIPE)

    def call(self, op, bits, group, transpose, kind, skind, m, n, k, operands, nbytes):
        self.p.stdin.write(struct.pack("<9i", op, bits, group, transpose, kind, skind, m, n, k))
        for a in operands:
            self.p.stdin.write(raw(a))
        self.p.stdin.flush()
        return self.p.stdout.read(nbytes)


def weights(rng, kind, case, n, k):
    w = rng.standard_normal((n, k)).astype(np.float32)
    if case == "wide":
        w *= np.exp2(rng.integers(-20, 12, (n, 1)))
    if case == "special":
        w[0] = 0
        w[1] = 3.25
        w[2] = np.abs(w[2])
        w[3] = -np.abs(w[3])
        w[4] *= 1e-9
        w[5] = np.round(w[5] * 2)
    return mx.array(w.astype(np.float32)).astype(KINDS[kind])


def check_quantize(d, rng, bits, group, kind, case):
    n, k = 9, 512
    w = weights(rng, kind, case, n, k)
    want = mx.quantize(w, group_size=group, bits=bits)
    es = 4 if kind == 0 else 2
    nw, ns = n * k * bits // 8, n * k // group * es
    out = d.call(0, bits, group, 1, kind, kind, 1, n, k, [w], nw + 2 * ns)
    same = out == b"".join(raw(a) for a in want)
    ok(same, f"quantize {bits} bits, group {group}, {KINDS[kind]}, {case}")
    if not same:
        got = np.frombuffer(out[:nw], np.uint32)
        ref = np.array(want[0]).reshape(-1)
        print("#   words that differ:", int((got != ref).sum()), "of", ref.size)
        for i, name in ((1, "scales"), (2, "biases")):
            g = out[nw + (i - 1) * ns : nw + i * ns]
            dt = np.uint32 if kind == 0 else np.uint16
            x, y = np.frombuffer(g, dt), np.frombuffer(raw(want[i]), dt)
            print(f"#   {name} that differ:", int((x != y).sum()), "of", y.size)
    flat = mx.dequantize(*want, group_size=group, bits=bits)
    out = d.call(1, bits, group, 1, kind, kind, 1, n, k, want, n * k * es)
    same = out == raw(flat)
    ok(same, f"dequantize {bits} bits, group {group}, {KINDS[kind]}, {case}")
    if not same:
        dt = np.uint32 if kind == 0 else np.uint16
        x, y = np.frombuffer(out, dt), np.frombuffer(raw(flat), dt)
        i = np.nonzero(x != y)[0]
        print("#   values that differ:", i.size, "of", y.size, x[i[:4]], y[i[:4]])


def check_matmul(d, rng, bits, group, kind, m, transpose):
    n, k = (40, 384) if transpose else (384, 40)
    rows, cols = (n, k) if transpose else (k, n)
    w = weights(rng, kind, "plain", rows, cols)
    x = mx.array(rng.standard_normal((m, k)).astype(np.float32)).astype(KINDS[kind])
    q = mx.quantize(w, group_size=group, bits=bits)
    es = 4 if kind == 0 else 2
    out = d.call(2, bits, group, int(transpose), kind, kind, m, n, k, [x, *q], m * n * es)
    got = np.array(back(out, (m, n), KINDS[kind]).astype(mx.float32)).astype(np.float64)
    mlx = mx.quantized_matmul(x, *q, transpose=transpose, group_size=group, bits=bits)
    mlx = np.array(mlx.astype(mx.float32)).astype(np.float64)
    s, b = (np.repeat(np.array(a.astype(mx.float32)), group, 1).astype(np.float64) for a in q[1:])
    ints = mx.dequantize(q[0], mx.ones_like(q[1]), mx.zeros_like(q[2]), group_size=group, bits=bits)
    full = np.array(ints.astype(mx.float32)).astype(np.float64) * s + b
    full = full.T if transpose else full
    xd = np.array(x.astype(mx.float32)).astype(np.float64)
    norm = np.linalg.norm(xd, axis=1)[:, None] * np.linalg.norm(full, axis=0)[None]
    ulp = [2.0**-24, 2.0**-11, 2.0**-8][kind]
    err = np.max((np.abs(got - xd @ full) - ulp * np.abs(xd @ full)) / norm)
    theirs = np.max((np.abs(mlx - xd @ full) - ulp * np.abs(xd @ full)) / norm)
    ok(err < 1e-4, f"matmul {bits} bits, group {group}, {KINDS[kind]}, {m} rows, transpose "
       f"{int(transpose)}: {err:.1e} from exact (mlx {theirs:.1e})")


def main():
    d = Driver(sys.argv[1])
    rng = np.random.default_rng(7)
    for bits in (2, 3, 4, 5, 6, 8):
        for group in (32, 64, 128):
            for kind in range(3):
                for case in ("plain", "wide", "special"):
                    check_quantize(d, rng, bits, group, kind, case)
                for m, transpose in ((1, True), (7, True), (3, False)):
                    check_matmul(d, rng, bits, group, kind, m, transpose)
    print(f"1..{count}")
    return failed != 0


if __name__ == "__main__":
    sys.exit(main())
