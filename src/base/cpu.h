/* What this processor can do, read once. TENON_ISA (ref, avx2, avx512, neon)
 * lowers the choice, for tests; asking for more than the machine has is ignored. */
#ifndef TNI_BASE_CPU_H
#define TNI_BASE_CPU_H

#include <stdbool.h>

enum tni_isa { TNI_ISA_REF, TNI_ISA_NEON, TNI_ISA_AVX2, TNI_ISA_AVX512, TNI_ISA_COUNT };

typedef struct tni_cpu {
    enum tni_isa isa;                                     /* the level kernels are chosen for */
    bool avx2, avx512, vnni, avx512_bf16, vbmi, amx_int8; /* x86; avx512 = F+BW+DQ+VL+CD */
    bool neon, dotprod, i8mm, bf16;                       /* ARM */
    char name[64];                                        /* model name, for people */
} tni_cpu;

const tni_cpu *tni_cpu_info(void);
const char *tni_isa_name(enum tni_isa isa);

#endif
