"""Every element-wise op and every reduction, in every dtype and layout, against NumPy.

The ops come from the tables in src/ops; a new row needs an entry in REFERENCE below (or in
REDUCTIONS) and is then tested with everybody else's operands. The references compute in float64
(long double for float64, complex128 for complex64), and results may be 2 ULP away; arithmetic is
exact.
"""

import math

import numpy as np
import pytest

import ops_table as table
import tn
import ulp


@pytest.fixture(autouse=True)
def scope():
    with tn.scope():
        yield


# ---- References -----------------------------------------------------------------------------------------
# By kind of value: float (also the whole entry when it is a function), int, complex, bool. Without
# an entry of its own, int and complex take float's; bool is computed as int64 and compared with 0.

def erfinv(x):
    """Giles' start, then Newton steps with the C library's erf and erfc."""
    def one(p):
        q = abs(p)
        if not q < 1:
            return math.copysign(math.inf, p) if q == 1 else math.nan
        if q < 1e-8:
            return p * 0.88622692545275801365
        w = math.log1p(-q * q)
        u = 4.33074675 + 0.5 * w
        y = math.sqrt(math.sqrt(u * u - w / 0.147) - u)
        for _ in range(5):
            f = math.erf(y) - q if q < 0.5 else (1 - q) - math.erfc(y)
            y -= f / (2 / math.sqrt(math.pi) * math.exp(-y * y))
        return math.copysign(y, p)
    return np.vectorize(one, otypes=[np.float64])(x).astype(x.dtype)


def sigmoid(x):
    e = np.exp(-np.abs(x))
    return np.where(x < 0, e, 1) / (1 + e)


def sign_complex(z):
    m = np.abs(z)
    return np.where(m == 0, 0, z / np.where(m == 0, 1, m))


def power_int(a, b):
    """Wrapping; a negative exponent gives 0, except for the bases 1 and -1."""
    y, a, b = np.ones_like(a), a.copy(), b.copy()
    negative = (b < 0) if a.dtype.kind == "i" else np.zeros(a.shape, bool)
    flat = (a == 1).astype(a.dtype)
    if a.dtype.kind == "i":
        flat = np.where(a == -1, np.where(b & 1, a, -a), flat)
    e = np.where(negative, 0, b).astype(a.dtype)
    while e.any():
        y = np.where(e & 1, y * a, y).astype(a.dtype)
        a, e = (a * a).astype(a.dtype), e >> 1
    return np.where(negative, flat, y).astype(a.dtype)


def divided(a, b):
    """floor_divide of floats rounds the quotient to the dtype it is computed in, then down."""
    if a.dtype == np.longdouble:
        return np.floor(a.astype(np.float64) / b.astype(np.float64))
    return np.floor(a.astype(np.float32) / b.astype(np.float32))


def ordered(less):
    """Complex numbers by real part, then by imaginary part."""
    def f(a, b):
        return less(a.real, b.real) | ((a.real == b.real) & less(a.imag, b.imag))
    return f


def same(x):
    return x


def as_bool(f):
    return lambda *v: f(*[x != 0 for x in v])


def floor_remainder(a, b):
    return np.where(b == 0, 0, np.remainder(a, np.where(b == 0, 1, b)))


def logaddexp(a, b):
    return np.where(np.isinf(a) & (a == b), a, np.logaddexp(a, b))


