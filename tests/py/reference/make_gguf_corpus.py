"""Writes the hand-made part of tests/fuzz/corpus/gguf: files of the gguf package's own writer, and
small files that each break one rule. The names say which.

    pip install gguf && python make_gguf_corpus.py ../../fuzz/corpus/gguf
"""
import pathlib
import struct
import sys

import numpy as np
from gguf import GGMLQuantizationType, GGUFWriter, quants
from gguf.constants import GGML_QUANT_SIZES

out = pathlib.Path(sys.argv[1])
out.mkdir(parents=True, exist_ok=True)
U8, I8, U16, I16, U32, I32, F32, BOOL, STRING, ARRAY, U64, I64, F64 = range(13)


def head(tensors, keys, version=3, magic=b"GGUF"):
    return magic + struct.pack("<IQQ", version, tensors, keys)


def text(s):
    s = s if isinstance(s, bytes) else s.encode()
    return struct.pack("<Q", len(s)) + s


def key(name, kind, value):
    return text(name) + struct.pack("<I", kind) + value


def array(name, kind, n, value=b""):
    return key(name, ARRAY, struct.pack("<IQ", kind, n) + value)


def tensor(name, dims, kind=0, offset=0):
    return text(name) + struct.pack(f"<I{len(dims)}QIQ", len(dims), *dims, kind, offset)


def pad(b, n=32):
    return b + bytes(-len(b) % n)


def one(dims, kind=0, offset=0, data=64):
    return pad(head(1, 0) + tensor("t", dims, kind, offset)) + bytes(data)


def u32(v):
    return struct.pack("<I", v)


def writer_metadata():
    w = GGUFWriter(out / "ok-writer-metadata", "llama")
    w.add_name("writer")
    w.add_uint8("v.u8", 200), w.add_int8("v.i8", -100)
    w.add_uint16("v.u16", 60000), w.add_int16("v.i16", -30000)
    w.add_uint32("v.u32", 4000000000), w.add_int32("v.i32", -2000000000)
    w.add_uint64("v.u64", 2**63), w.add_int64("v.i64", -2**62)
    w.add_float32("v.f32", 0.1), w.add_float64("v.f64", 0.1)
    w.add_bool("v.bool", True), w.add_string("v.string", "Grüße")
    w.add_array("tokenizer.ggml.tokens", ["<s>", "a", "\u0120b", "é"])
    w.add_array("tokenizer.ggml.token_type", [3, 1, 1, 1])
    w.add_array("tokenizer.ggml.scores", [0.0, -1.5, -2.25, 1e-3])
    w.add_array("a.bool", [True, False])
    w.add_tensor("w", np.arange(12, dtype=np.float32).reshape(3, 4))
    w.add_tensor("h", np.arange(6, dtype=np.float16))
    w.write_header_to_file(), w.write_kv_data_to_file(), w.write_tensors_to_file(), w.close()


def writer_types():
    """One block of each type the package quantises, alignment 64."""
    w = GGUFWriter(out / "ok-writer-types", "llama")
    w.add_custom_alignment(64)
    rng = np.random.default_rng(1)
    for t in GGMLQuantizationType:
        block, _ = GGML_QUANT_SIZES[t]
        try:
            data = quants.quantize(rng.standard_normal((1, block)).astype(np.float32), t)
        except NotImplementedError:
            continue
        w.add_tensor(t.name, data, raw_dtype=t)
    w.write_header_to_file(), w.write_kv_data_to_file(), w.write_tensors_to_file(), w.close()


def raw_types():
    """Random bytes as one block of every type id."""
    rng = np.random.default_rng(2)
    sizes = {int(t): GGML_QUANT_SIZES[t] for t in GGMLQuantizationType}
    sizes[9], sizes[42] = (32, 36), (64, 18)
    info, data = head(len(sizes), 0), b""
    for t, (values, size) in sizes.items():
        info += tensor(f"t{t}", [values], t, len(data))
        data = pad(data + rng.bytes(size))
    return pad(info) + data


writer_metadata()
writer_types()
files = {
    "ok-empty": head(0, 0),
    "ok-v2": pad(head(1, 1, version=2) + key("k", U8, b"\1") + tensor("t", [2, 2])) + bytes(16),
    "ok-raw-types": raw_types(),
    "ok-scalar": one([]),
    "ok-four-dims": one([2, 2, 2, 2]),
    "ok-nested": head(0, 1) + array("k", ARRAY, 2, u32(U8) + struct.pack("<Q", 2) + b"\1\2"
                                    + u32(STRING) + struct.pack("<Q", 1) + text("x")),
    "ok-nul-in-string": head(0, 1) + key("k", STRING, text(b"a\0b")),
    "bad-magic": head(0, 0, magic=b"GGML"),
    "bad-short": b"GGUF",
    "bad-version-1": head(0, 0, version=1),
    "bad-big-endian": b"GGUF" + struct.pack(">IQQ", 3, 0, 0),
    "bad-key-count": head(0, 2**63) + bytes(64),
    "bad-tensor-count": head(2**64 - 1, 0) + bytes(64),
    "bad-key-length": head(0, 1) + struct.pack("<Q", 2**64 - 1) + bytes(32),
    "bad-key-empty": head(0, 1) + key("", U8, b"\1") + bytes(8),
    "bad-key-kind": head(0, 1) + key("k", 13, bytes(8)),
    "bad-key-twice": head(0, 2) + key("k", U8, b"\1") * 2,
    "bad-bool": head(0, 1) + key("k", BOOL, b"\7"),
    "bad-string-length": head(0, 1) + key("k", STRING, struct.pack("<Q", 2**63) + bytes(8)),
    "bad-array-overflow": head(0, 1) + array("k", U64, 2**61 + 1, bytes(8)),
    "bad-array-strings": head(0, 1) + array("k", STRING, 2**60, bytes(64)),
    "bad-array-deep": head(0, 1) + array("k", ARRAY, 1, (u32(ARRAY) + struct.pack("<Q", 1)) * 50),
    "bad-alignment-zero": pad(head(1, 1) + key("general.alignment", U32, u32(0)) + tensor("t", [1])) + bytes(8),
    "bad-alignment-48": pad(head(1, 1) + key("general.alignment", U32, u32(48)) + tensor("t", [1])) + bytes(8),
    "bad-split": head(0, 2) + key("split.no", U16, b"\0\0") + key("split.count", U16, b"\3\0"),
    "bad-five-dims": one([1, 1, 1, 1, 1]),
    "bad-dim-zero": one([4, 0]),
    "bad-dim-negative": one([2**64 - 4]),
    "bad-dims-overflow": one([2**32, 2**32]),
    "bad-bytes-overflow": one([2**61], 28),
    "bad-type-removed": one([32], 4),
    "bad-type-huge": one([32], 2**32 - 1),
    "bad-part-block": one([48], 2),
    "bad-offset-unaligned": one([1], 0, 4),
    "bad-offset-wraps": one([8], 0, 2**64 - 32),
    "bad-data-cut": one([100], 0, 0, 399),
    "bad-tensor-twice": pad(head(2, 0) + tensor("t", [8]) + tensor("t", [8], 0, 32)) + bytes(64),
    "bad-tensor-nul": pad(head(1, 0) + tensor(b"a\0b", [8])) + bytes(64),
    "bad-overlap": pad(head(2, 0) + tensor("a", [16]) + tensor("b", [16], 0, 32)) + bytes(128),
}
for name, content in files.items():
    (out / name).write_bytes(content)
