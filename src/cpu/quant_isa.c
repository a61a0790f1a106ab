/* The kernels of one instruction set, chosen by what the compiler was told it may use. */
#include "cpu/isa.h"
#include "cpu/quant.h"

#include "cpu/quant_portable.h"
#if defined(__AVX512VNNI__) && defined(__AVX512VBMI__)
#include "cpu/quant_avx512.h"
#elif defined(__AVX2__) && defined(__FMA__) && defined(__F16C__)
#include "cpu/quant_avx2.h"
#elif defined(__aarch64__) && defined(__ARM_FEATURE_DOTPROD)
#include "cpu/quant_neon.h"
#endif

#ifndef QUANT_X_BYTES
#define QUANT_X_BYTES    portable_x_bytes
#define QUANT_X_ROW      portable_quant_row
#define QUANT_X_TILE     portable_quant_tile
#define QUANT_SCRATCH    portable_scratch
#define QUANT_GEMV       portable_gemv
#define QUANT_GEMM       portable_gemm
#define QUANT_TILE_ROWS  1
#define QUANT_PANEL_ROWS 1
#define QUANT_GEMM_FROM  5
#endif

#define QUANT_STR_(x) #x
#define QUANT_STR(x)  QUANT_STR_(x)

const tni_quant_isa *TNI_FN(quant_isa)(void) {
    static const tni_quant_isa isa = {
        .name = QUANT_STR(TNI_ISA),
        .gemm_from = QUANT_GEMM_FROM,
        .tile_rows = QUANT_TILE_ROWS,
        .panel_rows = QUANT_PANEL_ROWS,
        .x_bytes = QUANT_X_BYTES,
        .scratch_bytes = QUANT_SCRATCH,
        .x_row = QUANT_X_ROW,
        .x_tile = QUANT_X_TILE,
        .gemv = QUANT_GEMV,
        .gemm = QUANT_GEMM,
        .float_row = portable_float_row,
        .widen = portable_dequant,
    };
    return &isa;
}
