"""tenon.h in Python, for the tests: every function with the signature the headers give it.

    import tn
    with tn.scope():
        y = tn.softmax(np.ones((2, 3), np.float32), (-1,))   # tn.Array, lazy
        tn.numpy(y)                                          # evaluated, or tn.Error

An array parameter takes a tn.Array, a NumPy array, a number (a weak scalar) or None; tn_ints
takes None (TN_ALL) or a sequence; tn_list a sequence of arrays; an enum of dtypes its name.
bfloat16, which NumPy lacks, travels as float32 whose values are representable in it: tn.array(x,
"bfloat16") rounds, tn.numpy widens.

TENON_LIBRARY names the shared library (build/libtenon.so when unset).
"""

import contextlib
import ctypes as c
import os
import re

import numpy as np

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
LIBRARY = os.environ.get("TENON_LIBRARY", os.path.join(ROOT, "build", "libtenon.so"))
lib = c.CDLL(LIBRARY)

DTYPES = ["bool", "uint8", "uint16", "uint32", "uint64", "int8", "int16", "int32", "int64",
          "float16", "bfloat16", "float32", "float64", "complex64"]
INTS = DTYPES[1:9]
FLOATS = DTYPES[9:13]
STATUS = {name: int(value) for name, value in re.findall(
    r"X\((TN_\w+), (-?\d+),", open(os.path.join(ROOT, "include", "tenon", "status.h")).read())}


class Error(Exception):
    """A negative status, with the sentence of tn_error()."""

    def __init__(self, code, text):
        super().__init__(f"{text} ({code})")
        self.code, self.text = code, text


class Ints(c.Structure):
    _fields_ = [("v", c.POINTER(c.c_int64)), ("n", c.c_int)]


class List(c.Structure):
    _fields_ = [("v", c.POINTER(c.c_void_p)), ("n", c.c_int)]


class Memory(c.Structure):
    _fields_ = [(name, c.c_size_t) for name in ("active", "peak", "cache", "limit")]


class RopeOpt(c.Structure):
    _fields_ = [("size", c.c_size_t), ("traditional", c.c_bool), ("base", c.c_double),
                ("scale", c.c_double), ("freqs", c.c_void_p)]


class SdpaOpt(c.Structure):
    _fields_ = [("size", c.c_size_t), ("causal", c.c_bool), ("mask", c.c_void_p),
                ("sinks", c.c_void_p)]


class Spatial(c.Structure):
    _fields_ = [("v", c.c_int64 * 3), ("n", c.c_int)]


class ConvOpt(c.Structure):
    _fields_ = [("size", c.c_size_t)] + [(name, Spatial) for name in (
        "stride", "padding", "padding_high", "dilation", "input_dilation", "output_padding")] + [
        ("groups", c.c_int), ("flip", c.c_bool)]


class Array:
    """A handle; it dies with the scope it was made in."""

    __array_ufunc__ = None   # NumPy's operators leave it to those below

    def __init__(self, p):
        self.p = p

    @property
    def dtype(self):
        return DTYPES[lib.tn_dtype_of(self.p)]

    @property
    def shape(self):
        s = lib.tn_shape(self.p)
        return tuple(s.v[i] for i in range(s.n))

    @property
    def status(self):
        return lib.tn_array_status(self.p)

    @property
    def error(self):
        return lib.tn_array_error(self.p).decode()

    def __add__(self, b):
        return call("add", self, b)

    def __radd__(self, a):
        return call("add", a, self)

    def __sub__(self, b):
        return call("sub", self, b)

    def __rsub__(self, a):
        return call("sub", a, self)

    def __mul__(self, b):
        return call("mul", self, b)

    def __rmul__(self, a):
        return call("mul", a, self)

    def __truediv__(self, b):
        return call("div", self, b)

    def __rtruediv__(self, a):
        return call("div", a, self)

    def __matmul__(self, b):
        return call("matmul", self, b)

    def __neg__(self):
        return call("neg", self)


# ---- bfloat16 ------------------------------------------------------------------------------------

