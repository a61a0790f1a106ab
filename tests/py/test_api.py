"""What is not an op: ownership, memory and its limits, streams, threads, printing, names."""

import ctypes
import os
import re
import threading

import numpy as np
import pytest

import ops_table as table
import tn
from test_structural import refused, scope  # noqa: F401


def text(p):
    """A string the library allocated."""
    s = ctypes.string_at(p).decode()
    tn.lib.tn_free(p)
    return s


def test_status_names():
    for name, value in tn.STATUS.items():
        assert tn.status_name(value).decode() == name
    assert tn.status_name(-99) and tn.status_name(7)


def test_ops_of_the_tables_are_exported():
    with open(os.path.join(tn.ROOT, "include", "tenon", "ops.h")) as f:
        names = set(re.findall(r"TN_API tn_array \*tn_(\w+)\(", f.read()))
    assert names == {r.name for r in table.ELEMENTWISE + table.REDUCE}
    assert names <= set(tn.SIGNATURES)


def test_lazy_until_asked():
    a = tn.array(np.ones(1000, np.float32))
    y = tn.exp(a)
    assert tn.is_evaluated(a) and not tn.is_evaluated(y)
    tn.evaluate(y)
    assert tn.is_evaluated(y)
    z = tn.exp(y)
    assert tn.data(z) and tn.is_evaluated(z)
    assert tn.nbytes(z) == 4000 and tn.size(z) == 1000 and tn.ndim(z) == 1 and tn.dim(z, -1) == 1000
    assert tn.dim(z, 5) == 0 and tn.data_f32(tn.array(np.ones(2))) is None and "float64" in tn.error().decode()


def test_ownership():
    """A kept array outlives its scope, an escaped one moves to the parent, a slot holds one."""
    with tn.scope():
        inner = tn.lib.tn_scope_begin()
        kept = tn.keep(tn.exp(np.zeros(3, np.float32)))
        moved = tn.escape(tn.exp(np.ones(3, np.float32)))
        tn.lib.tn_scope_end(inner)
        np.testing.assert_array_equal(tn.numpy(kept), 1)
        np.testing.assert_allclose(tn.numpy(moved), np.e, rtol=1e-6)
        tn.drop(kept)
        tn.drop(None)
    slot = ctypes.c_void_p()
    address = ctypes.addressof(slot)
    with tn.scope():
        tn.check(tn.assign(address, np.arange(3)))
        bad = tn.assign(address, tn.add(np.ones(2), np.ones(3)))
        assert bad == tn.STATUS["TN_ESHAPE"]
    np.testing.assert_array_equal(tn.numpy(tn.Array(slot.value)), [0, 1, 2])
    with tn.scope():
        new = tn.add(tn.Array(slot.value), 5)
        also = tn.sum(new, None, False)
        tn.check(tn.commit(address, [new], [also]))
        assert tn.is_evaluated(also) and tn.numpy(also) == 18
    np.testing.assert_array_equal(tn.numpy(tn.Array(slot.value)), [5, 6, 7])
    tn.drop(tn.Array(slot.value))


def test_memory_is_counted_and_limited():
    tn.memory_clear_cache()
    before = tn.memory_stats()
    with tn.scope():
        a = tn.array(np.ones(1 << 18, np.float32))
        y = tn.exp(a)
        assert tn.memory_stats().active == before.active + (1 << 20)
        old = tn.memory_set_limit(before.active + (1 << 20) + 4096)
        try:
            with pytest.raises(tn.Error) as e:
                tn.evaluate(y)
            assert e.value.code == tn.STATUS["TN_EMEMORY"] and re.search(r"\d", e.value.text)
        finally:
            tn.memory_set_limit(old)
        np.testing.assert_allclose(tn.numpy(y)[:3], np.e, rtol=1e-6)   # it may be tried again
        tn.memory_reset_peak()
        assert tn.memory_stats().peak == tn.memory_stats().active == before.active + (2 << 20)
    assert tn.memory_stats().active == before.active
    old = tn.memory_set_cache_limit(0)
    tn.memory_clear_cache()
    with tn.scope():
        tn.numpy(tn.exp(np.ones(1 << 18, np.float32)))
    assert tn.memory_stats().cache == 0
    assert tn.memory_set_cache_limit(old) == 0


