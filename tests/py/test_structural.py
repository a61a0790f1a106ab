"""Ops that move, join, pick, order and multiply, against NumPy: every layout of the operand, the
dtypes that differ in size or in how they compare, empty axes, and arguments that are refused."""

import numpy as np
import pytest

import ops_table as table
import tn
import ulp

MIN = -(1 << 63)
SIZES = ["bool", "int16", "bfloat16", "float32", "float64", "complex64"]
NUMBERS = [d for d in tn.DTYPES if d != "bool"]
LAYOUTS = [table.contiguous, table.transposed, table.strided, table.backwards, table.row]


@pytest.fixture(autouse=True)
def scope():
    with tn.scope():
        yield


def check(a, want, dtype=None):
    """Equal to the last bit, NaN and the sign of zero included, shape and dtype too."""
    want = np.asarray(want)
    assert not a.status, a.error
    got = tn.numpy(a)
    if dtype:
        assert a.dtype == dtype
    assert got.shape == want.shape and got.dtype == want.dtype
    np.testing.assert_array_equal(got, want)
    if want.dtype.kind == "f":
        np.testing.assert_array_equal(np.signbit(got) & ~np.isnan(got),
                                      np.signbit(want) & ~np.isnan(want))


def refused(a, status, *words):
    assert tn.STATUS[status] == a.status, a.error
    for w in words:
        assert w in a.error


def samples(dtype, shape=(4, 6), layouts=LAYOUTS):
    for make in layouts:
        yield make(dtype, shape, "structural")


# ---- Views ----------------------------------------------------------------------------------------------

@pytest.mark.parametrize("dtype", SIZES)
def test_reshape(dtype):
    for a, v in samples(dtype):
        for shape in [(24,), (6, 4), (2, 2, 3, 2), (4, 1, 6), (1, 24, 1), (8, 3)]:
            check(tn.reshape(a, shape), v.reshape(shape), dtype)
        for shape in [(-1,), (3, -1), (2, -1, 3)]:
            check(tn.reshape(a, shape), v.reshape(shape), dtype)
        check(tn.reshape(tn.transpose(tn.reshape(a, (2, 2, 6)), (2, 0, 1)), (4, 6)),
              v.reshape(2, 2, 6).transpose(2, 0, 1).reshape(4, 6), dtype)
        check(tn.flatten(a, 0, -1), v.reshape(-1))
        check(tn.expand_dims(a, (0, -1)), v[None, :, :, None])
        check(tn.squeeze(tn.expand_dims(a, (1, 3)), None), v)
        check(tn.squeeze(tn.expand_dims(a, (1, 3)), (1,)), v[..., None])


def test_reshape_of_small_and_empty():
    a = tn.array(np.zeros((0, 3), np.float32))
    check(tn.reshape(a, (3, 0, 7)), np.zeros((3, 0, 7), np.float32))
    check(tn.reshape(a, (-1, 3)), np.zeros((0, 3), np.float32))
    check(tn.reshape(tn.array(np.float32(5)), (1, 1)), np.full((1, 1), 5, np.float32))
    check(tn.reshape(tn.array(np.ones((1, 1), np.int8)), ()), np.ones((), np.int8))
    check(tn.flatten(tn.array(np.float32(5)), 0, -1), np.full(1, 5, np.float32))