def bf16_bits(x):
    """float64 to the bits of bfloat16, rounded once to the nearest, ties to even."""
    x = np.asarray(x, np.float64)
    with np.errstate(over="ignore"):
        f = x.astype(np.float32)
    u = f.view(np.uint32) if f.ndim else f.reshape(1).view(np.uint32).reshape(())
    u = u.astype(np.uint64)
    # to odd first, so that rounding again does not round twice
    inexact = (f.astype(np.float64) != x) & np.isfinite(f)
    toward = np.where(np.abs(f.astype(np.float64)) > np.abs(x), u - (inexact & (u & 1 == 0)),
                      u + (inexact & (u & 1 == 0)))
    r = (toward + 0x7FFF + ((toward >> 16) & 1)) >> 16
    return np.where(np.isnan(x), 0x7FC0, r).astype(np.uint16)


def bf16_wide(bits):
    return (np.asarray(bits, np.uint32) << 16).view(np.float32)


def np_dtype(name):
    """The NumPy dtype values of `name` are kept in."""
    return np.dtype("float32" if name == "bfloat16" else name)


def rounded(x, name):
    """x (float64 or wider, or complex128) rounded to the dtype, in its NumPy dtype."""
    with np.errstate(over="ignore", invalid="ignore"):
        if name == "bfloat16":
            return bf16_wide(np.atleast_1d(bf16_bits(x))).reshape(np.shape(x))
        return np.asarray(x).astype(name)


# ---- Arguments -------------------------------------------------------------------------------------

def array(x, dtype=None):
    """A tn.Array with a copy of x (its own dtype unless named)."""
    if isinstance(x, Array):
        return x
    x = np.asarray(x)
    dtype = dtype or str(x.dtype)
    raw = bf16_bits(x) if dtype == "bfloat16" else x.astype(dtype)
    raw = np.array(raw, order="C", ndmin=0)
    shape = make_ints(raw.shape)
    return Array(lib.tn_array_new(raw.ctypes.data, DTYPES.index(dtype), shape))


def operand(x):
    """The address an array parameter gets."""
    if x is None:
        return None
    if isinstance(x, Array):
        return x.p
    if isinstance(x, bool):
        return lib.tn_bool(x)
    if isinstance(x, int):
        return lib.tn_i32(x)
    if isinstance(x, float):
        return lib.tn_f32(x)
    if isinstance(x, complex):
        return lib.tn_complex(x.real, x.imag)
    return array(x).p


def make_ints(v):
    if isinstance(v, Ints):
        return v
    if v is None:
        return Ints(None, -1)
    v = [int(i) for i in v]
    return Ints((c.c_int64 * max(len(v), 1))(*v), len(v))


def make_list(v):
    if isinstance(v, List):
        return v
    v = [operand(a) for a in v]
    return List((c.c_void_p * max(len(v), 1))(*v), len(v))


def make_spatial(v):
    v = [] if v is None else [v] if isinstance(v, int) else list(v)
    return Spatial((c.c_int64 * 3)(*v), len(v))


# ---- Functions, from the headers ----------------------------------------------------------------------

SIMPLE = {"int": c.c_int, "int64_t": c.c_int64, "uint64_t": c.c_uint64, "size_t": c.c_size_t,
          "double": c.c_double, "float": c.c_float, "bool": c.c_bool, "void": None,
          "tn_memory": Memory, "tn_nn_reduction": c.c_int, "const char *": c.c_char_p}
SIGNATURES = {}


def _ctype(text):
    """C parameter or result type to (kind, ctypes type)."""
    if text in ("tn_array *", "const tn_array *"):
        return "array", c.c_void_p
    if text == "tn_ints":
        return "ints", Ints
    if text == "tn_list":
        return "list", List
    if text == "tn_spatial":
        return "spatial", Spatial
    if text == "tn_dtype":
        return "dtype", c.c_int
    if text in SIMPLE:
        return "plain", SIMPLE[text]
    return "plain", c.c_void_p


