"""safetensors files with NumPy alone: read every float type, write any.

The `safetensors` package's NumPy side has no bfloat16; this file has, because
NumPy's lack of it is bridged by widening to float32 on reading and rounding to
nearest even on writing. The format: u64 header length, JSON header
{name: {dtype, shape, data_offsets}}, then the bytes.
"""

import json
import os
import struct

import numpy as np

NUMPY_TYPES = {
    "F64": np.float64, "F32": np.float32, "F16": np.float16,
    "I64": np.int64, "I32": np.int32, "I16": np.int16, "I8": np.int8,
    "U64": np.uint64, "U32": np.uint32, "U16": np.uint16, "U8": np.uint8,
    "BOOL": np.bool_,
}
DTYPE_NAMES = {np.dtype(v): k for k, v in NUMPY_TYPES.items()}


def bf16_to_f32(bits):
    return (bits.astype(np.uint32) << 16).view(np.float32)


def f32_to_bf16(values):
    """Bits of the nearest bfloat16, ties to even (finite input)."""
    u = np.ascontiguousarray(values, np.float32).view(np.uint32)
    return ((u + 0x7FFF + ((u >> 16) & 1)) >> 16).astype(np.uint16)


def read_file(path):
    """{name: array}; bfloat16 comes back as float32 of the same value."""
    with open(path, "rb") as f:
        (n,) = struct.unpack("<Q", f.read(8))
        header = json.loads(f.read(n))
        body = f.read()
    out = {}
    for name, t in header.items():
        if name == "__metadata__":
            continue
        lo, hi = t["data_offsets"]
        raw = np.frombuffer(body[lo:hi], np.uint8)
        if t["dtype"] == "BF16":
            a = bf16_to_f32(raw.view(np.uint16))
        else:
            a = raw.view(NUMPY_TYPES[t["dtype"]])
        out[name] = a.reshape(t["shape"])
    return out


def read_folder(folder):
    """Every tensor of model.safetensors or of the shards of its index."""
    index = os.path.join(folder, "model.safetensors.index.json")
    if not os.path.exists(index):
        return read_file(os.path.join(folder, "model.safetensors"))
    with open(index) as f:
        weight_map = json.load(f)["weight_map"]
    out = {}
    for shard in sorted(set(weight_map.values())):
        out.update(read_file(os.path.join(folder, shard)))
    missing = set(weight_map) - set(out)
    if missing:
        raise ValueError("index names tensors no shard has: %s" % missing)
    return out


def encode(array, dtype=None):
    """(dtype name, bytes) of an array; dtype "BF16" rounds float32."""
    if dtype == "BF16":
        return "BF16", f32_to_bf16(array).tobytes()
    if dtype is not None:
        array = array.astype(NUMPY_TYPES[dtype])
    return DTYPE_NAMES[array.dtype], np.ascontiguousarray(array).tobytes()


def write_file(path, tensors, dtype=None):
    """tensors: {name: array}; dtype converts all of them (None: as they are)."""
    header, blobs, at = {"__metadata__": {"format": "pt"}}, [], 0
    for name, array in tensors.items():
        kind, blob = encode(array, dtype)
        header[name] = {"dtype": kind, "shape": list(array.shape),
                        "data_offsets": [at, at + len(blob)]}
        blobs.append(blob)
        at += len(blob)
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    with open(path, "wb") as f:
        f.write(struct.pack("<Q", len(text)))
        f.write(text)
        for blob in blobs:
            f.write(blob)
    return at


def write_folder(folder, tensors, dtype=None, shards=1):
    """One model.safetensors, or `shards` files and their index."""
    os.makedirs(folder, exist_ok=True)
    if shards == 1:
        write_file(os.path.join(folder, "model.safetensors"), tensors, dtype)
        return
    names, total, weight_map = list(tensors), 0, {}
    for i in range(shards):
        shard = "model-%05d-of-%05d.safetensors" % (i + 1, shards)
        part = {n: tensors[n] for n in names[i::shards]}
        total += write_file(os.path.join(folder, shard), part, dtype)
        weight_map.update({n: shard for n in part})
    index = {"metadata": {"total_size": total}, "weight_map": weight_map}
    with open(os.path.join(folder, "model.safetensors.index.json"), "w") as f:
        json.dump(index, f, indent=1)