def test_reshape_refused():
    a = tn.array(np.ones((4, 6), np.float32))
    refused(tn.reshape(a, (5, 5)), "TN_ESHAPE", "reshape", "24", "[5,5]")
    refused(tn.reshape(a, (-1, -1)), "TN_ESHAPE")
    refused(tn.reshape(a, (-2, 12)), "TN_ESHAPE")
    refused(tn.reshape(a, (-1, 7)), "TN_ESHAPE")
    refused(tn.reshape(a, (-1, 0)), "TN_ESHAPE")
    refused(tn.reshape(a, (1 << 62, 4, 1 << 62)), "TN_ESHAPE")
    refused(tn.reshape(a, [1] * 17), "TN_ESHAPE", "17 axes")
    refused(tn.reshape(a, None), "TN_ESHAPE")
    refused(tn.squeeze(a, (0,)), "TN_ESHAPE", "squeeze")
    refused(tn.squeeze(a, (2,)), "TN_EAXIS", "squeeze")
    refused(tn.expand_dims(a, (0, 0)), "TN_EAXIS", "twice")
    refused(tn.expand_dims(a, range(15)), "TN_ESHAPE", "17")
    refused(tn.flatten(a, 1, 0), "TN_EAXIS", "flatten")
    refused(tn.flatten(a, 0, 2), "TN_EAXIS", "flatten")


@pytest.mark.parametrize("dtype", SIZES)
def test_transpose(dtype):
    for a, v in samples(dtype, (3, 4, 5)):
        check(tn.transpose(a, None), v.T, dtype)
        for axes in [(0, 2, 1), (1, 0, 2), (2, 0, 1), (-1, 0, -2), (0, 1, 2)]:
            check(tn.transpose(a, axes), v.transpose(axes))
        for x in range(-3, 3):
            for y in range(-3, 3):
                check(tn.moveaxis(a, x, y), np.moveaxis(v, x, y))
                check(tn.swapaxes(a, x, y), np.swapaxes(v, x, y))
        check(tn.contiguous(tn.transpose(a, None)), v.T)
    big, v = table.transposed(dtype, (263, 271), "structural")
    check(tn.contiguous(big), v)
    check(tn.reshape(big, (271, 263)), v.reshape(271, 263))


def test_transpose_refused():
    a = tn.array(np.ones((2, 3), np.float32))
    refused(tn.transpose(a, (0,)), "TN_EAXIS", "transpose", "[2,3]")
    refused(tn.transpose(a, (0, 2)), "TN_EAXIS", "axis 2")
    refused(tn.transpose(a, (0, 0)), "TN_EAXIS", "twice")
    refused(tn.moveaxis(a, 2, 0), "TN_EAXIS", "moveaxis")
    refused(tn.swapaxes(a, 0, -3), "TN_EAXIS", "swapaxes")


@pytest.mark.parametrize("dtype", SIZES)
def test_broadcast_to(dtype):
    for a, v in samples(dtype):
        check(tn.broadcast_to(a, (3, 4, 6)), np.broadcast_to(v, (3, 4, 6)), dtype)
    a, v = table.column(dtype, (4, 6), "b")
    check(tn.broadcast_to(a, (2, 4, 3)), np.broadcast_to(v[:, :1], (2, 4, 3)))
    check(tn.broadcast_to(a, (4, 0)), np.zeros((4, 0), tn.np_dtype(dtype)))
    a, v = table.point(dtype, (), "b")
    check(tn.broadcast_to(a, (2, 3)), np.broadcast_to(v, (2, 3)))
    check(tn.sort(tn.reshape(tn.broadcast_to(a, (2, 3)), (-1,)), 0), np.broadcast_to(v, 6))


def test_broadcast_to_refused():
    a = tn.array(np.ones((2, 3), np.float32))
    for shape in [(3,), (2, 4), (2, 3, 3), (2, -3), ()]:
        refused(tn.broadcast_to(a, shape), "TN_ESHAPE", "broadcast_to", "[2,3]")
    refused(tn.broadcast_to(a, (1 << 40, 1 << 30, 2, 3)), "TN_ESHAPE")
    refused(tn.broadcast_to(a, [1] * 15 + [2, 3]), "TN_ESHAPE")


