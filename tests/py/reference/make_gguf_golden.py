"""Writes tests/data/gguf_golden.h: what the gguf package makes of pseudo-random blocks of every GGML
type, as hashes of the float bits (so that all entries of all code books are met without storing
megabytes), and the first eight floats for people. Four types that the package does not widen
(Q8_1, Q8_K, Q1_0, Q2_0) and the integers are computed here, from ggml-common.h's description.

    pip install gguf && python make_gguf_golden.py > ../../data/gguf_golden.h
"""
import numpy as np
from gguf import GGMLQuantizationType as T
from gguf import quants
from gguf.constants import GGML_QUANT_SIZES

BLOCKS = 400  # a code book of 2048 entries is hit 12,800 times


def noise(seed, n):
    """splitmix64, little-endian; the C test makes the same bytes."""
    i = np.arange(1, n // 8 + 2, dtype=np.uint64)
    z = np.uint64(seed) + i * np.uint64(0x9E3779B97F4A7C15)
    z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return (z ^ (z >> np.uint64(31))).view(np.uint8)[:n].copy()


def fnv(values):
    """64-bit FNV-1a over the 32-bit words; every NaN counts as 0x7fc00000."""
    words = values.astype(np.float32).view(np.uint32).copy()
    words[np.isnan(values)] = 0x7FC00000
    h = 0xCBF29CE484222325
    for w in words.tolist():
        h = (h ^ w) * 0x100000001B3 & 0xFFFFFFFFFFFFFFFF
    return h


def f16(b):
    return b.copy().view(np.float16).astype(np.float32)


def own(name, b):
    """b: [blocks, bytes]. None when the package knows the type."""
    plain = {"I8": np.int8, "I16": np.int16, "I32": np.int32, "I64": np.int64, "F64": np.float64}
    if name in plain:
        return b.copy().view(plain[name]).astype(np.float32)
    if name == "Q8_1":
        return f16(b[:, :2]) * b[:, 4:].copy().view(np.int8).astype(np.float32)
    if name == "Q8_K":
        return b[:, :4].copy().view(np.float32) * b[:, 4:260].copy().view(np.int8).astype(np.float32)
    if name == "Q1_0":
        bits = np.unpackbits(b[:, 2:], axis=1, bitorder="little")
        return np.where(bits == 1, f16(b[:, :2]), -f16(b[:, :2]))
    if name == "Q2_0":
        q = (b[:, 2:, None] >> np.array([0, 2, 4, 6], np.uint8)) & 3
        return f16(b[:, :2]) * (q.reshape(len(b), -1).astype(np.float32) - 1)
    return None


SIZES = {t.name: (int(t), *GGML_QUANT_SIZES[t]) for t in T}
SIZES["Q8_1"] = (9, 32, 36)  # the package still has the f32 layout of 2023
SIZES["Q2_0"] = (42, 64, 18)

print("""/* Made by tests/py/reference/make_gguf_golden.py with the gguf package: hashes of pseudo-random
 * blocks of each type, widened to float. */
#include <math.h>
#include <stddef.h>
#include <stdint.h>

// clang-format off
static const struct golden {
    int type;
    const char *name;
    size_t values, bytes; /* of a block */
    uint64_t first, all;  /* hash of the first block, of all blocks */
    float begin[8];
} goldens[] = {""")
np.seterr(all="ignore")
for name, (number, values, size) in sorted(SIZES.items(), key=lambda x: x[1]):
    b = noise(number, BLOCKS * size).reshape(BLOCKS, size)
    y = own(name, b)
    if y is None:
        y = quants.dequantize(b, T[name])
    y = y.reshape(BLOCKS, values)
    begin = (y.ravel()[:8] if values > 1 else y[:8, 0]).astype(np.float32)
    shown = ", ".join("NAN" if np.isnan(v) else ("-" if v < 0 else "") + "INFINITY" if np.isinf(v)
                      else f"{v:.9g}" for v in begin)
    print(f'    {{{number}, "{name}", {values}, {size}, {fnv(y[0]):#018x}, {fnv(y.ravel()):#018x},\n'
          f"     {{{shown}}}}},")
print(f"""}};
// clang-format on
enum {{ GOLDEN_BLOCKS = {BLOCKS} }};""")
