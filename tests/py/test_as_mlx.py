"""Element-wise ops at the special values against MLX itself, where MLX defines them.

Left out, as elementwise.def says otherwise on purpose: integer division by zero and of the smallest
integer by -1 (MLX's process dies of SIGFPE, or x % 0 is x), negative exponents of -1, shifts by the
width or more (the processor's choice in MLX), 0 ** 0 of complex numbers (NaN in MLX).
"""

import mlx.core as mx
import numpy as np
import pytest

import ops_table as table
import tn
from test_dtypes import NAMES, to_mx
from test_structural import scope  # noqa: F401

INTEGER_ONLY_OURS = {"floor_divide", "remainder", "power", "left_shift", "right_shift"}
# In float16 MLX computes erf, logaddexp and the quotient below floor in float16, with fewer digits.
DTYPES = ["bool", "uint8", "int8", "int32", "uint32", "int64", "uint64", "float32", "complex64"]
RTOL = {"erf": 4e-5}   # MLX's own error; 4e-6 for the others, whose exponentials are off by 1e-6


def has_mlx(row, dtype):
    if not NAMES.get(row.name, row.name) or dtype not in table.ALLOWED[row.dom]:
        return False
    if dtype not in ("float32", "complex64"):
        return row.name not in INTEGER_ONLY_OURS
    return row.name != "power" or dtype == "float32"


@pytest.mark.parametrize("row,dtype", [pytest.param(r, d, id=f"{r.name}-{d}") for r in table.ELEMENTWISE
                                       for d in DTYPES if has_mlx(r, d)])
def test_special_values(row, dtype):
    v = table.pairs(dtype, row.arity - (row.dom == "SEL"))
    cond = [table.values("bool", len(v[0]), "where")] if row.dom == "SEL" else []
    f = getattr(mx, NAMES.get(row.name, row.name))
    try:
        with mx.stream(mx.cpu):
            want = f(*[mx.array(c) for c in cond], *[mx.array(x).astype(to_mx(dtype)) for x in v])
            want = np.array(want)
    except (ValueError, RuntimeError):
        return   # MLX refuses the dtype
    got = tn.numpy(tn.call(row.name, *[tn.array(c) for c in cond], *[tn.array(x, dtype) for x in v]))
    assert got.dtype == want.dtype
    with np.errstate(all="ignore"):
        bad = got != want
        if got.dtype.kind in "fc":
            near = np.abs(got - want) <= RTOL.get(row.name, 4e-6) * np.abs(want) + 1e-37
            bad &= ~near & ~(np.isnan(got) & np.isnan(want))
        if got.dtype.kind == "c":
            bad &= np.isfinite(want)
    at = np.argwhere(bad)[:3, 0]
    assert not bad.any(), [([x[i] for x in v], got[i], want[i]) for i in at]
