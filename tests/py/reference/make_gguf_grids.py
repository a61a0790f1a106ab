"""Writes src/io/gguf_grids.h: ggml's code books (ggml-common.h, MIT licence) as the gguf package
carries them, one u16 an entry: eight digits of two bits, or four of four bits, first value lowest.

    pip install gguf && python make_gguf_grids.py > ../../../src/io/gguf_grids.h
"""
from gguf import quants

BOOKS = [("iq2_xxs", quants.IQ2_XXS, 2), ("iq2_xs", quants.IQ2_XS, 2), ("iq2_s", quants.IQ2_S, 2),
         ("iq1", quants.IQ1_S, 2), ("iq3_xxs", quants.IQ3_XXS, 4), ("iq3_s", quants.IQ3_S, 4)]

print("""/* The code books of GGML's IQ types: made by tests/py/reference/make_gguf_grids.py from the
 * `gguf` package's copy of ggml-common.h (MIT licence, copyright the ggml authors). One u16 is one
 * entry: eight digits of two bits (IQ1, IQ2) or four of four bits (IQ3), the first value's lowest.
 * 9 KiB in all. */
#ifndef TNI_IO_GGUF_GRIDS_H
#define TNI_IO_GGUF_GRIDS_H

#include <stdint.h>

// clang-format off""")
for name, cls, bits in BOOKS:
    cls.init_grid()
    levels = list(cls.grid_map)
    grid = cls.grid.reshape(cls.grid_shape)
    entries = [sum(levels.index(v) << (bits * i) for i, v in enumerate(row)) for row in grid]
    print(f"static const uint16_t gguf_grid_{name}[{len(entries)}] = {{")
    for i in range(0, len(entries), 12):
        print("    " + " ".join(f"{e:#06x}," for e in entries[i:i + 12]))
    print("};")
print("// clang-format on\n\n#endif")