def _declare():
    for header in ("tenon.h", "ops.h", "nn.h", "nn_functions.h", "nn_layers.h"):
        with open(os.path.join(ROOT, "include", "tenon", header)) as f:
            text = re.sub(r"/\*.*?\*/", "", f.read(), flags=re.S)
        for ret, name, args in re.findall(r"TN_API ([\w *]+?)\s?(tn_\w+)\(([^;]*)\)[^;]*;", text):
            params = []
            for a in args.split(","):
                a = " ".join(a.split())
                if a in ("void", "..."):
                    continue
                if "(*" in a or "[" in a:
                    params.append(("plain", c.c_void_p))
                    continue
                params.append(_ctype(re.sub(r"\s*\w+$", "", a.replace("*", "* ")).replace(
                    "* ", "*").strip().replace("*", " *").replace("  ", " ").replace(" * *", " **")))
            kind, res = _ctype(" ".join(ret.replace("*", " *").split()))
            if "..." in args or "(*" in args or not hasattr(lib, name):
                continue   # an older library: only what it has
            SIGNATURES[name[3:]] = (kind, [p[0] for p in params])
            fn = getattr(lib, name)
            fn.restype, fn.argtypes = res, [p[1] for p in params]
    lib.tn_graph_print.restype = lib.tn_graph_dot.restype = c.c_void_p


_declare()
CONVERT = {"array": operand, "ints": make_ints, "list": make_list, "spatial": make_spatial,
           "dtype": lambda d: DTYPES.index(d) if isinstance(d, str) else d, "plain": lambda x: x}


def call(name, *args):
    """tn_<name>(*args), with the conversions above; arrays come back as tn.Array."""
    kind, params = SIGNATURES[name]
    if len(args) != len(params):
        raise TypeError(f"tn_{name} takes {len(params)} arguments, not {len(args)}")
    out = getattr(lib, "tn_" + name)(*[CONVERT[k](a) for k, a in zip(params, args)])
    return Array(out) if kind == "array" else out


def __getattr__(name):
    if name.startswith("_") or name not in SIGNATURES:
        raise AttributeError(name)
    return lambda *args: call(name, *args)


# ---- What is not one call --------------------------------------------------------------------------------

@contextlib.contextmanager
def scope():
    s = lib.tn_scope_begin()
    try:
        yield
    finally:
        lib.tn_scope_end(s)


def check(code):
    if code:
        raise Error(code, lib.tn_error().decode())


def evaluate(*arrays):
    check(lib.tn_eval(make_list(arrays)))


def numpy(a):
    """The evaluated values; bfloat16 widened to float32."""
    evaluate(a)
    return raw(a) if a.dtype != "bfloat16" else bf16_wide(raw(a))


def raw(a):
    """The evaluated elements; bfloat16 as uint16."""
    evaluate(a)
    dtype = np.dtype("uint16" if a.dtype == "bfloat16" else a.dtype)
    size = lib.tn_size(a.p)
    p = lib.tn_data(a.p)
    if not p and size:
        raise Error(-12, "tn_data is NULL: " + lib.tn_error().decode())
    data = c.string_at(p, size * dtype.itemsize) if size else b""
    if a.dtype == "bool" and data.strip(b"\0\1"):
        raise Error(-12, "a bool that is neither 0 nor 1")
    return np.frombuffer(data, dtype).reshape(a.shape).copy()


def outputs(name, n, *args):
    """For functions whose last parameter is an array of n results."""
    out = (c.c_void_p * n)()
    call(name, *args, c.cast(out, c.c_void_p))
    return [Array(p) for p in out]


def split(a, n, axis):
    return outputs("split", n, a, n, axis)


def split_at(a, at, axis):
    return outputs("split_at", len(at) + 1, a, at, axis)


def quantize(w, group, bits):
    return outputs("quantize", 3, w, group, bits)


def rope(x, dims, offset, traditional=False, base=0.0, scale=0.0, freqs=None):
    offset = array(np.asarray(offset, np.int32))
    f = operand(freqs)
    opt = RopeOpt(c.sizeof(RopeOpt), traditional, base, scale, f)
    return call("fast_rope", x, dims, offset, c.addressof(opt))


def sdpa(q, k, v, scale, causal=False, mask=None, sinks=None):
    opt = SdpaOpt(c.sizeof(SdpaOpt), causal, operand(mask), operand(sinks))
    return call("fast_scaled_dot_product_attention", q, k, v, scale, c.addressof(opt))


def conv(name, x, w, groups=0, flip=False, **settings):
    """tn_conv<name>(x, w, ...): settings are numbers or a sequence of them."""
    opt = ConvOpt(c.sizeof(ConvOpt), groups=groups, flip=flip,
                  **{k: make_spatial(v) for k, v in settings.items()})
    return call("conv" + name, x, w, c.addressof(opt))