REFERENCE = {
    "add": np.add, "sub": np.subtract, "mul": np.multiply, "div": np.divide,
    "floor_divide": {"float": divided, "int": np.floor_divide},
    "remainder": {"float": np.remainder, "int": np.remainder},
    "power": {"float": np.power, "int": power_int, "complex": np.power},
    "maximum": {"float": np.maximum, "complex": lambda a, b: np.where(ordered(np.less)(b, a), a, b)},
    "minimum": {"float": np.minimum, "complex": lambda a, b: np.where(ordered(np.less)(a, b), a, b)},
    "neg": np.negative, "positive": np.positive, "abs": np.abs,
    "sign": {"float": lambda x: np.where(np.isnan(x), 0, np.sign(x)), "int": np.sign,
             "complex": sign_complex},
    "square": np.square, "sqrt": np.sqrt, "rsqrt": lambda x: 1 / np.sqrt(x),
    "reciprocal": lambda x: 1 / x,
    "exp": np.exp, "expm1": np.expm1, "log": np.log, "log2": np.log2, "log10": np.log10,
    "log1p": np.log1p, "logaddexp": logaddexp, "sigmoid": sigmoid,
    "sin": np.sin, "cos": np.cos, "tan": np.tan, "arcsin": np.arcsin, "arccos": np.arccos,
    "arctan": np.arctan, "arctan2": np.arctan2, "sinh": np.sinh, "cosh": np.cosh,
    "tanh": np.tanh, "arcsinh": np.arcsinh, "arccosh": np.arccosh, "arctanh": np.arctanh,
    "degrees": lambda x: x * (180 / x.real.dtype.type(np.pi)),
    "radians": lambda x: x * (x.real.dtype.type(np.pi) / 180),
    "erf": lambda x: np.vectorize(math.erf, otypes=[np.float64])(x).astype(x.dtype),
    "erfinv": erfinv,
    "floor": {"float": np.floor, "int": same}, "ceil": {"float": np.ceil, "int": same},
    "trunc": {"float": np.trunc, "int": same},
    "round": {"float": np.rint, "int": same,
              "complex": lambda z: np.rint(z.real) + 1j * np.rint(z.imag)},
    "real": np.real, "imag": lambda x: np.imag(x) + x.real.dtype.type(0), "conj": np.conj,
    "equal": np.equal, "not_equal": np.not_equal,
    "less": {"float": np.less, "complex": ordered(np.less)},
    "less_equal": {"float": np.less_equal, "complex": lambda a, b: ordered(np.less)(a, b) | (a == b)},
    "greater": {"float": np.greater, "complex": lambda a, b: ordered(np.less)(b, a)},
    "greater_equal": {"float": np.greater_equal,
                      "complex": lambda a, b: ordered(np.less)(b, a) | (a == b)},
    "isnan": np.isnan, "isinf": np.isinf, "isfinite": np.isfinite,
    "isposinf": {"float": np.isposinf, "complex": lambda z: np.isposinf(z.real) & (z.imag == 0)},
    "isneginf": {"float": np.isneginf, "complex": lambda z: np.isneginf(z.real) & (z.imag == 0)},
    "logical_not": as_bool(np.logical_not), "logical_and": as_bool(np.logical_and),
    "logical_or": as_bool(np.logical_or), "logical_xor": as_bool(np.logical_xor),
    "bitwise_invert": {"int": np.invert, "bool": np.logical_not},
    "bitwise_and": np.bitwise_and, "bitwise_or": np.bitwise_or, "bitwise_xor": np.bitwise_xor,
    "left_shift": np.left_shift, "right_shift": np.right_shift,
    "where": {"float": np.where, "bool": np.where},
}

# Bounds in ULP where they are not 2. EXACT is half an ULP: rounded once.
EXACT = 0.5001
LIMIT = {name: EXACT for name in (
    "add sub mul div floor_divide remainder maximum minimum neg positive abs sign square sqrt "
    "reciprocal floor ceil trunc round real imag conj where").split()}
LIMIT["logaddexp"] = 2.5  # max + log1p(exp(-|a - b|)): half an ULP in each step
LIMIT["erfinv"] = 8  # MLX's formula, of which its random normal streams are made
# The result is a difference of large terms: in ULPs of the larger operand.
CANCELS = {"logaddexp"}
# Which zero a tie gives is not promised; nor is the sign of a sum's zero.
ANY_ZERO = {"maximum", "minimum", "logaddexp"}
# float64 goes through the C library, whose own bounds are 2 for some functions.
LIMIT_FLOAT64 = 3
# Complex results in ULPs of their modulus, through the C library's float functions.
COMPLEX_LIMIT = 8


