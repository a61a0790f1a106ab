"""Which dtype a result has: MLX's promotion table, weak scalars, and every row of the op tables
against the op of the same name in MLX."""

import mlx.core as mx
import numpy as np
import pytest

import ops_table as table
import tn
from test_structural import refused, scope  # noqa: F401


def to_mx(name):
    return mx.bool_ if name == "bool" else getattr(mx, name)


def name_of(a):
    return str(a.dtype).split(".")[-1].replace("bool_", "bool")


def test_names_and_sizes():
    for i, d in enumerate(tn.DTYPES):
        assert tn.dtype_name(i) == d.encode() and tn.dtype_size(i) == to_mx(d).size
    for bad in (-1, 14, 1 << 20):
        assert tn.dtype_name(bad) == b"?" and tn.dtype_size(bad) == 0


@pytest.mark.parametrize("a", tn.DTYPES)
@pytest.mark.parametrize("b", tn.DTYPES)
def test_promotion(a, b):
    want = name_of(mx.zeros(2, to_mx(a)) + mx.zeros(2, to_mx(b)))
    assert tn.DTYPES[tn.promote(a, b)] == want
    x, y = tn.array([1, 2], a), tn.array([3, 4], b)
    assert tn.add(x, y).dtype == want
    assert tn.concatenate([x, y], 0).dtype == want
    assert tn.where(tn.array([True, False]), x, y).dtype == want
    total = [int(a != "bool") * i + int(a == "bool") + int(b != "bool") * (i + 2) + int(b == "bool")
             for i in (1, 2)]
    np.testing.assert_array_equal(tn.numpy(tn.add(x, y)), [1, 1] if want == "bool" else total)


@pytest.mark.parametrize("dtype", tn.DTYPES)
@pytest.mark.parametrize("weak", [True, 2, 2.5, -3, 1e30, 1j], ids=str)
def test_weak_scalars(dtype, weak):
    """A Python number takes the dtype of the array it meets, on either side. A weak float has
    float32's digits, where MLX's has float64's when it meets float64."""
    if weak == -3 and dtype[0] == "u" or weak == 1e30 and dtype in ("float16", "float64"):
        return
    m = mx.array([1, 2]).astype(to_mx(dtype)) * weak
    for y in (tn.mul(tn.array([1, 2], dtype), weak), tn.mul(weak, tn.array([1, 2], dtype))):
        assert y.dtype == name_of(m)
        np.testing.assert_array_equal(tn.numpy(y), np.array(m.astype(mx.float32) if dtype == "bfloat16"
                                                            and weak != 1j else m))


def test_weak_scalars_among_themselves():
    for a, b, want in [(1, 2, "int32"), (1.0, 2, "float32"), (True, 2, "int32"), (1 << 40, 1, "int64"),
                       (2.0, 1j, "complex64"), (True, True, "bool")]:
        assert tn.add(a, b).dtype == want
    weak = tn.add(1, 2)   # the result of weak scalars is an array like any other
    assert tn.numpy(weak) == 3
    strong = tn.scalar(2.0, "float64")
    assert tn.mul(tn.array([1.0], "float16"), strong).dtype == "float64"
    assert tn.mul(tn.array([1.0], "float16"), tn.astype(tn.array(np.float32(2)), "float32")).dtype == "float32"
    assert tn.add(tn.array([1], "uint8"), 300).dtype == "uint8"   # wraps, as MLX
    np.testing.assert_array_equal(tn.numpy(tn.add(tn.array([1], "uint8"), 300)), [45])


# tn's name to mlx's, where they differ; None: MLX has no such op
NAMES = {"sub": "subtract", "mul": "multiply", "div": "divide", "neg": "negative", "positive": None,
         "logical_xor": None, "trunc": None, "arctan2": "arctan2", "conj": "conjugate"}
def mx_result(name, dtype, arity):
    f = getattr(mx, NAMES.get(name, name))
    args = [mx.ones((2, 2), to_mx(dtype))] * arity
    if name == "where":
        args[0] = mx.ones((2, 2), mx.bool_)
    try:
        return name_of(f(*args))
    except (ValueError, RuntimeError):
        return "refused"


def check_row(row, dtype, ours):
    want = mx_result(row.name, dtype, row.arity)
    if want == "refused" or dtype not in table.ALLOWED[row.dom]:
        return   # either is stricter than the other: what the table says is tested in test_ops.py
    assert not ours.status, f"mlx gives {want}: {ours.error}"
    assert ours.dtype == want


@pytest.mark.parametrize("row,dtype", [pytest.param(r, d, id=f"{r.name}-{d}")
                                       for r in table.ELEMENTWISE if NAMES.get(r.name, r.name)
                                       for d in tn.DTYPES])
def test_elementwise_rows(row, dtype):
    args = [tn.array(np.ones((2, 2)), dtype)] * row.arity
    if row.dom == "SEL":
        args[0] = tn.array(np.ones((2, 2), bool))
    check_row(row, dtype, tn.call(row.name, *args))


@pytest.mark.parametrize("row,dtype", [pytest.param(r, d, id=f"{r.name}-{d}")
                                       for r in table.REDUCE for d in tn.DTYPES])
def test_reduction_rows(row, dtype):
    check_row(row, dtype, tn.call(row.name, tn.array(np.ones((2, 2)), dtype), None, False))


@pytest.mark.parametrize("dtype", tn.DTYPES)
def test_read_and_items(dtype):
    """tn_read converts to every dtype; items of size-1 arrays."""
    import ctypes
    v = np.array([0, 1, 3])
    a = tn.array(v, dtype)
    for to in tn.DTYPES:
        out = np.zeros(3, np.uint16 if to == "bfloat16" else to)
        tn.check(tn.read(a, to, out.ctypes.data, out.nbytes))
        got = tn.bf16_wide(out) if to == "bfloat16" else out
        np.testing.assert_array_equal(got, tn.numpy(tn.astype(a, to)))
        assert tn.read(a, to, out.ctypes.data, out.nbytes + 1) < 0
    one = tn.slice(a, (1,), (2,), None)
    assert tn.item_f32(one) == 1 and tn.item_f64(one) == 1 and tn.item_i64(one) == 1
    assert tn.item_bool(one) is True
    assert np.isnan(tn.item_f32(a)) and tn.item_i64(a) == 0 and tn.error()
    assert isinstance(ctypes.c_float(tn.item_f32(one)).value, float)


def test_errors_are_sticky():
    bad = tn.add(np.ones(3), np.ones(4))
    for y in (tn.exp(bad), tn.sum(bad, None, False), tn.reshape(bad, (1,)), tn.matmul(bad, bad),
              tn.softmax(bad, (0,)), tn.sort(bad, 0), tn.where(bad, 1, 2), tn.astype(bad, "int8")):
        refused(y, "TN_ESHAPE", "add", "[3]", "[4]")
    assert bad.shape == () and tn.size(bad) == 0 and not tn.data(bad) and np.isnan(tn.item_f32(bad))
    with pytest.raises(tn.Error, match="add"):
        tn.evaluate(tn.array([1.0]), bad)
    for name in ("exp", "transpose", "softmax", "sum"):   # NULL is refused, not read
        args = {"exp": (), "transpose": (None,), "softmax": (None,), "sum": (None, False)}[name]
        y = tn.call(name, None, *args)
        assert y.status < 0 and y.error