def test_view():
    for make in (table.contiguous, table.transposed, table.strided, table.backwards):
        a, v = make("float32", (4, 6), "view")
        v = np.ascontiguousarray(v)
        for to in ("int32", "uint32", "uint8", "int16", "float64", "complex64", "float16"):
            got, want = tn.view(a, to), v.view(to)
            assert tn.raw(got).tobytes() == want.tobytes() and got.shape == want.shape
    a = tn.array(np.arange(6, dtype=np.uint8))
    check(tn.view(a, "uint16"), np.arange(6, dtype=np.uint8).view(np.uint16))
    refused(tn.view(a, "uint32"), "TN_ESHAPE", "view", "uint32")
    refused(tn.view(tn.array(np.uint8(1)), "uint32"), "TN_ESHAPE")
    refused(tn.view(a, 99), "TN_EDTYPE")


# ---- Parts ------------------------------------------------------------------------------------------------

def some_slices(n):
    stops = [None, 0, 1, n - 1, n, n + 5, -1, -n, -n - 5]
    for step in (1, 2, 3, 7, -1, -2, -5):
        for start in stops[1:]:
            for stop in stops:
                yield start, stop, step


@pytest.mark.parametrize("dtype", ["uint8", "float32", "complex64"])
def test_slice(dtype):
    """Python's rules, for every combination on one axis, composed with other views."""
    for make in LAYOUTS:
        a, v = make(dtype, (3, 7), "slice")
        for i, (start, stop, step) in enumerate(some_slices(7)):
            if make is not table.contiguous and i % 7:
                continue
            with tn.scope():
                end = stop if stop is not None else (MIN if step < 0 else 7)
                check(tn.slice(a, (0, start), (3, end), (1, step)), v[:, start:stop:step], dtype)
    a, v = table.contiguous(dtype, (5, 6, 7), "slice")
    b = tn.slice(tn.transpose(tn.slice(a, (4, 0, 1), (MIN, 6, 7), (-2, 1, 3)), (2, 0, 1)),
                 (0, 1, 5), (2, 3, 0), (1, 1, -2))
    check(b, v[::-2, :, 1::3].transpose(2, 0, 1)[0:2, 1:3, 5:0:-2])
    check(tn.reshape(b, (-1,)), v[::-2, :, 1::3].transpose(2, 0, 1)[0:2, 1:3, 5:0:-2].reshape(-1))
    check(tn.slice(a, (1, 2, 3), (4, 4, 4), None), v[1:4, 2:4, 3:4])
    for axis in range(-3, 3):
        index = [slice(None)] * 3
        index[axis] = slice(1, -1)
        check(tn.slice_axis(a, axis, 1, -1), v[tuple(index)])
    check(tn.slice_axis(a, 0, -2, (1 << 63) - 1), v[-2:])
    check(tn.slice_axis(a, 0, 4, 2), v[4:2])


def test_slice_refused():
    a = tn.array(np.ones((2, 3), np.float32))
    refused(tn.slice(a, (0,), (1,), None), "TN_ESHAPE", "slice", "[2,3]")
    refused(tn.slice(a, (0, 0), (1,), None), "TN_ESHAPE", "stop")
    refused(tn.slice(a, (0, 0), (1, 1), (1,)), "TN_ESHAPE", "step")
    refused(tn.slice(a, (0, 0), (1, 1), (1, 0)), "TN_EVALUE", "step 0")
    refused(tn.slice(a, (0, 0), (1, 1), (MIN, 1)), "TN_EVALUE")
    refused(tn.slice_axis(a, 2, 0, 1), "TN_EAXIS", "axis 2")
    big = (1 << 63) - 1
    check(tn.slice(a, (0, -big), (big, big), (big, big)), np.ones((1, 1), np.float32))
    check(tn.slice(a, (big, 0), (MIN, 3), (-big, 1)), np.ones((1, 3), np.float32))