def kind_of(dtype):
    return ("bool" if dtype == "bool" else "complex" if dtype == "complex64" else
            "float" if dtype in tn.FLOATS else "int")


def reference(name, dtype):
    """The function for operands of `dtype` in their wide form."""
    if name not in REFERENCE:
        pytest.fail(f"{name} of src/ops/elementwise.def has no reference: add one to REFERENCE in "
                    "tests/py/test_ops.py")
    entry, kind = REFERENCE[name], kind_of(dtype)
    if not isinstance(entry, dict):
        return entry
    for k in (kind, "int" if kind == "bool" else "float", "float"):
        if k in entry:
            return entry[k]
    pytest.fail(f"REFERENCE[{name!r}] in tests/py/test_ops.py has nothing for {kind}")


def expected(row, dtype, operands):
    """Exact results in a wide dtype; integers and bools in their own."""
    compute = table.computes_in(row.dom, dtype)
    f, kind = reference(row.name, compute), kind_of(compute)
    first, rest = (operands[:1], operands[1:]) if row.dom == "SEL" else ([], operands)
    if kind in ("float", "complex"):
        v = [ulp.wide(tn.rounded(x, compute) if dtype != compute else x, compute) for x in rest]
    elif row.dom == "LOG":
        v = rest
    elif compute == "bool" and not (row.name in REFERENCE and isinstance(REFERENCE[row.name], dict)
                                    and "bool" in REFERENCE[row.name]):
        v = [x.astype(np.int64) for x in rest]
    else:
        v = [x.astype(compute) for x in rest]
    with np.errstate(all="ignore"):
        y = f(*first, *v)
    return y


def compare(name, got, want, dtype, scale=None, where=""):
    """got against want, of dtype `dtype`, as the bounds above say."""
    assert got.shape == np.shape(want), f"{where}: shape {got.shape}, not {np.shape(want)}"
    kind = kind_of(dtype)
    if kind in ("bool", "int"):
        want = np.asarray(want) != 0 if kind == "bool" else np.asarray(want).astype(dtype)
        bad = got != want
    elif kind == "complex":
        finite = np.isfinite(want) & (np.abs(want) < 3e38)
        d = ulp.distance_complex(got, want)
        bad = finite & ~(d <= COMPLEX_LIMIT)
    else:
        limit = LIMIT.get(name, LIMIT_FLOAT64 if dtype == "float64" else 2)
        limit = min(limit, 0.502) if dtype in ("float16", "bfloat16") else limit
        d = ulp.distance(got, want, dtype, 0.0 if scale is None else scale)
        bad = ~(d <= limit)
        if name not in ANY_ZERO:
            bad |= (want == 0) & (got == 0) & (np.signbit(got) != np.signbit(want))
    if np.any(bad):
        at = tuple(int(i) for i in np.argwhere(np.atleast_1d(bad))[0])
        one = lambda x: np.atleast_1d(x)[at]  # noqa: E731
        more = "" if kind in ("bool", "int") else f", {one(d):.3g} ULP"
        pytest.fail(f"{name} {dtype} {where}: {int(np.sum(bad))} of {np.size(bad)} differ; at {at} "
                    f"{one(got)!r}, not {one(want)!r}{more}")


ROWS = [pytest.param(row, dtype, id=f"{row.name}-{dtype}")
        for row in table.ELEMENTWISE for dtype in table.ALLOWED[row.dom]]


def check_elementwise(row, dtype, arrays, values, where):
    y = tn.call(row.name, *arrays)
    assert not y.status, f"{where}: {y.error}"
    out = table.result(row.dom, dtype)
    assert y.dtype == out, f"{where}: gives {y.dtype}, not {out}"
    scale = None
    if row.name in CANCELS:
        with np.errstate(all="ignore"):
            s = np.maximum(*[np.abs(v.astype(np.float64)) for v in values])
            scale = np.where(np.isfinite(s), s, 0)
    shown = "; operands " + ", ".join(str(v)[:60] for v in values) if np.size(values[0]) < 4 else ""
    compare(row.name, tn.numpy(y), expected(row, dtype, values), out, scale, where + shown)


