"""Makes tests/data/st: tiny files as other programs write them.

Needs the packages safetensors (0.8.0 was used), numpy and mlx (0.32.4). Byte i of a tensor
called NAME is (7 * i + len(NAME in UTF-8)) % 251, which tests/test_safetensors.c checks;
BOOL has 0 and 1 alternating.
"""
import json
import pathlib
import sys

import numpy as np
import safetensors

BITS = {"BOOL": 8, "F4": 4, "F6_E2M3": 6, "F6_E3M2": 6, "U8": 8, "I8": 8, "F8_E5M2": 8,
        "F8_E4M3": 8, "F8_E8M0": 8, "F8_E4M3FNUZ": 8, "F8_E5M2FNUZ": 8, "I16": 16, "U16": 16,
        "F16": 16, "BF16": 16, "I32": 32, "U32": 32, "F32": 32, "C64": 64, "F64": 64, "I64": 64,
        "U64": 64}
# What the Python package calls them; a dtype without an entry cannot be written from Python.
PYTHON = {"BOOL": "bool", "U8": "uint8", "I8": "int8", "F8_E5M2": "float8_e5m2",
          "F8_E4M3": "float8_e4m3fn", "F8_E8M0": "float8_e8m0fnu",
          "F8_E4M3FNUZ": "float8_e4m3fnuz", "F8_E5M2FNUZ": "float8_e5m2fnuz",
          "F4": "float4_e2m1fn_x2", "I16": "int16", "U16": "uint16", "F16": "float16",
          "BF16": "bfloat16", "I32": "int32", "U32": "uint32", "F32": "float32",
          "C64": "complex64", "F64": "float64", "I64": "int64", "U64": "uint64"}


KEEP = []


def content(name, bits, shape):
    n = bits * int(np.prod(shape, dtype=np.int64)) // 8
    return bytes((7 * i + len(name.encode())) % 251 for i in range(n))


def entry(name, dtype, shape):
    data = content(name, BITS[dtype], shape)
    if dtype == "BOOL":
        data = bytes(i & 1 for i in range(len(data)))
    if dtype == "F4":  # the package counts pairs
        shape = [*shape[:-1], shape[-1] // 2]
    a = np.frombuffer(data, np.uint8).copy()
    KEEP.append(a)  # a TensorSpec holds an address only
    return safetensors.TensorSpec(dtype=PYTHON[dtype], shape=shape, data_ptr=a.ctypes.data,
                                  data_len=a.nbytes)


def save(path, tensors, metadata=None):
    entries = {n: entry(n, *t) for n, t in tensors.items()}
    path.write_bytes(safetensors.serialize(entries, metadata))


def main(out):
    out.mkdir(parents=True, exist_ok=True)
    save(out / "dtypes.safetensors", {"a tensor of " + d: (d, [2, 4]) for d in PYTHON},
         {"format": "pt"})
    save(out / "names.safetensors", {
        "": ("U8", [3]),
        "scalar": ("F32", []),
        "empty": ("F16", [3, 0, 5]),
        "empty too": ("I64", [0]),
        "quote \" back \\ slash /": ("U8", [1]),
        "controls \b\f\n\r\t\x01\x1f\x7f": ("U8", [5]),
        "\u00fc \u6f22 \U0001f600": ("I16", [2, 1, 1, 1, 1, 1, 1, 1]),
    }, {"k\u00e9y \"1\"": "v\n\u00e4l"})
    save(out / "none.safetensors", {})
    save(out / "plain.safetensors", {"w": ("BF16", [3, 2]), "b": ("BF16", [3])})

    shards = out / "shards"
    shards.mkdir(exist_ok=True)
    names = ["model-%05d-of-00003.safetensors" % (i + 1) for i in range(3)]
    parts = [{"wte": ("BF16", [5, 4]), "h.0.w": ("F16", [2, 2])}, {"h.1.w": ("F16", [2, 2])},
             {"ln": ("F32", [4]), "head": ("BF16", [5, 4])}]
    for name, part in zip(names, parts):
        save(shards / name, part, {"format": "pt", "file": name})
    index = {"metadata": {"total_size": 112}, "weight_map": {
        t: name for name, part in zip(names, parts) for t in part}}
    (shards / "model.safetensors.index.json").write_text(json.dumps(index, indent=2) + "\n")

    import mlx.core as mx  # offsets are not those of the names' order, the header is not padded
    arrays = {}
    for name, shape in (("b.weight", [3]), ("a.weight", [2, 3]), ("c.scales", [5])):
        data = np.frombuffer(content(name, 16, shape), np.uint16).reshape(shape)
        arrays[name] = mx.array(data)
    mx.save_safetensors(str(out / "mlx.safetensors"), arrays, {"format": "mlx"})


if __name__ == "__main__":
    main(pathlib.Path(sys.argv[1] if len(sys.argv) > 1 else "tests/data/st"))
