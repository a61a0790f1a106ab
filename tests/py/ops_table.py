"""The rows of elementwise.def and reduce.def, and the operands they are tested with.

A row's dtype rule says which dtypes it takes, computes in and gives, as the table's comment has
it; nothing here knows an op by name.
"""

import functools
import os
import re
import zlib

import numpy as np

import tn


class Row:
    def __init__(self, name, dom, arity):
        self.name, self.dom, self.arity = name, dom, arity


def _rows(path, pattern):
    with open(os.path.join(tn.ROOT, "src", "ops", path)) as f:
        return re.findall(pattern, f.read(), re.M)


ELEMENTWISE = [Row(name, dom, int(n))
               for n, name, dom in _rows("elementwise.def", r"^EW([123])\((\w+), (\w+),")]
REDUCE = [Row(name, dom, 1) for name, dom in _rows("reduce.def", r"^RED\((\w+), (\w+),")]

ALL = tn.DTYPES
ALLOWED = {"NUM": ALL, "SIG": ALL[1:], "REAL": ALL[:13], "FLT": ALL, "FLTR": ALL[:13], "RE": ALL,
           "CMP": ALL, "TEST": ALL, "LOG": ALL, "INT": ALL[:9], "SHF": ALL[:9], "SEL": ALL,
           "SUM": ALL, "SAME": ALL, "BOOL": ALL, "IDX": ALL}


def computes_in(dom, dtype):
    """The dtype that operands of `dtype` are converted to."""
    if dom in ("FLT", "FLTR") and dtype not in ALL[9:]:
        return "float32"
    if dom == "SHF" and dtype == "bool":
        return "uint8"
    return "bool" if dom in ("LOG", "BOOL") else dtype


def result(dom, dtype):
    """The dtype of the result for operands of `dtype`."""
    if dom == "RE":
        return "float32" if dtype == "complex64" else dtype
    if dom in ("CMP", "TEST", "LOG", "BOOL"):
        return "bool"
    if dom == "IDX":
        return "uint32"
    if dom == "SUM":
        return {"bool": "int32", "int8": "int32", "int16": "int32", "uint8": "uint32",
                "uint16": "uint32"}.get(dtype, dtype)
    return computes_in(dom, dtype)


# ---- Values -------------------------------------------------------------------------------------------

def rng_for(*key):
    """The same numbers on every run, whatever runs before."""
    return np.random.default_rng(zlib.crc32(repr(key).encode()))


