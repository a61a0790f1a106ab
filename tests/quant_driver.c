/* Runs the quantisation kernels for tests/py/test_quant.py. Reads requests from standard input
 * until its end: nine int32 (op, bits, group, transpose, kind of x or w, kind of scales, M, N, K;
 * kinds as TNI_QK_...), then the operands; writes the results, row-major, to standard output.
 *     0 quantize: w [N, K] -> packed, scales, biases
 *     1 dequantize: packed, scales, biases of [N, K] -> [N, K] in the scales' kind
 *     2 quantized_matmul: x [M, K], packed, scales, biases -> [M, N] */
#include "base/err.h"
#include "cpu/cpu_quant.h"
#include "cpu/quant.h"
#include "ops/prims.h"
#include <stdio.h>
#include <stdlib.h>

static const tn_dtype dtypes[] = {TN_F32, TN_F16, TN_BF16};

typedef struct operand {
    tni_view v;
    int64_t shape[2], strides[2];
    size_t bytes;
} operand;

static int operand_make(operand *o, tn_dtype d, int64_t rows, int64_t cols) {
    o->shape[0] = rows;
    o->shape[1] = o->strides[0] = cols;
    o->strides[1] = 1;
    o->bytes = (size_t)(rows * cols) * (d == TN_F32 || d == TN_U32 ? 4 : 2);
    o->v = (tni_view){malloc(o->bytes + 1), d, 2, o->shape, o->strides};
    return o->v.data ? 0 : -1;
}

int main(void) {
    int32_t h[9];
    while (fread(h, sizeof h, 1, stdin) == 1) {
        const int64_t M = h[6], N = h[7], K = h[8], rows = h[3] ? N : K, cols = h[3] ? K : N;
        const tn_dtype wd = dtypes[h[4]], sd = dtypes[h[5]];
        tni_p_quant p = {.bits = h[1], .group = h[2], .transpose = h[3], .dtype = (int32_t)sd};
        operand dense, packed[3], out;
        int e =
            operand_make(&packed[0], TN_U32, rows, cols * p.bits / 32) |
            operand_make(&packed[1], h[0] ? sd : wd, rows, cols / p.group) |
            operand_make(&packed[2], h[0] ? sd : wd, rows, cols / p.group) |
            operand_make(&dense, h[0] == 1 ? sd : wd, h[0] == 2 ? M : rows, h[0] == 2 ? K : cols) |
            operand_make(&out, wd, M, N);
        if (e) return 1;
        size_t got = 0;
        if (h[0] != 1) got = fread(dense.v.data, 1, dense.bytes, stdin);
        for (int i = 0; h[0] && i < 3; i++)
            got += fread(packed[i].v.data, 1, packed[i].bytes, stdin);
        if (!got) return 1;
        tni_view in[4] = {dense.v, packed[0].v, packed[1].v, packed[2].v};
        tni_view parts[3] = {packed[0].v, packed[1].v, packed[2].v};
        tni_call c = {.params = &p, .n_in = 4, .n_out = 1, .in = in, .out = &out.v};
        if (h[0] == 0) {
            c = (tni_call){.params = &p, .n_in = 1, .n_out = 3, .in = in, .out = parts};
            e = tni_cpu_quantize(&c);
        } else if (h[0] == 1) {
            c = (tni_call){.params = &p, .n_in = 3, .n_out = 1, .in = parts, .out = in};
            e = tni_cpu_dequantize(&c);
        } else {
            e = tni_cpu_quantized_matmul(&c);
        }
        if (e) {
            fprintf(stderr, "%s\n", tni_error());
            return 1;
        }
        for (int i = 0; h[0] == 0 && i < 3; i++)
            fwrite(packed[i].v.data, 1, packed[i].bytes, stdout);
        if (h[0] == 1) fwrite(dense.v.data, 1, dense.bytes, stdout);
        if (h[0] == 2) fwrite(out.v.data, 1, out.bytes, stdout);
        fflush(stdout);
        for (int i = 0; i < 3; i++) free(packed[i].v.data);
        free(dense.v.data);
        free(out.v.data);
    }
    return 0;
}