@pytest.mark.parametrize("row,dtype", ROWS)
def test_layouts(row, dtype):
    for layout in table.layouts(row.arity):
        with tn.scope():
            ops = table.operands(row, dtype, layout)
            check_elementwise(row, dtype, [a for a, _ in ops], [v for _, v in ops], layout)


@pytest.mark.parametrize("row,dtype", ROWS)
def test_special_values(row, dtype):
    """Every special value with every other one."""
    n = row.arity - (row.dom == "SEL")
    v = table.pairs(dtype, n)
    if row.dom == "SEL":
        v = [table.values("bool", len(v[0]), "where")] + v
    arrays = [tn.array(x, "bool" if row.dom == "SEL" and i == 0 else dtype) for i, x in enumerate(v)]
    check_elementwise(row, dtype, arrays, v, "special values")


@pytest.mark.parametrize("row", [r for r in table.ELEMENTWISE], ids=lambda r: r.name)
def test_dtypes_that_are_refused(row):
    for dtype in set(tn.DTYPES) - set(table.ALLOWED[row.dom]):
        y = tn.call(row.name, *[tn.array(np.ones(2), dtype)] * row.arity)
        assert y.status == tn.STATUS["TN_EDTYPE"]
        assert row.name in y.error and dtype in y.error


@pytest.mark.parametrize("row", [r for r in table.ELEMENTWISE if r.arity > 1], ids=lambda r: r.name)
def test_shapes_that_do_not_broadcast(row):
    y = tn.call(row.name, np.ones((2, 3), bool), *[np.ones((2, 1, 4), bool)] * (row.arity - 1))
    assert y.status == tn.STATUS["TN_ESHAPE"]
    assert row.name in y.error and "[2,3]" in y.error and "[2,1,4]" in y.error


# ---- Reductions -------------------------------------------------------------------------------------------
# Functions of (values, axis), where axis is one number: the reduced axes come flattened to one.

def logsumexp(x, axis):
    m = np.max(x, axis, keepdims=True, initial=-np.inf)
    with np.errstate(all="ignore"):
        s = np.log(np.sum(np.exp(x - np.where(np.isfinite(m), m, 0)), axis, keepdims=True))
    y = np.where(np.isfinite(m), m + s, np.where(np.isnan(s), s, m))
    return np.squeeze(y, axis)


REDUCTIONS = {"sum": np.sum, "prod": np.prod, "min": np.min, "max": np.max, "all": np.all,
              "any": np.any, "logsumexp": logsumexp, "argmin": np.argmin, "argmax": np.argmax}

# (shape, layout, axes): short and long rows, several axes at once, the first, the middle, all,
# none, sizes around the widths of vectors and of blocks of summation, threads by rows and within one
CASES = [((6, 35), "contiguous", (1,)), ((6, 35), "contiguous", (0,)), ((9, 23), "transposed", (1,)),
         ((9, 23), "transposed", (0,)), ((5, 19), "strided", (-1,)), ((7, 17), "backwards", None),
         ((5, 33), "row", (0,)), ((5, 33), "row", (1,)), ((3, 4, 5), "transposed", (0, 2)),
         ((3, 4, 5), "contiguous", (1,)), ((3, 4, 5), "contiguous", ()), ((), "0-d", None),
         ((1,), "one", (0,)), ((2, 1023), "contiguous", (1,)), ((2, 1025), "contiguous", (1,)),
         ((3, 4099), "contiguous", (1,)), ((table.LARGE,), "contiguous", None),
         ((270, 261), "transposed", (0,)), ((270, 261), "transposed", (1,)),
         ((270, 261), "contiguous", (0,)), ((2, 3, 2, 5), "transposed", (-1, 1))]