def specials(dtype):
    """The values where mistakes hide."""
    if dtype == "bool":
        return np.array([False, True])
    if dtype == "complex64":
        v = [0, 0.5, -2, 3.25, 1e-3]
        return np.array([complex(re, im) for re in v for im in v], np.complex64)
    if dtype in tn.INTS:
        info = np.iinfo(dtype)
        v = {0, 1, 2, 3, 7, 8, 31, 32, 63, 64, -1, -2, -7, info.max, info.max - 1, info.min,
             info.min + 1, info.max // 2}
        return np.array(sorted(x for x in v if info.min <= x <= info.max), dtype)
    tiny, top = {"float16": (2.0**-24, 65504.0), "bfloat16": (2.0**-133, 2.0**127 * 1.9921875),
                 "float32": (2.0**-149, float(np.finfo(np.float32).max)),
                 "float64": (5e-324, float(np.finfo(np.float64).max))}[dtype]
    v = [0.0, 1.0, 0.5, 2.0, 1.5, 2.5, 3.0, np.pi / 2, 7.0, 1e-3, 100.0, tiny, 2 * tiny, top, np.inf]
    return tn.rounded(np.array(v + [-x for x in v] + [np.nan]), dtype)


@functools.lru_cache(maxsize=256)
def values(dtype, n, key):
    """n values of the dtype: the special ones among random ones of many sizes."""
    rng = rng_for("values", dtype, n, key)
    if dtype == "bool":
        return rng.integers(0, 2, n).astype(bool)
    if dtype == "complex64":
        v = (rng.standard_normal(n) + 1j * rng.standard_normal(n)) * np.exp2(rng.integers(-3, 4, n))
        v = v.astype(np.complex64)
    elif dtype in tn.INTS:
        info = np.iinfo(dtype)
        v = rng.integers(info.min, info.max, n, dtype=dtype, endpoint=True)
        small = rng.integers(max(-9, info.min), 10, n).astype(dtype)
        v = np.where(rng.integers(0, 2, n) == 1, small, v)
    else:
        wide = 4 if dtype == "float16" else 20
        v = tn.rounded(rng.standard_normal(n) * np.exp2(rng.integers(-wide, wide, n) / 2.0), dtype)
    s = specials(dtype)
    if 0 < n:
        keep = rng.permutation(n)[:min(len(s), max(1, n // 2))]
        v[keep] = rng.permutation(s)[:len(keep)]
    v.flags.writeable = False
    return v


def pairs(dtype, arity):
    """Every special value with every other one, per operand, in NumPy and of shape [n]."""
    s = specials(dtype)
    grid = np.meshgrid(*[s] * arity, indexing="ij")
    return [g.reshape(-1) for g in grid]


# ---- Layouts ---------------------------------------------------------------------------------------------
# Each makes (tn.Array, the values it stands for) of the wanted shape from a dtype and a key.

def contiguous(dtype, shape, key):
    v = values(dtype, int(np.prod(shape)), key).reshape(shape)
    return tn.array(v, dtype), v


def transposed(dtype, shape, key):
    v = values(dtype, int(np.prod(shape)), key).reshape(shape[::-1])
    return tn.transpose(tn.array(v, dtype), None), v.T


def strided(dtype, shape, key):
    """Every second element of a larger array, along each axis, from the second on."""
    big = [2 * n + 3 for n in shape]
    v = values(dtype, int(np.prod(big)), key).reshape(big)
    a = tn.slice(tn.array(v, dtype), [1] * len(big), [1 + 2 * n for n in shape], [2] * len(big))
    return a, v[tuple(slice(1, 1 + 2 * n, 2) for n in shape)]


def backwards(dtype, shape, key):
    """Negative strides along every axis."""
    v = values(dtype, int(np.prod(shape)), key).reshape(shape)
    return tn.flip(tn.array(v, dtype), None), np.flip(v)


def row(dtype, shape, key):
    """One row, repeated: stride 0 along the first axis."""
    v = values(dtype, shape[-1], key)
    return tn.broadcast_to(tn.array(v, dtype), shape), np.broadcast_to(v, shape)


def column(dtype, shape, key):
    """Stride 0 along the last axis; the op itself broadcasts."""
    v = values(dtype, int(np.prod(shape[:-1])), key).reshape(*shape[:-1], 1)
    return tn.array(v, dtype), np.broadcast_to(v, shape)


def point(dtype, shape, key):
    v = values(dtype, 1, key).reshape(())
    return tn.array(v, dtype), v


LARGE = 70001  # elements; more than 65,536, where several threads start to share the work
UNARY_LAYOUTS = {
    "contiguous": ((6, 35), [contiguous]), "transposed": ((9, 23), [transposed]),
    "strided": ((5, 19), [strided]), "backwards": ((7, 17), [backwards]), "row": ((5, 33), [row]),
    "3-d": ((3, 4, 5), [transposed]), "0-d": ((), [point]), "empty": ((0, 5), [contiguous]),
    "one": ((1,), [contiguous]), "large": ((LARGE,), [contiguous]),
    "large transposed": ((270, 261), [transposed])}
BINARY_LAYOUTS = {
    "contiguous": ((6, 35), [contiguous, contiguous, contiguous]),
    "transposed": ((9, 23), [transposed, contiguous, transposed]),
    "strided": ((5, 19), [strided, transposed, backwards]),
    "outer": ((7, 18), [column, row, contiguous]), "row": ((5, 33), [row, column, row]),
    "point": ((4, 9), [point, backwards, point]), "points": ((), [point, point, point]),
    "empty": ((0, 5), [contiguous, row, contiguous]),
    "large": ((LARGE,), [contiguous, contiguous, contiguous]),
    "large strided": ((270, 261), [row, transposed, strided])}


def layouts(arity):
    return UNARY_LAYOUTS if arity == 1 else BINARY_LAYOUTS


def operands(row_, dtype, layout):
    """[(tn.Array, values)], one an operand; those of where start with a bool."""
    shape, makers = layouts(row_.arity)[layout]
    out = []
    for i in range(row_.arity):
        d = "bool" if row_.dom == "SEL" and i == 0 else dtype
        out.append(makers[i](d, shape, (layout, i)))
    return out