@pytest.mark.parametrize("dtype", SIZES)
def test_slice_update(dtype):
    for a, v in samples(dtype, (5, 8)):
        for u, w in samples(dtype, (2, 3)):
            for start, step in [((0, 0), None), ((3, 5), (1, 1)), ((1, 7), (2, -3)), ((-1, -8), (-4, 2))]:
                want = np.array(v)
                s, k = [x % n for x, n in zip(start, v.shape)], step or (1, 1)
                rows = [s[0] + k[0] * i for i in range(2)]
                cols = [s[1] + k[1] * i for i in range(3)]
                want[np.ix_(rows, cols)] = w
                with tn.scope():
                    check(tn.slice_update(a, u, start, step), want, dtype)
                    check(a, np.array(v))   # the operand is as it was
    a, v = table.contiguous("float32", (5, 8), "u")
    want = np.array(v)
    want[4, 2:5] = [1, 2, 3]
    check(tn.slice_update(a, tn.array([1, 2, 3], "int64"), (4, 2), None), want)
    check(tn.slice_update(a, np.zeros((0, 3), np.float32), (5, 0), None), v)
    chain = a
    want = np.array(v)
    for i in range(5):   # in place, as nobody else holds it
        chain = tn.slice_update(chain, tn.array(np.full((1, 8), i), "float32"), (i, 0), None)
        want[i] = i
    check(chain, want)
    check(a, v)


def test_slice_update_refused():
    a = tn.array(np.ones((4, 5), np.float32))
    u = tn.array(np.ones((2, 2), np.float32))
    for start, step in [((3, 0), None), ((0, 4), None), ((0, 0), (4, 1)), ((0, 0), (1, -1)),
                        ((-5, 0), None), ((4, 0), None), ((1, 1), ((1 << 63) - 1, 1))]:
        refused(tn.slice_update(a, u, start, step), "TN_EINDEX", "slice_update", "[4,5]")
    refused(tn.slice_update(a, u, (0,), None), "TN_ESHAPE")
    refused(tn.slice_update(a, tn.array(np.ones((1, 2, 2), np.float32)), (0, 0), None), "TN_ESHAPE",
            "more axes")
    refused(tn.slice_update(a, u, (0, 0), (0, 1)), "TN_EVALUE", "step 0")


@pytest.mark.parametrize("dtype", SIZES)
@pytest.mark.parametrize("index", ["int8", "uint16", "int32", "int64", "uint64"])
def test_take(dtype, index):
    rng = table.rng_for("take", dtype, index)
    signed = index[0] == "i"
    for a, v in samples(dtype, (4, 6)):
        for axis in (0, 1, -1, -2):
            n = v.shape[axis]
            for shape in [(), (7,), (2, 3), (0,), (1, 1, 2)]:
                i = rng.integers(-n if signed else 0, n, shape).astype(index)
                with tn.scope():
                    check(tn.take(a, tn.array(i), axis), np.take(v, i.astype(int), axis), dtype)
    i, w = table.transposed("bool", (3, 4), "i")
    check(tn.take(a, tn.astype(i, "int32"), 0), np.take(v, w.astype(int), 0))


def test_take_large_and_refused():
    v = table.values("float32", 70400, "take").reshape(1100, 64)
    i = table.rng_for("take").integers(-1100, 1100, 1500)
    check(tn.take(tn.array(v), i, 0), v[i])
    check(tn.take(tn.transpose(tn.array(v), None), i, 1), v.T[:, i])
    a = tn.array(np.ones((2, 3), np.float32))
    for bad in ([3], [-4], [0, 1, 1 << 40], [MIN]):
        with pytest.raises(tn.Error) as e:
            tn.numpy(tn.take(a, np.array(bad), 1))
        assert e.value.code == tn.STATUS["TN_EINDEX"] and "take" in e.value.text
    refused(tn.take(a, np.ones(2, np.float32), 0), "TN_EDTYPE", "take", "float32")
    refused(tn.take(a, np.ones(2, bool), 0), "TN_EDTYPE", "take", "bool")
    refused(tn.take(a, np.zeros(2, np.int32), 2), "TN_EAXIS", "axis 2")
    refused(tn.take(tn.array(np.ones((0, 3), np.float32)), np.zeros(1, int), 0), "TN_EINDEX", "empty")
    refused(tn.take(tn.array(np.ones([1] * 16)), np.zeros((1, 1), int), 0), "TN_ESHAPE")