def flattened(v, axes):
    """v with the reduced axes last, as one, and the axes kept."""
    axes = range(v.ndim) if axes is None else [a % v.ndim for a in axes]
    kept = [i for i in range(v.ndim) if i not in axes]
    moved = v.transpose(kept + sorted(axes))
    return moved.reshape([v.shape[i] for i in kept] + [-1])


def reduced(row, dtype, v):
    """Exact results over the last axis, and the size of the sums' terms (None: no bound)."""
    if row.name not in REDUCTIONS:
        pytest.fail(f"{row.name} of src/ops/reduce.def has no reference: add one to REDUCTIONS in "
                    "tests/py/test_ops.py")
    f = REDUCTIONS[row.name]
    if row.dom == "SUM" and kind_of(dtype) in ("int", "bool"):
        with np.errstate(all="ignore"):
            return f(v.astype(table.result("SUM", dtype)), -1, dtype=table.result("SUM", dtype)), None
    if row.dom in ("IDX", "BOOL") or kind_of(dtype) in ("int", "bool") and row.dom == "SAME":
        return f(v, -1), None
    x = ulp.wide(v.astype(np.float32) if kind_of(dtype) in ("int", "bool") else v, dtype)
    with np.errstate(all="ignore"):
        return f(x, -1), np.sum(np.abs(x), -1)


def check_reduction(row, dtype, a, v, axes, where):
    out = table.result(row.dom, dtype)
    flat = flattened(v, axes)
    want, terms = reduced(row, dtype, flat)
    for keep in (False, True):
        y = tn.call(row.name, a, axes, keep)
        assert not y.status, f"{where}: {y.error}"
        assert y.dtype == out, f"{where}: gives {y.dtype}, not {out}"
        got = tn.numpy(y)
        if keep:
            ax = range(v.ndim) if axes is None else [i % v.ndim for i in axes]
            assert got.shape == tuple(1 if i in ax else n for i, n in enumerate(v.shape)), where
            got = got.reshape(want.shape)
        compare_reduction(row.name, got, want, terms, out, flat.shape[-1], where)


def compare_reduction(name, got, want, terms, dtype, n, where):
    """Sums: a few half ULPs of the terms' sum, since they are added as a tree; prods: of the
    result, one for each 16 factors or so; the others as element-wise ops."""
    if terms is None or name in ("min", "max"):
        return compare("max" if name in ("min", "max") else "sign", got, want, dtype, where=where)
    accurate = 2.0**-53 if dtype == "float64" else 2.0**-24
    own = {"float16": 2.0**-11, "bfloat16": 2.0**-8}.get(dtype, accurate)
    size = {"sum": terms, "prod": np.abs(want) * n, "logsumexp": np.abs(want) + 1}[name]
    with np.errstate(all="ignore"):
        limit = 1e-6 * (dtype == "complex64") * size + accurate * (4 + math.log2(n + 1)) * size
        limit = limit + own * np.abs(want) * 1.01 + {"float16": 2.0**-25}.get(dtype, 1e-40)
        special = ~np.isfinite(tn.rounded(want, dtype)) | ~np.isfinite(terms)
        special |= np.abs(want) > 0.99 * float(np.finfo("float32").max if dtype != "float16" else 65504)
        bad = ~(np.abs(got - want) <= limit) & ~special
        nan = np.isnan(want) != np.isnan(got)
        bad |= special & nan & ~(np.abs(terms) > 1e38)
    if np.any(bad):
        at = tuple(int(i) for i in np.argwhere(np.atleast_1d(bad))[0])
        pytest.fail(f"{name} {dtype} {where}: at {at} {np.atleast_1d(got)[at]!r}, not "
                    f"{np.atleast_1d(want)[at]!r}; {int(np.sum(bad))} of {np.size(bad)} differ")