def test_threads_are_set():
    was = tn.threads()
    for n in (1, 3, was):
        tn.check(tn.set_threads(n))
        assert tn.threads() == n
    tn.check(tn.set_threads(0))
    assert tn.threads() >= 1
    assert tn.set_threads(-1) == tn.STATUS["TN_EVALUE"] and "-1" in tn.error().decode()
    tn.check(tn.set_threads(was))


def test_streams():
    s = tn.stream_new()
    default = tn.use(s)
    a = tn.exp(np.zeros(100000, np.float32))
    b = tn.add(a, 1.0)
    tn.check(tn.async_eval([b]))
    tn.use(default)
    c = tn.mul(b, 2.0)   # on another stream: the wait is the library's job
    np.testing.assert_array_equal(tn.numpy(c), 4)
    tn.check(tn.wait(s))
    tn.use(s)
    bad = tn.take(np.ones(3, np.float32), np.array([9]), 0)
    status = tn.async_eval([bad])
    assert status or tn.wait(None) == tn.STATUS["TN_EINDEX"]
    tn.use(default)
    tn.stream_free(s)
    tn.check(tn.wait(None))


def test_errors_and_scopes_are_per_thread():
    found = []

    def work(n):
        with tn.scope():
            y = tn.add(np.ones(n), np.ones(n + 1))
            found.append((n, tn.error().decode(), y.error))
            for _ in range(50):
                with tn.scope():
                    assert tn.numpy(tn.sum(tn.exp(np.zeros(1000 * n)), None, False)) == 1000 * n

    threads = [threading.Thread(target=work, args=(n,)) for n in range(2, 8)]
    [t.start() for t in threads]
    [t.join() for t in threads]
    assert len(found) == 6
    for n, last, own in found:
        assert last == own and f"[{n}]" in own and f"[{n + 1}]" in own


def test_graph_as_text():
    x = tn.array(np.ones((2, 3), np.float32))
    y = tn.softmax(tn.mul(tn.exp(x), 2.0), (0,))
    tn.check(tn.graph_check([y]))
    printed, dot = text(tn.lib.tn_graph_print(tn.make_list([y]))), text(tn.lib.tn_graph_dot(tn.make_list([y])))
    assert "exp" in printed and "mul" in printed
    assert dot.startswith("digraph") and dot.rstrip().endswith("}") and "exp" in dot


@pytest.mark.parametrize("dtype", tn.DTYPES)
def test_format(dtype):
    """Every element shows, the length does not depend on the buffer, and the text always ends."""
    a = tn.array([[0, 1], [2, 3]] if dtype != "bool" else [[0, 1], [1, 0]], dtype)
    whole = ctypes.create_string_buffer(1000)
    n = tn.format(a, ctypes.addressof(whole), 1000)
    shown = whole.value.decode()
    assert n == len(shown) > 8 and shown.count("[") == shown.count("]") >= 3
    if dtype in tn.INTS:
        assert re.findall(r"\d+", shown)[:4] == ["0", "1", "2", "3"]
    for size in (1, 2, 7, n, n + 1):
        part = ctypes.create_string_buffer(b"x" * 1000, 1000)
        assert tn.format(a, ctypes.addressof(part), size) == n
        assert part.value.decode() == shown[:size - 1] and part.raw[size:size + 1] == b"x"
    assert tn.format(a, None, 0) == n
    long = tn.format(tn.array(np.zeros(100000), dtype), ctypes.addressof(whole), 1000)
    assert 0 < long < 1000   # abbreviated
    assert tn.format(tn.add(np.ones(2), np.ones(3)), ctypes.addressof(whole), 1000) < 0
