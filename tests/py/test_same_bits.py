"""One result, whatever computes it: the same bits on every instruction set the machine has, with
one thread and with four, fused or op by op."""

import json
import os
import subprocess
import sys

import pytest

import same_bits
import tn
from test_structural import scope  # noqa: F401

GROUPS = ["elementwise", "reductions", "layers", "products", "gradients", "chains"]
ISAS = ["ref", "avx2", "avx512", "neon"]
HERE = os.path.dirname(os.path.abspath(__file__))


@pytest.fixture(scope="module")
def runs():
    """(isa, threads, group) -> {name: checksum}, of every instruction set at hand."""
    out = {}
    for isa in ISAS:
        p = subprocess.run(
            [sys.executable, "-W", "ignore", os.path.join(HERE, "same_bits.py"), "1", "4"],
            env={**os.environ, "TENON_ISA": isa}, stdout=subprocess.PIPE, text=True, check=True)
        for line in p.stdout.splitlines():
            d = json.loads(line)
            out[d["isa"], d["threads"], d["group"]] = d["sums"]
    return out


@pytest.mark.parametrize("group", GROUPS)
def test_instruction_sets_and_threads(runs, group):
    found = {key: sums for key, sums in runs.items() if key[2] == group}
    assert {key[1] for key in found} == {1, 4} and ("ref", 1, group) in found
    want = found["ref", 1, group]
    assert len(want) > 50
    for (isa, threads, _), sums in found.items():
        assert sums.keys() == want.keys()
        bad = [name for name in want if sums[name] != want[name]]
        assert not bad, f"{isa} with {threads} threads: {len(bad)} of {len(want)} differ: {bad[:5]}"


def test_best_instruction_set_is_among_them(runs):
    assert tn.isa().decode() in {key[0] for key in runs}


@pytest.mark.parametrize("seed", range(200))
def test_fused_equals_op_by_op(seed):
    """A random graph evaluated at once, its last arrays together, and each array when it is made."""
    with tn.scope():
        steps = [same_bits.bits(a) for a in same_bits.chain(seed, tn.evaluate)]
    with tn.scope():
        arrays = same_bits.chain(seed)
        tn.check(tn.graph_check(arrays))
        tn.evaluate(*arrays)
        together = [same_bits.bits(a) for a in arrays]
        dtypes = [(a.dtype, a.shape) for a in arrays]
    with tn.scope():
        alone = [same_bits.bits(a) for a in same_bits.chain(seed)]
    for i in range(len(steps)):
        assert together[i] == steps[i], f"array {i - 4} of the chain: {dtypes[i]}"
        assert alone[i] == steps[i], f"array {i - 4} of the chain, read alone: {dtypes[i]}"