def reduction_operand(shape, layout, dtype, kind):
    """kind 'any': all values; 'tame': floats of one size, so that sums and prods mean something."""
    make = {"contiguous": table.contiguous, "transposed": table.transposed, "strided": table.strided,
            "backwards": table.backwards, "row": table.row, "0-d": table.point,
            "one": table.contiguous}[layout]
    if kind == "any" or kind_of(dtype) in ("int", "bool"):
        return make(dtype, shape, "reduce")
    full = make("float32", shape, "reduce")[1]
    rng = table.rng_for("tame", shape)
    v = rng.uniform(0.5, 1.5, full.shape) * rng.choice([-1, 1], full.shape)
    if dtype == "complex64":
        v = v * np.exp(1j * rng.uniform(0, 6, full.shape))
    v = np.asarray(tn.rounded(v, dtype))
    a = tn.array(np.array(v.T, order="C"), dtype)
    return tn.transpose(a, None), v


@pytest.mark.parametrize("row,dtype", [
    pytest.param(row, dtype, id=f"{row.name}-{dtype}")
    for row in table.REDUCE for dtype in table.ALLOWED[row.dom]])
def test_reductions(row, dtype):
    for shape, layout, axes in CASES:
        kinds = ["tame"] if row.name == "prod" else ["tame", "any"]
        if dtype == "complex64" and row.dom in ("SAME", "IDX"):
            kinds = ["tame"]
        for kind in kinds:
            with tn.scope():
                a, v = reduction_operand(shape, layout, dtype, kind)
                check_reduction(row, dtype, a, v, axes, f"{shape} {layout} {kind} axes {axes}")


@pytest.mark.parametrize("row", table.REDUCE, ids=lambda r: r.name)
def test_reductions_of_nothing(row):
    a = tn.array(np.zeros((3, 0, 2), np.float32))
    y = tn.call(row.name, a, (1,), False)
    if row.dom in ("SAME", "IDX"):
        assert y.status == tn.STATUS["TN_ESHAPE"] and row.name in y.error
    else:
        want = {"sum": 0, "prod": 1, "all": True, "any": False, "logsumexp": -np.inf}[row.name]
        np.testing.assert_array_equal(tn.numpy(y), np.full((3, 2), want))
    y = tn.call(row.name, a, (0,), False)   # an empty axis that stays: nothing to compute
    assert not y.status and tn.numpy(y).shape == (0, 2)


@pytest.mark.parametrize("row", table.REDUCE, ids=lambda r: r.name)
def test_reductions_that_are_refused(row):
    a = tn.array(np.ones((2, 3), np.float32))
    for axes, word in [((2,), "axis 2"), ((-3,), "axis -3"), ((0, -2), "twice")]:
        y = tn.call(row.name, a, axes, False)
        assert y.status == tn.STATUS["TN_EAXIS"] and row.name in y.error and word in y.error
    for dtype in set(tn.DTYPES) - set(table.ALLOWED[row.dom]):
        y = tn.call(row.name, tn.array(np.ones(3), dtype), None, False)
        assert y.status == tn.STATUS["TN_EDTYPE"] and row.name in y.error and dtype in y.error


@pytest.mark.parametrize("name,best", [("argmin", np.argmin), ("argmax", np.argmax)])
def test_arg_ties_and_nan(name, best):
    """The first of equals, the first NaN; position counted over several axes row-major."""
    v = np.array([[3, 1, 1, 3], [np.nan, 5, np.nan, 0], [-0.0, 0.0, -0.0, 0.0]], np.float32)
    np.testing.assert_array_equal(tn.numpy(tn.call(name, v, (1,), False)), best(v, 1))
    np.testing.assert_array_equal(tn.numpy(tn.call(name, v, None, False)), best(v))
    w = np.zeros((300, 300), np.float32)
    for shape in ((300, 300), (3, 100, 300)):
        np.testing.assert_array_equal(tn.numpy(tn.call(name, w.reshape(shape), None, False)), 0)
